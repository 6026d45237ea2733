//! What each kind of bot does, request by request. A bot keeps to its own pace and never waits for an answer that tells it to come later.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Kind;
use crate::answer::{self, Advice, Answer, Hope, Purchase};
use crate::asking::{Asking, Heard};
use crate::paying::{self, Won};
use crate::person::{follow_win, take_pass};
use crate::run::Crowd;
use crate::schedule::{Persona, persona};

/// Between two clicks of whoever clicks fast.
const CLICK_EVERY: Duration = Duration::from_millis(100);
/// Between two tries in one's slot.
const SHOT_EVERY: Duration = Duration::from_millis(20);
/// How long before its slot a fast clicker begins.
const RUSH: Duration = Duration::from_secs(2);
/// Between two looks for units that come back.
const RETURNS_EVERY: Duration = Duration::from_secs(3);
/// How long before the opening the early bird comes, and how often it tries until then.
const EARLY: Duration = Duration::from_secs(1);
const EARLY_EVERY: Duration = Duration::from_millis(250);
/// How often the replayer sends again what has won.
const REPLAYS: usize = 5;

/// When a bot that has its pass begins.
pub(crate) fn comes_at(crowd: &Crowd, kind: Kind) -> Instant {
    match kind {
        Kind::EarlyBird => crowd.arrivals_from - EARLY,
        _ => crowd.arrivals_from,
    }
}

/// Runs one bot to its end.
pub(crate) async fn run(crowd: &Crowd, account: u32, kind: Kind) {
    let slot = crowd.moment(crowd.shoppers.borrow()[account as usize].slot_unix_ms);
    let persona = persona(&crowd.options, account);
    let mut bot = Bot { crowd, account, slot, persona, visit: 0 };
    match kind {
        Kind::FastClicker | Kind::ManyAddresses | Kind::HeaderForger => bot.click_fast().await,
        Kind::ManyAccounts => bot.wait_for_the_slot().await,
        Kind::EarlyBird => bot.come_early().await,
        Kind::Replayer => bot.replay().await,
        Kind::HoldAndDrop => bot.hold_and_drop().await,
    }
}

struct Bot<'a> {
    crowd: &'a Crowd,
    account: u32,
    slot: Instant,
    persona: Persona,
    /// Keys so far.
    visit: u16,
}

/// What one request comes to for somebody who wants a unit.
enum Outcome {
    Won(Purchase),
    /// All units are taken, for now.
    Taken,
    /// Nothing will come of asking again.
    Over,
    /// The next one may win.
    Next,
}

impl<'a> Bot<'a> {
    async fn click_fast(&mut self) {
        let mut asking = self.next_key();
        let from = (self.slot - RUSH).max(self.crowd.arrivals_from) + self.phase(CLICK_EVERY);
        if let Some(purchase) = self.pursue(&mut asking, from.min(self.slot), CLICK_EVERY).await {
            self.pay(purchase);
        }
    }

    async fn wait_for_the_slot(&mut self) {
        let mut asking = self.next_key();
        if let Some(purchase) = self.pursue(&mut asking, self.slot, SHOT_EVERY).await {
            self.pay(purchase);
        }
    }

    async fn come_early(&mut self) {
        let mut asking = self.next_key();
        // A unit this early would break INV-8; whoever counts answers says so.
        let opening = self.crowd.arrivals_from;
        let mut at = opening - EARLY + self.phase(EARLY_EVERY);
        while at < opening {
            self.shoot(&mut asking, at).await;
            at += EARLY_EVERY;
        }
        self.shoot(&mut asking, opening).await;
        if let Some(purchase) = self.pursue(&mut asking, self.slot, SHOT_EVERY).await {
            self.pay(purchase);
        }
    }

    async fn replay(&mut self) {
        let mut stolen = self.next_key();
        stolen.pass_of = self.account % self.crowd.options.shoppers;
        self.must_not_win(&mut stolen, "a pass of somebody else bought a unit").await;
        let mut asking = self.next_key();
        let Some(purchase) = self.pursue(&mut asking, self.slot, SHOT_EVERY).await else { return };
        for _ in 0..REPLAYS {
            // Another purchase under the same key would be noticed as a person's would: INV-5.
            self.shoot(&mut asking, Instant::now()).await;
        }
        asking.quantity = 2;
        self.must_not_win(&mut asking, "INV-5: a key that is bound bought with another body").await;
        let mut second = self.next_key();
        self.must_not_win(&mut second, "INV-3: a second unit for one customer").await;
        self.pay(purchase);
    }

    async fn hold_and_drop(&mut self) {
        let mut from = self.slot;
        loop {
            let mut asking = self.next_key();
            let Some(purchase) = self.pursue(&mut asking, from, SHOT_EVERY).await else { return };
            let Some(order) = purchase.order else { return };
            sleep(self.crowd.milliseconds_between(500..=2_000)).await;
            let won = Won { purchase: purchase.purchase, order };
            if paying::give_back(self.crowd, self.account, &won).await.is_none() {
                return;
            }
            from = Instant::now();
        }
    }

    /// Sends under one key, every so often and in the first millisecond of the slot, until a unit is won or nobody will get one any more.
    async fn pursue(&mut self, asking: &mut Asking<'_>, from: Instant, mut every: Duration) -> Option<Purchase> {
        let mut at = from;
        while at < self.crowd.returns_until {
            match self.shoot(asking, at).await {
                Outcome::Won(purchase) => return Some(purchase),
                Outcome::Taken => every = RETURNS_EVERY,
                Outcome::Over => return None,
                Outcome::Next => {}
            }
            let next = (at + every).max(Instant::now());
            at = if at < self.slot && self.slot < next { self.slot } else { next };
        }
        None
    }

    /// What different bots do has nothing to do with each other.
    fn phase(&self, every: Duration) -> Duration {
        every.mul_f64(self.crowd.random.borrow_mut().f64())
    }

    /// One request, then.
    async fn shoot(&self, asking: &mut Asking<'_>, at: Instant) -> Outcome {
        sleep_until(at).await;
        match asking.once(at).await {
            Heard::Answer(Answer::Purchase(purchase)) => Outcome::Won(purchase),
            Heard::Answer(Answer::Refused(refused)) => match refused.refusal {
                Some(refusal) if answer::hope(refusal) == Hope::UnitsComeBack => Outcome::Taken,
                Some(refusal) => match answer::advice(refusal).0 {
                    Advice::Repeat => Outcome::Next,
                    Advice::Stop => Outcome::Over,
                    Advice::RenewPass => match Box::pin(take_pass(self.crowd, self.account)).await {
                        Some(_) => Outcome::Next,
                        None => Outcome::Over,
                    },
                },
                None => Outcome::Over,
            },
            Heard::Answer(Answer::Pending { .. }) | Heard::ThrownAway | Heard::Nothing => Outcome::Next,
        }
    }

    async fn must_not_win(&self, asking: &mut Asking<'_>, or: &str) {
        let account = self.account;
        if let Heard::Answer(Answer::Purchase(purchase)) = asking.once(Instant::now()).await {
            let complaint = format!("{or}: bot {account} got {}", purchase.purchase);
            self.crowd.tally.borrow_mut().protocol_error(complaint);
        }
    }

    fn next_key(&mut self) -> Asking<'a> {
        self.visit += 1;
        Asking::new(self.crowd, self.account, self.visit, &self.persona, Instant::now(), 0)
    }

    fn pay(&self, purchase: Purchase) {
        follow_win(self.crowd, self.account, &self.persona, purchase);
    }
}
