//! Where a request comes from: the other end of its connection, or, where that is a proxy of ours, whom the proxy names.
//!
//! A header counts for nothing unless a trusted proxy sent it, so nobody can be somebody else by writing one.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use limiter::{Hasher, Prefix, address_bits, of_bits};

/// What proxies write. `Forwarded` (RFC 7239) says the same; a proxy that does not know it passes on what its client wrote there.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Somebody who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// All 128 bits.
    pub(crate) address: u128,
    /// Under which limits know it. Whoever has an IPv6 address has the /64 around it too, so those are one.
    pub(crate) hash: u64,
    pub(crate) is_loopback: bool,
}

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Peer {
    itself: Client,
    is_proxy: bool,
}

/// Whom to believe about others.
pub(crate) struct Addresses {
    hasher: Hasher,
    trusted: Vec<Prefix>,
}

impl Addresses {
    pub(crate) fn new(trusted: Vec<Prefix>, hasher: Hasher) -> Self {
        Self { hasher, trusted }
    }

    /// Looks at the other end of a connection, once.
    pub(crate) fn peer(&self, peer: SocketAddr) -> Peer {
        let address = address_bits(peer.ip());
        Peer { itself: self.client(address), is_proxy: self.trusts(address) }
    }

    /// Who sent a request of general form.
    pub(crate) fn of_headers(&self, peer: &Peer, headers: &HeaderMap) -> Client {
        if !peer.is_proxy {
            return peer.itself;
        }
        // A line that is no text is one that cannot be read.
        self.behind(peer, headers.get_all(FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default()))
    }

    /// Who sent a request with these lines of [`FORWARDED_FOR`], in the order in which they came.
    pub(crate) fn behind<'a>(&self, peer: &Peer, lines: impl DoubleEndedIterator<Item = &'a str>) -> Client {
        if !peer.is_proxy {
            return peer.itself;
        }
        let mut last = peer.itself.address;
        // Each proxy adds whom it talked to on the right. What stands left of the first that is no proxy of ours is that one's own word.
        for named in lines.rev().flat_map(|line| line.rsplit(',')).map(read) {
            let Some(address) = named else { break };
            last = address;
            if !self.trusts(address) {
                break;
            }
        }
        self.client(last)
    }

    /// The hash of anything else that is counted.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash(key)
    }

    fn client(&self, address: u128) -> Client {
        let known_as = of_bits(address);
        let counted = if known_as.is_ipv6() { address & !u128::from(u64::MAX) } else { address };
        Client { address, hash: self.hash(&counted.to_be_bytes()), is_loopback: known_as.is_loopback() }
    }

    fn trusts(&self, address: u128) -> bool {
        self.trusted.iter().any(|prefix| prefix.contains(address))
    }
}

/// An address as proxies write it: alone, with a port, or in brackets.
fn read(named: &str) -> Option<u128> {
    let named = named.trim();
    let bare = || named.strip_prefix('[')?.strip_suffix(']');
    let address: Option<IpAddr> = named.parse().ok();
    let with_port = || named.parse::<SocketAddr>().ok().map(|address| address.ip());
    address.or_else(with_port).or_else(|| bare()?.parse().ok()).map(address_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let trusted = ["10.0.0.0/8", "2001:db8:1::/48"].map(|prefix| prefix.parse().unwrap());
        Addresses::new(trusted.into(), Hasher::new(&[7; 16]))
    }

    fn seen(peer: &str, lines: &[&str]) -> IpAddr {
        let addresses = addresses();
        let peer = addresses.peer(SocketAddr::new(peer.parse().unwrap(), 1));
        of_bits(addresses.behind(&peer, lines.iter().copied()).address)
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_of_ours_is_the_client() {
        let table: &[(&str, &[&str], &str)] = &[
            // Nobody trusts this one: its header is its own word.
            ("203.0.113.7", &["198.51.100.1"], "203.0.113.7"),
            ("203.0.113.7", &["10.0.0.1"], "203.0.113.7"),
            ("203.0.113.7", &[], "203.0.113.7"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:1::5", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:2::5", &["198.51.100.1"], "2001:db8:2::5"),
            // What the client itself wrote stands further left.
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1,198.51.100.1 ,\t10.0.0.2", "10.0.0.3"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            // Whatever cannot be read ends the walk at whoever was named last.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1,, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1", ""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.999"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1; for=1.1.1.1"], "10.0.0.1"),
        ];
        for (peer, lines, client) in table {
            assert_eq!(seen(peer, lines), client.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_client_and_each_ipv4_address_is_one() {
        let addresses = addresses();
        let hash = |address: &str| addresses.peer(SocketAddr::new(address.parse().unwrap(), 1)).itself.hash;
        assert_eq!(hash("2001:db8::1"), hash("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(hash("2001:db8::1"), hash("2001:db8:0:1::1"));
        assert_ne!(hash("203.0.113.7"), hash("203.0.113.8"));
        assert_eq!(hash("203.0.113.7"), hash("::ffff:203.0.113.7"));
    }
}
