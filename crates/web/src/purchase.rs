//! The front half of a purchase, top to bottom: received, gated, decided, chained, answered.
//!
//! Everything before the key look-up judges the request itself: is it readable, does its target exist, is the customer who they say.
//! Every verdict on the sale is the owner's, or the view's in the owner's words; nothing here decides who gets a unit.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use admission::postbox::Awaited;
use admission::{Answer, Command, GrantStatus, PurchaseRequest, Request, Wish};
use chain::PrivatePart;
use domain::{ChainTime, Refusal, Stage, fault, limits};
use engine::Sale;
use gate::{OpenPass, PrivateText};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::value::RawValue;

use crate::app::App;
use crate::asking::{Heard, Stop, judged};
use crate::limits::By;
use crate::origin::Caller;
use crate::pending::Pending;
use crate::problem::Problem;
use crate::reply::Reply;
use crate::service::Front;
use crate::wire::{self, PendingAnswer, PurchaseBody};
use crate::{body, hold_token, identify, limits as rate_limits};

/// In a cluster: so long after a `pending` answer no gate asks for the decision any more.
const UNDECIDED_SECONDS_MAX: u64 = 60;
/// How often whoever waits looks whether anything can be decided.
const LOOK_AT_RUNG_EVERY: Duration = Duration::from_secs(1);
/// The longest `Prefer: wait`.
const WAIT_SECONDS_MAX: u64 = 60;

/// Hold units of an item for the customer.
#[utoipa::path(
    post,
    path = "/v1/sales/{sale}/items/{item}/purchases",
    tag = "customers",
    params(
        ("sale" = String, Path),
        ("item" = String, Path),
        ("Doorbuster-Pass" = String, Header, description = "The pass"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 printable ASCII characters; the same key gives the same purchase for the life of the sale"),
        ("Prefer" = Option<String>, Header, description = "`wait=N` seconds, or `respond-async` (RFC 7240); `hold-token` for a token in the answer"),
    ),
    request_body = PurchaseBody,
    responses(
        (status = 201, description = "Held: yours until the pay-by time", body = wire::PurchaseAnswer),
        (status = 200, description = "This key's purchase as it stands", body = wire::PurchaseAnswer),
        (status = 202, description = "Being decided", body = PendingAnswer),
        (status = "default", description = "Refused; the code says why", body = crate::problem::ProblemBody),
    ),
    security(("token" = []))
)]
pub(crate) async fn purchase(
    front: &Front,
    sale_name: &str,
    item_name: &str,
    head: &Head<'_>,
    body: &[u8],
) -> Result<Reply, Problem> {
    let begun = judged(&front.app, |heard| begin(front, (sale_name, item_name), head, body, heard)).await?;
    finish(front, begun).await
}

/// Sale and item, when the path is `/v1/sales/{sale}/items/{item}/purchases`.
pub(crate) fn target(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/v1/sales/")?.strip_suffix("/purchases")?;
    let (sale, item) = path.split_once("/items/")?;
    (!item.contains('/') && !sale.contains('/')).then_some((sale, item))
}

/// The headers of a purchase, each at most once.
#[derive(Default)]
pub(crate) struct Head<'a> {
    pub(crate) authorization: Option<&'a str>,
    pub(crate) pass: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) prefer: Option<&'a str>,
    /// Where it comes from.
    pub(crate) caller: Caller<'a>,
}

impl<'a> Head<'a> {
    pub(crate) fn of(headers: &'a HeaderMap) -> Self {
        let text = |name| identify::once(headers, name);
        Self {
            authorization: text(header::AUTHORIZATION),
            pass: text(HeaderName::from_static("doorbuster-pass")),
            key: text(HeaderName::from_static("idempotency-key")),
            content_type: text(header::CONTENT_TYPE),
            prefer: text(HeaderName::from_static("prefer")),
            caller: Caller::of(headers),
        }
    }
}

/// A purchase that passed the gate and was put before its owner.
pub(crate) struct Begun {
    sale: Arc<Sale>,
    request: PurchaseRequest,
    awaited: Awaited,
    at_most: Duration,
    wants_token: bool,
}

/// Received and gated: everything up to the owner's inbox. It takes what it needs from `head` and `body`, and waits for nothing: where gates have
/// to be asked about the customer, it is called again with what they said.
pub(crate) fn begin(
    front: &Front,
    (sale_name, item_name): (&str, &str),
    head: &Head<'_>,
    body: &[u8],
    heard: &Heard,
) -> Result<Begun, Stop> {
    let app = &front.app;
    if heard.of(By::Customer).is_none() {
        reach(app, Stage::Received);
    }
    let asked = read(head, body)?;
    let sale = app.engine.sale(sale_name).ok_or(Refusal::NotFound)?;
    let item = sale.definition().item_index(item_name).ok_or(Refusal::NotFound)?;
    let now = app.engine.now();
    let open = identify::pass(&app.engine, &sale, head, now)?;
    let wish = Wish {
        customer: open.pass.customer,
        item,
        quantity: asked.quantity,
        coupon: asked.coupon.as_deref().map_or(0, |code| app.engine.ids.coupon_hash(sale.id, code)),
        pass: open.pass.number,
        pass_expires_at: open.pass.expires_at,
        slot_offset: open.pass.slot_offset,
    };
    let is_idle = || sale.view().is_refused_early(&wish, ChainTime(now));
    rate_limits::of_buyer(app, head, &open.pass, (now, heard), is_idle)?;
    reach(app, Stage::Gated);

    if let Some(early) = sale.view().refuse_early(&wish, ChainTime(now)) {
        return Err(refused(early.refusal, early.position, early.retry_at).into());
    }
    let (request, private) = bind(app, &sale, wish, &asked, &open)?;
    let awaited = front.desk.ask(&sale.owner, Request::Decide(Command::Purchase(request), Some(private)));
    let at_most = asked.prefers.wait.unwrap_or(Duration::from_secs(app.options.purchase_wait_seconds));
    Ok(Begun { sale, request, awaited, at_most, wants_token: asked.prefers.hold_token })
}

/// Decided, chained and answered: waits for the owner, and tells what became of it.
pub(crate) async fn finish(front: &Front, begun: Begun) -> Result<Reply, Problem> {
    let Begun { sale, request, awaited, at_most, wants_token } = begun;
    let asked_at = Instant::now();
    match wait_while_decided(&sale, awaited, at_most).await {
        Ok(answer) => {
            front.turn.decided(asked_at.elapsed());
            answered(front, &sale, answer, wants_token)
        }
        Err(awaited) => pending(front, sale, &request, awaited),
    }
}

fn reach(app: &App, stage: Stage) {
    app.metrics.reached(stage);
    fault::reach(stage);
}

/// What the request asks for, readable and within bounds.
pub(crate) struct Asked<'a> {
    pub(crate) key: &'a str,
    pub(crate) quantity: u32,
    pub(crate) coupon: Option<String>,
    /// A JSON object, as it came.
    pub(crate) attributes: Option<Box<RawValue>>,
    prefers: Preferences,
}

/// What `Prefer` asks for.
#[derive(Default)]
struct Preferences {
    /// `None` for the server's own choice.
    wait: Option<Duration>,
    hold_token: bool,
}

pub(crate) fn read<'a>(head: &Head<'a>, body: &[u8]) -> Result<Asked<'a>, Problem> {
    let key = head.key.unwrap_or_default();
    let printable = key.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX || !printable {
        let detail = "Idempotency-Key: send 1 to 128 printable ASCII characters without spaces";
        return Err(Problem::new(Refusal::Malformed, detail));
    }
    if body.len() > limits::PURCHASE_BODY_BYTES_MAX {
        return Err(Refusal::BodyTooLarge.into());
    }
    let asked: PurchaseBody = body::json(head.content_type, body)?;
    let quantity = u32::try_from(asked.quantity).ok().filter(|quantity| (1..=limits::QUANTITY_MAX).contains(quantity));
    let quantity = quantity.ok_or(Refusal::QuantityInvalid)?;
    let is_kept = |text: &str| text.starts_with('{') && text.len() <= limits::ATTRIBUTES_BYTES_MAX;
    if asked.attributes.as_ref().is_some_and(|attributes| !is_kept(attributes.get())) {
        let detail = format!("attributes: a JSON object of at most {} bytes", limits::ATTRIBUTES_BYTES_MAX);
        return Err(Problem::new(Refusal::Malformed, detail));
    }
    let prefers = head.prefer.map(prefer).unwrap_or_default();
    Ok(Asked { key, quantity, coupon: asked.coupon, attributes: asked.attributes, prefers })
}

fn prefer(value: &str) -> Preferences {
    let mut prefers = Preferences::default();
    for preference in value.split(',').map(str::trim) {
        if preference.eq_ignore_ascii_case("respond-async") {
            prefers.wait = prefers.wait.or(Some(Duration::ZERO));
        } else if preference.eq_ignore_ascii_case("hold-token") {
            prefers.hold_token = true;
        } else if let Some(seconds) = preference.strip_prefix("wait=").and_then(|seconds| seconds.parse::<u64>().ok()) {
            prefers.wait = Some(Duration::from_secs(seconds.min(WAIT_SECONDS_MAX)));
        }
    }
    prefers
}

/// Derives the purchase's id from the key and seals what is private: the key as the customer sent it, and the attributes.
fn bind(
    app: &App,
    sale: &Sale,
    wish: Wish,
    asked: &Asked<'_>,
    open: &OpenPass,
) -> Result<(PurchaseRequest, PrivatePart), Problem> {
    let engine = &app.engine;
    let (purchase, key_hash) = engine.ids.bind_key(sale.id, wish.customer, asked.key.as_bytes());
    let key = open.customer_sale_key(&engine.passes.now()).map_err(|_| Refusal::PassInvalid)?;
    let text = PrivateText { key: asked.key, attributes: asked.attributes.as_deref().map(RawValue::get) };
    let attributes = text.attributes.map(|attributes| key.attributes_hash(attributes));
    let coupon = (wish.coupon != 0).then_some(wish.coupon);
    let body_hash = gate::body_hash(wish.item, wish.quantity, coupon, attributes);
    let (commitment, sealed) = gate::seal_private(&key, purchase, &body_hash, &text.to_bytes());
    Ok((PurchaseRequest { wish, purchase, key_hash, body_hash }, PrivatePart { commitment, sealed }))
}

/// Waits for the answer; gives the waiting back when time is up, or when nothing can be decided and that may last.
async fn wait_while_decided(sale: &Sale, awaited: Awaited, at_most: Duration) -> Result<Answer, Awaited> {
    let mut awaited = awaited;
    let start = Instant::now();
    loop {
        let rest = at_most.saturating_sub(start.elapsed());
        awaited = match wait(awaited, rest.min(LOOK_AT_RUNG_EVERY)).await {
            Err(awaited) if rest > LOOK_AT_RUNG_EVERY && !sale.view().is_suspended() => awaited,
            outcome => return outcome,
        }
    }
}

/// Waits for the answer; gives the waiting back when time is up.
async fn wait(awaited: Awaited, at_most: Duration) -> Result<Answer, Awaited> {
    let mut awaited = awaited;
    let answer = {
        let mut waiting = pin!(&mut awaited);
        let mut time = pin!(tokio::time::sleep(at_most));
        std::future::poll_fn(|context| {
            if let Poll::Ready(answer) = waiting.as_mut().poll(context) {
                return Poll::Ready(Some(answer));
            }
            time.as_mut().poll(context).map(|()| None)
        })
        .await
    };
    answer.ok_or(awaited)
}

fn answered(front: &Front, sale: &Sale, answer: Answer, wants_token: bool) -> Result<Reply, Problem> {
    let app = &front.app;
    app.metrics.reached(Stage::Decided);
    app.metrics.reached(Stage::Chained);
    reach(app, Stage::Answered);
    match answer {
        Answer::Granted(grant, Some(receipt)) if !wants_token => {
            let mut made = front.made.borrow_mut();
            let body = made.answer(&app.engine, sale, &grant, &receipt);
            Ok(Reply { status: StatusCode::CREATED, content_type: "application/json", headers: Vec::new(), body })
        }
        Answer::Granted(grant, receipt) => {
            let (status, receipt) = match receipt {
                Some(at) => (StatusCode::CREATED, Some(wire::receipt(sale, at.position, &at.record_hash, &at.head))),
                None => (StatusCode::OK, read_receipt(sale, grant.record)?),
            };
            let mut body = wire::purchase(&app.engine, sale, &grant, receipt);
            if wants_token && grant.status == GrantStatus::Held {
                body.hold_token = Some(hold_token::sign(&app.engine, sale, &grant, &body.order));
            }
            Ok(Reply::json(status, &body))
        }
        Answer::Refused { refusal, position, retry_at } => Err(refused(refusal, position, retry_at)),
        Answer::Grants(_) | Answer::Sale(_) => Err(Refusal::Internal.into()),
    }
}

/// A winner who asks again gets the receipt again, read from the chain.
fn read_receipt(sale: &Sale, position: u64) -> Result<Option<wire::ReceiptBody>, Problem> {
    let record = sale.chained_record(position).map_err(|error| Problem::internal(&error))?;
    Ok(record.map(|at| wire::receipt(sale, position, &at.record_hash, &at.head)))
}

fn refused(refusal: Refusal, position: u64, retry_at: Option<ChainTime>) -> Problem {
    let position = matches!(refusal, Refusal::SoldOut | Refusal::StockInsufficient).then_some(position);
    Problem { position, retry_at, ..refusal.into() }
}

/// Answers that the decision is not known yet, and keeps listening for it.
fn pending(front: &Front, sale: Arc<Sale>, request: &PurchaseRequest, awaited: Awaited) -> Result<Reply, Problem> {
    let app = Arc::clone(&front.app);
    let key = (sale.ordinal, request.wish.customer, request.purchase);
    if !app.pending.begin(key, app.engine.now()) {
        return Err(Refusal::OutcomeUnknown.into());
    }
    let purchase = app.engine.ids.public_purchase(sale.ordinal, request.purchase);
    let now = app.engine.now();
    let PendingAnswer { location, .. } =
        pending_answer(&app, &sale, request.wish.customer, request.purchase, ticket_time(now));
    tokio::task::spawn_local(async move {
        let refusal = match awaited.await {
            Answer::Refused { refusal, position, retry_at } => Some(refused(refusal, position, retry_at)),
            Answer::Granted(..) | Answer::Grants(_) | Answer::Sale(_) => None,
        };
        app.pending.end(key, refusal, app.engine.now());
    });
    let body = PendingAnswer { status: "pending", purchase, location: location.clone() };
    let mut reply = Reply::json(StatusCode::ACCEPTED, &body);
    let location = HeaderValue::from_str(&location).map_err(|error| Problem::internal(&error))?;
    reply.headers.push((header::LOCATION, location));
    Ok(reply)
}

/// The answer `pending` with its place to ask, which proves, after a restart too, that this customer was told so then.
fn pending_answer(
    app: &App,
    sale: &Sale,
    customer: domain::Pseudonym,
    purchase: domain::PurchaseId,
    at: u32,
) -> PendingAnswer {
    let id = app.engine.ids.public_purchase(sale.ordinal, purchase);
    let ticket = app.engine.ids.pending_ticket(sale.id, customer, purchase, at);
    let ticket = data_encoding::BASE64URL_NOPAD.encode(&ticket);
    PendingAnswer { status: "pending", location: format!("/v1/purchases/{id}?pending={ticket}"), purchase: id }
}

fn ticket_time(now_milliseconds: u64) -> u32 {
    u32::try_from(now_milliseconds / 1_000).unwrap_or(u32::MAX)
}

/// When this customer was told `pending` for this purchase, if the ticket proves it.
fn told_at(
    app: &App,
    sale: &Sale,
    customer: domain::Pseudonym,
    purchase: domain::PurchaseId,
    ticket: Option<&str>,
) -> Option<u32> {
    let ticket = data_encoding::BASE64URL_NOPAD.decode(ticket?.as_bytes()).ok()?;
    let at = u32::from_le_bytes(*ticket.last_chunk()?);
    let own = app.engine.ids.pending_ticket(sale.id, customer, purchase, at);
    aws_lc_rs::constant_time::verify_slices_are_equal(&own, &ticket).ok().map(|()| at)
}

/// How a purchase stands that is not in the chain: `interrupted` if it was pending once and is in neither place. In a cluster another gate may
/// still be asking for it, so it is pending for as long as a gate would.
pub(crate) fn unchained(
    app: &App,
    sale: &Sale,
    customer: domain::Pseudonym,
    purchase: domain::PurchaseId,
    ticket: Option<&str>,
) -> Result<PendingAnswer, Problem> {
    let now = app.engine.now();
    let told_at = told_at(app, sale, customer, purchase, ticket);
    match (app.pending.get((sale.ordinal, customer, purchase), now), told_at) {
        (Some(Pending::Deciding), _) => {
            Ok(pending_answer(app, sale, customer, purchase, told_at.unwrap_or(ticket_time(now))))
        }
        (Some(Pending::Refused(problem)), _) => Err(problem),
        (None, Some(at)) if sale.ladder.is_some() && u64::from(at) + UNDECIDED_SECONDS_MAX > now / 1_000 => {
            Ok(pending_answer(app, sale, customer, purchase, at))
        }
        (None, Some(_)) => Err(Refusal::Interrupted.into()),
        (None, None) => Err(Refusal::NotFound.into()),
    }
}

/// How a purchase stands that may be decided and is not in the chain yet, or of which nobody knows at the moment.
pub(crate) fn undecided(
    app: &App,
    sale: &Sale,
    customer: domain::Pseudonym,
    purchase: domain::PurchaseId,
    ticket: Option<&str>,
) -> Result<PendingAnswer, Problem> {
    match told_at(app, sale, customer, purchase, ticket) {
        Some(at) => Ok(pending_answer(app, sale, customer, purchase, at)),
        None => Err(Refusal::OutcomeUnknown.into()),
    }
}
