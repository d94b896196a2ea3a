//! Click identities: lines with the same identity are copies of one click.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bits of an [`Identity`] that identify the click. The remaining bits detect copies that differ.
pub const IDENTITY_BITS: u32 = 112;

const REST_MASK: u128 = (1 << (128 - IDENTITY_BITS)) - 1;

/// The remaining bits that distinguish users and addresses. The country is in the bits below.
const USER_MASK: u128 = REST_MASK & !0xff;

/// The identity of a click: 112 bits of keyed hash, then 16 bits for the fields outside the identity. With a click id,
/// the upper 8 of these are a hash of user and address, else zeros; the lower 8 are the country.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Identity(pub u128);

impl Identity {
    /// Whether two identities belong to the same click, whatever their other fields.
    #[inline]
    pub fn same_click(self, other: Identity) -> bool {
        (self.0 ^ other.0) >> (128 - IDENTITY_BITS) == 0
    }

    /// Whether the remaining fields of two copies differ. The comparison is exact for the country. With a click id,
    /// users and addresses are compared by 8 bits of hash, so one differing copy in 256 is missed.
    #[inline]
    pub fn conflicts(self, other: Identity) -> bool {
        (self.0 ^ other.0) & REST_MASK != 0
    }

    /// Whether two copies differ in user or address. This is possible only if a click id is the identity.
    #[inline]
    pub fn differs_in_user(self, other: Identity) -> bool {
        (self.0 ^ other.0) & USER_MASK != 0
    }

    /// Bits for placing it in a hash table; they are already uniform.
    #[inline]
    pub fn table_hash(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

/// The secret key of identity hashes, so that nobody can craft two colliding clicks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdentityKey([u8; 16]);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(secret)")
    }
}

/// The fields of one click from which its identity is computed.
#[derive(Clone, Copy, Debug)]
pub struct IdentityFields<'a> {
    /// Event time in milliseconds.
    pub event_time_ms: i64,
    /// The ad.
    pub ad_id: u64,
    /// Canonical address, see [`crate::ip`].
    pub ip: u128,
    /// Rank of the country.
    pub country: u8,
    /// The user; not empty.
    pub user_id: &'a [u8],
    /// The client's unique id; empty if the client sent none.
    pub click_id: &'a [u8],
}

impl IdentityKey {
    /// A key of 16 secret bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        IdentityKey(bytes)
    }

    /// A public fingerprint that reveals a changed key: SipHash-2-4-128 of a fixed text under the key.
    pub fn fingerprint(&self) -> u64 {
        let [first, rest @ ..] = b"adtally identity key fingerprint 1";
        SipHash::new(&self.0).finish(*first, rest, 1 + rest.len()).0
    }

    /// Hashes (`click_timestamp`, `ad_id`, `click_id`) when there is a click id, else (`click_timestamp`, `ad_id`,
    /// `user_id`, `ip`), with SipHash-2-4-128.
    ///
    /// The encoding is unambiguous: fields of fixed width come first, a tag tells the two forms apart and the one
    /// field of variable length comes last. Numbers are little-endian, the tag is a byte: 1 with a click id, else 0.
    #[inline]
    pub fn identify(&self, click: &IdentityFields<'_>) -> Identity {
        let mut hash = SipHash::new(&self.0);
        hash.word(click.event_time_ms as u64);
        hash.word(click.ad_id);
        let ((high, low), user) = if click.click_id.is_empty() {
            // Only the country remains.
            (hash.finish_address(0, click.ip, click.user_id, 2 * 8), 0)
        } else {
            let user = SipHash::new(&self.0).finish_address(2, click.ip, click.user_id, 0).0;
            (hash.finish(1, click.click_id, 2 * 8 + 1 + click.click_id.len()), user)
        };
        let identity = u128::from(high) << 64 | u128::from(low);
        Identity(identity & !REST_MASK | u128::from(user) & USER_MASK | u128::from(click.country))
    }
}

/// SipHash-2-4 with 128 bits of output (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, and its
/// reference implementation for the longer output) of fields that are already words. Libraries copy bytes through a
/// buffer, which is a third of their time for texts this short. A test compares the result with a library.
struct SipHash([u64; 4]);

impl SipHash {
    #[inline]
    fn new(key: &[u8; 16]) -> SipHash {
        let key = u128::from_le_bytes(*key);
        let (k0, k1) = (key as u64, (key >> 64) as u64);
        SipHash([
            k0 ^ 0x736f_6d65_7073_6575,
            // Includes the constant of the longer output.
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline]
    fn rounds(&mut self, rounds: usize) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        for _ in 0..rounds {
            v0 = v0.wrapping_add(v1);
            v2 = v2.wrapping_add(v3);
            v1 = v1.rotate_left(13) ^ v0;
            v3 = v3.rotate_left(16) ^ v2;
            v0 = v0.rotate_left(32);
            v2 = v2.wrapping_add(v1);
            v0 = v0.wrapping_add(v3);
            v1 = v1.rotate_left(17) ^ v2;
            v3 = v3.rotate_left(21) ^ v0;
            v2 = v2.rotate_left(32);
        }
        self.0 = [v0, v1, v2, v3];
    }

    /// Hashes eight bytes of the text.
    #[inline]
    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.rounds(2);
        self.0[0] ^= word;
    }

    /// Hashes a byte, an address and a text after `before` bytes already hashed, and finishes.
    #[inline]
    fn finish_address(mut self, byte: u8, ip: u128, text: &[u8], before: usize) -> (u64, u64) {
        self.word(u64::from(byte) | (ip as u64) << 8);
        self.word((ip >> 56) as u64);
        self.finish((ip >> 120) as u8, text, before + 17 + text.len())
    }

    /// Hashes a byte and a text after whole words already hashed, and finishes. `length` is the total in bytes.
    #[inline]
    fn finish(mut self, byte: u8, text: &[u8], length: usize) -> (u64, u64) {
        let mut carried = u64::from(byte);
        let (words, rest) = text.as_chunks::<8>();
        for &word in words {
            let word = u64::from_le_bytes(word);
            self.word(carried | word << 8);
            carried = word >> 56;
        }
        let last = carried | last_word(rest) << 8;
        // Only the lowest byte of the length counts.
        let length = (length as u64) << 56;
        if rest.len() == 7 {
            self.word(last);
            self.word(length);
        } else {
            self.word(last | length);
        }
        self.0[2] ^= 0xee;
        self.rounds(4);
        let high = self.0.iter().fold(0, |all, v| all ^ v);
        self.0[1] ^= 0xdd;
        self.rounds(4);
        (high, self.0.iter().fold(0, |all, v| all ^ v))
    }
}

/// Up to seven bytes as a word, the first byte lowest. The length is unpredictable, so a loop would be slow.
#[inline]
fn last_word(text: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        // Two reads that may overlap handle every length.
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << (8 * (text.len() - 4));
    }
    let byte = |at: usize| text.get(at).map_or(0, |&byte| u64::from(byte) << (8 * at));
    byte(0) | byte(1) | byte(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128, SipHasher24};
    use std::hash::Hasher;

    const CLICK: IdentityFields<'static> = IdentityFields {
        event_time_ms: 1_000,
        ad_id: 7,
        ip: 0xffff_0102_0304,
        country: 3,
        user_id: b"u1",
        click_id: b"",
    };

    #[test]
    fn country_is_not_part_of_it_and_every_other_field_is() {
        let key = IdentityKey::new([7; 16]);
        let one = key.identify(&CLICK);
        let other_country = key.identify(&IdentityFields { country: 4, ..CLICK });
        assert!(one.same_click(other_country) && one.conflicts(other_country) && !one.differs_in_user(other_country));
        for other in [
            IdentityFields { event_time_ms: 1_001, ..CLICK },
            IdentityFields { ad_id: 8, ..CLICK },
            IdentityFields { ip: 9, ..CLICK },
            IdentityFields { user_id: b"u12", ..CLICK },
            IdentityFields { click_id: b"c", ..CLICK },
        ] {
            assert!(!one.same_click(key.identify(&other)), "{other:?}");
        }
        let with_id = IdentityFields { click_id: b"c", ..CLICK };
        let one = key.identify(&with_id);
        for other in [IdentityFields { ip: 9, ..with_id }, IdentityFields { user_id: b"x", ..with_id }] {
            let other = key.identify(&other);
            assert!(one.same_click(other) && one.conflicts(other) && one.differs_in_user(other));
        }
        let other_country = key.identify(&IdentityFields { country: 4, ..with_id });
        assert!(one.same_click(other_country) && one.conflicts(other_country) && !one.differs_in_user(other_country));
        assert!(!one.same_click(IdentityKey::new([8; 16]).identify(&with_id)));
        assert_ne!(key.fingerprint(), IdentityKey::new([8; 16]).fingerprint());
    }

    /// The identity computed by a library from the documented encoding.
    fn expected(key: &IdentityKey, click: &IdentityFields<'_>) -> Identity {
        let hash = |parts: &[&[u8]]| {
            let mut hasher = SipHasher24::new_with_key(&key.0);
            hasher.write(&parts.concat());
            hasher.finish128()
        };
        let (time, ad) = (click.event_time_ms.to_le_bytes(), click.ad_id.to_le_bytes());
        let ip = click.ip.to_le_bytes();
        let (identity, user) = match click.click_id {
            [] => (hash(&[&time, &ad, &[0], &ip, click.user_id]), 0),
            click_id => (hash(&[&time, &ad, &[1], click_id]), hash(&[&[2], &ip, click.user_id]).h1),
        };
        let rest = user & 0xff00 | u64::from(click.country);
        Identity(u128::from(identity.h1) << 64 | u128::from(identity.h2 & !0xffff) | u128::from(rest))
    }

    proptest! {
        #[test]
        fn clicks_are_hashed_as_it_is_documented(
            key: [u8; 16], event_time_ms: i64, ad_id: u64, ip: u128, country: u8,
            user_id in vec(any::<u8>(), 1..=128), click_id in vec(any::<u8>(), 0..=64),
        ) {
            let key = IdentityKey::new(key);
            for click_id in [&click_id[..], &[]] {
                let click = IdentityFields { event_time_ms, ad_id, ip, country, user_id: &user_id, click_id };
                prop_assert_eq!(key.identify(&click), expected(&key, &click));
            }
        }
    }

    #[test]
    fn a_key_has_the_fingerprint_that_earlier_versions_gave_it() {
        let mut hasher = SipHasher24::new_with_key(&[7; 16]);
        hasher.write(b"adtally identity key fingerprint 1");
        assert_eq!(IdentityKey::new([7; 16]).fingerprint(), hasher.finish128().h1);
    }
}
