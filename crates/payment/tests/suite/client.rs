//! The HTTP client where it matters: TLS with the right and the wrong authority, answers beyond bounds, and many calls at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use payment::{ProviderError, Stripe};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::{SECRET_KEY, adapter, attempt, euros, options, standin};

/// Speaks TLS and passes everything on to a plain server; gives where, and its certificate.
async fn encrypted(to: SocketAddr) -> (SocketAddr, String) {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(cert.der().to_vec())], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(to).await.unwrap();
                drop(copy_bidirectional(&mut stream, &mut plain).await);
            });
        }
    });
    (address, cert.pem())
}

#[tokio::test]
async fn a_provider_is_believed_by_its_certificate_only() {
    let standin = standin([]);
    let (address, certificate) = encrypted(standin.address()).await;
    let (_, of_another) = encrypted(standin.address()).await;
    let made = |authority: String| {
        let mut options = options(address);
        options.client.base_url = format!("https://{address}");
        options.client.dangerous_plain_http = false;
        options.client.authority = Some(authority.into_bytes());
        Stripe::new(options).unwrap()
    };
    made(certificate).create(&attempt(0), euros(1_500)).await.unwrap();
    let error = made(of_another).create(&attempt(1), euros(1_500)).await.unwrap_err();
    assert!(matches!(&error, ProviderError::NotReached(reason) if reason.contains("certificate")), "{error}");
    assert_eq!(standin.books().payments.len(), 1, "nothing was sent to the stranger");
}

/// Answers every connection with these bytes and closes it.
async fn answering(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4_096]).await;
                // The other side may stop reading; that is what is tested.
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn answers_that_cannot_be_used_are_unknown_or_refused_by_their_status() {
    // Nothing is wrong with it but its length.
    let payment = br#"{"id":"pi_1","amount":1,"currency":"eur","livemode":false,"status":"processing"}"#;
    let long = [payment.to_vec(), vec![b' '; 1 << 20]].concat();
    let head =
        |status: &str, length: usize| format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    let quoting = format!("{{\"error\":{{\"code\":\"bad\",\"message\":\"who is {SECRET_KEY}?\"}}}}").into_bytes();
    let table: [(&str, Vec<u8>, &str); 10] = [
        (
            "the key quoted",
            [head("400 Bad Request", quoting.len()), quoting].concat(),
            "refused (400 none): (left out)",
        ),
        ("too long", [head("200 OK", long.len()), long].concat(), "may or may not"),
        ("cut short", head("200 OK", 10), "may or may not"),
        ("no JSON", [head("200 OK", 2), b"no".to_vec()].concat(), "may or may not"),
        ("no payment", [head("200 OK", 2), b"{}".to_vec()].concat(), "may or may not"),
        ("no HTTP", b"no\r\n\r\n".to_vec(), "may or may not"),
        ("a failure", head("500 Internal Server Error", 0), "may or may not"),
        ("the same call under way", head("409 Conflict", 0), "may or may not"),
        ("too many calls", head("429 Too Many Requests", 0), "nothing was done"),
        ("another place", head("301 Moved Permanently", 0), "refused (301 none)"),
    ];
    for (what, answer, told) in table {
        let adapter = Stripe::new(options(answering(answer).await)).unwrap();
        let error = adapter.fetch("pi_1").await.unwrap_err();
        assert!(error.to_string().contains(told), "{what}: {error}");
    }
}

#[tokio::test]
async fn more_calls_than_connections_wait_for_their_turn() {
    let standin = standin([]);
    let mut narrow = options(standin.address());
    narrow.client.connections_max = 3;
    let adapter = Arc::new(Stripe::new(narrow).unwrap());
    let calls: Vec<_> = (0..60)
        .map(|number| {
            let adapter = Arc::clone(&adapter);
            tokio::spawn(async move { adapter.create(&attempt(number), euros(1_500)).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(standin.books().payments.len(), 60);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_is_replaced() {
    let standin = standin([]);
    let adapter = adapter(&standin);
    let reference = adapter.create(&attempt(0), euros(1_500)).await.unwrap().reference;
    standin.outage(standin::Outage::Refused);
    standin.outage(standin::Outage::None);
    let fetched = crate::support::until("a new connection", async || adapter.fetch(&reference).await.ok()).await;
    assert_eq!(fetched.reference, reference);
}
