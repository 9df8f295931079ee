//! Masking, section 5.3: the payload XOR a key of four bytes, repeated.

/// Masks or unmasks `payload`, the key's first byte falling on the payload's first.
///
/// Eight bytes at a time; the compiler turns the loop into vector instructions.
pub(crate) fn apply(payload: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = payload.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn every_length_and_alignment_equals_the_definition() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for offset in 0..9 {
            for len in 0..100 {
                let plain: Vec<u8> = (0..offset + len).map(|i| (i * 7) as u8).collect();
                let mut masked = plain.clone();
                apply(&mut masked[offset..], key);
                for (i, byte) in plain[offset..].iter().enumerate() {
                    assert_eq!(masked[offset + i], byte ^ key[i % 4], "{offset} {len} {i}");
                }
                assert_eq!(masked[..offset], plain[..offset]);
            }
        }
    }
}
