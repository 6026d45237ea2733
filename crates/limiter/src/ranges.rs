//! Many prefixes, each with an end, looked up by address: cut into ranges that do not overlap, so that a look is one binary search.

use std::collections::BTreeMap;

use crate::prefix::Prefix;

/// Until when addresses are on a list.
#[derive(Debug, Default)]
pub struct Ranges {
    /// Ascending; each range goes to the start of the next, and has the latest end of the prefixes that cover it, 0 where none does.
    ranges: Box<[(u128, u64)]>,
}

impl Ranges {
    /// Of prefixes, each with the time that it ends (milliseconds, `u64::MAX` for never).
    pub fn new(prefixes: &[(Prefix, u64)]) -> Self {
        let mut borders: BTreeMap<u128, Vec<(bool, u64)>> = BTreeMap::new();
        for (prefix, end) in prefixes {
            borders.entry(prefix.first()).or_default().push((true, *end));
            if let Some(behind) = prefix.last().checked_add(1) {
                borders.entry(behind).or_default().push((false, *end));
            }
        }
        let mut covering: BTreeMap<u64, usize> = BTreeMap::new();
        let mut ranges: Vec<(u128, u64)> = Vec::with_capacity(borders.len());
        for (start, changes) in borders {
            for (begins, end) in changes {
                let count = covering.entry(end).or_default();
                // Ends of prefixes come behind their beginnings, but within one border in any order.
                *count = if begins { count.wrapping_add(1) } else { count.wrapping_sub(1) };
            }
            covering.retain(|_, count| *count != 0);
            let end = covering.last_key_value().map_or(0, |(end, _)| *end);
            if ranges.last().is_none_or(|(_, before)| *before != end) {
                ranges.push((start, end));
            }
        }
        Self { ranges: ranges.into() }
    }

    /// Until when the address is on the list, if it is now.
    pub fn end(&self, address: u128, now_milliseconds: u64) -> Option<u64> {
        let behind = self.ranges.partition_point(|(start, _)| *start <= address);
        let (_, end) = self.ranges.get(behind.checked_sub(1)?)?;
        (*end > now_milliseconds).then_some(*end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::address_bits;

    #[test]
    fn the_longest_of_nested_prefixes_counts() {
        let of = |text: &str, end: u64| (text.parse().unwrap(), end);
        let ranges = Ranges::new(&[of("10.0.0.0/8", 100), of("10.1.0.0/16", 200), of("10.1.2.3", 50), of("::/0", 20)]);
        let table = [("10.0.0.1", 100), ("10.1.0.0", 200), ("10.1.255.255", 200), ("10.2.0.0", 100), ("11.0.0.0", 20)];
        for (address, end) in table {
            let address = address_bits(address.parse().unwrap());
            assert_eq!(ranges.end(address, 10), Some(end));
            assert_eq!(ranges.end(address, end), None, "it is over");
        }
        assert_eq!(ranges.end(u128::MAX, 10), Some(20));
        assert_eq!(Ranges::default().end(1, 0), None);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_walk_over_all_prefixes_finds(
            prefixes in prop::collection::vec((0_u32..256, 24_u8..=32, 1_u64..100), 0..40),
            address in 0_u32..300, now in 0_u64..100,
        ) {
            let prefixes: Vec<(Prefix, u64)> = prefixes
                .into_iter()
                .map(|(host, bits, end)| {
                    let first = u64::from(host) & !((1_u64 << (32 - bits)) - 1);
                    (format!("{}/{bits}", std::net::Ipv4Addr::from(u32::try_from(first).unwrap())).parse().unwrap(), end)
                })
                .collect();
            let address = address_bits(std::net::Ipv4Addr::from(address).into());
            let walked = prefixes.iter().filter(|(prefix, end)| prefix.contains(address) && *end > now).map(|(_, end)| *end).max();
            prop_assert_eq!(Ranges::new(&prefixes).end(address, now), walked);
        }
    }
}
