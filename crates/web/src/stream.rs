//! Events of one's own purchase, as they happen (server-sent events of the HTML standard): a ticket first, then a stream with it.
//!
//! A stream looks at the place of the sale's chain, and asks whoever decides the sale when it has moved; it reads no chain. It tells
//! nothing that `GET` on the purchase would not tell.

use std::sync::Arc;
use std::time::Duration;

use admission::{Grant, GrantStatus};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use domain::{AttemptStatus, ChainTime, Pseudonym, PurchaseId, Refusal};
use engine::Sale;
use gate::StreamTicket;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::app::App;
use crate::customers::{PurchaseQuery, Standing, own_purchase, standing};
use crate::outgoing::{Page, Pages};
use crate::pending::Pending;
use crate::problem::{Problem, ProblemBody};
use crate::streams::{self, Place};
use crate::wire;

/// Long enough for one request after the other on a bad network.
const TICKET_MILLISECONDS: u64 = 10_000;
/// So long a stream waits for whoever decides before it asks again.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Proxies close what is silent for a minute, some earlier.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(15);
const STREAM_TIME_MAX: Duration = Duration::from_secs(600);
/// Events that wait for a slow client, each about 400 bytes and 30 for every unit.
const EVENTS_AHEAD: usize = 4;
/// When a browser that was cut off tries again: from 2 s on, spread over one.
const RETRY_MILLISECONDS: u64 = 2_000;
const RETRY_SPREAD_MILLISECONDS: u64 = 1_000;

/// The right to open one stream.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamTicketAnswer {
    /// The ticket; it opens one stream.
    ticket: String,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    expires_at: ChainTime,
    /// Where the stream is, ticket included.
    location: String,
}

/// Take a ticket for a stream of events of an own purchase.
#[utoipa::path(
    post, path = "/v1/purchases/{purchase}/stream-tickets", tag = "customers",
    params(
        ("purchase" = String, Path),
        ("pending" = Option<String>, Query, description = "As it stands in the location of a `pending` answer")
    ),
    responses((status = 201, body = StreamTicketAnswer), (status = "default", body = ProblemBody)),
    security(("token" = []))
)]
pub(crate) async fn ticket(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<PurchaseQuery>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<StreamTicketAnswer>), Problem> {
    let (sale, purchase, customer) = own_purchase(&app, &id, &headers).await?;
    let stands = standing(&app, &sale, customer, purchase, query.pending.as_deref()).await?;
    let mut nonce = [0; 8];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|error| Problem::internal(&error))?;
    let expires_at = ChainTime(app.engine.now()).plus(TICKET_MILLISECONDS);
    let ticket = app.engine.ids.seal_stream_ticket(sale.id, purchase, &StreamTicket { customer, expires_at, nonce });
    let mut location = format!("/v1/purchases/{id}/events?ticket={ticket}");
    if let Standing::Pending(answer) = stands
        && let Some((_, proof)) = answer.location.split_once('?')
    {
        location.push('&');
        location.push_str(proof);
    }
    Ok((StatusCode::CREATED, Json(StreamTicketAnswer { ticket, expires_at, location })))
}

#[derive(Deserialize)]
pub(crate) struct EventsQuery {
    ticket: Option<String>,
    pending: Option<String>,
}

/// Events of a purchase: how it stands, and then every change, until nothing more can come.
#[utoipa::path(
    get, path = "/v1/purchases/{purchase}/events", tag = "customers",
    params(
        ("purchase" = String, Path),
        ("ticket" = String, Query, description = "The ticket, instead of a token; good once"),
        ("pending" = Option<String>, Query, description = "As it stands in the ticket's location")
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = String, description = "`purchase`, `pending` or `refused`, each with JSON"),
        (status = "default", body = ProblemBody)
    )
)]
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<Response, Problem> {
    // One refusal for whatever is wrong with a ticket, also where there is no such purchase. It is not one of the token's: those send the
    // customer to the shop to sign in, and all that is needed here is another ticket.
    let (sale, purchase, ticket) =
        opened(&app, &id, query.ticket.as_deref().unwrap_or_default()).ok_or(Refusal::TicketInvalid)?;
    let now = ChainTime(app.engine.now());
    let place = app.streams.enter(sale.ordinal, &ticket, now)?;
    if !streams::spend(&app, sale.ordinal, &ticket, now).await {
        return Err(Refusal::TicketInvalid.into());
    }
    let (events, pages) = mpsc::channel(EVENTS_AHEAD);
    let retry = RETRY_MILLISECONDS + u64::from_le_bytes(ticket.nonce) % RETRY_SPREAD_MILLISECONDS;
    let teller = Teller {
        app,
        sale,
        customer: ticket.customer,
        purchase,
        pending: query.pending,
        _place: place,
        events,
        told: Told::Nothing,
        asked_at: None,
    };
    tokio::spawn(teller.run(retry));
    let mut response = Pages::stream(pages);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // A proxy that collects an answer before it passes it on would collect this one for ten minutes.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn opened(app: &App, id: &str, ticket: &str) -> Option<(Arc<Sale>, PurchaseId, StreamTicket)> {
    let (ordinal, purchase) = app.engine.ids.parse_purchase(id)?;
    let sale = app.engine.sale_by_ordinal(ordinal)?;
    let ticket = app.engine.ids.open_stream_ticket(sale.id, purchase, ticket)?;
    Some((sale, purchase, ticket))
}

/// What a stream has told last.
#[derive(PartialEq, Eq)]
enum Told {
    Nothing,
    Pending,
    Granted(Grant),
}

/// Whether there may be more to tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    More,
    Nothing,
}

/// One stream's own task. It ends when its client has gone, reads no more or knows all, and its place is free then.
struct Teller {
    app: Arc<App>,
    sale: Arc<Sale>,
    customer: Pseudonym,
    purchase: PurchaseId,
    pending: Option<String>,
    _place: Place,
    events: mpsc::Sender<Page>,
    told: Told,
    /// The chain's place when whoever decides was asked last; `None` to ask again.
    asked_at: Option<u64>,
}

impl Teller {
    async fn run(mut self, retry: u64) {
        let end = Instant::now() + STREAM_TIME_MAX;
        let (mut spoke_at, mut is_half_said) = (Instant::now(), false);
        let mut goes_on = self.say(format!("retry: {retry}\n\n"));
        loop {
            match self.look().await {
                Some((event, rest)) => {
                    goes_on = self.say(event) && rest == Rest::More;
                    (spoke_at, is_half_said) = (Instant::now(), false);
                }
                // A comment, in two parts: the system of a client that has gone answers the first one with a reset, and the second one is
                // what notices it.
                None if is_half_said => {
                    goes_on = self.say("\n".to_owned());
                    (spoke_at, is_half_said) = (Instant::now(), false);
                }
                None if spoke_at.elapsed() >= KEEP_ALIVE => {
                    goes_on = self.say(":\n".to_owned());
                    is_half_said = true;
                    // Where a process has lost its copy of the chain, the place that it shows stands still.
                    self.asked_at = None;
                }
                None => {}
            }
            if !goes_on || Instant::now() >= end {
                return;
            }
            tokio::select! {
                () = self.events.closed() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Whether there is room for it: who is so far behind reads nothing.
    fn say(&self, text: String) -> bool {
        self.events.try_send(Ok(text.into())).is_ok()
    }

    /// The event that is due, if one is.
    async fn look(&mut self) -> Option<(String, Rest)> {
        // Before the question: what is asked then is at least as new as this.
        let position = self.sale.view().durable_position();
        if self.asked_at == Some(position) && !self.may_be_refused() {
            return None;
        }
        let stands = standing(&self.app, &self.sale, self.customer, self.purchase, self.pending.as_deref());
        // A gate of a cluster may ask for long, and a stream has to be kept alive meanwhile.
        let stands = tokio::time::timeout(ANSWER_TIME_MAX, stands).await;
        self.asked_at = Some(position);
        match stands.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown.into())) {
            Ok(Standing::Granted(grant)) => {
                let rest = if is_over(&grant) { Rest::Nothing } else { Rest::More };
                let event = event("purchase", position, &wire::purchase(&self.app.engine, &self.sale, &grant, None));
                self.tells(Told::Granted(grant)).then_some((event, rest))
            }
            Ok(Standing::Pending(answer)) => {
                self.tells(Told::Pending).then(|| (event("pending", position, &answer), Rest::More))
            }
            // Nobody can say it just now.
            Err(Problem { refusal: Refusal::Overloaded | Refusal::OutcomeUnknown, .. }) => {
                self.asked_at = None;
                None
            }
            Err(problem) => {
                self.app.metrics.refused(problem.refusal);
                let body = problem.reply(&self.app.request_id(None)).body;
                let text = format!("event: refused\nid: {position}\ndata: {}\n\n", String::from_utf8_lossy(&body));
                Some((text, Rest::Nothing))
            }
        }
    }

    /// A refusal leaves no record, so the chain does not move with it. While it is decided here, this process knows that it is.
    fn may_be_refused(&self) -> bool {
        let key = (self.sale.ordinal, self.customer, self.purchase);
        let decides = || matches!(self.app.pending.get(key, self.app.engine.now()), Some(Pending::Deciding));
        self.told == Told::Pending && !decides()
    }

    fn tells(&mut self, news: Told) -> bool {
        let is_new = self.told != news;
        self.told = news;
        is_new
    }
}

/// Whether the order has ended and no payment is under way, which could still bring it back.
fn is_over(grant: &Grant) -> bool {
    grant.status != GrantStatus::Held && !grant.attempts.contains(&AttemptStatus::Open)
}

/// JSON has no line breaks here, so it is one line of data.
fn event(name: &str, position: u64, body: &impl Serialize) -> String {
    let data = serde_json::to_string(body).expect("answers have no map with odd keys");
    format!("event: {name}\nid: {position}\ndata: {data}\n\n")
}
