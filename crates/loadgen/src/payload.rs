//! What a message of the load generator says about itself, so that each delivery can be verified.
//!
//! A [`Stamp`] stands at the front of every payload: which run, room, publisher and sequence number
//! it is, and when it was due. A checksum covers the stamp and the filler behind it. All of it is
//! printable ASCII, because the message must also pass servers that relay everything as text.

/// Bytes that a stamp takes at the front of a payload: the smallest message that can be sent.
pub const STAMP_BYTES: usize = CHECKSUM.end + 1 + 5 + 4 + 3 + 5 + 9;

/// Where the checksum stands; it covers all that follows.
const CHECKSUM: std::ops::Range<usize> = 0..5;

/// Tells a payload of ours from a stranger's before anything else is looked at.
const MAGIC: u8 = b'~';

/// A sequence number that no counted message has: it marks a probe, sent to learn whether every
/// member hears the room yet.
pub const PROBE: u32 = MAX_SEQUENCE + 1;

/// The largest sequence number: 30 bits on the wire, less the value that marks a probe.
pub const MAX_SEQUENCE: u32 = (1 << 30) - 2;

/// The identity of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run, of 30 bits: messages of an earlier run or another generator are told apart by it.
    pub run: u32,

    /// The room's index in the plan, of 24 bits.
    pub room: u32,

    /// The publisher's index in its room, of 18 bits.
    pub publisher: u32,

    /// The message's place among its publisher's, from 0, or [`PROBE`].
    pub sequence: u32,

    /// When the schedule wanted the message sent: nanoseconds of the run's clock, of 54 bits.
    pub due_ns: u64,
}

/// Why a payload is not one that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// It does not begin as a payload of a load generator does: somebody else speaks in the room.
    Foreign,

    /// It does, but its checksum is not that of its bytes.
    Corrupt,
}

/// Appends a payload of `size` bytes (at least [`STAMP_BYTES`]) to `out`.
pub fn write(out: &mut Vec<u8>, stamp: &Stamp, size: usize) {
    let start = out.len();
    out.resize(start + CHECKSUM.len(), 0);
    out.push(MAGIC);
    out.extend(digits::<5>(stamp.run.into()));
    out.extend(digits::<4>(stamp.room.into()));
    out.extend(digits::<3>(stamp.publisher.into()));
    out.extend(digits::<5>(stamp.sequence.into()));
    out.extend(digits::<9>(stamp.due_ns));
    let filler = size.saturating_sub(STAMP_BYTES);
    out.extend((0..filler).map(|i| b'a' + ((stamp.sequence as usize + i) % 26) as u8));

    let sum = checksum(&out[start + CHECKSUM.end..]);
    out[start..start + CHECKSUM.len()].copy_from_slice(&digits::<5>(sum.into()));
}

/// Reads the stamp of a payload whose bytes are all as they were sent.
pub fn read(payload: &[u8]) -> Result<Stamp, Unreadable> {
    let Some((head, _)) = payload.split_first_chunk::<STAMP_BYTES>() else {
        return Err(Unreadable::Foreign);
    };
    if head[CHECKSUM.end] != MAGIC {
        return Err(Unreadable::Foreign);
    }
    if head[CHECKSUM] != digits::<5>(checksum(&payload[CHECKSUM.end..]).into()) {
        return Err(Unreadable::Corrupt);
    }
    Ok(Stamp {
        run: number(&head[6..11]) as u32,
        room: number(&head[11..15]) as u32,
        publisher: number(&head[15..18]) as u32,
        sequence: number(&head[18..23]) as u32,
        due_ns: number(&head[23..32]),
    })
}

/// `value` as `N` digits of six bits, the highest first; each digit is a printable byte.
fn digits<const N: usize>(value: u64) -> [u8; N] {
    std::array::from_fn(|index| b'0' + (value >> (6 * (N - 1 - index)) & 0x3F) as u8)
}

/// Reads what [`digits`] wrote. A byte that is no digit gives some number: the checksum refuses it.
fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value << 6 | u64::from(digit.wrapping_sub(b'0') & 0x3F))
}

/// A checksum of 30 bits over eight bytes at a time: a receiver computes it for every delivery, and
/// must stay far cheaper than the server it measures. It is no protection against intent.
fn checksum(bytes: &[u8]) -> u32 {
    const PRIME: u64 = 0x9E37_79B9_7F4A_7C15;
    let (words, tail) = bytes.as_chunks::<8>();
    let mut state = bytes.len() as u64;
    for word in words {
        state = (state.rotate_left(23) ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
    }
    for byte in tail {
        state = (state.rotate_left(23) ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    (state >> 34) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        run: 0x3FFF_FFFE,
        room: 9_999,
        publisher: 77,
        sequence: MAX_SEQUENCE,
        due_ns: 86_400_000_000_000,
    };

    fn payload(stamp: &Stamp, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, stamp, size);
        out
    }

    #[test]
    fn what_is_written_is_read_and_printable() {
        for size in [STAMP_BYTES, STAMP_BYTES + 1, 128, 512, 70_000] {
            let payload = payload(&STAMP, size);
            assert_eq!(payload.len(), size);
            assert!(payload.iter().all(|byte| byte.is_ascii_graphic()), "text must carry it");
            assert_eq!(read(&payload), Ok(STAMP));
        }
        assert_eq!(
            read(&payload(&Stamp { sequence: PROBE, ..STAMP }, 40)).unwrap().sequence,
            PROBE
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sent = payload(&STAMP, 131);
        for index in 0..sent.len() {
            for bit in 0..8 {
                let mut received = sent.clone();
                received[index] ^= 1 << bit;
                assert!(read(&received).is_err(), "byte {index} bit {bit}");
                if index != CHECKSUM.end {
                    assert_eq!(read(&received), Err(Unreadable::Corrupt), "byte {index} bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_cut_or_lengthened_payload_is_noticed() {
        let sent = payload(&STAMP, 100);
        assert_eq!(read(&sent[..99]), Err(Unreadable::Corrupt));
        assert_eq!(read(&[&sent[..], b"x"].concat()), Err(Unreadable::Corrupt));
        assert_eq!(read(&sent[..10]), Err(Unreadable::Foreign));
        assert_eq!(read(b"hello, is anybody here in this room?"), Err(Unreadable::Foreign));
    }
}
