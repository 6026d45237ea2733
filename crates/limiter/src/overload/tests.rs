//! The ceilings by themselves, and the controller in front of a queue that is simulated: one thread that takes turns through whatever is
//! ready, as a serving thread does.

use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { queue_milliseconds: 50, decision_milliseconds: 500, in_flight_max: 16_000 };
const MILLISECOND: u64 = 1_000_000;

#[test]
fn the_less_important_are_left_out_first_and_the_proven_never() {
    let ceilings = Ceilings::new(100, 0, 0);
    let fill = |priority| (0..).take_while(|_| ceilings.enter(priority, 0).is_ok()).count();
    // A quarter for each of those who wait for something else than purchases do.
    assert_eq!(fill(Priority::Rest), 25);
    assert_eq!(fill(Priority::Passes), 25);
    assert_eq!(fill(Priority::Purchases), 50, "nobody else has taken what is theirs");
    assert_eq!(ceilings.enter(Priority::Purchases, 0), Err(Ceiling::InFlight));
    for _ in 0..1_000 {
        assert_eq!(ceilings.enter(Priority::Proven, 0), Ok(()));
    }
    ceilings.leave([1_000, 50, 25, 25]);
    assert_eq!((ceilings.in_flight(), ceilings.take_peak()), (0, 1_100));
    assert_eq!(fill(Priority::Purchases), 100);
    assert_eq!((fill(Priority::Passes), fill(Priority::Rest)), (0, 0));
    ceilings.leave([0, 30, 0, 0]);
    assert_eq!((fill(Priority::Rest), fill(Priority::Passes)), (0, 5), "half and three quarters of all");
}

#[test]
fn without_ceilings_nobody_is_left_out() {
    let ceilings = Ceilings::new(0, 0, 0);
    for _ in 0..100_000 {
        assert_eq!(ceilings.enter(Priority::Rest, 0), Ok(()));
        assert_eq!(ceilings.take_pass(0), Ok(()));
    }
    assert_eq!(Controller::new(Bounds { in_flight_max: 0, ..BOUNDS }).adjust(&Seen::default()), 0);
}

#[test]
fn a_ceiling_on_a_second_lets_exactly_so_many_in_and_the_important_ones_longest() {
    let ceilings = Ceilings::new(0, 5_000, 0);
    let mut taken = [0_u32; 4];
    for microsecond in 0..2_000_000_u64 {
        // A million a second, of which half are purchases.
        let priority = if microsecond % 2 == 0 { Priority::Purchases } else { Priority::Rest };
        taken[priority as usize] += u32::from(ceilings.enter(priority, microsecond * 1_000).is_ok());
    }
    let [proven, purchases, passes, rest] = taken;
    assert_eq!((proven, passes), (0, 0));
    assert!((10_000..=10_500).contains(&(purchases + rest)), "{taken:?}");
    assert!(rest <= 250, "only out of the first burst: {taken:?}");
    // Whoever proves something is let in, and is not an excuse for more than a second of silence.
    let now = 2_000 * MILLISECOND;
    (0..50_000).for_each(|_| assert_eq!(ceilings.enter(Priority::Proven, now), Ok(())));
    assert_eq!(ceilings.enter(Priority::Purchases, now + 900 * MILLISECOND - 1), Err(Ceiling::Requests));
    assert_eq!(ceilings.enter(Priority::Purchases, now + 1_001 * MILLISECOND), Ok(()));
}

#[test]
fn whoever_gets_no_pass_is_told_another_time_than_the_others() {
    let ceilings = Ceilings::new(0, 0, 10);
    assert_eq!(ceilings.take_pass(0), Ok(()));
    let told: Vec<_> = (0..99).map(|_| ceilings.take_pass(0).unwrap_err()).collect();
    let expected: Vec<_> = (1..=99).map(|number| number * 100 * MILLISECOND).collect();
    assert_eq!(told, expected, "as many of them a second as there are passes");
    let later: Vec<_> = (0..200).map(|_| ceilings.take_pass(0).unwrap_err()).collect();
    assert!(later.iter().all(|wait| (1..=BOOKED_AHEAD).contains(wait)), "nobody waits for longer than ten seconds");
    assert_eq!(ceilings.take_pass(100 * MILLISECOND), Ok(()), "a time that was told is nobody's own");
}

/// One thread, and the ceilings in front of it.
struct Model {
    ceilings: Ceilings,
    controller: Controller,
    delays: Delays,
    /// What a request takes that is served, and one that is left out, in nanoseconds.
    costs: [u64; 2],
    now: u64,
    adjusted: u64,
    arrived: u64,
    taken: u64,
}

/// What became of a stretch of time.
#[derive(Debug, Default)]
struct Told {
    served: u64,
    left_out: u64,
    longest_turn: u64,
    /// When the last request was left out, since the stretch began.
    last_left_out: u64,
}

impl Model {
    fn new(costs: [u64; 2]) -> Self {
        let (ceilings, controller) = (Ceilings::new(BOUNDS.in_flight_max, 0, 0), Controller::new(BOUNDS));
        Self { ceilings, controller, delays: Delays::default(), costs, now: 0, adjusted: 0, arrived: 0, taken: 0 }
    }

    /// So many requests a second, for so long.
    fn offer(&mut self, per_second: u64, seconds: u64) -> Told {
        let (start, arrived) = (self.now, self.arrived);
        let mut told = Told::default();
        while self.now < start + seconds * SECOND {
            self.arrived = arrived + (self.now - start) * per_second / SECOND;
            let ready = self.arrived - self.taken;
            if ready == 0 {
                self.now += SECOND / per_second;
                self.adjust();
            }
            let (turn, mut inside) = (self.now, 0);
            for _ in 0..ready {
                let is_in = self.ceilings.enter(Priority::Purchases, self.now).is_ok();
                inside += u32::from(is_in);
                self.now += self.costs[usize::from(!is_in)];
                self.adjust();
                if !is_in {
                    (told.left_out, told.last_left_out) = (told.left_out + 1, self.now - start);
                }
            }
            self.taken += ready;
            told.served += u64::from(inside);
            self.delays.note_queue(self.now - turn);
            told.longest_turn = told.longest_turn.max(self.now - turn);
            self.ceilings.leave([0, inside, 0, 0]);
        }
        told
    }

    fn adjust(&mut self) {
        while self.adjusted + ADJUST_MILLISECONDS * MILLISECOND <= self.now {
            self.adjusted += ADJUST_MILLISECONDS * MILLISECOND;
            let [queue, decision] = self.delays.take();
            let in_flight_peak = self.ceilings.take_peak();
            let seen = Seen { queue, decision, in_flight_peak, ..Seen::default() };
            self.ceilings.set_in_flight_max(self.controller.adjust(&seen));
        }
    }
}

#[test]
fn at_twice_what_a_thread_can_do_the_delay_stays_bounded_and_most_of_its_time_is_useful() {
    // A purchase whose token has to be verified, against an answer that is ready: 15,625 a second.
    let mut model = Model::new([64_000, 6_000]);
    let capacity = SECOND / 64_000;
    model.offer(2 * capacity, 1);
    let told = model.offer(2 * capacity, 5);
    let useful = told.served as f64 / (5 * capacity) as f64;
    // What is left when each of those that are left out takes its 6 microseconds.
    let possible = (1.0 - 2.0 * 6.0 / 64.0) / (1.0 - 6.0 / 64.0);
    assert!(useful > 0.95 * possible, "{useful} of {possible}: {told:?}");
    assert!(told.longest_turn < 2 * BOUNDS.queue_milliseconds * MILLISECOND, "{told:?}");

    let told = model.offer(capacity / 2, 5);
    assert!(told.last_left_out < 2 * SECOND, "it recovers within two seconds: {told:?}");
    assert_eq!(model.ceilings.in_flight_max(), BOUNDS.in_flight_max, "and forgets");
}

#[test]
fn a_crowd_that_comes_at_once_and_is_worked_off_is_no_overload() {
    let mut model = Model::new([14_000, 6_000]);
    for _ in 0..20 {
        // Everybody presses in the same moment: a turn of 140 ms, and then little.
        model.arrived += 10_000;
        model.taken += 10_000;
        for _ in 0..10_000 {
            assert_eq!(model.ceilings.enter(Priority::Purchases, model.now), Ok(()));
        }
        model.now += 140 * MILLISECOND;
        model.delays.note_queue(140 * MILLISECOND);
        model.ceilings.leave([0, 10_000, 0, 0]);
        model.adjust();
        assert_eq!(model.offer(5_000, 1).left_out, 0);
    }
}

#[test]
fn decisions_that_take_too_long_bound_how_many_wait_for_one() {
    // 2,000 decisions a second, whatever is asked; so many wait that a new one waits for two seconds.
    let (mut controller, mut waiting) = (Controller::new(BOUNDS), 4_000_u32);
    for _ in 0..40 {
        let decision = Some(u64::from(waiting) * SECOND / 2_000);
        let seen = Seen { queue: Some(MILLISECOND), decision, in_flight_peak: waiting, ..Seen::default() };
        waiting = controller.adjust(&seen).min(4_000);
    }
    assert!((700..=1_100).contains(&waiting), "{waiting} wait for half a second");
}

#[test]
fn pressure_on_memory_lowers_the_ceiling_and_pressure_on_processors_makes_it_rise_with_care() {
    let calm = Seen { queue: Some(MILLISECOND), in_flight_peak: 1_000, ..Seen::default() };
    let mut controller = Controller::new(BOUNDS);
    let short = Seen { memory_pressure: 0.5, ..calm };
    assert_eq!(controller.adjust(&short), BOUNDS.in_flight_max, "once is a hiccup");
    assert_eq!(controller.adjust(&short), 400);
    let busy = Seen { cpu_pressure: 0.95, queue: Some(10 * MILLISECOND), ..calm };
    assert_eq!(controller.adjust(&busy), 409);
    assert_eq!(controller.adjust(&calm), 547);
    let idle = Seen { queue: None, in_flight_peak: 0, ..calm };
    let unknown = Seen { queue: None, ..calm };
    assert_eq!(controller.adjust(&unknown), 547, "while nothing was seen nothing is known");
    assert!(controller.adjust(&idle) > 547);
}

proptest! {
    #[test]
    fn whatever_is_seen_the_ceiling_stays_within_its_bounds_and_comes_back_within_two_seconds(
        seen in prop::collection::vec(
            (prop::option::of(0..10 * SECOND), prop::option::of(0..60 * SECOND), 0..20_000_u32, 0.0..1.0, 0.0..1.0), 1..200),
        max in 1..100_000_u32,
    ) {
        let mut controller = Controller::new(Bounds { in_flight_max: max, ..BOUNDS });
        for (queue, decision, in_flight_peak, cpu_pressure, memory_pressure) in seen {
            let ceiling = controller.adjust(&Seen { queue, decision, in_flight_peak, cpu_pressure, memory_pressure });
            prop_assert!((IN_FLIGHT_MIN.min(max)..=max).contains(&ceiling));
        }
        let calm = Seen { queue: Some(MILLISECOND), in_flight_peak: 10, ..Seen::default() };
        let last = (0..20).map(|_| controller.adjust(&calm)).last().unwrap();
        prop_assert!(last >= max.min(BOUNDS.in_flight_max - 4_000), "{last} of {max}");
    }
}
