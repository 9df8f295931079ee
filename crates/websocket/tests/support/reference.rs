//! A second decoder, written from the text of RFC 6455 alone and made to be read, not to be fast:
//! it sees the whole stream at once, copies everything and keeps nothing.

use hubbub_websocket::{Kind, Limits, Role};

use super::{End, Outcome, Seen};

/// What `bytes` mean to `role`.
pub fn decode(role: Role, bytes: &[u8], limits: Limits) -> Outcome {
    let mut seen = Vec::new();
    let end = read(role, bytes, limits, &mut seen).unwrap_or_else(|end| end);
    (seen, end)
}

struct Message {
    kind: Kind,
    payload: Vec<u8>,
    frames: u32,
}

/// `Err` where the stream ends before its own end.
fn read(role: Role, bytes: &[u8], limits: Limits, seen: &mut Vec<Seen>) -> Result<End, End> {
    let refused = |reason| Err(End::Refused(reason));
    let mut bytes = bytes.iter().copied();
    let mut message: Option<Message> = None;
    loop {
        let Some(first) = bytes.next() else {
            return Ok(if message.is_some() { End::Within } else { End::Clean });
        };
        let mut next = || bytes.next().ok_or(End::Within);

        let (fin, rsv, opcode) = (first >= 0x80, (first >> 4) % 8, first % 16);
        if rsv != 0 {
            return refused("reserved_bits");
        }
        let control = opcode >= 8;
        if !matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10) {
            return refused("reserved_opcode");
        }
        if control && !fin {
            return refused("fragmented_control");
        }
        if opcode == 0 && message.is_none() {
            return refused("unexpected_continuation");
        }
        if opcode == 0 && message.as_ref().is_some_and(|m| m.frames + 1 > limits.max_fragments) {
            return refused("too_many_fragments");
        }
        if (opcode == 1 || opcode == 2) && message.is_some() {
            return refused("unfinished_message");
        }

        let second = next()?;
        let masked = second >= 0x80;
        if role == Role::Server && !masked {
            return refused("unmasked");
        }
        if role == Role::Client && masked {
            return refused("masked");
        }
        let mut length = u128::from(second % 128);
        if control && length > 125 {
            return refused("control_too_long");
        }
        if opcode == 8 && length == 1 {
            return refused("truncated_close_code");
        }
        let (extra, least, most) = match length {
            126 => (2, 126, u128::MAX),
            127 => (8, 1 << 16, (1 << 63) - 1),
            _ => (0, 0, u128::MAX),
        };
        if extra > 0 {
            length = 0;
            for _ in 0..extra {
                length = length * 256 + u128::from(next()?);
            }
        }
        if length > most {
            return refused("length_too_large");
        }
        if length < least {
            return refused("length_not_minimal");
        }
        let so_far = message.as_ref().map_or(0, |m| m.payload.len());
        let total = length + so_far as u128;
        let over = !control && total > limits.max_message_bytes as u128;
        let text = opcode == 1 || message.as_ref().is_some_and(|m| m.kind == Kind::Text);
        let longer = limits.long_texts.filter(|longer| text && total <= longer.max_bytes as u128);
        if over && longer.is_none() {
            return refused("message_too_big");
        }
        let key = if masked { [next()?, next()?, next()?, next()?] } else { [0; 4] };

        if control {
            let mut payload = Vec::new();
            for i in 0..length as usize {
                payload.push(next()? ^ key[i % 4]);
            }
            match opcode {
                9 => seen.push(Seen::Ping(payload)),
                10 => seen.push(Seen::Pong(payload)),
                _ if payload.is_empty() => {
                    seen.push(Seen::Close(None));
                    return Ok(End::Closed);
                }
                _ => {
                    let code = u16::from(payload[0]) * 256 + u16::from(payload[1]);
                    let forbidden = [1004, 1005, 1006, 1015].contains(&code);
                    let defined = (1000..=1015).contains(&code) || (3000..5000).contains(&code);
                    if !defined || forbidden {
                        return refused("invalid_close_code");
                    }
                    let Ok(reason) = String::from_utf8(payload[2..].to_vec()) else {
                        return refused("invalid_close_reason");
                    };
                    seen.push(Seen::Close(Some((code, reason))));
                    return Ok(End::Closed);
                }
            }
            continue;
        }

        let open = message.get_or_insert_with(|| Message {
            kind: if opcode == 1 { Kind::Text } else { Kind::Binary },
            payload: Vec::new(),
            frames: 0,
        });
        open.frames += 1;
        let start = open.payload.len();
        let mut cut = false;
        for i in 0..length as usize {
            match next() {
                Ok(byte) => open.payload.push(byte ^ key[i % 4]),
                Err(_) => {
                    cut = true;
                    break;
                }
            }
        }
        if let Some(longer) = longer.filter(|_| over) {
            let (begun, prefix) = (&open.payload, longer.prefix.as_bytes());
            let whole = (fin && !cut) || begun.len() >= prefix.len();
            if !begun.starts_with(prefix) && (whole || !prefix.starts_with(begun)) {
                return refused("message_too_big");
            }
        }
        if open.kind == Kind::Text && open.payload.len() > start && !may_become_text(&open.payload)
        {
            return refused("invalid_utf8");
        }
        if cut {
            return Err(End::Within);
        }
        if fin {
            let Message { kind, payload, .. } = message.take().ok_or(End::Within)?;
            if kind == Kind::Text && std::str::from_utf8(&payload).is_err() {
                return refused("invalid_utf8");
            }
            seen.push(Seen::Message(kind, payload));
        }
    }
}

/// Whether some bytes exist that make a text of these, found by trying: any character cut short
/// can be completed by continuation bytes of the lowest, a middle or the highest value.
fn may_become_text(bytes: &[u8]) -> bool {
    let tails = [0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF];
    // Only the last three bytes may be a character cut short.
    let whole = (0..=bytes.len().min(3)).filter_map(|cut| {
        let (text, rest) = bytes.split_at(bytes.len() - cut);
        std::str::from_utf8(text).is_ok().then_some(rest)
    });
    for rest in whole {
        if rest.is_empty() {
            return true;
        }
        for tail in tails {
            for tail_len in 1..=3 {
                let mut completed = rest.to_vec();
                completed.push(tail);
                completed.extend(std::iter::repeat_n(0x80, tail_len - 1));
                if std::str::from_utf8(&completed).is_ok_and(|text| text.chars().count() == 1) {
                    return true;
                }
            }
        }
    }
    false
}
