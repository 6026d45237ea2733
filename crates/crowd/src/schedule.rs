//! Who comes when and how they behave: a pure function of the seed. And the agenda of what is due next.
//!
//! Arrivals are fixed before the first request and never wait for an answer: the loop is open.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use tokio::time::Instant;

use crate::network::{PAGE_JITTER_MILLISECONDS, Path, REACTION_MILLISECONDS, ROUND_TRIP_MILLISECONDS};
use crate::options::CrowdOptions;

/// Share of the people who come within the first second.
const BURST_SHARE: f64 = 0.2;
/// The rest thin out by a factor of e this many times over the arrival window.
const DECAYS: f64 = 4.0;
/// The latest money comes so many seconds after the customer has paid.
const LATE_SECONDS_MAX: u64 = 10;

/// One person, drawn from the seed whenever needed instead of being kept.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Persona {
    /// When they want to buy, from the start of the arrivals.
    pub(crate) arrival: Duration,
    /// Index of the wanted item.
    pub(crate) item: usize,
    pub(crate) habit: Habit,
    /// Whether they look again after hearing that all units are taken.
    pub(crate) comes_back: bool,
    pub(crate) ending: Ending,
    /// How long a winner takes to pay or to cancel.
    pub(crate) decides_after: Duration,
    /// Index of the coupon that they send along.
    pub(crate) coupon: Option<usize>,
    pub(crate) manner: Manner,
    /// Whether the shop gives them their money back once they have paid.
    pub(crate) is_refunded: bool,
    /// From what they see to their press.
    pub(crate) reaction: Duration,
    /// How much later than the opening their page sends, if that is their slot.
    pub(crate) page_waits: Duration,
    pub(crate) network: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// One click, and patience.
    Plain,
    /// Two requests with one key at once.
    DoubleClick,
    /// Hangs up on this many replies and asks again with the same key.
    LosesReplies(u8),
}

/// What a winner does with a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Pays,
    Cancels,
    /// Goes to pay and leaves without having paid.
    Leaves,
    /// Lets it expire.
    Abandons,
}

/// How somebody pays where that takes more than a word of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// Is declined at first.
    Declined,
    /// Pays once, and that is told twice.
    ToldTwice,
    /// So many seconds pass before the money is there, which may be too late.
    Late(u64),
}

/// The person of that number.
pub(crate) fn persona(options: &CrowdOptions, shopper: u32) -> Persona {
    // Weyl steps keep the streams of neighbouring shoppers and seeds apart.
    let stream =
        options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(shopper).wrapping_mul(0xD1B5_4A32_D192_ED03);
    let mut random = fastrand::Rng::with_seed(stream);
    let arrival = arrival(&mut random, options.seconds);
    let item = random.usize(..options.items.len());
    let habit = draw(&mut random, [options.double_click_share, options.lost_reply_share]);
    let habit = match habit {
        0 => Habit::DoubleClick,
        1 => Habit::LosesReplies(if random.u8(..4) == 0 { 2 } else { 1 }),
        _ => Habit::Plain,
    };
    let comes_back = random.f64() < options.return_share;
    let ending = match draw(&mut random, [options.paid_share, options.cancel_share]) {
        0 => Ending::Pays,
        1 => Ending::Cancels,
        _ => Ending::Abandons,
    };
    let decides_after = Duration::from_millis(random.u64(..=options.decide_milliseconds_max));
    let coupon = (random.f64() < options.coupon_share).then(|| random.usize(..options.coupons.len()));
    let manner = match random.u8(..20) {
        0 | 1 => Manner::Declined,
        2 => Manner::ToldTwice,
        3 => Manner::Late(random.u64(1..=LATE_SECONDS_MAX)),
        _ => Manner::Plain,
    };
    let ending = if ending == Ending::Abandons && random.bool() { Ending::Leaves } else { ending };
    let is_refunded = random.f64() < options.refund_share;
    let (reaction, page_waits, network) = <(Duration, Duration, Path)>::default();
    let person = Persona {
        arrival,
        item,
        habit,
        comes_back,
        ending,
        decides_after,
        coupon,
        manner,
        is_refunded,
        reaction,
        page_waits,
        network,
    };
    match &options.bots {
        None => person,
        Some(_) if shopper < options.shoppers => beside_bots(person, &mut random),
        Some(_) => of_a_bot(person),
    }
}

/// Somebody who looks at the page when the sale opens, since whoever comes later loses to people, too. The page takes a press from the opening
/// on, waits for the slot and then sends by itself: so a slow finger costs those only whose slot is over by then.
fn beside_bots(person: Persona, random: &mut fastrand::Rng) -> Persona {
    let mut draw = |range| Duration::from_millis(random.u64(range));
    let reaction = draw(REACTION_MILLISECONDS);
    Persona {
        arrival: reaction,
        reaction,
        page_waits: draw(PAGE_JITTER_MILLISECONDS),
        network: Path::of_round_trip(draw(ROUND_TRIP_MILLISECONDS)),
        ..person
    }
}

/// As a buyer: one click at a time, and what it wins is paid for.
fn of_a_bot(person: Persona) -> Persona {
    Persona {
        arrival: Duration::ZERO,
        habit: Habit::Plain,
        comes_back: true,
        ending: Ending::Pays,
        coupon: None,
        manner: Manner::Plain,
        is_refunded: false,
        ..person
    }
}

/// A burst in the first second, then an exponential decay cut off at the end of the window.
fn arrival(random: &mut fastrand::Rng, seconds: u64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "an arrival window of days is far below 2^52 seconds")]
    let seconds = seconds as f64;
    let bursts = random.f64() < BURST_SHARE;
    let at = random.f64();
    // The decay is the inverse of the truncated exponential distribution: x = -t ln(1 - u (1 - e^(-T/t))), t = T / DECAYS.
    let at = if bursts { at.min(seconds) } else { -(1.0 - at * (1.0 - (-DECAYS).exp())).ln() * seconds / DECAYS };
    Duration::from_secs_f64(at.clamp(0.0, seconds))
}

/// The index of the share that is hit; 2 when neither is.
fn draw(random: &mut fastrand::Rng, shares: [f64; 2]) -> usize {
    let at = random.f64();
    if at < shares[0] {
        0
    } else if at < shares[0] + shares[1] {
        1
    } else {
        2
    }
}

/// What somebody does when their time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Errand {
    /// Connections are opened ahead of the arrivals.
    WarmUp,
    TakePass,
    Buy,
    /// Looks whether units have come back, and buys if so.
    LookAgain,
    Pay,
    /// Goes to pay and does not.
    Leave,
    Cancel,
    /// The shop gives the money back.
    Refund,
}

/// An errand and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) shopper: u32,
    pub(crate) errand: Errand,
}

/// Everything that is still to happen, earliest first. A waiting person is an entry here, not a task.
#[derive(Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Due>>,
}

impl Agenda {
    pub(crate) fn push(&mut self, due: Due) {
        self.heap.push(Reverse(due));
    }

    /// When the next errand is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(due)| due.at)
    }

    /// The earliest errand, if its time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Ending, Habit, Manner, Persona, persona};
    use crate::options::CrowdOptions;

    fn crowd(seed: u64) -> Vec<Persona> {
        let options = CrowdOptions {
            seed,
            items: vec!["boot".into(), "coat".into()],
            coupons: vec!["TEN".into(), "HALF".into()],
            coupon_share: 0.2,
            refund_share: 0.1,
            ..CrowdOptions::default()
        };
        (0..10_000).map(|shopper| persona(&options, shopper)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_crowd_and_another_seed_another() {
        assert_eq!(crowd(7), crowd(7));
        assert_ne!(crowd(7), crowd(8));
    }

    #[test]
    fn arrivals_burst_at_the_start_and_thin_out_within_the_window() {
        let mut per_second = [0_u32; 10];
        for person in crowd(7) {
            assert!(person.arrival <= Duration::from_secs(10));
            per_second[usize::try_from(person.arrival.as_secs()).unwrap().min(9)] += 1;
        }
        assert!(per_second[0] > 4_000, "{per_second:?}");
        assert!(per_second.windows(2).all(|pair| pair[0] > pair[1]), "{per_second:?}");
        assert!(per_second[9] > 20, "{per_second:?}");
    }

    #[test]
    fn habits_and_endings_keep_their_shares() {
        let people = crowd(7);
        let share = |holds: &dyn Fn(&Persona) -> bool| people.iter().filter(|person| holds(person)).count();
        assert!((400..600).contains(&share(&|person| person.habit == Habit::DoubleClick)));
        assert!((400..600).contains(&share(&|person| matches!(person.habit, Habit::LosesReplies(_)))));
        assert!((5_700..6_300).contains(&share(&|person| person.ending == Ending::Pays)));
        assert!((850..1_150).contains(&share(&|person| person.ending == Ending::Cancels)));
        assert!((850..1_150).contains(&share(&|person| person.comes_back)));
        assert!((4_700..5_300).contains(&share(&|person| person.item == 1)));
        assert!((850..1_150).contains(&share(&|person| person.coupon == Some(1))));
        assert!((7_700..8_300).contains(&share(&|person| person.coupon.is_none())));
        assert!((1_350..1_650).contains(&share(&|person| person.ending == Ending::Leaves)));
        assert!((850..1_150).contains(&share(&|person| person.manner == Manner::Declined)));
        assert!((400..600).contains(&share(&|person| matches!(person.manner, Manner::Late(_)))));
        assert!((850..1_150).contains(&share(&|person| person.is_refunded)));
    }
}
