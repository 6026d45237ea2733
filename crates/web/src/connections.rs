//! The connections of one serving thread: who waits for what since when, and who has to go.
//!
//! One sweep twice a second instead of a timer per request; times are therefore exact to half a second.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use slab::Slab;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::app::App;
use crate::server::ListenerOptions;

const SWEEP: Duration = Duration::from_millis(500);
/// So long a stream whose client reads takes at most from one part to the next: a part that keeps it alive comes twice in this time.
const STREAM_UNREAD_MAX: Duration = Duration::from_secs(30);
const _: () = assert!(crate::stream::KEEP_ALIVE.as_secs() * 2 <= STREAM_UNREAD_MAX.as_secs());
/// How many connections are looked at for an idle one when the ceiling is reached.
const EVICTION_LOOKS: usize = 64;

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The first byte of a request, or the client taking the last answer.
    Idle,
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Body,
    /// The answer.
    Handling,
    /// The next part of an answer that has no end of its own.
    Streaming,
}

/// One connection's state.
pub(crate) struct Watch {
    phase: Cell<Phase>,
    since: Cell<Instant>,
    clock: Rc<Cell<Instant>>,
    abort: RefCell<Option<AbortHandle>>,
}

impl Watch {
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.get());
    }
}

/// All connections of a thread.
pub(crate) struct Connections {
    app: Arc<App>,
    options: ListenerOptions,
    connections_max: usize,
    clock: Rc<Cell<Instant>>,
    watches: RefCell<Slab<Rc<Watch>>>,
    hand: Cell<usize>,
}

impl Connections {
    pub(crate) fn new(app: Arc<App>, options: ListenerOptions, connections_max: usize) -> Rc<Self> {
        Rc::new(Self {
            app,
            options,
            connections_max,
            clock: Rc::new(Cell::new(Instant::now())),
            watches: RefCell::default(),
            hand: Cell::new(0),
        })
    }

    /// A place for a new connection; `None` when the ceiling is reached and no idle connection could make room.
    pub(crate) fn admit(self: &Rc<Self>) -> Option<Admitted> {
        if self.watches.borrow().len() >= self.connections_max && !self.evict_idle() {
            self.app.metrics.connections_refused.inc();
            return None;
        }
        let watch = Rc::new(Watch {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(self.clock.get()),
            clock: Rc::clone(&self.clock),
            abort: RefCell::default(),
        });
        let key = self.watches.borrow_mut().insert(Rc::clone(&watch));
        self.app.metrics.connections.inc();
        Some(Admitted { connections: Rc::clone(self), key, watch })
    }

    /// Ends one connection that has been idle for a second or more; the hand moves on, so that no look is long.
    fn evict_idle(&self) -> bool {
        let watches = self.watches.borrow();
        let slots = watches.capacity().max(1);
        for _ in 0..EVICTION_LOOKS {
            let at = self.hand.get() % slots;
            self.hand.set(at + 1);
            if let Some(watch) = watches.get(at)
                && watch.phase.get() == Phase::Idle
                && self.clock.get().saturating_duration_since(watch.since.get()) >= Duration::from_secs(1)
                && let Some(abort) = watch.abort.borrow_mut().take()
            {
                abort.abort();
                return true;
            }
        }
        false
    }

    /// Ends connections that kept a request unfinished, or stayed idle, for too long. Runs for ever.
    pub(crate) async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let now = Instant::now();
            self.clock.set(now);
            for (_, watch) in self.watches.borrow().iter() {
                let allowed = match watch.phase.get() {
                    Phase::Idle => self.options.idle,
                    Phase::Head => self.options.head,
                    Phase::Body => self.options.body,
                    Phase::Streaming => STREAM_UNREAD_MAX,
                    Phase::Handling => continue,
                };
                if now.saturating_duration_since(watch.since.get()) > allowed
                    && let Some(abort) = watch.abort.borrow_mut().take()
                {
                    self.app.metrics.connections_timed_out.inc();
                    abort.abort();
                }
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.watches.borrow().is_empty()
    }

    /// Ends every connection that is not being answered just now; a stream ends wherever it is.
    pub(crate) fn end_waiting(&self) {
        for (_, watch) in self.watches.borrow().iter() {
            if watch.phase.get() != Phase::Handling
                && let Some(abort) = watch.abort.borrow_mut().take()
            {
                abort.abort();
            }
        }
    }
}

/// A connection's place; leaving it frees the place.
pub(crate) struct Admitted {
    connections: Rc<Connections>,
    key: usize,
    pub(crate) watch: Rc<Watch>,
}

impl Admitted {
    pub(crate) fn ends_with(&self, abort: AbortHandle) {
        *self.watch.abort.borrow_mut() = Some(abort);
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connections.watches.borrow_mut().remove(self.key);
        self.connections.app.metrics.connections.dec();
    }
}

/// A stream that notes when a request's first bytes arrive. It begins with bytes that were read before.
pub(crate) struct WatchedStream {
    begun: Bytes,
    stream: TokioIo<TcpStream>,
    watch: Rc<Watch>,
}

impl WatchedStream {
    pub(crate) fn new(stream: TcpStream, begun: Bytes, watch: Rc<Watch>) -> Self {
        Self { begun, stream: TokioIo::new(stream), watch }
    }
}

impl Read for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        if !self.begun.is_empty() {
            let length = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() && self.watch.phase.get() == Phase::Idle {
            self.watch.enter(Phase::Head);
        }
        polled
    }
}

impl Write for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}
