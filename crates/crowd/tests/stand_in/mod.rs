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
    /// Sells before the slot that it gave.
    Heedless,
    /// Believes every pass, key and body, and sells as many as one likes.
    Credulous,
}

#[derive(Default)]
pub(crate) struct Shop {
    pub(crate) temper: Temper,
    pub(crate) stock: u32,
    pub(crate) opens_at: ChainTime,
    pub(crate) purchase_requests: u32,
    pub(crate) stalled_until: Option<Instant>,
    pub(crate) purchases: HashMap<String, Purchase>,
    pub(crate) bodies: HashMap<String, Value>,
    /// Buttons of the page, and what the shop's provider reported, by name.
    pub(crate) presses: HashMap<String, u64>,
    pub(crate) reports: HashMap<String, u64>,
    /// Whom each customer's requests were said to come from, by the number in the key.
    pub(crate) forwarded_for: HashMap<u32, Vec<String>>,
}

pub(crate) struct Purchase {
    id: String,
    status: &'static str,
    /// How each attempt to pay it stands.
    attempts: Vec<&'static str>,
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
                let slot = if self.temper == Temper::Heedless { 1_000 } else { 0 };
                let pass = pass_of(header("authorization"));
                (201, json!({"pass": pass, "slot": null, "slot_offset_ms": slot, "opens_at": self.opens_at}))
            }
            ["v1", "sales", "drop", "items", "boot", "purchases"] => self.purchase_request(&parts.headers, body),
            ["v1", "orders", order, "cancel"] => {
                self.stock += 1;
                self.end(order, "released")
            }
            ["v1", "orders", order, "payments"] => {
                assert_eq!(body, br#"{"return_url":"/"}"#);
                self.of_order(order).attempts.push("open");
                (201, json!({"pay_url": format!("http://{}/page/{order}", header("host"))}))
            }
            ["v1", "orders", order] => (200, self.of_order(order).shown()),
            ["page", order, button] => {
                *self.presses.entry((*button).to_owned()).or_default() += 1;
                if matches!(*button, "pay" | "twice" | "later") {
                    self.report(order, 0, "paid");
                }
                (303, Value::Null)
            }
            ["admin", "v1", "orders", order, "payments"] => {
                self.of_order(order).attempts.push("open");
                (200, self.of_order(order).shown())
            }
            ["admin", "v1", "orders", order, "payments", attempt, fact] => {
                *self.reports.entry((*fact).to_owned()).or_default() += 1;
                self.report(order, attempt.parse().unwrap(), fact)
            }
            // Whoever has a page has a provider that gives money back by itself.
            ["admin", "v1", "orders", order, "refund"] => {
                let last = self.of_order(order).attempts.len() - 1;
                self.report(order, last, if self.presses.is_empty() { "refund_due" } else { "refunded" })
            }
            ["admin", "v1", "orders", order, "confirm"] => {
                assert_eq!(header("authorization"), "Bearer admin");
                self.end(order, "confirmed")
            }
            _ => refuse(Refusal::NotFound),
        }
    }

    fn purchase_request(&mut self, headers: &http::HeaderMap, body: &[u8]) -> (u16, Value) {
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
        let body: Value = serde_json::from_slice(body).unwrap();
        let key = header("idempotency-key");
        let customer = key.split('-').nth(1).unwrap();
        if let Some(said) = headers.get("x-forwarded-for") {
            let said = said.to_str().unwrap().to_owned();
            self.forwarded_for.entry(customer.parse().unwrap()).or_default().push(said);
        }
        assert!(header("authorization").starts_with("Bearer ey"));
        if self.temper == Temper::Credulous {
            return self.purchase(&format!("{key}-{}", self.purchase_requests));
        }
        if header("doorbuster-pass") != pass_of(header("authorization")) {
            return refuse(Refusal::PassForeign);
        }
        let same = self.bodies.entry(key.to_owned()).or_insert_with(|| body.clone());
        if body["quantity"] != 1 {
            assert!(self.purchases.contains_key(key), "only who has won tries another body");
            return refuse(Refusal::KeyReused);
        }
        assert_eq!(*same, body, "one key, one body");
        let of_customer = format!("k-{customer}-");
        let has = |(of, purchase): (&String, &Purchase)| {
            of.starts_with(&of_customer) && of != key && purchase.status != "released"
        };
        if self.purchases.iter().any(has) {
            return refuse(Refusal::LimitItemReached);
        }
        match body["coupon"].as_str() {
            None | Some("GOOD") => self.purchase(key),
            Some(_) => refuse(Refusal::CouponRefused),
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
        if now < u128::from(self.opens_at.0) && self.temper != Temper::Heedless {
            return refuse(Refusal::NotOpen);
        }
        if self.stock == 0 {
            return refuse(Refusal::SoldOut);
        }
        self.stock -= 1;
        let purchase = Purchase { id: format!("{key}-{}", self.stock), status: "held", attempts: Vec::new() };
        let mut shown = purchase.shown();
        if careless {
            shown.as_object_mut().unwrap().remove("pay_by");
        }
        self.purchases.insert(key.to_owned(), purchase);
        (201, shown)
    }

    fn of_order(&mut self, order: &str) -> &mut Purchase {
        self.purchases.values_mut().find(|purchase| order == format!("or_{}", purchase.id)).unwrap()
    }

    fn report(&mut self, order: &str, attempt: usize, fact: &str) -> (u16, Value) {
        let purchase = self.of_order(order);
        let known = ["ended", "paid", "refund_due", "refunded"].into_iter().find(|known| *known == fact).unwrap();
        purchase.attempts[attempt] = known;
        purchase.status = if known == "paid" { "confirmed" } else { purchase.status };
        (200, purchase.shown())
    }

    fn end(&mut self, order: &str, status: &'static str) -> (u16, Value) {
        let purchase = self.of_order(order);
        assert_eq!(purchase.status, "held");
        purchase.status = status;
        (200, purchase.shown())
    }
}

impl Purchase {
    /// Whether it, or an attempt to pay it, stands like that.
    pub(crate) fn is(&self, status: &str) -> bool {
        self.status == status || self.attempts.contains(&status)
    }

    fn shown(&self) -> Value {
        json!({
            "status": self.status, "purchase": format!("pu_{}", self.id), "order": format!("or_{}", self.id),
            "sale": "drop", "item": "boot", "quantity": 1, "units": [{"number": 0, "generation": 0}],
            "pay_by": "2030-01-01T00:00:00Z",
            "payments": self.attempts.iter().enumerate().map(|(n, status)| json!({"attempt": n, "status": status})).collect::<Vec<_>>(),
            "receipt": {"sale_id": "0".repeat(32), "position": 7, "record_hash": "h".repeat(43)},
        })
    }
}

/// As short as a stand-in's pass may be and yet somebody's.
fn pass_of(authorization: &str) -> String {
    format!("dp_{}", &authorization[authorization.len() - 16..])
}

fn refuse(refusal: Refusal) -> (u16, Value) {
    (refusal.status(), json!({"code": refusal.code(), "position": 9}))
}
