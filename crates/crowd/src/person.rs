//! One shopper: takes a pass, buys with one idempotency key per visit, then pays, cancels, lets the hold expire or looks again.
//! What a single click does until its answer is final stands in `asking`.

use http::{HeaderValue, Request, header};
use http_body_util::Full;
use tokio::time::Instant;

use crate::answer::{self, Advice, Purchase, PurchaseStatus, Refused};
use crate::asking::{Asking, Patience, Verdict};
use crate::client::Pool;
use crate::http::{HttpError, Reply};
use crate::run::Crowd;
use crate::sale::Available;
use crate::schedule::{Due, Ending, Errand, Habit, Persona, persona};

/// Purchases that one person tries for, each with a key of its own.
const VISITS_MAX: u16 = 6;
/// One in so many people who only read "may return" tries nevertheless.
const HOPEFUL_ONE_IN: u8 = 8;

/// What a person carries from one errand to the next.
#[derive(Default)]
pub(crate) struct Shopper {
    pub(crate) pass: Option<HeaderValue>,
    visits: u16,
    won: Option<Box<Won>>,
}

struct Won {
    purchase: String,
    order: String,
}

/// Runs one errand to its end. Each kind is boxed, so that a waiting task is no larger than its own errand.
pub(crate) async fn run_errand(crowd: &Crowd, due: Due) {
    let Due { at, shopper, errand } = due;
    match errand {
        Errand::WarmUp => crowd.public.warm(crowd.options.connections.min(crowd.options.shoppers as usize)).await,
        Errand::TakePass => Box::pin(arrive(crowd, shopper)).await,
        Errand::Buy => {
            crowd.tally.borrow_mut().arrived += 1;
            visit(crowd, shopper, at).await;
        }
        Errand::LookAgain => look_again(crowd, shopper, at).await,
        Errand::Pay | Errand::Cancel => Box::pin(end_order(crowd, shopper, errand)).await,
    }
}

/// Takes the first pass and plans the purchase for the arrival time or the slot, whichever is later.
async fn arrive(crowd: &Crowd, shopper: u32) {
    let Some(slot_unix_ms) = take_pass(crowd, shopper).await else {
        crowd.tally.borrow_mut().unanswered += 1;
        return;
    };
    crowd.tally.borrow_mut().passes += 1;
    let arrival = crowd.arrivals_from + persona(&crowd.options, shopper).arrival;
    let planned = arrival.max(crowd.moment(slot_unix_ms));
    // Whoever is given the pass only after the arrival time comes when they have it; too many of them void the run.
    let at = planned.max(Instant::now());
    crowd.tally.borrow_mut().late_passes += u64::from(at > planned);
    crowd.plan(Due { at, shopper, errand: Errand::Buy });
}

/// Asks for a pass until there is one. Gives the slot in Unix milliseconds; `None` when refused for good or given up.
pub(crate) async fn take_pass(crowd: &Crowd, shopper: u32) -> Option<u64> {
    let mut patience = Patience::new(crowd, Instant::now());
    let path = format!("/v1/sales/{}/passes", crowd.options.sale);
    let authorization = crowd.authorization(&customer(shopper));
    loop {
        let told = match post(crowd, &crowd.public, &path, &authorization).await {
            Some(reply) if reply.status == 201 => match answer::read_pass(&reply, crowd.opens_unix_ms) {
                Ok(pass) => {
                    let header = HeaderValue::try_from(pass.pass).ok()?;
                    crowd.shoppers.borrow_mut()[shopper as usize].pass = Some(header);
                    return Some(pass.slot_unix_ms);
                }
                Err(complaint) => {
                    crowd.tally.borrow_mut().protocol_error(complaint);
                    None
                }
            },
            Some(reply) => refusal(crowd, &reply).inspect(|told| crowd.tally.borrow_mut().pass_refused(&told.code)),
            None => None,
        };
        if told.as_ref().and_then(|told| told.refusal).is_some_and(|r| answer::advice(r).0 != Advice::Repeat) {
            return None;
        }
        patience.wait(told.and_then(|told| told.retry_after)).await?;
    }
}

/// One purchase with one key, in the person's own manner; then what follows from its answer.
async fn visit(crowd: &Crowd, shopper: u32, scheduled: Instant) {
    let persona = persona(&crowd.options, shopper);
    let number = {
        let state = &mut crowd.shoppers.borrow_mut()[shopper as usize];
        state.visits += 1;
        state.visits
    };
    let ask = |losses| Asking::new(crowd, shopper, number, &persona, scheduled, losses).until_final();
    let verdict = match persona.habit {
        Habit::DoubleClick if number == 1 => {
            // Boxed, so that the many with one click do not carry the room for two.
            let (first, second) = tokio::join!(Box::pin(ask(0)), Box::pin(ask(0)));
            first.or(second)
        }
        Habit::LosesReplies(losses) if number == 1 => Box::pin(ask(losses)).await,
        Habit::Plain | Habit::DoubleClick | Habit::LosesReplies(_) => Box::pin(ask(0)).await,
    };
    match verdict {
        Verdict::Won(purchase) => follow_win(crowd, shopper, &persona, purchase),
        Verdict::Refused { may_return: true } if persona.comes_back && number < VISITS_MAX => {
            plan_look(crowd, shopper);
        }
        Verdict::Refused { .. } => {}
        Verdict::Unanswered => crowd.tally.borrow_mut().unanswered += 1,
    }
}

fn follow_win(crowd: &Crowd, shopper: u32, persona: &Persona, purchase: Purchase) {
    let errand = match persona.ending {
        Ending::Pays => Errand::Pay,
        Ending::Cancels => Errand::Cancel,
        Ending::Abandons => return,
    };
    let Some(order) = purchase.order.filter(|_| purchase.status == PurchaseStatus::Held) else { return };
    crowd.shoppers.borrow_mut()[shopper as usize].won = Some(Box::new(Won { purchase: purchase.purchase, order }));
    crowd.plan(Due { at: Instant::now() + persona.decides_after, shopper, errand });
}

fn plan_look(crowd: &Crowd, shopper: u32) {
    let at = Instant::now() + crowd.milliseconds_between(300..=1_500);
    if at < crowd.returns_until {
        crowd.plan(Due { at, shopper, errand: Errand::LookAgain });
    }
}

/// Reads the shared view and buys if units are there; a few try on mere hope, so that `sold_out` is heard late, too.
async fn look_again(crowd: &Crowd, shopper: u32, scheduled: Instant) {
    let item = &crowd.options.items[persona(&crowd.options, shopper).item];
    let available = crowd.view.borrow().available(item).unwrap_or(Available::No);
    match available {
        Available::Yes => visit(crowd, shopper, scheduled).await,
        Available::MayReturn if crowd.random.borrow_mut().u8(..HOPEFUL_ONE_IN) == 0 => {
            visit(crowd, shopper, scheduled).await;
        }
        Available::MayReturn => plan_look(crowd, shopper),
        Available::No => {}
    }
}

/// Pays (as the shop's checkout, through the admin listener) or cancels (as the customer) until that is acknowledged or refused.
async fn end_order(crowd: &Crowd, shopper: u32, errand: Errand) {
    let Some(won) = crowd.shoppers.borrow_mut()[shopper as usize].won.take() else { return };
    let pays = errand == Errand::Pay;
    let (pool, path, authorization) = if pays {
        (&crowd.admin, format!("/admin/v1/orders/{}/confirm", won.order), crowd.admin_authorization.clone())
    } else {
        let authorization = crowd.authorization(&customer(shopper));
        (&crowd.public, format!("/v1/orders/{}/cancel", won.order), authorization)
    };
    let mut patience = Patience::new(crowd, Instant::now());
    loop {
        let told = match post(crowd, pool, &path, &authorization).await {
            Some(reply) if (200..300).contains(&reply.status) => {
                let mut tally = crowd.tally.borrow_mut();
                if pays {
                    tally.paid += 1;
                    crowd.note(|notes| notes.confirmed(&won.purchase));
                } else {
                    tally.cancelled += 1;
                    crowd.note(|notes| notes.cancelled(&won.purchase));
                }
                return;
            }
            Some(reply) => refusal(crowd, &reply),
            None => None,
        };
        if let Some(told) = &told {
            crowd.tally.borrow_mut().ending_refused(&told.code);
            if told.refusal.is_none_or(|refusal| answer::advice(refusal).0 != Advice::Repeat) {
                return;
            }
        }
        if patience.wait(told.and_then(|told| told.retry_after)).await.is_none() {
            return;
        }
    }
}

/// A bodiless POST that may be repeated. `None`: nothing is known of its outcome.
async fn post(crowd: &Crowd, pool: &Pool, path: &str, authorization: &HeaderValue) -> Option<Reply> {
    let reply = async {
        let lease = pool.lease().await?;
        let request = Request::post(path)
            .header(header::HOST, pool.host())
            .header(header::AUTHORIZATION, authorization.clone())
            .body(Full::default())?;
        lease.exchange(request, crowd.options.reply_time_max()).await
    };
    reply.await.inspect_err(|error: &HttpError| crowd.tally.borrow_mut().failed(error.kind())).ok()
}

fn refusal(crowd: &Crowd, reply: &Reply) -> Option<Refused> {
    let mut tally = crowd.tally.borrow_mut();
    match answer::read_refusal(reply) {
        Ok((refused, complaint)) => {
            complaint.into_iter().for_each(|complaint| tally.protocol_error(complaint));
            Some(refused)
        }
        Err(complaint) => {
            tally.protocol_error(complaint);
            None
        }
    }
}

/// The access token's subject.
pub(crate) fn customer(shopper: u32) -> String {
    format!("shopper-{shopper}")
}
