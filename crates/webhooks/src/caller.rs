//! One call: a POST over a connection to a checked address, bounded in time and in what is read of the answer. It follows no redirect,
//! asks no proxy and keeps a few connections of its own endpoint open.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::target::Target;

/// Bytes of an answer's body that are read; what it says does not matter.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The rest of an answer is waited for so long, for the sake of the connection only.
const ANSWER_REST_MAX: Duration = Duration::from_secs(2);

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct CallTimes {
    /// Looking the host up, connecting, and TLS.
    pub connect: Duration,
    /// All of it, up to the answer's status.
    pub whole: Duration,
    /// How long a connection is kept without a call.
    pub idle: Duration,
}

impl Default for CallTimes {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(10), whole: seconds(20), idle: seconds(15) }
    }
}

/// What is sent.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) timestamp: u64,
    pub(crate) signatures: String,
    pub(crate) body: Bytes,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The receiver has it.
    Accepted(u16),
    /// The receiver wants no more calls (410).
    Gone,
    /// Anything else, with the answer's status if there was one: it may have arrived or not.
    Failed(Option<u16>, String),
}

/// Calls one endpoint.
pub(crate) struct Caller {
    target: Target,
    tls: Arc<ClientConfig>,
    times: CallTimes,
    idle: Mutex<Vec<Connection>>,
    /// One look-up at a time: a name server that hangs must not take the threads of the other endpoints.
    looking_up: Arc<tokio::sync::Mutex<()>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
    since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Nothing of a connection outlives its last call: not an endless answer either.
        self.task.abort();
    }
}

impl Caller {
    pub(crate) fn new(target: Target, tls: Arc<ClientConfig>, times: CallTimes) -> Self {
        Self { target, tls, times, idle: Mutex::default(), looking_up: Arc::default() }
    }

    /// Sends the call and judges the answer.
    pub(crate) async fn call(&self, call: &Call) -> Outcome {
        match timeout(self.times.whole, self.exchange(call)).await {
            Ok(Ok(status)) => judge(status),
            Ok(Err(reason)) => Outcome::Failed(None, reason),
            Err(_) => Outcome::Failed(None, format!("no answer within {} s", self.times.whole.as_secs_f32())),
        }
    }

    /// Over an idle connection if there is one. It may have been closed meanwhile; then the next is tried, and at last a new one.
    async fn exchange(&self, call: &Call) -> Result<StatusCode, String> {
        while let Some(mut connection) = self.take_idle() {
            if let Ok(response) = connection.sender.send_request(self.request(call)?).await {
                return Ok(self.answered(connection, response).await);
            }
        }
        let mut connection = timeout(self.times.connect, self.connect())
            .await
            .map_err(|_| format!("no connection within {} s", self.times.connect.as_secs_f32()))??;
        let sent = connection.sender.send_request(self.request(call)?).await;
        let response = sent.map_err(|error| format!("the connection ended without an answer: {error}"))?;
        Ok(self.answered(connection, response).await)
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        let url = self.target.url();
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        Request::post(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("doorbuster/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &call.id)
            .header("webhook-timestamp", call.timestamp)
            .header("webhook-signature", &call.signatures)
            .body(Full::new(call.body.clone()))
            .map_err(|error| format!("the URL cannot be called: {error}"))
    }

    /// Reads the answer to its end, within bounds; a connection whose answer did not end is not used again.
    async fn answered(&self, mut connection: Connection, response: Response<Incoming>) -> StatusCode {
        let status = response.status();
        if timeout(ANSWER_REST_MAX, read_over(response.into_body())).await == Ok(true)
            && timeout(ANSWER_REST_MAX, connection.sender.ready()).await.is_ok_and(|ready| ready.is_ok())
        {
            connection.since = Instant::now();
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        status
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| !connection.sender.is_closed() && connection.since.elapsed() < self.times.idle);
        idle.pop()
    }

    async fn connect(&self) -> Result<Connection, String> {
        let addresses = self.addresses().await?;
        let stream = connect_to_one(&addresses).await?;
        if !self.target.is_tls() {
            return handshake(stream).await;
        }
        let name = match self.target.literal() {
            Some(address) => ServerName::IpAddress(address.into()),
            None => ServerName::try_from(self.target.name().to_owned()).map_err(|error| error.to_string())?,
        };
        let connected = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await;
        handshake(connected.map_err(|error| format!("TLS: {error}"))?).await
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let one_at_a_time = Arc::clone(&self.looking_up).lock_owned().await;
        let target = self.target.clone();
        let looked_up = tokio::task::spawn_blocking(move || {
            let _until_the_system_has_answered = one_at_a_time;
            target.look_up()
        });
        looked_up.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

fn judge(status: StatusCode) -> Outcome {
    let number = status.as_u16();
    match status {
        _ if status.is_success() => Outcome::Accepted(number),
        StatusCode::GONE => Outcome::Gone,
        _ if status.is_redirection() => {
            Outcome::Failed(Some(number), format!("answered {number}; redirects are not followed"))
        }
        _ => Outcome::Failed(Some(number), format!("answered {number}")),
    }
}

/// Whether the body has ended within its bound.
async fn read_over(mut body: Incoming) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > ANSWER_BYTES_MAX {
            return false;
        }
    }
    true
}

async fn connect_to_one(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut reason = String::new();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            Err(error) => reason = format!("{address}: {error}"),
        }
    }
    Err(reason)
}

async fn handshake<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<Connection, String> {
    let mut builder = Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX).max_headers(100);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // How it ends is told to whoever waits for an answer on it.
    let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
    Ok(Connection { sender, task, since: Instant::now() })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use services::receiver::{Answer, Receiver};
    use services::tls::Authority;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::service::client_config;

    fn call() -> Call {
        let body = Bytes::from_static(b"{}");
        Call { id: "evt_1".to_owned(), timestamp: 1, signatures: "v1,x".to_owned(), body }
    }

    fn times(whole: u64) -> CallTimes {
        let milliseconds = Duration::from_millis;
        CallTimes { connect: milliseconds(whole), whole: milliseconds(whole), idle: milliseconds(10_000) }
    }

    fn caller(url: &str, roots: RootCertStore, whole: u64) -> Caller {
        Caller::new(Target::parse(url, true).unwrap(), client_config(roots).unwrap(), times(whole))
    }

    /// A server on that address that shows a certificate for `127.0.0.1` and `localhost`, and answers every call with 204.
    async fn tls_server(authority: &Authority, host: &str) -> u16 {
        let folder = std::env::current_exe().unwrap().with_extension(format!("tls-{host}-{}", std::process::id()));
        let identity = authority.sign(&folder).unwrap();
        let certificate = CertificateDer::from_pem_file(&identity.certificate).unwrap();
        let key = PrivateKeyDer::from_pem_file(&identity.key).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut read = [0; 4_096];
                    while stream.read(&mut read).await.is_ok_and(|count| count > 0) {
                        stream.write_all(b"HTTP/1.1 204 Fine\r\n\r\n").await.unwrap();
                    }
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn over_tls_only_a_certificate_of_the_host_from_a_trusted_authority_is_believed() {
        let [authority, stranger] = [(); 2].map(|()| Authority::new().unwrap());
        let port = tls_server(&authority, "127.0.0.1").await;
        let other_port = tls_server(&authority, "127.0.0.2").await;
        let roots = |authority: &Authority| {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            roots
        };
        let trusting = |url: &str| caller(url, roots(&authority), 20_000);
        let named = trusting(&format!("https://localhost:{port}/"));
        assert_eq!(named.call(&call()).await, Outcome::Accepted(204));
        assert_eq!(named.call(&call()).await, Outcome::Accepted(204), "over the connection that is open already");
        let other_host = trusting(&format!("https://127.0.0.2:{other_port}/")).call(&call()).await;
        assert!(matches!(&other_host, Outcome::Failed(None, reason) if reason.starts_with("TLS: ")), "{other_host:?}");
        let distrusting = caller(&format!("https://localhost:{port}/"), roots(&stranger), 20_000).call(&call()).await;
        assert!(
            matches!(&distrusting, Outcome::Failed(None, reason) if reason.starts_with("TLS: ")),
            "{distrusting:?}"
        );
    }

    #[tokio::test]
    async fn an_idle_connection_that_was_closed_costs_no_failure() {
        let first = Receiver::start(|_| Answer::Status(200)).unwrap();
        let address = first.address();
        let caller = caller(&first.url(), RootCertStore::empty(), 20_000);
        assert_eq!(caller.call(&call()).await, Outcome::Accepted(200));
        drop(first);
        let _second = Receiver::start_at(address, |_| Answer::Status(201)).unwrap();
        assert_eq!(caller.call(&call()).await, Outcome::Accepted(201));
    }

    #[tokio::test]
    async fn who_does_not_answer_in_time_has_failed() {
        let silent = Receiver::start(|_| Answer::Silence).unwrap();
        let outcome = caller(&silent.url(), RootCertStore::empty(), 100).call(&call()).await;
        assert_eq!(outcome, Outcome::Failed(None, "no answer within 0.1 s".to_owned()));
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_connected_to() {
        let receiver = Receiver::start(|_| Answer::Status(200)).unwrap();
        let url = format!("https://localhost:{}/", receiver.address().port());
        let target = Target::parse(&url, false).unwrap();
        let caller = Caller::new(target, client_config(RootCertStore::empty()).unwrap(), times(20_000));
        let outcome = caller.call(&call()).await;
        assert!(matches!(&outcome, Outcome::Failed(None, reason) if reason.contains("not an address of the internet")));
    }
}
