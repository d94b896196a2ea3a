//! Sorting of whole numbers by their digits: for columns of millions of keys, several times as fast as comparing.

/// Fewer numbers than this are sorted by comparing: the passes over them would cost more.
const RADIX_MIN: usize = 1 << 10;

/// Bits of one pass, whose counters fit the first cache.
const RADIX_BITS: u32 = 11;

/// Sorts numbers digit by digit, the least first (Knuth, TAOCP 3, 5.2.5, algorithm R), leaving out the digits that all of
/// them share. By their lowest `sorted_bits` bits they are in order already. `spare` is room that is used again from call
/// to call.
pub fn sort(numbers: &mut Vec<u64>, sorted_bits: u32, spare: &mut Vec<u64>) {
    if numbers.len() < RADIX_MIN {
        numbers.sort_unstable();
        return;
    }
    let first = numbers.first().copied().unwrap_or_default();
    let differing = numbers.iter().fold(0, |bits, number| bits | (number ^ first));
    spare.clear();
    spare.resize(numbers.len(), 0);
    let digit = |number: u64, shift: u32| (number >> shift) as usize & ((1 << RADIX_BITS) - 1);
    for shift in (differing.trailing_zeros().max(sorted_bits)..u64::BITS).step_by(RADIX_BITS as usize) {
        if digit(differing, shift) == 0 {
            continue;
        }
        let mut places = vec![0_usize; 1 << RADIX_BITS];
        for &number in numbers.iter() {
            places[digit(number, shift)] += 1;
        }
        let mut next = 0;
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        for &number in numbers.iter() {
            let place = &mut places[digit(number, shift)];
            spare[*place] = number;
            *place += 1;
        }
        std::mem::swap(numbers, spare);
    }
}

#[cfg(test)]
mod tests {
    use super::sort;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn check(numbers: &[u64], sorted_bits: u32) -> Result<(), TestCaseError> {
        let (mut sorted, mut expected) = (numbers.to_vec(), numbers.to_vec());
        sort(&mut sorted, sorted_bits, &mut vec![7; 3]);
        expected.sort_unstable();
        prop_assert_eq!(sorted, expected);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever bits they differ in.
        #[test]
        fn numbers_are_sorted(numbers in vec(any::<u64>(), 0..3_000), mask: u64, shift in 0_u32..64, common: u64) {
            check(&numbers, 0)?;
            let masked: Vec<u64> = numbers.iter().map(|number| (number & mask) >> shift ^ common).collect();
            check(&masked, 0)?;
            let numbered: Vec<u64> = (0..).zip(&masked).map(|(row, number)| number << 20 | row).collect();
            check(&numbered, 20)?;
        }
    }
}
