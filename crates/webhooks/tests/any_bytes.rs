//! Any bytes as the address of a webhook: whatever is taken leads over TLS to an address of the internet, and is taken again as it is kept.
//! See `fuzzing`.

use std::net::IpAddr;

use fuzzing::check;
use webhooks::target::Target;

#[test]
fn any_bytes_as_a_target_lead_outside_and_over_tls_or_nowhere() {
    // Twice as long in its normal form, where it would be too long.
    let grows = format!("https://shop.example/{}", "{e".repeat(900));
    let seeds: [&[u8]; 10] = [
        grows.as_bytes(),
        b"https://shop.example/hook?a=b#c",
        b"https://shop.example:8443/",
        b"https://93.184.216.34/",
        b"https://[2606:2800:220:1::1]:443/hook",
        b"https://user:word@shop.example/",
        b"http://127.0.0.1:8080/",
        b"https://0x7f.1/",
        b"https://[::ffff:10.0.0.1]/",
        b"https://2130706433/",
    ];
    check("target", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(target) = Target::parse(text, false) else { return };
        let url = target.url();
        assert_eq!((url.scheme(), url.username(), url.password()), ("https", "", None));
        let host = url.host_str().expect("it leads somewhere").trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => assert!(
                !(address.is_private()
                    || address.is_loopback()
                    || address.is_link_local()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || address.is_broadcast()
                    || address.is_documentation()),
                "{address}"
            ),
            Ok(IpAddr::V6(address)) => assert!(
                !(address.is_loopback()
                    || address.is_unspecified()
                    || address.is_multicast()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
                    || address.to_ipv4_mapped().is_some()),
                "{address}"
            ),
            Err(_) => assert!(!host.is_empty()),
        }
        assert_eq!(Target::parse(url.as_str(), false).as_ref(), Ok(&target), "it is kept in its normal form");
    });
}
