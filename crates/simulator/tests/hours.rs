//! An hour in which payments are not looked after costs no time here: what was paid in time is kept, and what nobody paid is back.

use admission::Guards;
use simulator::{Hour, HourTally, SimulationOptions, live_an_hour};

const HOURS: u64 = 8;

fn live(hour: Hour) -> HourTally {
    let mut tally = HourTally::default();
    for seed in 0..HOURS {
        let lived = live_an_hour(seed, hour, SimulationOptions::default());
        tally.add(&lived.unwrap_or_else(|failure| panic!("{failure}")));
    }
    eprintln!("{HOURS} hours, seeds 0 to {}: {tally:?}", HOURS - 1);
    tally
}

/// The payment service stands still for an hour, callbacks arrive in time, up to the last millisecond: nothing that is paid is released.
#[test]
fn the_payment_service_stopped_for_an_hour_releases_nothing_that_is_paid() {
    let tally = live(Hour::ServiceStopped);
    let [in_time @ .., too_late] = tally.paid_at_ends;
    assert_eq!(too_late, 0, "{tally:?}");
    let lively = [tally.paid, tally.released, tally.crashes].into_iter().chain(in_time);
    assert!(lively.into_iter().all(|count| count > 0), "{tally:?}");
}

/// The provider says nothing for an hour: every unit is back after pay-by time, grace and extension, but for what fills a batch.
#[test]
fn a_provider_silent_for_an_hour_keeps_no_unit_beyond_its_bound() {
    let tally = live(Hour::ProviderSilent);
    let lively = [tally.released, tally.released_with_open_payment, tally.full_batches, tally.crashes];
    assert!(lively.into_iter().all(|count| count > 0), "{tally:?}");
    assert_eq!(tally.paid, 0);
}

/// Both fail where they should: without the guard of attempts, and without that of deadlines.
#[test]
fn without_their_guards_the_hours_fail() {
    for (guards, hour) in [
        (Guards { attempt: false, ..Guards::ON }, Hour::ServiceStopped),
        (Guards { deadline: false, ..Guards::ON }, Hour::ServiceStopped),
    ] {
        let options = SimulationOptions { guards, naive: false, ..SimulationOptions::default() };
        let failure = (0..HOURS).find_map(|seed| live_an_hour(seed, hour, options).err());
        eprintln!("{}", failure.expect("some hour notices"));
    }
}
