//! The server to compare with: the same runtime, accept loop and HTTP library as the engine's, reading the same headers and the same
//! body, and answering the bytes that the engine answered. It decides nothing and keeps nothing.

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context as _;
use bytes::Bytes;
use domain::limits;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use web::wire::PurchaseBody;

use crate::answer;
use crate::process::{pin, tell, wait_for_end};
use crate::server::Listening;

/// What to answer, always.
#[derive(Serialize, Deserialize)]
pub(crate) struct BareJob {
    /// A file with one whole answer of the engine.
    pub(crate) answer: PathBuf,
    pub(crate) core: Option<usize>,
}

struct Fixed {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

impl Fixed {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let answer = answer::parse(bytes).context("the engine's answer is not whole")?;
        let head = std::str::from_utf8(&bytes[..answer.head])?;
        let mut headers = Vec::new();
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            let name: HeaderName = name.parse()?;
            // These two the library writes itself, here as there.
            if name != header::CONTENT_LENGTH && name != header::DATE {
                headers.push((name, value.parse()?));
            }
        }
        let body = Bytes::copy_from_slice(&bytes[answer.head..answer.length]);
        Ok(Self { status: StatusCode::from_u16(answer.status)?, headers, body })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        for name in ["authorization", "doorbuster-pass", "idempotency-key", "content-type"] {
            black_box(read(&parts.headers, name));
        }
        black_box(serde_json::from_slice::<PurchaseBody>(&body).is_ok());
        let mut response = Response::new(Full::new(self.body.clone()));
        *response.status_mut() = self.status;
        for (name, value) in &self.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

fn read<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Serves until the parent has enough.
pub(crate) fn serve(job: &BareJob) -> anyhow::Result<()> {
    pin(job.core)?;
    let fixed = Rc::new(Fixed::read(&std::fs::read(&job.answer)?)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let (ended, mut end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || ended.send(wait_for_end()));
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        tell(&Listening { address: listener.local_addr()? })?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut end => return Ok(()),
            };
            let (stream, _) = accepted?;
            stream.set_nodelay(true)?;
            let fixed = Rc::clone(&fixed);
            let service = service_fn(move |request| {
                let fixed = Rc::clone(&fixed);
                async move { Ok::<_, Infallible>(fixed.answer(request).await) }
            });
            let mut builder = http1::Builder::new();
            builder.max_buf_size(limits::HEADER_BYTES_MAX).half_close(false).pipeline_flush(true);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A client that goes away is no event.
            tokio::task::spawn_local(async move { drop(connection.await) });
        }
    })
}
