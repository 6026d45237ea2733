//! Addresses and prefixes of them (CIDR, RFC 4632), of both kinds of IP. An IPv4 address is its IPv4-mapped IPv6 address, so that it is the
//! same whichever way it came.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits of the prefix under which IPv4 lies, `::ffff:0:0/96`.
const MAPPED_BITS: u8 = 96;

/// An address as 128 bits.
pub fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of 128 bits, IPv4 where it is one.
pub fn of_bits(bits: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical()
}

/// All addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    first: u128,
    bits: u8,
}

/// Why a text is no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// It is neither an address nor an address, a slash and a number of bits.
    Unreadable,
    /// The address has bits beyond those that count; the prefix that may be meant.
    BitsBeyond(Prefix),
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => {
                f.write_str("write an address or a prefix, such as 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32")
            }
            Self::BitsBeyond(prefix) => write!(f, "the address goes on behind the prefix; {prefix} is one"),
        }
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// One address.
    pub fn of(address: IpAddr) -> Self {
        Self { first: address_bits(address), bits: 128 }
    }

    /// Whether the address is one of them.
    pub fn contains(self, address: u128) -> bool {
        (self.first..=self.last()).contains(&address)
    }

    /// Whether it is wider than any network is that one could mean: a /8 of IPv4, a /16 of IPv6.
    pub fn is_too_wide(self) -> bool {
        let [first, last] = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST].map(|end| address_bits(IpAddr::V4(end)));
        let has_ipv4 = self.first <= last && first <= self.last();
        self.bits < if has_ipv4 { MAPPED_BITS + 8 } else { 16 }
    }

    /// The first address.
    pub fn first(self) -> u128 {
        self.first
    }

    /// The last address.
    pub fn last(self) -> u128 {
        self.first | u128::MAX.checked_shr(self.bits.into()).unwrap_or(0)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => (address, bits.parse().ok()),
            Some(_) => return Err(PrefixError::Unreadable),
            None => (text, Some(u8::MAX)),
        };
        let (address, bits): (IpAddr, u8) = address.parse().ok().zip(bits).ok_or(PrefixError::Unreadable)?;
        let (length, above) = if address.is_ipv4() { (32, MAPPED_BITS) } else { (128, 0) };
        let bits = match text.contains('/') {
            true if bits <= length => bits + above,
            true => return Err(PrefixError::Unreadable),
            false => length + above,
        };
        let whole = Self { first: address_bits(address), bits };
        let first = whole.first & !u128::MAX.checked_shr(bits.into()).unwrap_or(0);
        if first == whole.first { Ok(whole) } else { Err(PrefixError::BitsBeyond(Self { first, bits })) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, bits, length) = match of_bits(self.first) {
            IpAddr::V4(address) if self.bits >= MAPPED_BITS => (IpAddr::V4(address), self.bits - MAPPED_BITS, 32),
            IpAddr::V4(Ipv4Addr { .. }) | IpAddr::V6(_) => {
                (IpAddr::V6(Ipv6Addr::from_bits(self.first)), self.bits, 128)
            }
        };
        if bits == length { write!(f, "{address}") } else { write!(f, "{address}/{bits}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_and_written_as_people_write_it() {
        let table = [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7/32", "203.0.113.7"),
            ("203.0.113.0/24", "203.0.113.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ];
        for (text, shown) in table {
            assert_eq!(text.parse::<Prefix>().map(|prefix| prefix.to_string()), Ok(shown.to_owned()), "{text}");
        }
        for text in [
            "",
            "/",
            "1.2.3",
            "1.2.3.4/33",
            "::/129",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "1.2.3.4/-1",
            "1.2.3.4/256",
            "a/8",
            "::1%1",
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Unreadable), "{text}");
        }
        for (text, is_too_wide) in [
            ("0.0.0.0/0", true),
            ("128.0.0.0/1", true),
            ("10.0.0.0/8", false),
            ("::/0", true),
            ("::/64", true),
            ("2000::/3", true),
            ("2001::/16", false),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().is_too_wide(), is_too_wide, "{text}");
        }
        for (text, meant) in [("203.0.113.7/24", "203.0.113.0/24"), ("2001:db8::1/64", "2001:db8::/64")] {
            let meant: Prefix = meant.parse().unwrap();
            assert_eq!(text.parse::<Prefix>(), Err(PrefixError::BitsBeyond(meant)));
        }
    }

    #[test]
    fn it_contains_its_addresses_and_no_others() {
        let table = [
            ("203.0.113.0/24", "203.0.113.255", true),
            ("203.0.113.0/24", "203.0.114.0", false),
            ("203.0.113.0/24", "::ffff:203.0.113.1", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1.2.3.4", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::1", "::1", true),
            ("::1", "::2", false),
        ];
        for (prefix, address, contained) in table {
            let prefix: Prefix = prefix.parse().unwrap();
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(prefix.contains(address_bits(address)), contained, "{prefix} {address}");
        }
    }
}
