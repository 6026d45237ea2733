//! A warning that is said when it is new, and then only now and then: what is tried again ten times a second must not fill the log.

use std::time::{Duration, Instant};

const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What was said last, and when.
#[derive(Debug, Default)]
pub struct Quiet {
    said: Option<(String, Instant)>,
}

impl Quiet {
    /// Whether to say `what` now.
    pub fn is_due(&mut self, what: &impl ToString) -> bool {
        let what = what.to_string();
        let is_due = self.said.as_ref().is_none_or(|(said, at)| *said != what || at.elapsed() >= SAY_AGAIN);
        if is_due {
            self.said = Some((what, Instant::now()));
        }
        is_due
    }

    /// It is over: the next time it is new again.
    pub fn is_over(&mut self) {
        self.said = None;
    }
}
