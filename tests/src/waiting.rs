//! Waiting for conditions, with a deadline. It sleeps between looks and never instead of one.

use std::time::{Duration, Instant};

/// How long anything in a test may take before the test has failed. Generous: slow is not wrong here.
pub const TIME_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Looks until there is something, and gives it.
///
/// # Panics
/// When there is nothing after [`TIME_MAX`]; `what` names it.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_within(TIME_MAX, what, look)
}

/// The same where something takes longer than everything else.
///
/// # Panics
/// When there is nothing after `time_max`; `what` names it.
pub fn eventually_within<T>(time_max: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    let is_found = within(time_max, || {
        found = look();
        found.is_some()
    });
    assert!(is_found, "still no sign of {what} after {} s", time_max.as_secs());
    found.expect("it was found")
}

/// Looks until it is so, and says whether it was in time; for whoever can say more about it than its name.
pub fn within(time_max: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time_max;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Looks until it is so.
///
/// # Panics
/// When it is not so after [`TIME_MAX`].
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}
