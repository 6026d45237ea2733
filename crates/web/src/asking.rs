//! Judging where several gates keep a limit together: mostly a gate knows by itself, and else it has to ask, which takes a moment.
//!
//! So judging is a plain function, and whoever calls it asks what it wants to know and calls it again with the answer. Nothing is asked twice,
//! and nothing is held meanwhile.

use domain::Refusal;
use limiter::Asked;

use crate::app::App;
use crate::limits::{By, Kind};
use crate::problem::Problem;

/// Why a request does not go on now.
pub(crate) enum Stop {
    /// It is refused.
    Refused(Problem),
    /// This has to be asked first.
    Ask(Question),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

/// What a gate does not know by itself.
#[derive(Clone, Copy)]
pub(crate) struct Question {
    pub(crate) by: By,
    pub(crate) kind: Kind,
    pub(crate) hash: u64,
    pub(crate) asked: Asked,
}

/// What was said of a request so far, by what is counted: admitted, or refused for so many milliseconds.
#[derive(Clone, Copy, Default)]
pub(crate) struct Heard([Option<Result<(), u64>>; 2]);

impl Heard {
    pub(crate) fn of(&self, by: By) -> Option<Result<(), u64>> {
        self.0[by as usize]
    }

    /// It has been admitted, and is not counted again.
    pub(crate) fn admit(&mut self, by: By) {
        self.0[by as usize] = Some(Ok(()));
    }

    /// Asks, and keeps the answer.
    pub(crate) async fn ask(&mut self, app: &App, question: Question) {
        self.0[question.by as usize] = Some(app.limits.ask(question, || app.engine.now()).await);
    }
}

/// Judges, and asks until nothing has to be asked any more.
pub(crate) async fn judged<T>(app: &App, judge: impl Fn(&Heard) -> Result<T, Stop>) -> Result<T, Problem> {
    let mut heard = Heard::default();
    loop {
        match judge(&heard) {
            Ok(done) => return Ok(done),
            Err(Stop::Refused(problem)) => return Err(problem),
            Err(Stop::Ask(question)) => heard.ask(app, question).await,
        }
    }
}
