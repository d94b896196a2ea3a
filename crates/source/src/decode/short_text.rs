//! Short texts as words. User ids, addresses and digits usually have a few bytes, and their length is unpredictable. A
//! word is compared, shifted and copied without a loop over its bytes.

/// A word with 1 in each byte; multiplied by a byte, it repeats that byte.
pub(super) const ONES: u128 = u128::MAX / 255;

/// The number of bytes that fit into a word.
pub(super) const SHORT_TEXT_MAX: usize = 16;

/// The bytes of a text as a word, the first byte lowest, padded with zeros above the last; `None` if the text is longer
/// than [`SHORT_TEXT_MAX`].
#[inline]
pub(super) fn word_of(text: &[u8]) -> Option<u128> {
    if text.len() > SHORT_TEXT_MAX {
        return None;
    }
    // Two reads that may overlap replace one read for each length.
    Some(if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        u128::from(u64::from_le_bytes(*first)) | u128::from(u64::from_le_bytes(*last)) << (8 * (text.len() - 8))
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        u128::from(u32::from_le_bytes(*first)) | u128::from(u32::from_le_bytes(*last)) << (8 * (text.len() - 4))
    } else {
        let byte = |at: usize| text.get(at).map_or(0, |&byte| u128::from(byte) << (8 * at));
        byte(0) | byte(1) | byte(2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_are_the_words_of_their_bytes() {
        let text: Vec<u8> = (0xf1..=0xff).chain([0, 7, 0x80]).collect();
        for length in 0..=text.len() {
            let text = &text[..length];
            let mut bytes = [0; SHORT_TEXT_MAX];
            let expected = bytes.get_mut(..length).map(|bytes| bytes.copy_from_slice(text));
            assert_eq!(word_of(text), expected.map(|()| u128::from_le_bytes(bytes)), "{length}");
        }
    }
}
