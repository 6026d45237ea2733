//! Over TLS: only a certificate for the shop's own name, from an authority that is trusted, makes its keys believed.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use domain::Clock;
use domain::clock::SystemClock;
use gate::KeySet;
use keyring::{FetchTimes, Keyring, KeyringOptions};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use services::keys::{ShopKey, jwks};
use services::tls::Authority;

/// A shop on that address with a certificate for `127.0.0.1` and `localhost`, which publishes one key to whoever asks.
fn shop(authority: &Authority, host: &str) -> u16 {
    let folder = std::env::current_exe().unwrap().with_extension(format!("tls-{host}-{}", std::process::id()));
    let identity = authority.sign(&folder).unwrap();
    let certificate = CertificateDer::from_pem_file(&identity.certificate).unwrap();
    let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap());
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let set = jwks([&ShopKey::es256("e")]);
        while let Ok((stream, _)) = listener.accept() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            // Whoever does not trust the certificate goes away without a word.
            if stream.read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {
                let _ = write!(stream, "HTTP/1.1 200 Fine\r\ncontent-length: {}\r\n\r\n{set}", set.len());
            }
        }
    });
    port
}

#[test]
fn over_tls_only_a_certificate_of_the_host_from_a_trusted_authority_is_believed() {
    let [authority, stranger] = [(); 2].map(|()| Authority::new().unwrap());
    let (port, other_port) = (shop(&authority, "127.0.0.1"), shop(&authority, "127.0.0.2"));
    for (name, url, trusted, expected) in [
        ("its own", format!("https://localhost:{port}/keys?version=1"), &authority, 1),
        ("another host's", format!("https://127.0.0.2:{other_port}/keys"), &authority, 0),
        ("of an authority that is not trusted", format!("https://localhost:{port}/keys"), &stranger, 0),
    ] {
        let options = KeyringOptions {
            url,
            refresh: Duration::from_secs(3_600),
            stale_max: Duration::from_secs(3_600),
            times: FetchTimes::default(),
            authority: Some(trusted.pem().as_bytes().to_vec()),
            dangerous_plain_http: false,
        };
        let keyring = Keyring::start(options, Arc::new(SystemClock::new()) as Arc<dyn Clock>).unwrap();
        assert_eq!(keyring.with(KeySet::count), expected, "{name}");
    }
}
