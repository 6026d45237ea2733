//! Directing a stand-in over HTTP, for crowds and operators in other processes. On a listener of its own, since the other one goes
//! away in an outage.
//!
//! `POST /pay/{reference}` and `/release/{reference}` (a client secret does too), `POST /outage` with `"none"`, `"unavailable"` or
//! `"refused"`, `POST /script` with a list of behaviours, `GET /books`.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::behaviour::Behaviour;
use crate::books::Refusal;
use crate::server::{Director, Outage, reference_of, reply, text};
use crate::shape;

pub(crate) async fn listen(listener: TcpListener, director: &Arc<Director>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let director = Arc::clone(director);
        tokio::spawn(async move {
            let answering = service_fn(move |request| answer(Arc::clone(&director), request));
            // Who hangs up in the middle does not want to know.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answering).await;
        });
    }
}

async fn answer(director: Arc<Director>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Some(body) = text(body).await else { return Ok(reply(413, &json!({}))) };
    let steps: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    let service = &director.service;
    let answer = match (parts.method == Method::POST, steps.as_slice()) {
        (true, ["pay", reference]) => done(service.pay(reference_of(reference))),
        (true, ["release", reference]) => done(service.release(reference_of(reference))),
        (true, ["outage"]) => match serde_json::from_str::<Outage>(&body) {
            Ok(outage) => {
                // It panics nowhere, and a stand-in that ends answers nobody.
                let _ = director.start_outage(outage).await;
                reply(200, &json!({}))
            }
            Err(error) => reply(400, &shape::error("malformed", &error.to_string())),
        },
        (true, ["script"]) => match serde_json::from_str::<Vec<Behaviour>>(&body) {
            Ok(behaviours) => {
                service.script(behaviours);
                reply(200, &json!({}))
            }
            Err(error) => reply(400, &shape::error("malformed", &error.to_string())),
        },
        (false, ["books"]) => reply(200, &json!(service.totals())),
        _ => reply(404, &shape::error("not_found", "There are pay, release, outage, script and books.")),
    };
    Ok(answer)
}

fn done(outcome: Result<(), Refusal>) -> Response<Full<Bytes>> {
    match outcome {
        Ok(()) => reply(200, &json!({})),
        Err(refusal) => {
            let (status, body) = shape::refusal(refusal);
            reply(status, &body)
        }
    }
}
