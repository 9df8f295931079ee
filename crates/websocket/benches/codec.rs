//! What a message costs in the codec: in from a client, out to the members, and the key of a handshake.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark is no interface, and may fail where it stands"
)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hubbub_websocket::{
    Decoder, Event, Limits, Opcode, Role, frame, handshake::accept_for, write_frame,
};

const LIMITS: Limits = Limits::for_message_bytes(64 * 1024);

/// Messages of `size` bytes as a client sends them, all in one read.
fn masked(count: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for index in 0..count {
        let key = (index as u32).wrapping_mul(0x9E37_79B9).to_be_bytes();
        write_frame(&mut bytes, true, Opcode::Text, Some(key), &vec![b'x'; size]);
    }
    bytes
}

/// Payload bytes of all messages in `bytes`, which are unmasked where they lie.
fn decode(bytes: &mut [u8]) -> usize {
    let mut decoder = Decoder::new(Role::Server);
    let (mut at, mut total) = (0, 0);
    loop {
        let (used, event) = decoder.decode(&mut bytes[at..], LIMITS);
        at += used;
        match event.unwrap() {
            Some(Event::Message { payload, .. }) => total += payload.len(),
            Some(_) => {}
            None => return total,
        }
    }
}

fn reading(criterion: &mut Criterion) {
    for (name, count, size) in [
        ("one of 128 B", 1, 128),
        ("32 of 128 B in one read", 32, 128),
        ("one of 16 KiB", 1, 16_384),
    ] {
        let bytes = masked(count, size);
        assert_eq!(decode(&mut bytes.clone()), count * size);
        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || bytes.clone(),
                |bytes| decode(bytes),
                BatchSize::SmallInput,
            );
        });
        group.finish();
    }
}

fn writing(criterion: &mut Criterion) {
    for size in [128, 16_384] {
        let payload = vec![b'x'; size];
        criterion.bench_function(&format!("frame/{size} B"), |bencher| {
            bencher.iter(|| frame(Opcode::Text, black_box(&payload)));
        });
    }
}

fn handshake(criterion: &mut Criterion) {
    criterion.bench_function("handshake/accept", |bencher| {
        bencher.iter(|| accept_for(black_box("dGhlIHNhbXBsZSBub25jZQ==")));
    });
}

criterion_group!(codec, reading, writing, handshake);
criterion_main!(codec);
