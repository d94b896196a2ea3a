//! The partition of an ad: a hash of its decimal `ad_id`, as producers of Kafka compute it from a key.

use serde::{Deserialize, Serialize};

/// How producers choose the partition of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// murmur2 without its sign bit: the Java client and Adtally's agent (`BuiltInPartitioner.partitionForKey`), and
    /// `murmur2` of librdkafka.
    #[default]
    Murmur2,
    /// CRC-32 (IEEE): `consistent` of librdkafka, its default for records with a key.
    Crc32,
    /// The absolute value of 32-bit FNV-1a: sarama's `NewHashPartitioner`, `fnv1a` of librdkafka, and older Filebeat.
    Fnv1a,
    /// 32-bit FNV-1a without its sign bit: sarama's `NewReferenceHashPartitioner`, and newer Filebeat.
    Fnv1aMasked,
}

impl Partitioner {
    /// The partition of a key in a topic of `partitions` partitions.
    ///
    /// ```
    /// # use adtally_source::kafka::Partitioner;
    /// assert_eq!(Partitioner::Murmur2.partition(b"42", 1), 0);
    /// assert!(Partitioner::Crc32.partition(b"42", 6) < 6);
    /// ```
    pub fn partition(self, key: &[u8], partitions: u32) -> u32 {
        let hash = match self {
            Partitioner::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Partitioner::Crc32 => crc32(key),
            Partitioner::Fnv1a => fnv1a(key).cast_signed().unsigned_abs(),
            Partitioner::Fnv1aMasked => fnv1a(key) & 0x7fff_ffff,
        };
        hash % partitions.max(1)
    }

    /// The partition of an ad.
    pub fn partition_of(self, ad_id: u64, partitions: u32) -> u32 {
        let mut digits = [0; 20];
        self.partition(decimal(ad_id, &mut digits), partitions)
    }

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2",
            Partitioner::Crc32 => "crc32",
            Partitioner::Fnv1a => "fnv1a",
            Partitioner::Fnv1aMasked => "fnv1a-masked",
        }
    }
}

/// The only partition of a topic in which the clicks of an ad may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Routing {
    /// How producers choose partitions.
    pub partitioner: Partitioner,
    /// The partition that is read.
    pub partition: u32,
    /// The number of partitions of the topic.
    pub partitions: u32,
}

impl Routing {
    /// The partition of an ad, if it is another one.
    #[inline]
    pub fn elsewhere(&self, ad_id: u64) -> Option<u32> {
        let partition = self.partitioner.partition_of(ad_id, self.partitions);
        (partition != self.partition).then_some(partition)
    }
}

/// A number in decimal digits.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// MurmurHash2 with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ data.len() as u32;
    let (chunks, rest) = data.as_chunks::<4>();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(*chunk).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (&byte, shift) in rest.iter().zip([0, 8, 16]) {
            hash ^= u32::from(byte) << shift;
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// CRC-32 (ISO 3309, IEEE 802.3), bit by bit: a key has at most 20 bytes.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// 32-bit FNV-1a.
fn fnv1a(data: &[u8]) -> u32 {
    data.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of Kafka's own tests (`UtilsTest.testMurmur2`).
    #[test]
    fn murmur2_is_that_of_the_java_client() {
        let check = |key: &[u8], expected: i32| assert_eq!(murmur2(key).cast_signed(), expected, "{key:?}");
        check(b"21", -973_932_308);
        check(b"foobar", -790_332_482);
        check(b"a-little-bit-long-string", -985_981_536);
        check(b"a-little-bit-longer-string", -1_486_304_829);
        check(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971);
        check(b"abc", 479_470_107);
    }

    /// Check values of the catalogues of CRCs and of FNV.
    #[test]
    fn other_hashes_have_their_published_values() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
        // 0xbf9cf968 is negative as a signed number.
        assert_eq!(Partitioner::Fnv1a.partition(b"foobar", 1_000), (0xbf9c_f968_u32.wrapping_neg()) % 1_000);
        assert_eq!(Partitioner::Fnv1aMasked.partition(b"foobar", 1_000), 0x3f9c_f968 % 1_000);
    }

    #[test]
    fn keys_are_decimal() {
        for ad in [0, 7, 10, 42, 1_234_567_890, u64::MAX] {
            assert_eq!(decimal(ad, &mut [0; 20]), ad.to_string().as_bytes());
        }
    }
}
