//! One shopper: takes a pass, buys with one idempotency key per visit, and looks again where units may come back. What a single click
//! does until its answer is final stands in `asking`, what becomes of a won order in `paying`.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep_until};

use crate::answer::{self, Advice, Hope, Purchase, PurchaseStatus};
use crate::asking::{Asking, Patience, Verdict};
use crate::bots;
use crate::call::{Call, refusal};
use crate::paying::{self, Won};
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
    /// 0 until there is a pass.
    pub(crate) slot_unix_ms: u64,
    visits: u16,
    /// Their coupon was refused; they do without.
    lost_coupon: bool,
    pub(crate) won: Option<Box<Won>>,
}

/// Runs one errand to its end. Each kind is boxed, so that a waiting task is no larger than its own errand.
pub(crate) async fn run_errand(crowd: &Crowd, due: Due) {
    let Due { at, shopper, errand } = due;
    match errand {
        Errand::WarmUp => crowd.public.warm(crowd.options.connections.min(crowd.options.accounts() as usize)).await,
        Errand::TakePass => Box::pin(arrive(crowd, shopper)).await,
        Errand::Buy => {
            crowd.tally.borrow_mut().arrived += 1;
            match crowd.bots.operator_of(shopper) {
                Some(operator) => Box::pin(bots::run(crowd, shopper, operator.kind)).await,
                None => visit(crowd, shopper, at).await,
            }
        }
        Errand::LookAgain => look_again(crowd, shopper, at).await,
        Errand::Pay | Errand::Leave | Errand::Cancel | Errand::Refund => {
            Box::pin(paying::run_errand(crowd, shopper, errand)).await;
        }
    }
}

/// Takes the first pass and plans the purchase for the arrival time or the slot, whichever is later.
async fn arrive(crowd: &Crowd, shopper: u32) {
    let Some(slot_unix_ms) = take_pass(crowd, shopper).await else {
        crowd.tally.borrow_mut().unanswered += 1;
        return;
    };
    {
        let mut tally = crowd.tally.borrow_mut();
        tally.passes += 1;
        tally.gains.has_pass(shopper);
    }
    let planned = match crowd.bots.operator_of(shopper) {
        Some(operator) => bots::comes_at(crowd, operator.kind),
        None => {
            let persona = persona(&crowd.options, shopper);
            let page_waits = if slot_unix_ms > crowd.opens_unix_ms { Duration::ZERO } else { persona.page_waits };
            let pressed = crowd.arrivals_from + persona.arrival;
            pressed.max(crowd.moment(slot_unix_ms) + page_waits)
        }
    };
    // Whoever is given the pass only after the arrival time comes when they have it; too many of them void the run.
    let at = planned.max(Instant::now());
    crowd.tally.borrow_mut().late_passes += u64::from(at > planned);
    crowd.plan(Due { at, shopper, errand: Errand::Buy });
}

/// Asks for a pass until there is one. Gives the slot in Unix milliseconds; `None` when refused for good or given up.
pub(crate) async fn take_pass(crowd: &Crowd, shopper: u32) -> Option<u64> {
    let mut patience = Patience::new(crowd, Instant::now());
    let path = format!("/v1/sales/{}/passes", crowd.options.sale);
    let call = Call::of_customer(crowd, shopper, path);
    loop {
        let told = match call.once().await {
            Some(reply) if reply.status == 201 => match answer::read_pass(&reply, crowd.opens_unix_ms) {
                Ok(pass) => {
                    let header = HeaderValue::try_from(pass.pass).ok()?;
                    let state = &mut crowd.shoppers.borrow_mut()[shopper as usize];
                    (state.pass, state.slot_unix_ms) = (Some(header), pass.slot_unix_ms);
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

/// One purchase with one key, in the person's own manner, and another without the coupon if that was refused; then what follows.
async fn visit(crowd: &Crowd, shopper: u32, mut scheduled: Instant) {
    let persona = persona(&crowd.options, shopper);
    loop {
        let number = {
            let state = &mut crowd.shoppers.borrow_mut()[shopper as usize];
            state.visits += 1;
            state.visits
        };
        match click(crowd, shopper, number, &persona, scheduled).await {
            Verdict::Won(purchase) => follow_win(crowd, shopper, &persona, purchase),
            Verdict::Refused(Hope::WithoutCoupon) if number < VISITS_MAX => {
                crowd.shoppers.borrow_mut()[shopper as usize].lost_coupon = true;
                scheduled = Instant::now();
                continue;
            }
            Verdict::Refused(Hope::UnitsComeBack) if persona.comes_back && number < VISITS_MAX => {
                plan_look(crowd, shopper);
            }
            Verdict::Refused(_) => {}
            Verdict::Unanswered => crowd.tally.borrow_mut().unanswered += 1,
        }
        return;
    }
}

/// One key, clicked once or twice, until it has its answer.
async fn click(crowd: &Crowd, shopper: u32, number: u16, persona: &Persona, scheduled: Instant) -> Verdict {
    let ask = |losses| Asking::new(crowd, shopper, number, persona, scheduled, losses).until_final();
    match persona.habit {
        Habit::DoubleClick if number == 1 => {
            // Boxed, so that the many with one click do not carry the room for two.
            let (first, second) = tokio::join!(Box::pin(ask(0)), Box::pin(ask(0)));
            first.or(second)
        }
        Habit::LosesReplies(losses) if number == 1 => Box::pin(ask(losses)).await,
        Habit::Plain | Habit::DoubleClick | Habit::LosesReplies(_) => Box::pin(ask(0)).await,
    }
}

pub(crate) fn follow_win(crowd: &Crowd, shopper: u32, persona: &Persona, purchase: Purchase) {
    let errand = match persona.ending {
        Ending::Pays => Errand::Pay,
        Ending::Cancels => Errand::Cancel,
        Ending::Leaves => Errand::Leave,
        Ending::Abandons => return,
    };
    let Some(order) = purchase.order.filter(|_| purchase.status == PurchaseStatus::Held) else { return };
    crowd.plan_ending(shopper, errand, Won { purchase: purchase.purchase, order }, persona.decides_after);
}

fn plan_look(crowd: &Crowd, shopper: u32) {
    let at = Instant::now() + crowd.milliseconds_between(300..=1_500);
    if at < crowd.returns_until {
        crowd.plan(Due { at, shopper, errand: Errand::LookAgain });
    }
}

/// Reads the shared view and buys if units are there; a few try on mere hope, so that `sold_out` is heard late, too.
async fn look_again(crowd: &Crowd, shopper: u32, scheduled: Instant) {
    let persona = persona(&crowd.options, shopper);
    let item = &crowd.options.items[persona.item];
    let available = crowd.view.borrow().available(item).unwrap_or(Available::No);
    match available {
        Available::Yes => {
            let presses = scheduled + persona.reaction;
            sleep_until(presses).await;
            visit(crowd, shopper, presses).await;
        }
        Available::MayReturn if crowd.random.borrow_mut().u8(..HOPEFUL_ONE_IN) == 0 => {
            visit(crowd, shopper, scheduled).await;
        }
        Available::MayReturn => plan_look(crowd, shopper),
        Available::No => {}
    }
}

impl Crowd {
    /// The code that a person sends along, as long as nobody has refused it.
    pub(crate) fn coupon(&self, shopper: u32, persona: &Persona) -> Option<&str> {
        let coupon = persona.coupon.filter(|_| !self.shoppers.borrow()[shopper as usize].lost_coupon)?;
        Some(&self.options.coupons[coupon])
    }
}

/// The access token's subject.
pub(crate) fn customer(shopper: u32) -> String {
    format!("shopper-{shopper}")
}
