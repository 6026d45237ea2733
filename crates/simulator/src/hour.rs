//! An hour of a sale, on the fake clock, in which something of the payments stands still. People buy and go to pay all the while, and
//! processes die. Judged by looking at every hold after every turn, then by the naive model and the auditor.

use admission::{Command, Grant, GrantStatus, Request};
use domain::{PaymentFact, PurchaseNumber, Unit, limits};
use ledger::Service;

use crate::judge;
use crate::plan::Plan;
use crate::provider::{End, open_attempt, report};
use crate::shoppers::Ticket;
use crate::simulation::{self, Failure, SimulationOptions, World};

const HOUR_MILLISECONDS: u64 = 3_600_000;
/// Between two steps at most.
const PAUSE_MILLISECONDS_MAX: u64 = 2_500;
/// The longest that a hold of [`Plan::draw_an_hour`] may take from beginning to end.
const HOLD_MILLISECONDS_MAX: u64 = 90_000;

/// What stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hour {
    /// Nobody asks the provider, cancels there or gives back, and the payment service of the books reads nothing. Callbacks come, the
    /// last of them in the last millisecond in which a hold with an open payment is kept.
    ServiceStopped,
    /// Nothing is heard of any payment.
    ProviderSilent,
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HourTally {
    /// Holds that were paid in time.
    pub paid: u64,
    /// Those of them whose callback came a millisecond before, at and after the pay-by time, the end of the grace, and that of the
    /// extension; after that none is in time.
    pub paid_at_ends: [u64; 9],
    /// Holds that were released.
    pub released: u64,
    /// Those of them with an open payment.
    pub released_with_open_payment: u64,
    /// Turns whose expiries were all that one batch takes.
    pub full_batches: u64,
    /// Ends of the process.
    pub crashes: u64,
}

impl HourTally {
    /// Adds another hour's numbers.
    pub fn add(&mut self, other: &Self) {
        self.paid += other.paid;
        for (count, more) in self.paid_at_ends.iter_mut().zip(other.paid_at_ends) {
            *count += more;
        }
        self.released += other.released;
        self.released_with_open_payment += other.released_with_open_payment;
        self.full_batches += other.full_batches;
        self.crashes += other.crashes;
    }
}

/// A hold that is watched.
struct Watched {
    number: PurchaseNumber,
    units: Vec<Unit>,
    callback: Option<Callback>,
}

/// What a provider will tell of a payment: so many milliseconds from an end of its hold, in time.
struct Callback {
    end: End,
    distance: i64,
    fact: PaymentFact,
    is_sent: bool,
}

impl Callback {
    fn at(&self, grant: &Grant, plan: &Plan) -> u64 {
        self.end.of(grant, &plan.definition).saturating_add_signed(self.distance)
    }
}

struct Living {
    hour: Hour,
    watched: Vec<Watched>,
    /// Numbers below it are or were watched.
    next: u32,
    tally: HourTally,
}

/// Lives one hour and until every hold has had its time.
pub fn live_an_hour(seed: u64, hour: Hour, options: SimulationOptions) -> Result<HourTally, Failure> {
    World::new(seed, options, Plan::draw_an_hour).judged(|world| {
        let mut living = Living { hour, watched: Vec::new(), next: 0, tally: HourTally::default() };
        // Whatever goes wrong here is somebody's death, and no disk's.
        world.calm = true;
        world.books.stopped = (hour == Hour::ServiceStopped).then_some(Service::Payment);
        world.create()?;
        let begins_at = world.clocks.0;
        while world.clocks.0 < begins_at + HOUR_MILLISECONDS {
            living.call_back(world);
            living.people_buy(world)?;
            if world.random.u16(0..700) == 0 {
                world.crash()?;
            }
            living.step(world)?;
        }
        let ends_at = world.clocks.0 + HOLD_MILLISECONDS_MAX;
        while world.clocks.0 < ends_at {
            living.call_back(world);
            living.step(world)?;
        }
        let counts = world.owner.as_ref().ok_or("the owner is not running")?.core().state().counts;
        if counts.iter().any(|item| item.held > 0) {
            return Err(format!("INV-10: units are held after all that time: {counts:?}"));
        }
        living.tally.crashes = world.tally.crashes;
        // The payment service runs again, and finds everything.
        world.books.stopped = None;
        judge::judge(world, simulation::End::Peaceful)?;
        Ok(living.tally)
    })
}

impl Living {
    fn people_buy(&mut self, world: &mut World) -> Result<(), String> {
        let (wall, time) = (world.clocks.0, world.note_time());
        // Seldom so many at once that their holds end in more than one batch.
        let people = match world.random.u32(0..1_000) {
            0 => 900,
            1..200 => 1,
            _ => 0,
        };
        for _ in 0..people {
            let (request, ticket) = world.shoppers.want(&mut world.random, &world.plan, wall, time);
            world.through_gate(request, ticket, time)?;
        }
        Ok(())
    }

    fn step(&mut self, world: &mut World) -> Result<(), String> {
        world.tally.steps += 1;
        world.step()?;
        self.look(world)?;
        self.go_to_pay(world);
        let pause = self.pause(world);
        world.pass_time(pause);
        Ok(())
    }

    /// Sends whatever is due, again if nobody took it.
    fn call_back(&mut self, world: &mut World) {
        let core = world.owner.as_ref().expect("a crash ends with a start").core();
        for watched in &mut self.watched {
            let grant = core.grant(watched.number).expect("it was seen before");
            let (Some(callback), Some(attempt)) = (&mut watched.callback, open_attempt(&grant)) else { continue };
            if callback.at(&grant, &world.plan) <= world.clocks.0 {
                callback.is_sent = true;
                world.inbox.push_back(report(grant.number, attempt, callback.fact));
            }
        }
    }

    /// Most of those who have units and no attempt yet go to pay; what the provider will tell of it is settled then.
    fn go_to_pay(&mut self, world: &mut World) {
        let core = world.owner.as_ref().expect("a crash ends with a start").core();
        for number in (self.next..).map(PurchaseNumber) {
            let Some(grant) = core.grant(number) else { break };
            self.next = number.0 + 1;
            if world.random.u8(0..5) > 0 {
                world.inbox.push_back(begin(number));
            }
            let callback = (self.hour == Hour::ServiceStopped).then(|| callback(&mut world.random, &world.plan));
            let units = grant.units.iter().copied().collect();
            self.watched.push(Watched { number, units, callback });
        }
    }

    /// How every hold stands after a turn.
    fn look(&mut self, world: &World) -> Result<(), String> {
        let core = world.owner.as_ref().expect("a crash ends with a start").core();
        let now = world.clocks.0;
        let (mut overdue, before) = (None, self.tally.released);
        let mut outcome = Ok(());
        self.watched.retain(|watched| {
            let grant = core.grant(watched.number).expect("it was seen before");
            let told = watched.callback.as_ref().filter(|callback| callback.is_sent);
            let is_paid = told.is_some_and(|callback| callback.fact == PaymentFact::Paid);
            let is_open = open_attempt(&grant).is_some();
            // A callback of this payment would have been in time.
            let is_early = is_open && self.hour == Hour::ServiceStopped;
            match grant.status {
                GrantStatus::Held => {
                    let end = if is_open { End::Extension } else { End::Grace };
                    if now >= end.of(&grant, &world.plan.definition) {
                        overdue = Some(grant);
                    }
                    return true;
                }
                GrantStatus::Confirmed if is_paid && grant.units.iter().eq(&watched.units) => {
                    self.tally.paid += 1;
                    if let Some(callback) = told.filter(|callback| callback.distance.abs() <= 1) {
                        let place = (callback.end as i64 * 3 + callback.distance + 1) as usize;
                        self.tally.paid_at_ends[place] += 1;
                    }
                }
                GrantStatus::Released(_) if !is_paid && !is_early => {
                    self.tally.released += 1;
                    self.tally.released_with_open_payment += u64::from(is_open);
                }
                _ if outcome.is_ok() => {
                    outcome =
                        Err(format!("INV-6: paid in time ({is_paid}) or about to be, and it has become {grant:?}"));
                }
                _ => {}
            }
            false
        });
        outcome?;
        let is_full = self.tally.released - before >= limits::BATCH_EXPIRIES_MAX as u64;
        self.tally.full_batches += u64::from(is_full);
        match overdue {
            Some(grant) if !is_full => Err(format!("INV-10: {grant:?} is held at {now}")),
            _ => Ok(()),
        }
    }

    /// Until the next step: often to the very millisecond of a callback.
    fn pause(&self, world: &mut World) -> u64 {
        let core = world.owner.as_ref().expect("a crash ends with a start").core();
        let reach = world.clocks.0 + 1..=world.clocks.0 + PAUSE_MILLISECONDS_MAX;
        let due = self.watched.iter().filter_map(|watched| {
            let at = watched.callback.as_ref()?.at(&core.grant(watched.number)?, &world.plan);
            reach.contains(&at).then_some(at)
        });
        let due = due.min().filter(|_| world.random.u8(0..8) > 0);
        due.map_or_else(|| world.random.u64(1..PAUSE_MILLISECONDS_MAX), |at| at - world.clocks.0)
    }
}

/// The customer goes to pay.
fn begin(number: PurchaseNumber) -> (Request, Ticket) {
    (Request::Decide(Command::BeginPayment { number, customer: None }, None), Ticket::Other)
}

/// Around one of a hold's ends or before its pay-by time, and never later than a hold with an open payment is kept.
fn callback(random: &mut fastrand::Rng, plan: &Plan) -> Callback {
    let (end, distance) = match random.u8(0..8) {
        0..=5 => (End::ALL[random.usize(0..3)], random.i64(-1..=1)),
        _ => (End::PayBy, -random.i64(0..plan.definition.hold_seconds as i64 * 1_000)),
    };
    let (grace, extension) = (plan.definition.grace_seconds, plan.definition.hold_extension_seconds);
    let seconds_left = [grace + extension, extension, 0][end as usize];
    let distance = distance.min(seconds_left as i64 * 1_000);
    let fact = if random.u8(0..5) > 0 { PaymentFact::Paid } else { PaymentFact::Ended };
    Callback { end, distance, fact, is_sent: false }
}
