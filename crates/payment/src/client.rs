//! HTTP/1.1 to one server over a bounded pool of kept connections: TLS, or plain to loopback where that was asked for.
//!
//! It sends a request once, follows nothing, and says of a failure whether the request can have arrived. Repeating is the caller's.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::limits::ANSWER_BYTES_MAX;

const AGENT: HeaderValue = HeaderValue::from_static("doorbuster");

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `https://host` or `https://host:port`, without a path.
    pub base_url: String,
    /// Within this time a call has its answer or has failed; waiting for a free connection counts.
    pub time_max: Duration,
    /// Connections at the same time; further calls wait for one.
    pub connections_max: usize,
    /// Certificates in PEM form that vouch for the server, instead of those that the system trusts.
    pub authority: Option<Vec<u8>>,
    /// Take `http://` with a loopback address too, for a provider that stands in on this machine. It gives the secret key to whoever
    /// listens there.
    pub dangerous_plain_http: bool,
}

/// Why a client cannot be made. Definite; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The address is no `https://host[:port]`.
    #[error("{0:?} is not the address of a provider; give https:// and a host, with a port if need be, without a path")]
    Url(String),
    /// Plain HTTP where it is not allowed.
    #[error("{0:?} is not encrypted; plain http is for a loopback address, with dangerous_plain_http")]
    Plain(String),
    /// No certificate to check the server's against.
    #[error("the provider's certificate could not be checked: {0}")]
    Authority(String),
    /// No connections, or no time.
    #[error("time_max and connections_max have to be more than nothing")]
    Nothing,
    /// The key is no secret key.
    #[error("the provider's key must be a secret key (sk_ or rk_, then test_ or live_); others cannot make payments")]
    Key,
    /// There is nothing to check callbacks with.
    #[error("no secret for callbacks, or an empty one: nothing would be believed, or everything")]
    CallbackSecret,
}

/// Why there is no reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientError {
    /// Definite: no byte of the request arrived.
    NotSent(String),
    /// Unknown: it may have arrived.
    Lost(String),
}

/// A reply, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// A connection's end on our side.
type Sender = SendRequest<Full<Bytes>>;

/// The pool.
pub(crate) struct Client {
    host: String,
    port: u16,
    host_header: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Sender>>,
    permits: Semaphore,
    time_max: Duration,
}

impl Client {
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, OptionsError> {
        if options.time_max.is_zero() || options.connections_max == 0 {
            return Err(OptionsError::Nothing);
        }
        let wrong = || OptionsError::Url(options.base_url.clone());
        let uri: Uri = options.base_url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.path().len() > 1 || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, usual_port) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
                (Some((connector(options.authority.as_deref())?, name)), 443)
            }
            Some("http") if options.dangerous_plain_http && is_loopback(&host) => (None, 80),
            Some("http") => return Err(OptionsError::Plain(options.base_url.clone())),
            _ => return Err(wrong()),
        };
        Ok(Self {
            port: authority.port_u16().unwrap_or(usual_port),
            host_header: HeaderValue::from_str(authority.as_str()).map_err(|_| wrong())?,
            host,
            tls,
            idle: Mutex::default(),
            permits: Semaphore::new(options.connections_max),
            time_max: options.time_max,
        })
    }

    /// Sends the request and reads the whole reply.
    pub(crate) async fn exchange(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, ClientError> {
        request.headers_mut().insert(header::HOST, self.host_header.clone());
        request.headers_mut().insert(header::USER_AGENT, AGENT);
        let left = AtomicBool::new(false);
        let seconds = self.time_max.as_secs_f32();
        match tokio::time::timeout(self.time_max, self.talk(request, &left)).await {
            Ok(outcome) => outcome,
            Err(_) if left.load(Ordering::Relaxed) => Err(ClientError::Lost(format!("no answer within {seconds} s"))),
            Err(_) => Err(ClientError::NotSent(format!("no free connection within {seconds} s"))),
        }
    }

    /// `left` is set as long as the request may have arrived.
    async fn talk(&self, mut request: Request<Full<Bytes>>, left: &AtomicBool) -> Result<Reply, ClientError> {
        let _permit = self.permits.acquire().await.expect("the pool never closes its semaphore");
        loop {
            let kept = self.idle().pop();
            let is_fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await.map_err(|error| ClientError::NotSent(error.to_string()))?,
            };
            if sender.ready().await.is_err() {
                if is_fresh {
                    return Err(ClientError::NotSent("the connection was closed at once".to_owned()));
                }
                continue;
            }
            left.store(true, Ordering::Relaxed);
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let reply = read(response).await?;
                    self.idle().push(sender);
                    return Ok(reply);
                }
                Err(mut error) => match error.take_message() {
                    // The kept connection was closed before the request left; it is still ours.
                    Some(back) if !is_fresh => request = back,
                    Some(_) => return Err(ClientError::NotSent(error.into_error().to_string())),
                    None => return Err(ClientError::Lost(error.into_error().to_string())),
                },
            }
            left.store(false, Ordering::Relaxed);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Sender, ConnectError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(shake(stream).await?),
            Some((connector, name)) => Ok(shake(connector.connect(name.clone(), stream).await?).await?),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no connection: {0}")]
    Stream(#[from] std::io::Error),
    #[error("no connection: {0}")]
    Http(#[from] hyper::Error),
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> hyper::Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // How the connection ended reaches whoever waits for a reply on it; nobody else has a use for it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

async fn read(response: Response<Incoming>) -> Result<Reply, ClientError> {
    let status = response.status().as_u16();
    match Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(Reply { status, body: body.to_bytes() }),
        Err(error) => Err(ClientError::Lost(format!("the answer's body cannot be read: {error}"))),
    }
}

fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn connector(authority: Option<&[u8]>) -> Result<TlsConnector, OptionsError> {
    let wrong = |reason: &dyn std::fmt::Display| OptionsError::Authority(reason.to_string());
    let mut roots = RootCertStore::empty();
    match authority {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
        }
        None => {
            // Systems carry certificates that nothing can read; the others are enough.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(wrong(
            &"there is no authority; install the system's certificates (ca-certificates) or name a file",
        ));
    }
    // Said outright, not taken from what the process has chosen: this crate works where nothing was chosen.
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| wrong(&error))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Client, ClientOptions, OptionsError};

    fn made(base_url: &str, dangerous_plain_http: bool) -> Result<Client, OptionsError> {
        Client::new(&ClientOptions {
            base_url: base_url.to_owned(),
            time_max: Duration::from_secs(1),
            connections_max: 1,
            authority: None,
            dangerous_plain_http,
        })
    }

    #[test]
    fn plain_http_is_for_loopback_and_only_where_it_was_asked_for() {
        for (base_url, dangerous, is_taken) in [
            ("http://127.0.0.1:4000", true, true),
            ("http://127.0.0.1:4000/", true, true),
            ("http://[::1]:4000", true, true),
            ("http://127.0.0.1:4000", false, false),
            ("http://localhost:4000", true, false),
            ("http://10.0.0.1", true, false),
            ("http://api.provider.example", true, false),
            ("http://127.0.0.1.provider.example", true, false),
        ] {
            let made = made(base_url, dangerous);
            let expected = if is_taken { None } else { Some(OptionsError::Plain(base_url.to_owned())) };
            assert_eq!(made.err(), expected, "{base_url}");
        }
    }

    #[test]
    fn an_address_is_a_host_and_no_more() {
        for base_url in ["", "api", "https://", "ftp://a", "https://a/v1", "https://a?b", "https://b@a", "https://a b"]
        {
            assert_eq!(made(base_url, true).err(), Some(OptionsError::Url(base_url.to_owned())), "{base_url}");
        }
    }
}
