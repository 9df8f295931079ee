//! The decoder against the reference decoder, over arbitrary streams cut into arbitrary reads.
//!
//! A few thousand streams in an ordinary `cargo test`. For longer:
//! `BOLERO_RANDOM_TEST_TIME_MS=60000 BOLERO_RANDOM_ITERATIONS=1000000000 cargo test --release -p
//! hubbub-websocket --test fuzz_frames`; a failure prints the seed that repeats it. Under
//! `cargo bolero` the same body is guided by coverage.

mod support;

use hubbub_websocket::Role;
use support::{reference, run, stream};

#[test]
fn any_split_of_any_stream_equals_the_reference() {
    bolero::check!().with_iterations(2000).with_max_len(600).for_each(|input: &[u8]| {
        let [setting, reads @ ..] = input.first_chunk::<6>().copied().unwrap_or([0, 1, 1, 1, 1, 1]);
        let script = input.get(6..).unwrap_or_default();
        let role = if setting.is_multiple_of(2) { Role::Server } else { Role::Client };
        let limits = stream::limits(setting / 2);
        let built = stream::build(role, script);
        let reads = reads.map(usize::from);

        // As frames, and as raw bytes, most of which end soon.
        for bytes in [&built[..], script] {
            let expected = reference::decode(role, bytes, limits);
            assert_eq!(run(role, bytes, &[], limits), expected, "in one read");
            assert_eq!(run(role, bytes, &reads, limits), expected, "in reads of {reads:?}");
            if bytes.len() < 2000 {
                assert_eq!(run(role, bytes, &[1], limits), expected, "byte by byte");
            }
        }
    });
}

/// The streams must not all die young, or the comparison proves little.
#[test]
fn the_streams_reach_every_outcome() {
    let mut outcomes = std::collections::BTreeMap::<String, u32>::new();
    let mut state = 1_u64;
    for _ in 0..3_000 {
        let script: Vec<u8> = (0..100)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let role = if script[0].is_multiple_of(2) { Role::Server } else { Role::Client };
        let bytes = stream::build(role, &script[2..]);
        let (seen, end) = run(role, &bytes, &[], stream::limits(script[1]));
        *outcomes.entry(format!("{end:?}")).or_default() += 1;
        if seen.len() >= 3 {
            *outcomes.entry("three events".into()).or_default() += 1;
        }
    }
    let reasons = [
        "reserved_bits",
        "reserved_opcode",
        "fragmented_control",
        "control_too_long",
        "unexpected_continuation",
        "unfinished_message",
        "unmasked",
        "masked",
        "length_not_minimal",
        "length_too_large",
        "message_too_big",
        "too_many_fragments",
        "invalid_utf8",
        "truncated_close_code",
        "invalid_close_code",
        "invalid_close_reason",
    ];
    let all = reasons.map(|reason| format!("Refused({reason:?})"));
    for outcome in all.iter().map(String::as_str).chain(["Clean", "Within", "Closed"]) {
        assert!(outcomes.contains_key(outcome), "{outcome} is never reached: {outcomes:#?}");
    }
    assert!(outcomes["three events"] > 600, "{outcomes:#?}");
}
