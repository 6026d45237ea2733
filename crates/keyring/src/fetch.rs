//! One fetch: a GET over a new connection, bounded in time and size. It follows no redirect, asks no proxy and takes 200 only.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gate::jwks::{JWKS_BYTES_MAX, JwksError, KeySet, ReadKeys};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::{FetchTimes, KeyringOptions};

/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Why keys cannot be fetched with these settings. Definite; nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The address is none.
    #[error("{0:?} is not where keys can be; give https:// with a host and a path, without a user")]
    Url(String),
    /// Plain HTTP where it is not allowed.
    #[error("{0:?} is not encrypted; plain http is for a loopback address, with identity.dangerous_plain_http")]
    Plain(String),
    /// No certificate to check the shop's against.
    #[error("the shop's certificate could not be checked: {0}")]
    Authority(String),
}

/// Why a fetch brought no keys. Whatever it is, the keys that are there stay.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or it ended too early.
    #[error("no answer: {0}")]
    Lost(String),
    /// It took too long.
    #[error("no answer within {0} s")]
    Late(f32),
    /// Anything but 200; a redirect is not followed.
    #[error("the answer is {0}, and only 200 is taken")]
    Status(u16),
    /// What came is no usable set.
    #[error(transparent)]
    Set(#[from] JwksError),
}

/// A place to fetch keys from.
pub(crate) struct Source {
    url: String,
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    times: FetchTimes,
}

impl Source {
    pub(crate) fn new(options: &KeyringOptions) -> Result<Self, SourceError> {
        let wrong = || SourceError::Url(options.url.clone());
        let uri: Uri = options.url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || options.url.contains('#') {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let (tls, usual_port) = match uri.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
                (Some((connector(options.authority.as_deref())?, name)), 443)
            }
            Some("http") if options.dangerous_plain_http && is_loopback => (None, 80),
            Some("http") => return Err(SourceError::Plain(options.url.clone())),
            _ => return Err(wrong()),
        };
        let port = authority.port_u16().unwrap_or(usual_port);
        Ok(Self { url: options.url.clone(), host, port, tls, times: options.times, uri })
    }

    /// Where the keys are, for the log.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Fetches and reads the set.
    pub(crate) async fn fetch(&self) -> Result<ReadKeys, FetchError> {
        let late = |_| FetchError::Late(self.times.whole.as_secs_f32());
        let body = timeout(self.times.whole, self.exchange()).await.map_err(late)??;
        Ok(KeySet::read(&body)?)
    }

    async fn exchange(&self) -> Result<Bytes, FetchError> {
        let late = |_| FetchError::Late(self.times.connect.as_secs_f32());
        let lost = |error: &dyn std::fmt::Display| FetchError::Lost(error.to_string());
        let connected = timeout(self.times.connect, self.connect()).await.map_err(late)?;
        let mut connection = connected.map_err(|error| lost(&error))?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("doorbuster/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| lost(&error))?;
        let response = connection.sender.send_request(request).await.map_err(|error| lost(&error))?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        match Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(JwksError::TooLarge.into()),
            Err(error) => Err(lost(&error)),
        }
    }

    async fn connect(&self) -> Result<Connection, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(shake(stream).await?),
            Some((connector, name)) => Ok(shake(connector.connect(name.clone(), stream).await?).await?),
        }
    }
}

/// Nothing of it outlives its one request: not an endless answer either.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn shake<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> hyper::Result<Connection> {
    let mut builder = Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(100);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // How it ends is told to whoever waits for an answer on it.
    let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Connection { sender, task })
}

fn connector(authority: Option<&[u8]>) -> Result<TlsConnector, SourceError> {
    let wrong = |reason: &dyn std::fmt::Display| SourceError::Authority(reason.to_string());
    let mut roots = RootCertStore::empty();
    match authority {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
            }
        }
        None => {
            // Systems carry certificates that nothing can read; the others are enough.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(wrong(&"there is no authority; install the system's certificates or name a file"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|error| wrong(&error))?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}
