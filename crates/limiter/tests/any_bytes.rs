//! Any bytes as an address or a network: what is read is printed so that it is read again as the same, and contains what it should.

use std::net::IpAddr;

use fuzzing::check;
use limiter::{Prefix, PrefixError, Ranges, address_bits, of_bits};

#[test]
fn any_bytes_as_a_prefix_come_back_as_they_are_printed() {
    let seeds: [&[u8]; 9] = [
        b"203.0.113.7",
        b"203.0.113.0/24",
        b"0.0.0.0/0",
        b"::/0",
        b"2001:db8::/32",
        b"2001:db8::1/64",
        b"::ffff:203.0.113.0/120",
        b"::ffff:0.0.0.0/96",
        b"::1/128",
    ];
    check("prefix", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let prefix = match text.parse::<Prefix>() {
            Ok(prefix) => prefix,
            // What is proposed instead has to be one, and be another.
            Err(PrefixError::BitsBeyond(meant)) => {
                assert_ne!(meant.to_string(), text);
                meant
            }
            Err(PrefixError::Unreadable) => {
                assert!(text.parse::<IpAddr>().is_err(), "an address is a prefix");
                return;
            }
        };
        assert_eq!(prefix.to_string().parse(), Ok(prefix));
        let (first, last) = (prefix.first(), prefix.last());
        assert!(first <= last && prefix.contains(first) && prefix.contains(last));
        assert!(first == 0 || !prefix.contains(first - 1));
        assert!(last == u128::MAX || !prefix.contains(last + 1));
        assert!((last - first).wrapping_add(1).count_ones() <= 1, "as many as a power of two");
        let ranges = Ranges::new(&[(prefix, 9)]);
        assert_eq!((ranges.end(first, 1), ranges.end(last, 1), ranges.end(first, 9)), (Some(9), Some(9), None));
        if let Ok(address) = text.parse::<IpAddr>() {
            assert_eq!((first, last), (address_bits(address), address_bits(address)));
            assert_eq!(of_bits(first), address.to_canonical());
        }
    });
}
