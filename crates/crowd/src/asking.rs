//! One click: a purchase request with one idempotency key, repeated until its answer is final or patience ends.
//!
//! It believes only answers. A lost reply means "unknown" and is asked for again with the same key, never with another.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use tokio::time::{Instant, sleep, sleep_until};

use crate::answer::{self, Advice, Answer, Hope, Purchase, Refused};
use crate::network::{FORWARDED_FOR, Path};
use crate::notes::{AnsweredNote, SentNote, unix_milliseconds};
use crate::person::{customer, take_pass};
use crate::report::Tally;
use crate::run::Crowd;
use crate::schedule::Persona;

/// New passes within one visit.
const PASS_RENEWALS_MAX: u8 = 2;
/// The first wait after a failure without advice; it doubles from there.
const BACKOFF_MILLISECONDS: u64 = 25;
/// The longest such wait.
const BACKOFF_MILLISECONDS_MAX: u64 = 2_000;

/// How long and how often somebody repeats.
pub(crate) struct Patience<'a> {
    crowd: &'a Crowd,
    until: Instant,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(crowd: &'a Crowd, from: Instant) -> Self {
        Self { crowd, until: from + crowd.options.give_up(), failures: 0 }
    }

    /// Waits as told, else longer with every time. `None` at once when patience would end before the wait.
    pub(crate) async fn wait(&mut self, told: Option<Duration>) -> Option<Instant> {
        let backoff = (BACKOFF_MILLISECONDS << self.failures.min(16)).min(BACKOFF_MILLISECONDS_MAX);
        self.failures += 1;
        let wait = match told {
            // What one was told is spread a little; being told "now" over and over must not become a hot loop.
            Some(told) => told.max(Duration::from_millis(backoff / 8)) + self.crowd.milliseconds_between(0..=10),
            None => self.crowd.milliseconds_between(backoff / 2..=backoff),
        };
        let at = Instant::now() + wait;
        if at > self.until {
            return None;
        }
        sleep_until(at).await;
        Some(at)
    }
}

/// How a visit ended.
pub(crate) enum Verdict {
    Won(Purchase),
    Refused(Hope),
    Unanswered,
}

impl Verdict {
    /// What two clicks with one key came to: a win counts, and silence leaves the key undecided.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Won(purchase), _) | (_, Self::Won(purchase)) => Self::Won(purchase),
            (Self::Unanswered, _) | (_, Self::Unanswered) => Self::Unanswered,
            (Self::Refused(hope), Self::Refused(_)) => Self::Refused(hope),
        }
    }
}

/// One click that asks with its key until the answer is final.
pub(crate) struct Asking<'a> {
    crowd: &'a Crowd,
    shopper: u32,
    visit: u16,
    customer: String,
    key: String,
    item: &'a str,
    path: String,
    coupon: Option<&'a str>,
    /// Units; a person wants one.
    pub(crate) quantity: u32,
    /// Whose pass is shown: one's own, unless one has another.
    pub(crate) pass_of: u32,
    authorization: HeaderValue,
    network: Path,
    patience: Patience<'a>,
    /// From when the next answer's latency counts.
    scheduled: Instant,
    /// Whether an earlier request may have taken effect without our knowing.
    unknown: bool,
    /// Replies still to be thrown away.
    losses: u8,
    sent: u32,
    renewals: u8,
    on_time_checked: bool,
}

/// What came of one request.
pub(crate) enum Heard {
    Answer(Answer),
    /// Hung up on purpose.
    ThrownAway,
    /// Not sent, or sent and never answered.
    Nothing,
}

impl<'a> Asking<'a> {
    pub(crate) fn new(
        crowd: &'a Crowd,
        shopper: u32,
        visit: u16,
        persona: &Persona,
        scheduled: Instant,
        losses: u8,
    ) -> Self {
        let customer = customer(shopper);
        let item = crowd.options.items[persona.item].as_str();
        Self {
            authorization: crowd.authorization(&customer),
            key: format!("k-{shopper}-{visit}"),
            path: format!("/v1/sales/{}/items/{item}/purchases", crowd.options.sale),
            coupon: crowd.coupon(shopper, persona),
            quantity: 1,
            pass_of: shopper,
            network: persona.network,
            patience: Patience::new(crowd, Instant::now()),
            crowd,
            shopper,
            visit,
            customer,
            item,
            scheduled,
            unknown: false,
            losses,
            sent: 0,
            renewals: 0,
            on_time_checked: false,
        }
    }

    pub(crate) async fn until_final(mut self) -> Verdict {
        loop {
            let (told, otherwise) = match self.attempt().await {
                Heard::Answer(Answer::Purchase(purchase)) => return Verdict::Won(purchase),
                Heard::Answer(Answer::Pending { .. }) => {
                    self.unknown = true;
                    (None, Verdict::Unanswered)
                }
                Heard::Answer(Answer::Refused(refused)) => match self.heed(&refused).await {
                    Ok(verdict) => return verdict,
                    Err(otherwise) => (refused.retry_after, otherwise),
                },
                Heard::ThrownAway => {
                    self.unknown = true;
                    (Some(self.crowd.milliseconds_between(100..=1_000)), Verdict::Unanswered)
                }
                Heard::Nothing => {
                    // An outage is the server's delay, not the person's: latency keeps counting from the old time.
                    if self.patience.wait(None).await.is_none() {
                        return Verdict::Unanswered;
                    }
                    continue;
                }
            };
            match self.patience.wait(told).await {
                Some(at) => self.scheduled = at,
                None => return otherwise,
            }
        }
    }

    /// What a refusal leads to: a final verdict, or (as the error) the verdict in case that patience ends before a repeat.
    async fn heed(&mut self, refused: &Refused) -> Result<Verdict, Verdict> {
        let advice = refused.refusal.map(|refusal| (refusal, answer::advice(refusal)));
        let (hope, advice, tells) = advice.map_or((Hope::Nothing, Advice::Stop, true), |(refusal, (advice, tells))| {
            (answer::hope(refusal), advice, tells)
        });
        self.unknown = self.unknown && !tells || refused.refusal == Some(domain::Refusal::OutcomeUnknown);
        let verdict = if self.unknown { Verdict::Unanswered } else { Verdict::Refused(hope) };
        match advice {
            Advice::Stop => Ok(verdict),
            Advice::Repeat => Err(verdict),
            Advice::RenewPass if self.renewals < PASS_RENEWALS_MAX => {
                self.renewals += 1;
                match take_pass(self.crowd, self.shopper).await {
                    Some(_) => Err(verdict),
                    None => Ok(verdict),
                }
            }
            Advice::RenewPass => Ok(verdict),
        }
    }

    /// One request that was due then, whatever it comes to.
    pub(crate) async fn once(&mut self, scheduled: Instant) -> Heard {
        (self.scheduled, self.on_time_checked) = (scheduled, false);
        self.attempt().await
    }

    /// Sends one request and hears of it, as far away as one is.
    async fn attempt(&mut self) -> Heard {
        if self.network != Path::default() {
            sleep(self.network.there).await;
        }
        let heard = self.exchange().await;
        if self.network != Path::default() {
            sleep(self.network.back).await;
        }
        heard
    }

    /// When it was due at the server.
    fn due(&self) -> Instant {
        self.scheduled + self.network.there
    }

    /// Sends one request. The note stands before the first byte leaves.
    async fn exchange(&mut self) -> Heard {
        let lease = self.crowd.public.lease().await;
        if !self.on_time_checked {
            self.on_time_checked = true;
            self.crowd.tally.borrow_mut().lagged(Instant::now().saturating_duration_since(self.due()));
        }
        let (lease, request) = match lease.and_then(|lease| Ok((lease, self.request()?))) {
            Ok(ready) => ready,
            Err(error) => {
                self.crowd.tally.borrow_mut().failed(error.kind());
                return Heard::Nothing;
            }
        };
        let sent = SentNote {
            sale: &self.crowd.options.sale,
            item: self.item,
            customer: &self.customer,
            key: &self.key,
            quantity: self.quantity,
        };
        let Some(number) = self.crowd.note(|notes| notes.sent(&sent)) else { return Heard::Nothing };
        self.count_sent();
        if self.losses > 0 {
            self.losses -= 1;
            let moment = self.crowd.milliseconds_between(1..=15);
            lease.send_and_hang_up(request, moment).await;
            self.count_lost(number);
            return Heard::ThrownAway;
        }
        let reply = lease.exchange(request, self.crowd.options.reply_time_max()).await;
        let read = match &reply {
            Ok(reply) => answer::read_purchase(reply, &self.crowd.options.sale, self.item),
            Err(error) => {
                self.crowd.tally.borrow_mut().failed(error.kind());
                self.count_lost(number);
                self.unknown = true;
                return Heard::Nothing;
            }
        };
        match read {
            Ok((answer, complaint)) => {
                complaint.into_iter().for_each(|text| self.crowd.tally.borrow_mut().protocol_error(text));
                self.count_answer(number, reply.map_or(0, |reply| reply.status), &answer);
                Heard::Answer(answer)
            }
            Err(complaint) => {
                self.crowd.tally.borrow_mut().protocol_error(complaint);
                self.count_lost(number);
                self.unknown = true;
                Heard::Nothing
            }
        }
    }

    fn request(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let pass = self.crowd.shoppers.borrow()[self.pass_of as usize].pass.clone();
        let mut request = Request::post(self.path.as_str());
        if let Some(forwarded_for) = self.crowd.forwarded_for(self.shopper) {
            request = request.header(FORWARDED_FOR, forwarded_for);
        }
        request
            .header(header::HOST, self.crowd.public.host())
            .header(header::AUTHORIZATION, self.authorization.clone())
            .header("doorbuster-pass", pass.unwrap_or(HeaderValue::from_static("")))
            .header("idempotency-key", self.key.as_str())
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(self.body()))
    }

    /// One key, one body: a repeat says the same as the first.
    fn body(&self) -> Bytes {
        match (self.quantity, self.coupon) {
            (1, None) => Bytes::from_static(br#"{"quantity":1}"#),
            (quantity, None) => Bytes::from(serde_json::json!({ "quantity": quantity }).to_string()),
            (quantity, Some(code)) => {
                Bytes::from(serde_json::json!({ "quantity": quantity, "coupon": code }).to_string())
            }
        }
    }

    fn count_sent(&mut self) {
        let mut tally = self.crowd.tally.borrow_mut();
        tally.attempts += 1;
        tally.in_flight += 1;
        tally.retried += u64::from(self.sent > 0);
        tally.gains.asked(self.shopper);
        self.sent += 1;
    }

    fn count_lost(&self, number: u64) {
        let mut tally = self.crowd.tally.borrow_mut();
        tally.in_flight -= 1;
        tally.lost += 1;
        self.crowd.note(|notes| notes.lost(number));
    }

    fn count_answer(&self, number: u64, status: u16, answer: &Answer) {
        let mut tally = self.crowd.tally.borrow_mut();
        tally.in_flight -= 1;
        tally.answered(self.due(), matches!(answer, Answer::Purchase(_)));
        let note = match answer {
            Answer::Purchase(purchase) => {
                self.check_slot(&mut tally, purchase);
                if tally.won(&purchase.purchase, self.shopper, self.visit) {
                    tally.gains.got(self.shopper, purchase.generations.iter().copied());
                }
                AnsweredNote {
                    status,
                    code: purchase.status.name(),
                    purchase: Some(&purchase.purchase),
                    order: purchase.order.as_deref(),
                    position: purchase.position,
                    record_hash: purchase.record_hash.as_deref(),
                }
            }
            Answer::Pending { purchase } => {
                AnsweredNote { status, code: "pending", purchase: purchase.as_deref(), ..AnsweredNote::default() }
            }
            Answer::Refused(refused) => {
                tally.refused(&refused.code);
                tally.gains.refused(self.shopper, &refused.code);
                AnsweredNote { status, code: &refused.code, position: refused.position, ..AnsweredNote::default() }
            }
        };
        self.crowd.note(|notes| notes.answered(number, &note));
    }

    /// Server and crowd share a clock, so nobody can have heard of a unit before their slot.
    fn check_slot(&self, tally: &mut Tally, purchase: &Purchase) {
        let slot = self.crowd.shoppers.borrow()[self.shopper as usize].slot_unix_ms;
        let early = slot.saturating_sub(unix_milliseconds());
        if early > 0 {
            tally.protocol_error(format!("INV-8: {} was given {early} ms before the slot", purchase.purchase));
        }
    }
}
