//! A bounded pool of keep-alive connections to one listener. It lends a connection for one exchange; it never retries.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::http::{self as one_shot, HttpError, Reply, Sender};

/// A connection that takes longer to open than this is given up.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// Connections to one listener, or to several that serve the same. The one used last is lent first, so a calm crowd keeps few of them
/// busy.
pub(crate) struct Pool {
    addresses: Vec<SocketAddr>,
    /// Which address the next connection is opened to.
    turn: Cell<usize>,
    host: HeaderValue,
    idle: RefCell<Vec<Sender>>,
    permits: Semaphore,
}

/// The right to one exchange on one connection.
pub(crate) struct Lease<'a> {
    pool: &'a Pool,
    sender: Sender,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    pub(crate) fn new(addresses: &[SocketAddr], connections_max: usize) -> Self {
        let host = HeaderValue::from_str(&addresses[0].to_string()).expect("an address has no control characters");
        Self {
            addresses: addresses.to_vec(),
            turn: Cell::new(0),
            host,
            idle: RefCell::default(),
            permits: Semaphore::new(connections_max),
        }
    }

    /// The `Host` header of this pool's requests.
    pub(crate) fn host(&self) -> HeaderValue {
        self.host.clone()
    }

    /// Waits for a free place and gives a connection that looked alive a moment ago. Errors are definite: nothing was sent.
    pub(crate) async fn lease(&self) -> Result<Lease<'_>, HttpError> {
        let permit = self.permits.acquire().await.expect("the pool never closes its semaphore");
        loop {
            let idle = self.idle.borrow_mut().pop();
            let Some(mut sender) = idle else { break };
            if !sender.is_closed() && sender.ready().await.is_ok() {
                return Ok(Lease { pool: self, sender, _permit: permit });
            }
        }
        let sender = self.connect().await?;
        Ok(Lease { pool: self, sender, _permit: permit })
    }

    /// A connection to the next address; to another one where nobody listens there.
    async fn connect(&self) -> Result<Sender, HttpError> {
        let mut outcome = Err(HttpError::TimedOut);
        for _ in 0..self.addresses.len() {
            let turn = self.turn.replace(self.turn.get() + 1);
            outcome = one_shot::connect(self.addresses[turn % self.addresses.len()], CONNECT_TIME_MAX).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Opens connections until `count` are idle, so that the opening does not begin with a wave of handshakes.
    pub(crate) async fn warm(&self, count: usize) {
        let count = count.min(self.permits.available_permits());
        while self.idle.borrow().len() < count {
            match self.connect().await {
                Ok(sender) => self.idle.borrow_mut().push(sender),
                Err(_) => return,
            }
        }
    }
}

impl Lease<'_> {
    /// Sends and reads the whole reply; the connection goes back to the pool only after a whole reply.
    pub(crate) async fn exchange(
        mut self,
        request: Request<Full<Bytes>>,
        time_max: Duration,
    ) -> Result<Reply, HttpError> {
        let reply = one_shot::exchange(&mut self.sender, request, time_max).await?;
        self.pool.idle.borrow_mut().push(self.sender);
        Ok(reply)
    }

    /// Sends, waits a moment and hangs up, whether or not a reply has come: a phone in a tunnel.
    pub(crate) async fn send_and_hang_up(mut self, request: Request<Full<Bytes>>, moment: Duration) {
        // The moment is never zero: the connection's task has to run once for the request to leave at all.
        let _ = tokio::time::timeout(moment, self.sender.send_request(request)).await;
    }
}
