//! What was sent is what arrives: messages, cut into any fragments with control frames anywhere
//! between them, masked by any keys, and received in any reads.

mod support;

use hubbub_websocket::{Kind, Limits, Opcode, Role, write_frame};
use proptest::{collection::vec, prelude::*, sample::Index};
use support::{End, Seen, run};

const LIMITS: Limits = Limits::for_message_bytes(1 << 20);

/// A message or a control frame, and where to cut it.
fn sent() -> impl Strategy<Value = (Seen, Vec<Index>)> {
    let text = prop_oneof![any::<String>(), "[aé€😀]{0,200}", Just("x".repeat(70_000))];
    let control = || vec(any::<u8>(), 0..=125);
    let seen = prop_oneof![
        4 => text.prop_map(|text| Seen::Message(Kind::Text, text.into_bytes())),
        4 => vec(any::<u8>(), 0..2000).prop_map(|data| Seen::Message(Kind::Binary, data)),
        1 => control().prop_map(Seen::Ping),
        1 => control().prop_map(Seen::Pong),
    ];
    (seen, vec(any::<Index>(), 0..5))
}

/// The frames of `sent`, and what is to be seen of them: a ping after each fragment but the last
/// comes before the message that it interrupts.
fn encode(role: Role, sent: &[(Seen, Vec<Index>)], keys: &[[u8; 4]]) -> (Vec<u8>, Vec<Seen>) {
    let (mut out, mut expected) = (Vec::new(), Vec::new());
    let mut keys = keys.iter().copied().cycle();
    let mut write = |fin, opcode, payload: &[u8]| {
        let key = keys.next().filter(|_| role == Role::Server);
        write_frame(&mut out, fin, opcode, key, payload);
    };
    for (seen, cuts) in sent {
        match seen {
            Seen::Message(kind, payload) => {
                let mut cuts: Vec<_> =
                    cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
                cuts.sort_unstable();
                let mut opcode = Opcode::from(*kind);
                let mut from = 0;
                for to in cuts {
                    write(false, opcode, &payload[from..to]);
                    write(true, Opcode::Ping, b"between");
                    expected.push(Seen::Ping(b"between".to_vec()));
                    (opcode, from) = (Opcode::Continuation, to);
                }
                write(true, opcode, &payload[from..]);
            }
            Seen::Ping(payload) => write(true, Opcode::Ping, payload),
            Seen::Pong(payload) => write(true, Opcode::Pong, payload),
            Seen::Close(_) => unreachable!("not generated"),
        }
        expected.push(seen.clone());
    }
    (out, expected)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_sent_arrives(
        sent in vec(sent(), 0..8),
        keys in vec(any::<[u8; 4]>(), 1..4),
        reads in vec(1_usize..5000, 1..6),
        server: bool,
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let (bytes, expected) = encode(role, &sent, &keys);
        prop_assert_eq!(run(role, &bytes, &[], LIMITS), (expected.clone(), End::Clean));
        prop_assert_eq!(run(role, &bytes, &reads, LIMITS), (expected, End::Clean));
    }

    #[test]
    fn a_cut_stream_gives_the_first_of_its_events_and_then_waits(
        sent in vec(sent(), 1..5),
        keys in vec(any::<[u8; 4]>(), 1..4),
        cut: Index,
    ) {
        let (bytes, expected) = encode(Role::Server, &sent, &keys);
        let (seen, end) = run(Role::Server, &bytes[..cut.index(bytes.len())], &[7], LIMITS);
        prop_assert!(matches!(end, End::Clean | End::Within));
        prop_assert!(expected.starts_with(&seen));
    }
}
