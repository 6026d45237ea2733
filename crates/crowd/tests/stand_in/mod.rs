//! A stand-in for the engine that keeps the HTTP contract in a few lines of memory, for tests of the client alone.
//! It proves nothing about the engine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use domain::{ChainTime, Refusal};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// What the shop does besides selling.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Temper {
    #[default]
    Calm,
    /// From the first purchase request on, every reply waits until this long after it.
    Stalls(Duration),
    /// The first so many purchase requests are told to come back in a second.
    Overloaded(u32),
    /// Gives a new purchase for every request and leaves out the pay-by time.
    Careless,
}

#[derive(Default)]
pub(crate) struct Shop {
    pub(crate) temper: Temper,
    pub(crate) stock: u32,
    pub(crate) opens_at: ChainTime,
    pub(crate) purchase_requests: u32,
    pub(crate) stalled_until: Option<Instant>,
    pub(crate) purchases: HashMap<String, Purchase>,
}

pub(crate) struct Purchase {
    id: String,
    status: &'static str,
}

pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    pub(crate) shop: Arc<Mutex<Shop>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    pub(crate) fn open(shop: Shop) -> Self {
        let mut stand_in = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            shop: Arc::new(Mutex::new(shop)),
            stop: None,
            thread: None,
        };
        stand_in.start();
        stand_in
    }

    /// Listens again at the same address with the same memory.
    pub(crate) fn start(&mut self) {
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (address, shop) = (self.address, Arc::clone(&self.shop));
        self.stop = Some(stop);
        self.thread = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! { () = serve(listener, shop) => {} _ = stopped => {} }
            });
        }));
        self.address = told.recv().unwrap();
    }

    /// Cuts every connection and stops listening, as a kill would.
    pub(crate) fn kill(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: tokio::net::TcpListener, shop: Arc<Mutex<Shop>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shop = Arc::clone(&shop);
        let service = hyper::service::service_fn(move |request| answer(Arc::clone(&shop), request));
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(stream);
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

async fn answer(shop: Arc<Mutex<Shop>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let stalled_until = {
        let mut shop = shop.lock().unwrap();
        if parts.uri.path().ends_with("/purchases") {
            shop.purchase_requests += 1;
            if let Temper::Stalls(time) = shop.temper {
                shop.stalled_until.get_or_insert(Instant::now() + time);
            }
        }
        shop.stalled_until
    };
    if let Some(until) = stalled_until {
        tokio::time::sleep_until(until.into()).await;
    }
    let (status, value) = shop.lock().unwrap().answer(&parts, &body);
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let mut response = Response::builder().status(status).header("content-type", kind);
    if status == 503 {
        response = response.header("retry-after", "1");
    }
    Ok(response.body(Full::new(value.to_string().into())).unwrap())
}

impl Shop {
    fn answer(&mut self, parts: &http::request::Parts, body: &[u8]) -> (u16, Value) {
        let path: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap());
        match path.as_slice() {
            ["v1", "sales", "drop"] => (200, self.sale()),
            ["v1", "sales", "drop", "passes"] => {
                let pass = format!("dp_{}", header("authorization").len());
                (201, json!({"pass": pass, "slot": null, "slot_offset_ms": 0, "opens_at": self.opens_at}))
            }
            ["v1", "sales", "drop", "items", "boot", "purchases"] => {
                assert_eq!(body, br#"{"quantity":1}"#);
                assert!(
                    header("authorization").starts_with("Bearer ey") && header("doorbuster-pass").starts_with("dp_")
                );
                self.purchase(header("idempotency-key"))
            }
            ["v1", "orders", order, "cancel"] => {
                self.stock += 1;
                self.end(order, "released")
            }
            ["admin", "v1", "orders", order, "confirm"] => {
                assert_eq!(header("authorization"), "Bearer admin");
                self.end(order, "confirmed")
            }
            _ => refuse(Refusal::NotFound),
        }
    }

    fn sale(&self) -> Value {
        let available = if self.stock > 0 { "yes" } else { "may_return" };
        json!({
            "sale": "drop", "phase": "open", "opens_at": self.opens_at, "next_poll_ms": 100,
            "items": [{"item": "boot", "available": available}],
        })
    }

    fn purchase(&mut self, key: &str) -> (u16, Value) {
        if matches!(self.temper, Temper::Overloaded(first) if self.purchase_requests <= first) {
            return refuse(Refusal::Overloaded);
        }
        let careless = self.temper == Temper::Careless;
        if let Some(purchase) = self.purchases.get(key).filter(|_| !careless) {
            return (200, purchase.shown());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        if now < u128::from(self.opens_at.0) {
            return refuse(Refusal::NotOpen);
        }
        if self.stock == 0 {
            return refuse(Refusal::SoldOut);
        }
        self.stock -= 1;
        let purchase = Purchase { id: format!("{key}-{}", self.stock), status: "held" };
        let mut shown = purchase.shown();
        if careless {
            shown.as_object_mut().unwrap().remove("pay_by");
        }
        self.purchases.insert(key.to_owned(), purchase);
        (201, shown)
    }

    fn end(&mut self, order: &str, status: &'static str) -> (u16, Value) {
        let purchase = self.purchases.values_mut().find(|purchase| order == format!("or_{}", purchase.id)).unwrap();
        assert_eq!(purchase.status, "held");
        purchase.status = status;
        (200, purchase.shown())
    }
}

impl Purchase {
    fn shown(&self) -> Value {
        json!({
            "status": self.status, "purchase": format!("pu_{}", self.id), "order": format!("or_{}", self.id),
            "sale": "drop", "item": "boot", "quantity": 1, "units": [{"number": 0, "generation": 0}],
            "pay_by": "2030-01-01T00:00:00Z",
            "receipt": {"sale_id": "0".repeat(32), "position": 7, "record_hash": "h".repeat(43)},
        })
    }
}

fn refuse(refusal: Refusal) -> (u16, Value) {
    (refusal.status(), json!({"code": refusal.code(), "position": 9}))
}
