//! The provider of the simulation: what it tells of payments, and when. Some of its callbacks come at the very ends of a hold.

use admission::{Command, Core, Grant, GrantStatus, Request};
use domain::{AttemptStatus, PaymentFact, PurchaseNumber, SaleDefinition};

use crate::shoppers::Ticket;
use crate::simulation::World;

/// Milliseconds that may pass between two steps without being an outage.
pub(crate) const STEP_MILLISECONDS_MAX: u64 = 3_000;
/// Grants that are looked at for one callback.
const LOOKED_AT_MAX: usize = 32;

/// The ends of a hold that is being paid, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody may begin to pay.
    PayBy,
    /// Without an open attempt it is released.
    Grace,
    /// With one too.
    Extension,
}

impl End {
    pub(crate) const ALL: [Self; 3] = [Self::PayBy, Self::Grace, Self::Extension];

    /// When it comes, as far as is known: an outage moves it.
    pub(crate) fn of(self, grant: &Grant, definition: &SaleDefinition) -> u64 {
        let grace = grant.pay_by.0 + definition.grace_seconds * 1_000;
        match self {
            Self::PayBy => grant.pay_by.0,
            Self::Grace => grace,
            Self::Extension => grace + definition.hold_extension_seconds * 1_000,
        }
    }
}

impl World {
    /// Now and then the clocks go on to the millisecond before, at or after an end of a hold that is being paid, and its payment is
    /// reported right then. Whether they did.
    pub(crate) fn callback_at_an_end(&mut self) -> bool {
        let Some(owner) = self.owner.as_ref().filter(|_| self.provider.u8(0..3) == 0) else { return false };
        let ((wall, _), time) = (self.clocks, owner.log().time().0);
        let mut reach = Vec::new();
        for grant in owner.core().unsettled_from(PurchaseNumber(0), LOOKED_AT_MAX) {
            let Some(attempt) = open_attempt(&grant).filter(|_| grant.status == GrantStatus::Held) else { continue };
            for place in 0..self.tally.callbacks_at_ends.len() {
                let at = End::ALL[place / 3].of(&grant, &self.plan.definition) + place as u64 % 3 - 1;
                if (time.max(wall)..=wall + STEP_MILLISECONDS_MAX).contains(&at) {
                    reach.push((grant.number, attempt, at, place));
                }
            }
        }
        // Few holds live to see their last end.
        let last = reach.iter().map(|(.., place)| place / 3).max();
        reach.retain(|(.., place)| Some(place / 3) == last);
        let Some((number, attempt, at, place)) = self.provider.choice(reach) else { return false };
        self.pass_time(at - wall);
        self.tally.callbacks_at_ends[place] += 1;
        let fact = if self.provider.bool() { PaymentFact::Paid } else { PaymentFact::Ended };
        self.inbox.push_back(report(number, attempt, fact));
        true
    }

    pub(crate) fn pass_time(&mut self, milliseconds: u64) {
        self.clocks.0 += milliseconds;
        self.clocks.1 += milliseconds;
    }
}

/// The attempt of a grant that is open, if one is.
pub(crate) fn open_attempt(grant: &Grant) -> Option<u8> {
    let open = grant.attempts.iter().position(|status| *status == AttemptStatus::Open)?;
    u8::try_from(open).ok()
}

/// What became of an attempt, told to the owner.
pub(crate) fn report(number: PurchaseNumber, attempt: u8, fact: PaymentFact) -> (Request, Ticket) {
    (Request::Decide(Command::ReportPayment { number, attempt, fact }, None), Ticket::Other)
}

/// How a provider ends what is under way with it: every open payment one way or the other, and every refund.
pub(crate) fn provider_reports(random: &mut fastrand::Rng, core: &Core) -> Vec<(Request, Ticket)> {
    let mut reports = Vec::new();
    let grants = (0..).map_while(|number| core.grant(PurchaseNumber(number)));
    for grant in grants {
        for (attempt, status) in (0..).zip(&grant.attempts) {
            let number = grant.number;
            reports.push(match status {
                AttemptStatus::Open => {
                    let fact = if random.bool() { PaymentFact::Paid } else { PaymentFact::Ended };
                    report(number, attempt, fact)
                }
                AttemptStatus::RefundDue => {
                    (Request::Decide(Command::NoteRefund { number, attempt }, None), Ticket::Other)
                }
                AttemptStatus::Ended | AttemptStatus::Paid | AttemptStatus::Refunded => continue,
            });
        }
    }
    reports
}
