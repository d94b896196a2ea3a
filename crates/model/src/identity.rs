//! What makes two lines one click.

use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hash128, Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;

/// Bits of a [`Identity`] that say which click it is; the rest tell differing copies apart.
pub const IDENTITY_BITS: u32 = 112;

/// Bytes of the fields of fixed width: time, ad, a tag or the country, address.
const FIXED_BYTES: usize = 8 + 8 + 1 + 16;

/// Longest text that is hashed in one piece with them: nearly all user and click ids, UUIDs among them.
const TEXT_BYTES_TYPICAL: usize = 47;

const REST_MASK: u128 = (1 << (128 - IDENTITY_BITS)) - 1;

/// The identity of a click: 112 bits of keyed hash, and below them 16 bits for the fields that do not belong to the
/// identity: the country, or with a click id a hash of country, user and address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(transparent)]
pub struct Identity(pub u128);

impl Identity {
    /// Whether two identities name the same click, whatever their other fields.
    #[inline]
    pub fn same_click(self, other: Identity) -> bool {
        (self.0 ^ other.0) >> (128 - IDENTITY_BITS) == 0
    }

    /// Whether the remaining fields differ. Without a click id that is exact; with one, 16 bits of hash tell (one
    /// differing copy in 65,536 goes unseen).
    #[inline]
    pub fn conflicts(self, other: Identity) -> bool {
        (self.0 ^ other.0) & REST_MASK != 0
    }

    /// Bits to place it in a hash table; they are uniform already.
    #[inline]
    pub fn table_hash(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

/// The secret under which identities are hashed, so that nobody can craft two clicks that collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct IdentityKey([u8; 16]);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey(secret)")
    }
}

/// The fields of one click that its identity is made of.
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
    /// The user, not empty.
    pub user_id: &'a [u8],
    /// The client's unique id; empty when it sent none.
    pub click_id: &'a [u8],
}

impl IdentityKey {
    /// A key of 16 secret bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        IdentityKey(bytes)
    }

    /// A public fingerprint by which a changed key is noticed: SipHash-2-4-128 of a fixed text under the key.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(b"adtally identity key fingerprint 1");
        hasher.finish128().h1
    }

    /// Hashes (`click_timestamp`, `ad_id`, `click_id`) when there is a click id, else (`click_timestamp`, `ad_id`,
    /// `user_id`, `ip`), with SipHash-2-4-128 (Aumasson and Bernstein, "SipHash: a fast short-input PRF").
    ///
    /// The encoding is unambiguous: fields of fixed width come first, a tag tells the two forms apart and the one
    /// field of variable length comes last.
    pub fn identify(&self, click: &IdentityFields<'_>) -> Identity {
        let mut fixed = [0_u8; FIXED_BYTES];
        fixed[..8].copy_from_slice(&click.event_time_ms.to_le_bytes());
        fixed[8..16].copy_from_slice(&click.ad_id.to_le_bytes());
        fixed[17..].copy_from_slice(&click.ip.to_le_bytes());
        let (identity, rest) = if click.click_id.is_empty() {
            // The country alone remains, and needs no hashing to fit.
            (self.hash(&fixed, click.user_id), u64::from(click.country))
        } else {
            fixed[16] = 1;
            let identity = self.hash(&fixed[..17], click.click_id);
            fixed[16] = click.country;
            (identity, self.hash(&fixed[16..], click.user_id).h1)
        };
        let identity = u128::from(identity.h1) << 64 | u128::from(identity.h2);
        Identity(identity & !REST_MASK | u128::from(rest) & REST_MASK)
    }

    /// The hash of fields of fixed width and a text behind them: of one piece where they fit, which is faster.
    #[inline]
    fn hash(&self, fixed: &[u8], text: &[u8]) -> Hash128 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        let mut piece = [0_u8; FIXED_BYTES + TEXT_BYTES_TYPICAL];
        let length = fixed.len() + text.len();
        match piece.get_mut(..length) {
            Some(piece) => {
                let (before, behind) = piece.split_at_mut(fixed.len());
                before.copy_from_slice(fixed);
                behind.copy_from_slice(text);
                hasher.write(piece);
            }
            None => {
                hasher.write(fixed);
                hasher.write(text);
            }
        }
        hasher.finish128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(one.same_click(other_country) && one.conflicts(other_country));
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
            assert!(one.same_click(key.identify(&other)) && one.conflicts(key.identify(&other)));
        }
        assert!(!one.same_click(IdentityKey::new([8; 16]).identify(&with_id)));
        assert_ne!(key.fingerprint(), IdentityKey::new([8; 16]).fingerprint());
    }

    #[test]
    fn texts_of_every_length_are_hashed_as_they_are_documented() {
        let key = IdentityKey::new([7; 16]);
        for length in 0..2 * TEXT_BYTES_TYPICAL {
            let (text, fixed) = (vec![b'x'; length], [9_u8; FIXED_BYTES]);
            let mut hasher = SipHasher24::new_with_key(&key.0);
            hasher.write(&[&fixed[..], &text].concat());
            assert_eq!(key.hash(&fixed, &text), hasher.finish128(), "{length}");
        }
    }
}
