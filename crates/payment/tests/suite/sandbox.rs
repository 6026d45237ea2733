//! The sandbox as the engine mounts it: pages, buttons, callbacks over a socket, and restarts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use domain::Clock;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use payment::signature::SIGNATURE_HEADER;
use payment::{
    Expected, FactState, Judged, PayWith, Press, Provider, ProviderError, Sandbox, SandboxError, SandboxOptions, Told,
    Waiting, judge,
};
use tower::ServiceExt as _;

use crate::support::{Inbox, attempt, euros, serve, until};

const RETURN_URL: &str = "https://shop.example/orders/1?a=b&c=d";
const START: u64 = 1_795_371_632_000;

/// Stands still unless it is moved.
struct Hands(AtomicU64);

impl Clock for Hands {
    fn wall_milliseconds(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn monotonic_milliseconds(&self) -> u64 {
        self.wall_milliseconds()
    }
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("doorbuster-sandbox-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("sandbox.jsonl")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn opened(file: &Path, public: SocketAddr, now: u64) -> Result<Arc<Sandbox>, SandboxError> {
    let options = SandboxOptions { file: file.to_owned(), public, callback_path: "/callbacks".to_owned() };
    Sandbox::open(options, Arc::new(Hands(AtomicU64::new(now))))
}

fn anywhere() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 1).into()
}

/// Takes callbacks as an engine does, by the provider's own word.
async fn take(State((sandbox, inbox)): State<(Arc<Sandbox>, Inbox)>, headers: HeaderMap, body: String) -> StatusCode {
    let header = headers.get(SIGNATURE_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match sandbox.receive(header, body.as_bytes(), START / 1_000) {
        Ok(event) => {
            inbox.events.lock().unwrap().push(event);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

struct Engine {
    sandbox: Arc<Sandbox>,
    inbox: Inbox,
    router: Router,
    _folder: Folder,
}

async fn engine(name: &str) -> Engine {
    let folder = Folder::new(name);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sandbox = opened(&folder.file(), listener.local_addr().unwrap(), START).unwrap();
    let inbox = Inbox::default();
    let callbacks = Router::new().route("/callbacks", post(take)).with_state((Arc::clone(&sandbox), inbox.clone()));
    let router = callbacks.merge(sandbox.routes());
    serve(listener, router.clone());
    tokio::spawn(Arc::clone(&sandbox).run());
    Engine { sandbox, inbox, router, _folder: folder }
}

impl Engine {
    fn create(&self, number: u8) -> (String, String) {
        let created = self.sandbox.create(&attempt(number), euros(1_500), RETURN_URL).unwrap();
        let PayWith::Url(url) = created.pay_with else { panic!("the customer pays on a page") };
        let path = url.parse::<http::Uri>().unwrap().path().to_owned();
        (created.reference, path)
    }

    async fn ask(&self, request: Request<String>) -> (StatusCode, HeaderMap, String) {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    /// Presses a button; gives where the browser goes.
    async fn press(&self, path: &str, button: &str) -> String {
        let request = Request::post(format!("{path}/{button}")).body("seconds=0".to_owned()).unwrap();
        let (status, headers, _) = self.ask(request).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{button}");
        headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    async fn told(&self, count: usize) -> Vec<FactState> {
        until("all callbacks", async || (self.inbox.len() >= count).then_some(())).await;
        let events = self.inbox.events.lock().unwrap();
        let state = |told: &Told| if let Told::Payment(fact) = told { Some(fact.state) } else { None };
        events.iter().filter_map(|event| state(&event.told)).collect()
    }
}

#[tokio::test]
async fn each_button_leads_to_its_callback_and_sends_the_browser_on() {
    use FactState::{Open, Succeeded};
    let declined = Open(Waiting::Declined);
    let processing = Open(Waiting::Provider);
    let table = [
        ("pay", true, Succeeded, vec![Succeeded]),
        ("decline", false, declined, vec![declined]),
        ("later", true, Succeeded, vec![processing, Succeeded]),
        ("twice", true, Succeeded, vec![Succeeded, Succeeded]),
        ("never", true, Open(Waiting::Customer), vec![]),
    ];
    for (button, returns, state, told) in table {
        let engine = engine(button).await;
        let (reference, path) = engine.create(0);
        let next = engine.press(&path, button).await;
        assert_eq!(next, if returns { RETURN_URL } else { &path }, "{button}");
        assert_eq!(engine.told(told.len()).await, told, "{button}");
        let fact = engine.sandbox.fetch(&reference).unwrap();
        assert_eq!((fact.state, fact.key.clone()), (state, Some(attempt(0))), "{button}");
        if state == Succeeded {
            let judged = judge(&fact, &Expected { key: &attempt(0), money: euros(1_500), live: false });
            assert_eq!(judged, Judged::Paid, "{button}");
            assert_eq!(engine.press(&path, "decline").await, path, "what is paid stays paid");
        }
        assert_eq!(engine.inbox.len(), told.len(), "{button}");
    }
}

#[tokio::test]
async fn the_page_shows_the_payment_and_is_locked_down() {
    let engine = engine("page").await;
    let (_, path) = engine.create(0);
    let get = |path: &str| Request::get(path.to_owned()).body(String::new()).unwrap();
    let (status, headers, page) = engine.ask(get(&path)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'none'"));
    assert!(page.contains("15.00 EUR") && page.contains(&format!("action=\"{path}/pay\"")), "{page}");
    engine.press(&path, "pay").await;
    assert!(engine.ask(get(&path)).await.2.contains("Paid."));
    assert_eq!(engine.ask(get("/sandbox/payments/sb_0")).await.0, StatusCode::NOT_FOUND);
    let (_, other) = engine.create(1);
    for form in ["", "seconds=", "seconds=-1", "seconds=86401", "seconds=x"] {
        let request = Request::post(format!("{other}/later")).body(form.to_owned()).unwrap();
        assert_eq!(engine.ask(request).await.0, StatusCode::BAD_REQUEST, "{form}");
    }
    let request = Request::post(format!("{other}/steal")).body(String::new()).unwrap();
    assert_eq!(engine.ask(request).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_sandbox_answers_calls_as_a_provider_does() {
    let engine = engine("calls").await;
    let provider = Provider::Sandbox(Arc::clone(&engine.sandbox));
    let created = provider.create(&attempt(0), euros(1_500), RETURN_URL).await.unwrap();
    assert_eq!(provider.create(&attempt(0), euros(1_500), RETURN_URL).await.unwrap(), created);
    let others = [
        provider.create(&attempt(0), euros(1), RETURN_URL).await.err(),
        provider.create(&attempt(1), euros(1), "javascript:alert(1)").await.err(),
        provider.fetch("sb_0").await.err(),
        provider.refund(&created.reference, euros(1), &attempt(0).refund(0)).await.err(),
    ];
    for error in others {
        assert!(matches!(error, Some(ProviderError::Refused { .. })), "{error:?}");
    }
    engine.sandbox.press(&created.reference, Press::Pay).unwrap();
    assert_eq!(provider.cancel(&created.reference).await.unwrap().state, FactState::Succeeded);
    let once = provider.refund(&created.reference, euros(1_000), &attempt(0).refund(0)).await.unwrap();
    assert_eq!(provider.refund(&created.reference, euros(1_000), &attempt(0).refund(0)).await.unwrap(), once);
    assert!(provider.refund(&created.reference, euros(501), &attempt(0).refund(1)).await.is_err());
    assert_eq!(provider.fetch(&created.reference).await.unwrap().refunded, 1_000);
    let ended = provider.create(&attempt(2), euros(1), "/orders/2").await.unwrap().reference;
    assert_eq!(provider.cancel(&ended).await.unwrap().state, FactState::Cancelled);
    let page = engine.sandbox.press(&ended, Press::Pay).unwrap();
    assert_eq!(page, Some(format!("/sandbox/payments/{ended}")), "nothing happens on what was cancelled");
    assert_eq!(provider.fetch(&ended).await.unwrap().state, FactState::Cancelled);
    assert!(!provider.is_live());
}

#[tokio::test]
async fn a_restart_loses_neither_payments_nor_callbacks_nor_what_is_due() {
    let folder = Folder::new("restart");
    let sandbox = opened(&folder.file(), anywhere(), START).unwrap();
    let reference = |number| sandbox.create(&attempt(number), euros(1_500), RETURN_URL).unwrap().reference;
    let (paid, late, open) = (reference(0), reference(1), reference(2));
    sandbox.press(&paid, Press::Pay).unwrap();
    sandbox.press(&late, Press::PayAfter(3_600)).unwrap();
    sandbox.refund(&paid, euros(500), &attempt(0).refund(0)).unwrap();
    let before = [&paid, &late, &open].map(|reference| sandbox.fetch(reference).unwrap());
    drop(sandbox);
    // The process died while it wrote a line.
    let mut text = std::fs::read(folder.file()).unwrap();
    text.extend(b"{\"what\":\"paid\",\"refer");
    std::fs::write(folder.file(), &text).unwrap();

    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sandbox = opened(&folder.file(), listener.local_addr().unwrap(), START + 3_600_000).unwrap();
    assert_eq!([&paid, &late, &open].map(|reference| sandbox.fetch(reference).unwrap()), before);
    assert_eq!(sandbox.create(&attempt(2), euros(1_500), RETURN_URL).unwrap().reference, open);
    let inbox = Inbox::default();
    let take = |State((sandbox, inbox)): State<(Arc<Sandbox>, Inbox)>, headers: HeaderMap, body: String| async move {
        let header = headers[SIGNATURE_HEADER].to_str().unwrap();
        let event = sandbox.receive(header, body.as_bytes(), START / 1_000 + 3_600).unwrap();
        inbox.events.lock().unwrap().push(event);
    };
    serve(listener, Router::new().route("/callbacks", post(take)).with_state((Arc::clone(&sandbox), inbox.clone())));
    tokio::spawn(Arc::clone(&sandbox).run());
    // Paid, processing and given back from before; what came due meanwhile.
    until("all four callbacks", async || (inbox.len() == 4).then_some(())).await;
    assert_eq!(sandbox.fetch(&late).unwrap().state, FactState::Succeeded);
    // What was written after the broken line is whole.
    assert!(opened(&folder.file(), anywhere(), START).unwrap().fetch(&late).unwrap().state == FactState::Succeeded);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_line() {
    let folder = Folder::new("damaged");
    std::fs::write(folder.file(), "{\"what\":\"delivered\",\"delivery\":1}\nnothing\n").unwrap();
    let error = opened(&folder.file(), anywhere(), START).err().unwrap().to_string();
    assert!(error.contains("line 2") && error.contains("sandbox.jsonl"), "{error}");
}

#[test]
fn a_sandbox_is_for_loopback_only() {
    let folder = Folder::new("loopback");
    let error = opened(&folder.file(), "10.0.0.1:80".parse().unwrap(), START).err().unwrap().to_string();
    assert!(error.contains("dangerous_sandbox_provider"), "{error}");
}
