//! Our own accept loop: one runtime per serving thread, each with its own listening socket on the same port.
//!
//! `axum::serve` has neither a time-out for headers nor a ceiling on connections, and accepts on one task only.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use admission::postbox::Desk;
use bytes::Bytes;
use domain::limits;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::address::Peer;
use crate::app::App;
use crate::connections::{Connections, Phase, Watch, WatchedStream};
use crate::express::{self, Buffers, Leaves};
use crate::overload::Turn;
use crate::overload::watch::Watcher;
use crate::router;
use crate::service::{self, Front};

/// How long answers that are under way may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long written answers get to leave before their connections are ended.
const WRITE_GRACE: Duration = Duration::from_millis(50);

/// How a listener treats its connections.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// Serving threads.
    pub threads: usize,
    /// Connections over all threads.
    pub connections_max: usize,
    /// From a request's first byte to the end of its headers.
    pub head: Duration,
    /// From the end of the headers to the end of the body.
    pub body: Duration,
    /// Between two requests.
    pub idle: Duration,
}

/// Why nothing listens.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}: {source}; another process may have the port, or the address is not of this machine"
)]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Which routes a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// For customers.
    Public,
    /// For the operator; every route wants an admin token.
    Admin,
}

/// A listener with its serving threads.
pub struct Listener {
    _claim: Claim,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    /// Of the public one.
    _watcher: Option<Watcher>,
    threads: Vec<JoinHandle<()>>,
}

impl Listener {
    /// Binds and serves. Port 0 takes a free port; see [`Listener::address`].
    pub fn start(app: &Arc<App>, routes: Routes, options: &ListenerOptions) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address: options.address, source };
        let (stop, stopping) = watch::channel(false);
        let mut bound = options.clone();
        let mut threads = Vec::new();
        refuse_if_taken(options.address).map_err(failed)?;
        let (first, claim) = listen_alone(options.address).map_err(failed)?;
        bound.address = first.local_addr().map_err(failed)?;
        let watcher = if routes == Routes::Public { Some(Watcher::start(app).map_err(failed)?) } else { None };
        let others = (1..options.threads).map(|_| listen(bound.address));
        for (number, listener) in std::iter::once(Ok(first)).chain(others).enumerate() {
            let listener = listener.map_err(failed)?;
            let serving = Serving { app: Arc::clone(app), routes, options: bound.clone(), stopping: stopping.clone() };
            let name = format!("{routes:?} {number}").to_lowercase();
            let thread = std::thread::Builder::new().name(name).spawn(move || serving.run(listener)).map_err(failed)?;
            threads.push(thread);
        }
        Ok(Self { _claim: claim, address: bound.address, stop, _watcher: watcher, threads })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets answers under way leave, and ends the threads.
    pub fn stop(self) {
        // Only fails when every thread has ended already.
        let _ = self.stop.send(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a serving thread panicked");
            }
        }
    }
}

/// Held while this process listens at an address. Sockets that share a port (each serving thread has its own) would share it with another
/// process of the same user too, and half of the customers would reach the wrong shop.
type Claim = UnixListener;

/// Claims the address among all processes of this kind; the system takes the claim back when the process ends, however it ends.
fn claim(address: SocketAddr) -> io::Result<Claim> {
    let name = UnixAddress::from_abstract_name(format!("doorbuster listens at {address}"))?;
    UnixListener::bind_addr(&name)
}

/// Listens where no other process of this kind does. Asked for any free port, the system may give one that such a process shares with its own
/// threads; then the next one is taken.
fn listen_alone(address: SocketAddr) -> io::Result<(TcpListener, Claim)> {
    let mut shared = Vec::new();
    loop {
        let listener = listen(address)?;
        match claim(listener.local_addr()?) {
            Ok(claim) => return Ok((listener, claim)),
            Err(error) if address.port() == 0 && error.kind() == io::ErrorKind::AddrInUse && shared.len() < 64 => {
                // Kept for now, so that it is not given again.
                shared.push(listener);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Fails when any process listens there, since a socket that shares nothing can then not be bound.
fn refuse_if_taken(address: SocketAddr) -> io::Result<()> {
    let probe = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // As for the real ones: connections of a server that has just ended are in nobody's way.
    probe.set_reuse_address(true)?;
    probe.bind(&address.into())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Each thread has its own queue of new connections; the system spreads them.
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    Ok(socket.into())
}

struct Serving {
    app: Arc<App>,
    routes: Routes,
    options: ListenerOptions,
    stopping: watch::Receiver<bool>,
}

impl Serving {
    fn run(self, listener: TcpListener) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "a serving thread has no runtime"),
        };
        LocalSet::new().block_on(&runtime, async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => self.accept(listener).await,
                Err(error) => tracing::error!(%error, "a serving thread has no listener"),
            }
        });
    }

    async fn accept(mut self, listener: tokio::net::TcpListener) {
        let per_thread = self.options.connections_max.div_ceil(self.options.threads.max(1));
        let connections = Connections::new(Arc::clone(&self.app), self.options.clone(), per_thread);
        tokio::task::spawn_local(Rc::clone(&connections).sweep());
        let front = self.front();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = self.stopping.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => serve_connection(stream, peer, &connections, &front),
                Err(error) => {
                    // Out of file descriptors, most likely: accepting at once again would only spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        let drained = async {
            // Answers just made are still being written.
            tokio::time::sleep(WRITE_GRACE).await;
            while !connections.is_empty() {
                connections.end_waiting();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        drop(tokio::time::timeout(STOP_GRACE, drained).await);
    }

    fn front(&self) -> Rc<Front> {
        let desk = Desk::new();
        tokio::task::spawn_local(desk.clone().carry());
        let turn = Turn::new(&self.app);
        tokio::task::spawn_local(Rc::clone(&turn).keep());
        let (router, body_bytes_max) = match self.routes {
            Routes::Public => (router::public(&self.app), limits::PUBLIC_BODY_BYTES_MAX),
            Routes::Admin => (router::admin(&self.app), limits::ADMIN_BODY_BYTES_MAX),
        };
        let takes_purchases = self.routes == Routes::Public;
        Rc::new(Front {
            app: Arc::clone(&self.app),
            desk,
            router,
            body_bytes_max,
            takes_purchases,
            turn,
            buffers: Buffers::new(),
            made: RefCell::default(),
        })
    }
}

fn serve_connection(stream: tokio::net::TcpStream, peer: SocketAddr, connections: &Rc<Connections>, front: &Rc<Front>) {
    let Some(admitted) = connections.admit() else { return };
    // Answers are small and whole: waiting to fill a packet would only delay them.
    drop(stream.set_nodelay(true));
    admitted.watch.enter(Phase::Idle);
    let place = Rc::new(admitted);
    let (kept, front) = (Rc::clone(&place), Rc::clone(front));
    let peer = front.app.limits.addresses.peer(peer);
    let task = tokio::task::spawn_local(async move { converse(stream, peer, &front, &kept.watch).await });
    place.ends_with(task.abort_handle());
}

/// A connection's life: purchases go through the express lane; from the first other request on, hyper serves it.
async fn converse(mut stream: tokio::net::TcpStream, peer: Peer, front: &Rc<Front>, watch: &Rc<Watch>) {
    let mut begun = Bytes::new();
    if front.takes_purchases {
        match express::serve(&mut stream, front, watch, &peer).await {
            Leaves::Ended => return,
            Leaves::General(bytes) => begun = bytes,
        }
        watch.enter(Phase::Head);
    }
    let stream = WatchedStream::new(stream, begun, Rc::clone(watch));
    let service = service_fn(|request| {
        let (front, watch) = (Rc::clone(front), Rc::clone(watch));
        async move { Ok::<_, std::convert::Infallible>(service::serve(front, watch, peer, request).await) }
    });
    let mut builder = http1::Builder::new();
    // Who has said all that there is to say (half-closed) still gets the answer, as in the lane.
    builder.max_buf_size(limits::HEADER_BYTES_MAX).half_close(true);
    // A client that goes away is no event.
    drop(builder.serve_connection(stream, service).await);
}
