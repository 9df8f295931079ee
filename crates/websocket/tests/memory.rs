//! What a decoder and a frame cost, counted by the allocator.

#![allow(clippy::unwrap_used, reason = "only run by tests")]

use allocation_counter::measure;
use hubbub_websocket::{Decoder, Event, Kind, Limits, Opcode, Role, frame, write_frame};

const LIMITS: Limits = Limits::for_message_bytes(16 << 20);

fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, fin, opcode, Some([1, 2, 3, 4]), payload);
    out
}

/// Decodes all of `bytes` and returns how many events there were.
fn decode_all(decoder: &mut Decoder, bytes: &mut [u8]) -> usize {
    let (mut at, mut events) = (0, 0);
    loop {
        let (used, event) = decoder.decode(&mut bytes[at..], LIMITS);
        at += used;
        if event.unwrap().is_none() {
            return events;
        }
        events += 1;
    }
}

#[test]
fn an_idle_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 16, "{}", size_of::<Decoder>());
}

#[test]
fn whole_frames_are_decoded_without_the_heap() {
    let mut bytes = [
        masked(true, Opcode::Text, &[b'x'; 128]),
        masked(true, Opcode::Ping, b"?"),
        masked(true, Opcode::Binary, &[7; 70_000]),
        masked(true, Opcode::Close, b"\x03\xe8bye"),
    ]
    .concat();
    let mut decoder = Decoder::new(Role::Server);
    let cost = measure(|| assert_eq!(decode_all(&mut decoder, &mut bytes), 4));
    assert_eq!(cost.count_total, 0);
}

#[test]
fn a_whole_frame_is_handed_out_where_it_lies() {
    let mut bytes = masked(true, Opcode::Text, b"hello");
    let payload_at = bytes.as_ptr().wrapping_add(6);
    let mut decoder = Decoder::new(Role::Server);
    let (_, event) = decoder.decode(&mut bytes, LIMITS);
    let Ok(Some(Event::Message { kind: Kind::Text, payload: b"hello" })) = event else {
        panic!("{event:?}")
    };
    let Ok(Some(Event::Message { payload, .. })) = event else { unreachable!() };
    assert_eq!(payload.as_ptr(), payload_at);
}

#[test]
fn what_is_declared_costs_nothing() {
    for header in [
        &[0x82, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0][..], // 16 MiB, less one byte
        &[0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],           // 2^62
        &[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],           // 2^63
    ] {
        let mut bytes = [header, b"x"].concat();
        let mut decoder = Decoder::new(Role::Server);
        let cost = measure(|| {
            let _ = decoder.decode(&mut bytes, LIMITS);
        });
        assert!(cost.bytes_max < 256, "{cost:?}");
    }
}

#[test]
fn nothing_is_held_between_messages() {
    let message = [
        masked(false, Opcode::Text, &[b'x'; 5000]),
        masked(true, Opcode::Ping, b"in between"),
        masked(true, Opcode::Continuation, &[b'x'; 5000]),
    ]
    .concat();
    for step in [1, 100, 4096, usize::MAX] {
        let mut decoder = Decoder::new(Role::Server);
        let mut bytes = message.clone();
        let cost = measure(|| {
            let reads = bytes.chunks_mut(step.min(message.len()));
            let events: usize = reads.map(|read| decode_all(&mut decoder, read)).sum();
            assert_eq!(events, 2);
        });
        assert_eq!((decoder.in_message(), decoder.heap_bytes()), (false, 0));
        assert_eq!(cost.bytes_current, 0, "in steps of {step}");
        assert!(cost.bytes_max <= 2 * 10_000 + 512, "{cost:?}");
    }
}

#[test]
fn heap_bytes_tells_the_truth() {
    let mut decoder = Decoder::new(Role::Server);
    let mut bytes = masked(true, Opcode::Text, &[b'x'; 5000]);
    let cost = measure(|| assert_eq!(decode_all(&mut decoder, &mut bytes[..1000]), 0));
    assert_eq!(decoder.heap_bytes() as i64, cost.bytes_current);
    assert!(decoder.in_message());
}

#[test]
fn many_small_fragments_are_not_copied_over_and_over() {
    // As Autobahn 9.3.1 does, with split pings between the fragments besides.
    let mut bytes = masked(false, Opcode::Binary, &[7; 64]);
    for _ in 0..65_535 {
        bytes.extend(masked(false, Opcode::Continuation, &[7; 64]));
    }
    let ping = masked(true, Opcode::Ping, &[1; 125]);
    let mut decoder = Decoder::new(Role::Server);
    let cost = measure(|| {
        for fragment in bytes.chunks_mut(6 + 64) {
            assert_eq!(decode_all(&mut decoder, fragment), 0);
            let (mut begin, mut end) = ([0; 60], [0; 71]);
            begin.copy_from_slice(&ping[..60]);
            end.copy_from_slice(&ping[60..]);
            assert_eq!(decode_all(&mut decoder, &mut begin), 0);
            assert_eq!(decode_all(&mut decoder, &mut end), 1);
        }
    });
    assert!(cost.count_total < 64, "{cost:?}");
    assert!(decoder.heap_bytes() <= 2 * (4 << 20) + 512);
}

#[test]
fn a_frame_is_one_allocation_of_its_size() {
    for len in [0, 128, 126, 70_000] {
        let payload = vec![7; len];
        let cost = measure(|| {
            frame(Opcode::Binary, &payload);
        });
        let size = hubbub_websocket::header_len(len, false) + len;
        assert_eq!((cost.count_total, cost.bytes_total), (1, size as u64));
    }
}
