//! The decoder, rule by rule.

use hubbub_websocket::{
    Close, Decoder, Event, Kind, Limits, LongTexts, MAX_CONTROL_BYTES, Opcode, ProtocolError, Role,
    frame, write_frame,
};

const LIMITS: Limits = Limits::for_message_bytes(1 << 20);
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A masked frame, as a client sends it.
fn masked(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, fin, opcode, Some(KEY), payload);
    out
}

/// What a server's decoder makes of `bytes`, fed `step` at a time, as text that can be compared.
fn decode(bytes: &[u8], step: usize, limits: Limits) -> Vec<String> {
    let mut decoder = Decoder::new(Role::Server);
    let mut seen = Vec::new();
    let mut bytes = bytes.to_vec();
    for chunk in bytes.chunks_mut(step) {
        let mut at = 0;
        loop {
            let (used, result) = decoder.decode(&mut chunk[at..], limits);
            at += used;
            match result {
                Ok(Some(event)) => seen.push(format!("{event:?}")),
                Ok(None) => break,
                Err(error) => {
                    seen.push(error.reason().to_owned());
                    return seen;
                }
            }
        }
        assert_eq!(at, chunk.len(), "None means that all was used");
        assert_eq!(decoder.in_message(), decoder.heap_bytes() > 0);
    }
    seen
}

/// The same whole, byte by byte and in pairs; all must agree.
fn decode_all_ways(bytes: &[u8]) -> Vec<String> {
    let whole = decode(bytes, bytes.len().max(1), LIMITS);
    for step in [1, 2, 3, 7] {
        assert_eq!(decode(bytes, step, LIMITS), whole, "in steps of {step}");
    }
    whole
}

fn event(event: Event<'_>) -> String {
    format!("{event:?}")
}

fn text(payload: &str) -> String {
    event(Event::Message { kind: Kind::Text, payload: payload.as_bytes() })
}

#[test]
fn messages_of_every_length_encoding() {
    for len in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000] {
        let payload = vec![b'x'; len];
        let expected = event(Event::Message { kind: Kind::Binary, payload: &payload });
        let bytes = masked(true, Opcode::Binary, &payload);
        assert_eq!(decode_all_ways(&bytes), [expected], "{len}");
    }
}

#[test]
fn fragments_with_controls_between_them() {
    let bytes = [
        masked(false, Opcode::Text, "h\u{e9}".as_bytes().split_at(2).0),
        masked(true, Opcode::Ping, b"there?"),
        masked(false, Opcode::Continuation, b""),
        masked(true, Opcode::Pong, &[1; MAX_CONTROL_BYTES]),
        masked(true, Opcode::Continuation, "h\u{e9}".as_bytes().split_at(2).1),
        masked(true, Opcode::Text, b"next"),
        masked(true, Opcode::Close, b"\x03\xe8bye"),
    ]
    .concat();
    assert_eq!(
        decode_all_ways(&bytes),
        [
            event(Event::Ping(b"there?")),
            event(Event::Pong(&[1; MAX_CONTROL_BYTES])),
            text("h\u{e9}"),
            text("next"),
            event(Event::Close(Some(Close { code: 1000, reason: "bye" }))),
        ]
    );
    assert_eq!(decode_all_ways(&masked(true, Opcode::Close, b"")), [event(Event::Close(None))]);
}

#[test]
fn what_the_protocol_forbids() {
    use Opcode::*;
    let long_ping = [&[0x89, 0xFE, 0, 126][..], &KEY, &[0; 126]].concat();
    let start = masked(false, Text, b"a");
    let rows: &[(&str, Vec<u8>)] = &[
        ("reserved_bits", vec![0xC1, 0x80, 0, 0, 0, 0]),
        ("reserved_bits", vec![0xA1, 0x80, 0, 0, 0, 0]),
        ("reserved_bits", vec![0x91, 0x80, 0, 0, 0, 0]),
        ("reserved_opcode", vec![0x83, 0x80, 0, 0, 0, 0]),
        ("reserved_opcode", vec![0x8B, 0x80, 0, 0, 0, 0]),
        ("unmasked", frame(Text, b"hi").to_vec()),
        ("fragmented_control", masked(false, Ping, b"")),
        ("fragmented_control", masked(false, Close, b"")),
        ("control_too_long", long_ping),
        ("unexpected_continuation", masked(true, Continuation, b"x")),
        ("unexpected_continuation", masked(false, Continuation, b"x")),
        ("unfinished_message", [start.clone(), masked(true, Text, b"x")].concat()),
        ("unfinished_message", [start, masked(false, Binary, b"x")].concat()),
        ("length_not_minimal", [&[0x82, 0xFE, 0, 125][..], &KEY, &[0; 125]].concat()),
        ("length_not_minimal", [&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF][..], &KEY].concat()),
        ("length_too_large", [&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0][..], &KEY].concat()),
        ("message_too_big", [&[0x82, 0xFF, 0x40, 0, 0, 0, 0, 0, 0, 0][..], &KEY].concat()),
        ("message_too_big", vec![0x82, 0xFF, 0, 0, 0, 0, 0, 0x10, 0, 1]),
        ("invalid_utf8", masked(true, Text, b"\xff")),
        ("invalid_utf8", masked(true, Text, b"h\xc3")),
        ("invalid_utf8", masked(true, Text, b"\xed\xa0\x80")),
        ("truncated_close_code", masked(true, Close, b"\x03")),
        ("invalid_close_code", masked(true, Close, b"\x03\xed")),
        ("invalid_close_reason", masked(true, Close, b"\x03\xe8\xff")),
    ];
    for (reason, bytes) in rows {
        assert_eq!(decode_all_ways(bytes), [*reason], "{bytes:x?}");
    }
}

#[test]
fn a_client_refuses_masked_frames_and_reads_plain_ones() {
    let mut decoder = Decoder::new(Role::Client);
    let mut bytes = frame(Opcode::Text, b"hi").to_vec();
    let (used, event) = decoder.decode(&mut bytes, LIMITS);
    assert_eq!(event, Ok(Some(Event::Message { kind: Kind::Text, payload: b"hi" })));
    assert_eq!(used, 4);
    assert_eq!(decoder.decode(&mut [0x81, 0x80], LIMITS).1, Err(ProtocolError::Masked));
}

#[test]
fn an_error_is_final() {
    let mut decoder = Decoder::new(Role::Server);
    let mut bytes = [&masked(false, Opcode::Text, b"half")[..], &[0xFF], b"more"].concat();
    let len = bytes.len();
    assert_eq!(decoder.decode(&mut bytes, LIMITS), (len, Err(ProtocolError::ReservedBits)));
    assert_eq!((decoder.in_message(), decoder.heap_bytes()), (false, 0));
    let mut good = masked(true, Opcode::Text, b"good");
    let len = good.len();
    assert_eq!(decoder.decode(&mut good, LIMITS), (len, Err(ProtocolError::ReservedBits)));

    let mut decoder = Decoder::new(Role::Server);
    let mut close = masked(true, Opcode::Close, b"\x03\xed");
    assert_eq!(decoder.decode(&mut close, LIMITS).1, Err(ProtocolError::InvalidCloseCode));
    assert_eq!(decoder.decode(&mut [], LIMITS).1, Err(ProtocolError::InvalidCloseCode));
}

#[test]
fn text_fails_at_the_first_impossible_byte() {
    // U+1F600 cut short, then a byte that cannot follow; nothing after it has arrived.
    for (good, bad) in [
        (&b"ok \xf0\x9f\x98"[..], 0x20),
        (b"\xf4", 0x90),
        (b"\xed", 0xa0),
        (b"\xe0", 0x9f),
        (b"", 0xc0),
        (b"", 0x80),
    ] {
        // Within one unfinished frame, and at the start of a fragment.
        let mut in_frame = masked(true, Opcode::Text, &[good, &[bad], &[b'x'; 50]].concat());
        in_frame.truncate(6 + good.len() + 1);
        let in_fragments =
            [masked(false, Opcode::Text, good), masked(false, Opcode::Continuation, &[bad])]
                .concat();
        for bytes in [in_frame, in_fragments] {
            let before = decode(&bytes[..bytes.len() - 1], usize::MAX, LIMITS);
            assert!(before.is_empty(), "{good:x?} may still become text");
            assert_eq!(decode_all_ways(&bytes), ["invalid_utf8"], "{good:x?} {bad:x}");
        }
    }
}

#[test]
fn limits() {
    let limits = Limits { max_message_bytes: 10, max_fragments: 3, long_texts: None };
    let run = |frames: &[Vec<u8>]| {
        let whole = decode(&frames.concat(), usize::MAX, limits);
        assert_eq!(decode(&frames.concat(), 1, limits), whole);
        whole
    };
    let first = |payload: &[u8]| masked(false, Opcode::Binary, payload);
    let next = |fin, payload: &[u8]| masked(fin, Opcode::Continuation, payload);
    let message = |payload| event(Event::Message { kind: Kind::Binary, payload });

    assert_eq!(run(&[masked(true, Opcode::Binary, &[1; 10])]), [message(&[1; 10])]);
    assert_eq!(run(&[masked(true, Opcode::Binary, &[1; 11])]), ["message_too_big"]);
    assert_eq!(run(&[first(&[1; 6]), next(true, &[1; 4])]), [message(&[1; 10])]);
    assert_eq!(run(&[first(&[1; 6]), next(true, &[1; 5])]), ["message_too_big"]);
    assert_eq!(run(&[first(b""), next(false, b""), next(true, b"")]), [message(b"")]);
    let endless = [first(b""), next(false, b""), next(false, b""), next(false, b"")];
    assert_eq!(run(&endless), ["too_many_fragments"]);
    let ping = masked(true, Opcode::Ping, &[1; 100]);
    assert_eq!(run(&[ping]), [event(Event::Ping(&[1; 100]))], "controls have their own bound");

    assert_eq!(Limits::for_message_bytes(512).max_fragments, 1024);
    assert_eq!(Limits::for_message_bytes(4 << 20).max_fragments, 65536);
    assert_eq!(Limits::for_message_bytes(usize::MAX).max_fragments, u32::MAX);
}

#[test]
fn a_text_that_begins_as_long_ones_do_may_be_longer_and_no_other() {
    let longer = LongTexts { prefix: "long ", max_bytes: 20 };
    let limits = Limits { long_texts: Some(longer), ..Limits::for_message_bytes(10) };
    let run = |frames: &[Vec<u8>]| {
        let whole = decode(&frames.concat(), usize::MAX, limits);
        for step in [1, 2, 3, 7] {
            assert_eq!(decode(&frames.concat(), step, limits), whole, "in steps of {step}");
        }
        whole
    };
    let one = |text: &str| run(&[masked(true, Opcode::Text, text.as_bytes())]);
    let two = |start: &str, rest: &str| {
        let ping = masked(true, Opcode::Ping, b"ping");
        let rest = masked(true, Opcode::Continuation, rest.as_bytes());
        run(&[masked(false, Opcode::Text, start.as_bytes()), ping, rest])
    };
    let pinged = |then: String| vec![event(Event::Ping(b"ping")), then];
    let too_big = "message_too_big".to_owned();

    assert_eq!(one("long 67890 234567890"), [text("long 67890 234567890")]);
    assert_eq!(one("long 67890 2345678901"), ["message_too_big"]);
    assert_eq!(one("longer than any"), ["message_too_big"]);
    assert_eq!(one("ten bytes."), [text("ten bytes.")]);
    assert_eq!(run(&[masked(true, Opcode::Binary, b"long 67890 2")]), ["message_too_big"]);
    assert_eq!(two("lon", "g 67890 234567890"), pinged(text("long 67890 234567890")));
    assert_eq!(two("long 67890 2345678", ""), pinged(text("long 67890 2345678")));
    assert_eq!(two("long 67890 2345678", "901"), pinged(too_big.clone()));
    assert_eq!(two("lon", "ger than any"), pinged(too_big.clone()));
    assert_eq!(two("ten bytes.", "and"), pinged(too_big));

    // Refused with the first byte that differs, and not when all of it has come.
    let mut begun = masked(false, Opcode::Text, b"lonxx6789012");
    begun.truncate(6 + 3);
    assert!(decode(&begun, usize::MAX, limits).is_empty());
    begun.push(masked(false, Opcode::Text, b"lonxx6789012")[6 + 3]);
    assert_eq!(decode(&begun, usize::MAX, limits), ["message_too_big"]);

    // A text that ends before it has begun so.
    let tiny = Limits { max_message_bytes: 2, ..limits };
    for step in [1, usize::MAX] {
        assert_eq!(decode(&masked(true, Opcode::Text, b"lon"), step, tiny), ["message_too_big"]);
    }
}

#[test]
fn errors_fit_a_close_frame_and_have_names_of_their_own() {
    use ProtocolError::*;
    let all = [
        ReservedBits,
        ReservedOpcode,
        Unmasked,
        Masked,
        FragmentedControl,
        ControlTooLong,
        UnexpectedContinuation,
        UnfinishedMessage,
        LengthNotMinimal,
        LengthTooLarge,
        MessageTooBig,
        TooManyFragments,
        InvalidUtf8,
        TruncatedCloseCode,
        InvalidCloseCode,
        InvalidCloseReason,
    ];
    let mut names: Vec<_> = all.iter().map(|error| error.reason()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
    for error in all {
        let text = error.to_string();
        assert!(
            text.len() <= hubbub_websocket::MAX_CLOSE_REASON_BYTES && text.is_ascii(),
            "{text}"
        );
        assert!(matches!(error.close_code(), 1002 | 1007 | 1009));
    }
}
