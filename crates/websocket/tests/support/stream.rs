//! Streams of frames from arbitrary bytes: mostly right, in every way wrong now and then.

use hubbub_websocket::{Limits, LongTexts, Opcode, Role, write_frame};

/// Text whose characters take one to four bytes, to be cut anywhere.
const TEXT: &str = "aé€😀 z\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}";

/// A script: bytes that say what to build, read one after the other.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// One of `choices`; the first when the script is over.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.next().unwrap_or(0)) % choices.len()]
    }

    fn key(&mut self, role: Role) -> Option<[u8; 4]> {
        let mut byte = || self.next().unwrap_or(0x5A);
        let wrong = byte() == 0xFF;
        ((role == Role::Server) != wrong).then(|| [byte(), byte(), byte(), byte()])
    }
}

/// The stream that `script` describes, as `role` receives it.
pub fn build(role: Role, script: &[u8]) -> Vec<u8> {
    let mut script = Script(script);
    let mut out = Vec::new();
    let mut open = false; // a fragmented message is under way
    let mut text = TEXT.bytes().cycle().peekable();
    while let Some(op) = script.next() {
        match op % 32 {
            0..=19 => {
                let opcode = match (open, op % 2) {
                    (true, _) => Opcode::Continuation,
                    (false, 0) => Opcode::Text,
                    (false, _) => Opcode::Binary,
                };
                let fin = script.pick(&[true, false, false]);
                open = !fin;
                let len = script.pick(&[
                    0, 1, 2, 3, 5, 7, 8, 9, 17, 27, 27, 27, 54, 54, 54, 125, 126, 127, 300, 300,
                    65535, 65536,
                ]);
                let mut payload: Vec<u8> = text.by_ref().take(len).collect();
                if fin && script.next() != Some(0) {
                    // Mostly not within a character.
                    payload.extend(std::iter::from_fn(|| text.next_if(|b| b & 0xC0 == 0x80)));
                }
                if script.next().is_some_and(|byte| byte > 245) {
                    let at = usize::from(script.next().unwrap_or(0));
                    if let Some(byte) = payload.get_mut(at % len.max(1)) {
                        *byte = script.pick(&[0xFF, 0x80, 0xC0, 0xED, 0xF4, b'a']);
                    }
                }
                let key = script.key(role);
                write_frame(&mut out, fin, opcode, key, &payload);
                if fin {
                    text = TEXT.bytes().cycle().peekable();
                }
            }
            20..=27 => {
                let opcode = script.pick(&[Opcode::Ping, Opcode::Pong]);
                let len = script.pick(&[0, 1, 4, 5, 5, 5, 5, 5, 100, 100, 125, 125, 126]);
                let fin = script.next() != Some(0);
                let key = script.key(role);
                write_frame(&mut out, fin, opcode, key, &vec![op; len]);
            }
            28 => {
                let code: u16 = script.pick(&[
                    1000, 1001, 999, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000,
                    4999, 5000, 0,
                ]);
                let reason: &[u8] = script.pick(&[b"", b"bye", "é".as_bytes(), b"\xC3", b"\xFF"]);
                let mut payload = [&code.to_be_bytes(), reason].concat();
                payload.truncate(script.pick(&[200, 200, 200, 200, 2, 1, 0]));
                let key = script.key(role);
                write_frame(&mut out, true, Opcode::Close, key, &payload);
            }
            29 => {
                // A long length, often in the wrong encoding, and perhaps nothing behind it.
                let opcode = if open { 0 } else { 2 };
                out.push(script.pick(&[0x80 | opcode, opcode]));
                let mask = if role == Role::Server { 0x80 } else { 0 };
                let digits = script.pick(&[2, 8]);
                out.push(mask | if digits == 2 { 126 } else { 127 });
                out.push(script.pick(&[0, 0, 0x80, 0x7F]));
                out.extend((2..digits).map(|_| script.pick(&[0, 0, 0, 0, 0, 0, 1])));
                out.extend((0..script.pick(&[9, 1])).map(|_| script.next().unwrap_or(0)));
            }
            30 => {
                // Any first byte, the rest in order.
                let first = script.next().unwrap_or(0);
                let at = out.len();
                let key = script.key(role);
                write_frame(&mut out, true, Opcode::Binary, key, b"payload");
                out[at] = first;
            }
            _ => {
                let len = usize::from(script.next().unwrap_or(0)) % 16;
                out.extend((0..len).map_while(|_| script.next()));
            }
        }
    }
    out
}

/// Limits that the streams of [`build`] meet and miss.
pub fn limits(choice: u8) -> Limits {
    let longer = |prefix| Some(LongTexts { prefix, max_bytes: 10_000 });
    Limits {
        max_message_bytes: [100_000, 1000, 100, 1 << 30][usize::from(choice) % 4],
        max_fragments: [1000, 1000, 10, 2][usize::from(choice) / 4 % 4],
        long_texts: [None, longer("aé€"), longer("aé€😁")][usize::from(choice) / 16 % 3],
    }
}
