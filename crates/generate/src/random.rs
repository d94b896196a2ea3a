//! Random numbers that are the same on every machine, and a Zipf distribution built on them.
//!
//! Only integers, the four IEEE 754 operations and square roots are used, which are correctly rounded everywhere: `ln`,
//! `exp` and `powf` differ in their last digit between C libraries.

/// A pseudo-random number generator: xoshiro256++ 1.0 (Blackman and Vigna, "Scrambled Linear Pseudorandom Number
/// Generators", 2021), seeded by SplitMix64 as its authors advise.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        Random {
            state: [(); 4].map(|()| {
                at = at.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(at)
            }),
        }
    }

    /// 64 uniform bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`, not 0. The bias (Lemire's multiplication without rejection) is below `end` / 2^64.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// A number in [0, 1) with 53 bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }
}

/// A bijection that scatters its argument over 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast Splittable
/// Pseudorandom Number Generators", 2014).
#[inline]
pub fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// Ranks 1 to `n` with probability proportional to `rank^-(17/16)`.
///
/// Rejection-inversion (Hörmann and Derflinger, "Rejection-Inversion to Generate Variates from Monotone Discrete
/// Distributions", 1996): exact for any `n`, in constant time and memory. With the exponent 17/16 = 1.0625, all powers
/// are square roots and products; the most clicked of 2 million ads gets about a tenth of all clicks.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    area_first: f64,
    area_last: f64,
    shortcut: f64,
}

impl Zipf {
    /// A distribution of ranks 1 to `n`; `n` is at least 1 and at most 2^53.
    pub fn new(n: u64) -> Self {
        let n = n as f64;
        Zipf {
            n,
            area_first: area(1.5) - 1.0,
            area_last: area(n + 0.5),
            shortcut: 2.0 - area_inverse(area(2.5) - weight(2.0)),
        }
    }

    /// Draws a rank.
    #[inline]
    pub fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.area_last + random.unit() * (self.area_first - self.area_last);
            let x = area_inverse(u);
            let rank = (x + 0.5).floor().clamp(1.0, self.n);
            if rank - x <= self.shortcut || u >= area(rank + 0.5) - weight(rank) {
                return rank as u64;
            }
        }
    }
}

/// `x^(1/16)`.
#[inline]
fn root16(x: f64) -> f64 {
    x.sqrt().sqrt().sqrt().sqrt()
}

/// `x^-(17/16)`.
#[inline]
fn weight(x: f64) -> f64 {
    1.0 / (x * root16(x))
}

/// The integral of [`weight`] from 1 to `x`.
#[inline]
fn area(x: f64) -> f64 {
    16.0 - 16.0 / root16(x)
}

/// The inverse of [`area`].
#[inline]
fn area_inverse(u: f64) -> f64 {
    let root = 1.0 / (1.0 - u / 16.0);
    let second = root * root;
    let fourth = second * second;
    let eighth = fourth * fourth;
    eighth * eighth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        // SplitMix64 from 0 (reference implementation by Vigna).
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        // xoshiro256++ from the state 1, 2, 3, 4 (test vector of the Rust crate rand_xoshiro).
        let mut random = Random { state: [1, 2, 3, 4] };
        let expected = [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386];
        assert_eq!([(); 4].map(|()| random.bits()), expected);
    }

    #[test]
    fn ranks_follow_the_law() {
        for n in [1_u64, 2, 10, 1_000] {
            let (zipf, mut random, draws) = (Zipf::new(n), Random::new(7), 400_000);
            let mut seen = vec![0_u32; n as usize + 1];
            for _ in 0..draws {
                seen[zipf.rank(&mut random) as usize] += 1;
            }
            let total: f64 = (1..=n).map(|rank| (rank as f64).powf(-1.0625)).sum();
            for rank in 1..=n.min(20) {
                let expected = f64::from(draws) * (rank as f64).powf(-1.0625) / total;
                let off = (f64::from(seen[rank as usize]) - expected).abs();
                assert!(off <= 5.0 * expected.sqrt(), "rank {rank} of {n}: {} for {expected}", seen[rank as usize]);
            }
        }
    }
}
