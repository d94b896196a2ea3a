//! The hash of a row of `clicks`. The ledger keeps the sum of an epoch's hashes for each hour, so that reconciliation
//! notices rows that were lost, added or altered.
//!
//! It is `xxhash64` of Spark SQL over [`HASHED`], of which the 32 lowest bits are kept: `xxhash64(sign, input, ...) &
//! 4294967295`. That function is XXH64 (<https://xxhash.com/doc/>) of each column's bytes in turn, with the hash of
//! the columns before as the seed. The first seed is 42, and a null leaves the hash as it is. Integers are
//! little-endian: `sign` has four bytes, and the other numbers and times, in microseconds, have eight.

use twox_hash::XxHash64;

/// The hashed columns, in this order.
pub const HASHED: [&str; 9] =
    ["sign", "input", "position", "click_timestamp", "ad_id", "country", "user_id", "ip", "click_id"];

/// The bits of a hash that are kept. So the hashes of 2^31 rows can be summed in 64 bits.
pub const HASH_BITS: u64 = 0xffff_ffff;

const SEED: u64 = 42;

/// The hash of the columns that are equal in many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct HashedStart(u64);

impl HashedStart {
    pub(super) fn of(sign: i32, input: &str) -> HashedStart {
        HashedStart(XxHash64::oneshot(XxHash64::oneshot(SEED, &sign.to_le_bytes()), input.as_bytes()))
    }

    /// The hash of a row with these columns.
    #[inline]
    pub(super) fn row(self, numbers: [i64; 3], country: &str, texts: [&[u8]; 2], click_id: &[u8]) -> u64 {
        let hash = numbers.iter().fold(self.0, |seed, number| XxHash64::oneshot(seed, &number.to_le_bytes()));
        let hash = XxHash64::oneshot(hash, country.as_bytes());
        let hash = texts.iter().fold(hash, |seed, text| XxHash64::oneshot(seed, text));
        let hash = if click_id.is_empty() { hash } else { XxHash64::oneshot(hash, click_id) };
        hash & HASH_BITS
    }
}
