//! Where a webhook may lead: out into the internet over TLS, and nowhere into this machine's own network, in whatever notation.
//!
//! The address that is checked is the address that is called. Whoever owns a name may change what it means between two look-ups, so
//! there is one look-up per connection, and the connection goes to what it gave.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use url::{Host, Url};

/// Characters of a URL.
const URL_CHARACTERS_MAX: usize = 2_048;
/// Where other things listen than web servers: databases, queues, registries, mail, remote shells. Below 1,024 only 443 is taken.
const PORTS_REFUSED: [u16; 41] = [
    1080, 1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3128, 3306, 3389, 4222, 5060, 5061, 5432,
    5672, 5900, 5984, 6000, 6222, 6379, 6443, 6667, 6697, 8222, 8500, 9042, 9092, 9200, 9300, 10250, 11211, 15672,
    16379, 26257, 26379, 27017,
];

/// Why a URL is not called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No URL.
    #[error("url: {0}; send one such as https://shop.example/doorbuster")]
    Unreadable(String),
    /// Not TLS.
    #[error("url: {0}:// is not called; only https:// is, since anybody on the way could read and change the rest")]
    Scheme(String),
    /// A name and a password in it.
    #[error("url: take the user and the password out of it; the signature tells the receiver who calls")]
    UserInfo,
    /// A port of something else.
    #[error(
        "url: port {0} is not called: leave it out for 443, or take one from 1024 on where no other service usually listens"
    )]
    Port(u16),
    /// Not an address of the internet.
    #[error(
        "url: {0} is not an address of the internet; a webhook never leads into the network that the engine stands in"
    )]
    Address(IpAddr),
    /// The name leads to nothing.
    #[error("url: the host {0} cannot be looked up")]
    Unknown(String),
}

/// A URL that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    port: u16,
    /// Addresses of this machine may be called too, without TLS, for trying things out.
    loopback_allowed: bool,
}

impl Target {
    /// Reads a URL and checks all that can be told without looking the host up.
    pub fn parse(text: &str, loopback_allowed: bool) -> Result<Self, TargetError> {
        if text.len() > URL_CHARACTERS_MAX {
            return Err(TargetError::Unreadable(format!("longer than {URL_CHARACTERS_MAX} characters")));
        }
        let url = Url::parse(text).map_err(|error| TargetError::Unreadable(error.to_string()))?;
        // Its normal form, in which some characters are three, has to be readable too.
        if url.as_str().len() > URL_CHARACTERS_MAX {
            return Err(TargetError::Unreadable(format!(
                "longer than {URL_CHARACTERS_MAX} characters in its normal form"
            )));
        }
        let plain = url.scheme() == "http" && loopback_allowed;
        if url.scheme() != "https" && !plain {
            return Err(TargetError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::UserInfo);
        }
        let port = url.port_or_known_default().unwrap_or_default();
        if port != 443 && (port < 1_024 || PORTS_REFUSED.contains(&port)) {
            return Err(TargetError::Port(port));
        }
        let target = Self { url, port, loopback_allowed };
        match target.literal() {
            Some(address) => target.check(address)?,
            None if target.name().is_empty() => return Err(TargetError::Unreadable("no host".to_owned())),
            None => {}
        }
        Ok(target)
    }

    /// The URL in its normal form.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether the connection is TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The host as a certificate and the `host` header name it.
    pub(crate) fn name(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The host, if it is an address already.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    /// Looks the host up, once, and gives the addresses to connect to. One that may not be called refuses them all: a name that leads
    /// to both sides is a trick. Blocks.
    pub(crate) fn look_up(&self) -> Result<Vec<SocketAddr>, TargetError> {
        let unknown = || TargetError::Unknown(self.name().to_owned());
        let addresses: Vec<_> = match self.literal() {
            Some(address) => vec![SocketAddr::new(address, self.port)],
            None => (self.name(), self.port).to_socket_addrs().map_err(|_| unknown())?.collect(),
        };
        if addresses.is_empty() {
            return Err(unknown());
        }
        self.check_all(addresses)
    }

    fn check_all(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, TargetError> {
        addresses.iter().try_for_each(|address| self.check(address.ip()))?;
        Ok(addresses)
    }

    fn check(&self, address: IpAddr) -> Result<(), TargetError> {
        // Without TLS nothing leaves this machine, whatever else is allowed.
        let allowed =
            if self.loopback_allowed && address.is_loopback() { true } else { self.is_tls() && is_public(address) };
        match allowed {
            true => Ok(()),
            false if is_public(address) => Err(TargetError::Scheme(self.url.scheme().to_owned())),
            false => Err(TargetError::Address(address)),
        }
    }
}

/// Whether an address is one of the internet: neither private nor reserved, and no other address wrapped in it.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The IANA registry of special-purpose IPv4 addresses, and what is reserved for later.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, ..)                                         // this network, private, loopback
            | (100, 64..=127, _)                                   // carrier-grade NAT
            | (169, 254, _) | (172, 16..=31, _) | (192, 168, _)    // link-local, private
            | (192, 0, 0 | 2) | (198, 51, 100) | (203, 0, 113)     // protocols, documentation
            | (192, 88, 99)                                        // 6to4 relays
            | (198, 18..=19, _)                                    // benchmarks
            | (224..=255, ..) // multicast, reserved, broadcast
    )
}

/// Only 2000::/3 is given out to anybody. In it: protocols and Teredo (2001::/23), documentation, and 6to4, which wraps IPv4. Outside of
/// it: IPv4-mapped and -compatible, NAT64, unique-local, link-local, multicast.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    let protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    global && !protocols && !documentation && a != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &[&str] = &[
        "127.0.0.1",
        "127.255.255.254",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "017700000001",
        "0",
        "0.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "012.0.0.1",
        "0xa.0.0.1",
        "167772161",
        "100.64.0.1",
        "100.127.255.255",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "192.168.257",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:8.8.8.8]",
        "[::ffff:0:8.8.8.8]",
        "[::8.8.8.8]",
        "[64:ff9b::8.8.8.8]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[100::1]",
        "[2001::1]",
        "[2001:0:53aa:64c:0:0:0:1]",
        "[2001:10::1]",
        "[2001:20::1]",
        "[2001:db8::1]",
        "[2002:7f00:1::]",
        "[2002:808:808::1]",
        "[3fff::1]",
        "[3fff:fff::1]",
        "[5f00::1]",
        "[fc00::1]",
        "[fd12:3456::1]",
        "[fe80::1]",
        "[febf::1]",
        "[fec0::1]",
        "[ff02::1]",
    ];

    #[test]
    fn addresses_of_networks_behind_the_internet_are_refused_in_every_notation() {
        for host in REFUSED {
            let refused = Target::parse(&format!("https://{host}/hook"), false);
            assert!(matches!(refused, Err(TargetError::Address(_))), "{host}: {refused:?}");
            let plain = Target::parse(&format!("http://{host}:8000/hook"), false);
            assert!(matches!(plain, Err(TargetError::Scheme(_))), "{host}: {plain:?}");
        }
        for host in ["8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.0.1.1", "223.255.255.255", "134744072"]
        {
            let target = Target::parse(&format!("https://{host}/hook"), false).unwrap();
            assert_eq!(target.look_up().unwrap()[0].port(), 443, "{host}");
        }
        for host in ["[2606:4700::1111]", "[2001:4860:4860::8888]", "[2a00::1]", "[2400:cb00::1]", "[3fff:1000::1]"] {
            assert!(Target::parse(&format!("https://{host}/hook"), false).is_ok(), "{host}");
        }
    }

    #[test]
    fn only_tls_without_a_user_on_a_port_of_the_web_is_called() {
        let refused = |url: &str| Target::parse(url, false).unwrap_err();
        for url in ["http://shop.example/", "ftp://shop.example/", "file:///etc/passwd", "gopher://shop.example/"] {
            assert!(matches!(refused(url), TargetError::Scheme(_)), "{url}");
        }
        for url in ["https://user@shop.example/", "https://user:word@shop.example/", "https://:word@shop.example/"] {
            assert_eq!(refused(url), TargetError::UserInfo, "{url}");
        }
        for port in [0, 1, 22, 25, 53, 80, 110, 389, 445, 1023, 3306, 4222, 5432, 6379, 9200, 11211, 27017] {
            assert_eq!(refused(&format!("https://shop.example:{port}/")), TargetError::Port(port));
        }
        for url in ["", "shop.example", "https://", "https:///", "https://a b/", "https://[::1/", "https://1.2.3.256/"]
        {
            assert!(matches!(refused(url), TargetError::Unreadable(_)) || url == "https:///", "{url}");
        }
        assert!(matches!(refused(&format!("https://shop.example/{}", "x".repeat(2_048))), TargetError::Unreadable(_)));
        for url in ["https://shop.example", "HTTPS://Shop.Example:443/a?b=c", "https://shop.example:8443/hook"] {
            assert!(Target::parse(url, false).is_ok(), "{url}");
        }
    }

    #[test]
    fn a_name_is_refused_for_what_it_leads_to() {
        let name = Target::parse("https://localhost/hook", false).unwrap();
        assert!(matches!(name.look_up(), Err(TargetError::Address(address)) if address.is_loopback()));
        let nothing = Target::parse("https://nothing.invalid/hook", false).unwrap();
        assert_eq!(nothing.look_up(), Err(TargetError::Unknown("nothing.invalid".to_owned())));
    }

    #[test]
    fn one_address_inside_spoils_those_outside() {
        let target = Target::parse("https://shop.example/hook", false).unwrap();
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let outside = addresses(&["8.8.8.8:443", "[2606:4700::1111]:443"]);
        assert_eq!(target.check_all(outside.clone()), Ok(outside));
        for inside in ["192.168.1.1:443", "[::1]:443", "[::ffff:192.168.1.1]:443", "[64:ff9b::c0a8:101]:443"] {
            let refused = target.check_all(addresses(&["8.8.8.8:443", inside]));
            assert!(matches!(refused, Err(TargetError::Address(_))), "{inside}");
        }
    }

    #[test]
    fn for_trying_things_out_loopback_is_called_and_nothing_else_without_tls() {
        let target = Target::parse("http://127.0.0.1:8000/hook", true).unwrap();
        assert_eq!(target.look_up().unwrap(), ["127.0.0.1:8000".parse().unwrap()]);
        assert!(Target::parse("http://localhost:8000/hook", true).unwrap().look_up().is_ok());
        assert!(Target::parse("https://[::1]:8443/hook", true).is_ok());
        for url in ["http://10.0.0.1:8000/", "https://10.0.0.1/", "http://[::ffff:127.0.0.1]:8000/"] {
            assert!(matches!(Target::parse(url, true), Err(TargetError::Address(_))), "{url}");
        }
        let plain = Target::parse("http://8.8.8.8:8000/", true);
        assert_eq!(plain, Err(TargetError::Scheme("http".to_owned())));
        assert_eq!(Target::parse("http://127.0.0.1:6379/", true), Err(TargetError::Port(6379)));
    }
}
