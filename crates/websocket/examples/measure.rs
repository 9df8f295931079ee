//! How fast frames are decoded and made, on one thread of this machine.
//!
//! `cargo run --release -p hubbub-websocket --example measure`. Each figure is the best of several
//! rounds, which is the least disturbed one.

#![allow(clippy::print_stdout, reason = "a program that prints its result")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use hubbub_websocket::{Decoder, Limits, Opcode, ProtocolError, Role, frame, write_frame};

const ROUNDS: usize = 15;
const LIMITS: Limits = Limits::for_message_bytes(16 << 20);

fn main() -> Result<(), ProtocolError> {
    println!("decode, masked, whole frames in one 64 KiB read:");
    for (name, opcode, len) in [
        ("binary    128 B", Opcode::Binary, 128),
        ("text      128 B", Opcode::Text, 128),
        ("text      512 B", Opcode::Text, 512),
        ("binary 16384 B", Opcode::Binary, 16_384),
        ("text   16384 B", Opcode::Text, 16_384),
    ] {
        let (read, frames) = read_of(opcode, len);
        let best = best(|| decode(&read, usize::MAX, frames))?;
        report(name, best, frames, len);
    }
    println!("decode, masked, in reads of 100 bytes, so that most frames come in two:");
    let (read, frames) = read_of(Opcode::Text, 128);
    let best_split = best(|| decode(&read, 100, frames))?;
    report("text      128 B", best_split, frames, 128);

    println!("frame, unmasked:");
    for len in [128, 16_384] {
        let payload = vec![b'x'; len];
        let time = best(|| {
            let start = Instant::now();
            for _ in 0..1000 {
                black_box(frame(Opcode::Text, black_box(&payload)));
            }
            Ok(start.elapsed())
        })?;
        report(&format!("text   {len:>6} B"), time, 1000, len);
    }
    Ok(())
}

/// 64 KiB, or one frame if that is more, as a busy client's read looks.
fn read_of(opcode: Opcode, len: usize) -> (Vec<u8>, usize) {
    let frames = (65_536 / (len + 14)).max(1);
    let mut read = Vec::new();
    for i in 0..frames {
        let key = (i as u32).wrapping_mul(0x9E37_79B9).to_be_bytes();
        write_frame(&mut read, true, opcode, Some(key), &vec![b'x'; len]);
    }
    (read, frames)
}

/// The time to decode `read` once, without that of copying it first, which is done between.
fn decode(read: &[u8], step: usize, frames: usize) -> Result<Duration, ProtocolError> {
    let mut time = Duration::ZERO;
    for _ in 0..20 {
        let mut bytes = black_box(read).to_vec();
        let mut decoder = Decoder::new(Role::Server);
        let mut seen = 0;
        let start = Instant::now();
        for chunk in bytes.chunks_mut(step.min(read.len())) {
            let mut at = 0;
            loop {
                let (used, event) = decoder.decode(&mut chunk[at..], LIMITS);
                at += used;
                match event? {
                    Some(event) => {
                        black_box(event);
                        seen += 1;
                    }
                    None => break,
                }
            }
        }
        time += start.elapsed();
        assert_eq!(seen, frames);
    }
    Ok(time / 20)
}

fn best(
    mut round: impl FnMut() -> Result<Duration, ProtocolError>,
) -> Result<Duration, ProtocolError> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        best = best.min(round()?);
    }
    Ok(best)
}

fn report(name: &str, time: Duration, frames: usize, len: usize) {
    let each = time.as_secs_f64() / frames as f64;
    println!("  {name}: {:8.1} ns a frame, {:6.2} GB/s", each * 1e9, len as f64 / each / 1e9);
}
