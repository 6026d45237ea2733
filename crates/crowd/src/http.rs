//! One request over one fresh connection, JSON in and out: for the command line, the demo and tests.
//!
//! It neither retries nor follows anything, and it keeps no connection. The crowd's own pool lends connections made here.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// Bytes of a reply's body at most.
const REPLY_BYTES_MAX: usize = 16 << 20;

pub(crate) type Sender = http1::SendRequest<Full<Bytes>>;

/// A reply, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The reply's headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header's text, when it is there and readable.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Definite: nothing was sent. A path or header cannot stand in a request.
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    /// Definite: nothing was sent.
    #[error("no connection to {0}: {1}")]
    Connect(SocketAddr, std::io::Error),
    /// Unknown: the connection ended before the reply did.
    #[error("the connection was lost: {0}")]
    Lost(#[from] hyper::Error),
    /// Unknown: no whole reply in time.
    #[error("no reply in time")]
    TimedOut,
    /// Definite: what came could not be written down; nothing was changed by reading it.
    #[error("the reply cannot be written down: {0}")]
    Sink(std::io::Error),
    /// Unknown to this side: the reply's body was too long or broke off.
    #[error("the reply's body cannot be read: {0}")]
    Body(String),
}

impl HttpError {
    /// Whether the request certainly had no effect.
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Request(_) | Self::Connect(..) | Self::Sink(_) => true,
            Self::Lost(_) | Self::TimedOut | Self::Body(_) => false,
        }
    }

    /// The kind, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Request(_) => "request",
            Self::Connect(..) => "connect",
            Self::Lost(_) => "lost",
            Self::TimedOut => "timed_out",
            Self::Sink(_) => "sink",
            Self::Body(_) => "body",
        }
    }
}

/// Sends one request and reads the whole reply, all within `time_max`. A body makes it `application/json`.
pub async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
    time_max: Duration,
) -> Result<Reply, HttpError> {
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, address.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let request = request.body(Full::new(body))?;
    let mut sender = connect(address, time_max).await?;
    exchange(&mut sender, request, time_max).await
}

/// [`request`] for callers outside a runtime. Must not be called from within one.
pub fn request_blocking(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
    time_max: Duration,
) -> Result<Reply, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| HttpError::Connect(address, error))?;
    runtime.block_on(request(address, method, path, headers, body, time_max))
}

/// PUTs a file as it is, from outside a runtime. Must not be called from within one.
pub fn upload_blocking(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    file: Vec<u8>,
    time_max: Duration,
) -> Result<Reply, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| HttpError::Connect(address, error))?;
    runtime.block_on(async {
        let mut request = Request::put(path).header(header::HOST, address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream").body(Full::new(file.into()))?;
        let mut sender = connect(address, time_max).await?;
        exchange(&mut sender, request, time_max).await
    })
}

/// GETs what may be large: the body of a 200 goes to `sink` as it comes, and the reply's own is empty then. The connection, the headers and
/// every part of the body have `time_max` each. Must not be called from within a runtime.
pub fn download_blocking(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    sink: &mut dyn std::io::Write,
    time_max: Duration,
) -> Result<Reply, HttpError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| HttpError::Connect(address, error))?;
    runtime.block_on(async {
        let mut request = Request::get(path).header(header::HOST, address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = connect(address, time_max).await?;
        let asked = sender.send_request(request.body(Full::default())?);
        let reply = tokio::time::timeout(time_max, asked).await.map_err(|_| HttpError::TimedOut)??;
        let (parts, mut body) = reply.into_parts();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        if status != 200 {
            return Ok(Reply { status, headers, body: read_body(body).await? });
        }
        loop {
            match tokio::time::timeout(time_max, body.frame()).await.map_err(|_| HttpError::TimedOut)? {
                None => return Ok(Reply { status, headers, body: Bytes::new() }),
                Some(frame) => {
                    let data = frame?.into_data().unwrap_or_default();
                    sink.write_all(&data).map_err(HttpError::Sink)?;
                }
            }
        }
    })
}

/// Opens a connection; a task of the current runtime drives it until its sender is dropped.
pub(crate) async fn connect(address: SocketAddr, time_max: Duration) -> Result<Sender, HttpError> {
    let stream = tokio::time::timeout(time_max, tokio::net::TcpStream::connect(address))
        .await
        .map_err(|_| HttpError::Connect(address, std::io::ErrorKind::TimedOut.into()))?
        .map_err(|error| HttpError::Connect(address, error))?;
    stream.set_nodelay(true).map_err(|error| HttpError::Connect(address, error))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // How the connection ended reaches whoever waits for a reply on it; nobody else has a use for it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// Sends on an open connection and reads the whole reply.
pub(crate) async fn exchange(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
    time_max: Duration,
) -> Result<Reply, HttpError> {
    let talk = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = read_body(body).await?;
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    tokio::time::timeout(time_max, talk).await.unwrap_or(Err(HttpError::TimedOut))
}

async fn read_body(body: Incoming) -> Result<Bytes, HttpError> {
    match Limited::new(body, REPLY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(HttpError::Body(error.to_string())),
    }
}
