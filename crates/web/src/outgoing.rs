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

/// Stands in the extensions of an answer whose body must not be collected.
#[derive(Clone, Copy)]
pub(crate) struct IsPaged;

impl Pages {
    /// An answer that leaves as its pages come.
    pub(crate) fn response(pages: mpsc::Receiver<Page>) -> Response {
        let mut response = Response::new(axum::body::Body::new(Self(pages)));
        response.extensions_mut().insert(IsPaged);
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
    Paged { body: axum::body::Body, _answering: Answering },
}

/// Keeps a connection from being taken for an idle one until the body has left.
pub(crate) struct Answering(Rc<Watch>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}

impl Outgoing {
    pub(crate) fn paged(body: axum::body::Body, watch: &Rc<Watch>) -> Self {
        Self::Paged { body, _answering: Answering(Rc::clone(watch)) }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Paged { body, .. } => Pin::new(body).poll_frame(context),
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
