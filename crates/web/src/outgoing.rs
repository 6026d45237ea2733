//! Bodies on their way out: whole, as nearly all are, or page by page as somebody reads them.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::connections::{Phase, Watch};

/// A part of a body, or that there is no more although it has not ended.
pub(crate) type Page = io::Result<Bytes>;

/// A body of pages from another thread; ends when that thread drops its side.
pub(crate) struct Pages(mpsc::Receiver<Page>);

/// Stands in the extensions of an answer whose body must not be collected, and says what its connection waits for meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct IsPaged(Phase);

impl Pages {
    /// An answer that leaves as its pages come.
    pub(crate) fn response(pages: mpsc::Receiver<Page>) -> Response {
        Self::in_phase(pages, Phase::Handling)
    }

    /// An answer that has no end of its own: its connection ends with the server, and when its client reads no more.
    pub(crate) fn stream(pages: mpsc::Receiver<Page>) -> Response {
        Self::in_phase(pages, Phase::Streaming)
    }

    fn in_phase(pages: mpsc::Receiver<Page>, phase: Phase) -> Response {
        let mut response = Response::new(axum::body::Body::new(Self(pages)));
        response.extensions_mut().insert(IsPaged(phase));
        response
    }
}

impl Body for Pages {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|page| page.map(|page| page.map(Frame::data)))
    }
}

/// The body of an answer.
pub(crate) enum Outgoing {
    Whole(Full<Bytes>),
    Paged { body: axum::body::Body, answering: Answering },
}

/// Keeps a connection from being taken for an idle one until the body has left.
pub(crate) struct Answering {
    watch: Rc<Watch>,
    phase: Phase,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.watch.enter(Phase::Idle);
    }
}

impl Outgoing {
    pub(crate) fn paged(body: axum::body::Body, IsPaged(phase): IsPaged, watch: &Rc<Watch>) -> Self {
        watch.enter(phase);
        Self::Paged { body, answering: Answering { watch: Rc::clone(watch), phase } }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Paged { body, answering } => {
                let polled = Pin::new(body).poll_frame(context);
                if polled.is_ready() {
                    // Nothing is taken from here while a client does not read what it was sent.
                    answering.watch.enter(answering.phase);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Paged { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Paged { body, .. } => body.size_hint(),
        }
    }
}
