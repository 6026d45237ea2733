//! The ladder down which a sale goes when its servers fail, and up again: full, owner takeover, paused.
//!
//! Whoever brings decisions to the chain says twice a second on which rung the sale stands; everybody else believes what was said last,
//! and where nothing is said, that nothing can be decided. It is a hint about whom to ask. What may be decided is settled by the fence
//! of Redis and by the append, whatever anybody believes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How often it is said on which rung a sale stands.
pub(crate) const SAY_EVERY: Duration = Duration::from_millis(500);
/// After so long without a word nobody brings decisions to the chain.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// An append that takes so long means that the chain does not go on.
const APPEND_MAX: Duration = Duration::from_secs(2);

/// A rung of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Redis decides.
    Full,
    /// One process decides in its place.
    Takeover,
    /// Nothing can be decided.
    Paused,
}

impl Rung {
    /// The rung's name in the HTTP contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Takeover => "takeover",
            Self::Paused => "paused",
        }
    }
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The rung follows from what works.
    #[default]
    Automatic,
    /// One process is to decide, although Redis may be well.
    Takeover,
}

/// What is said of a sale.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) rung: Rung,
    pub(crate) epoch: u64,
    /// Who says it.
    pub(crate) process: u64,
    /// The chain has everything that was decided before (Unix milliseconds).
    #[serde(default)]
    pub(crate) as_of: u64,
}

/// One process's idea of where a sale stands.
#[derive(Debug, Default)]
pub struct Ladder {
    inner: Mutex<Inner>,
    /// This process has something else to say than before.
    pub(crate) turned: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    heard: Option<(Said, Instant)>,
    order: Order,
    /// The rung that this process is responsible for.
    own: Option<Rung>,
    /// Since when it waits for an append.
    appending: Option<Instant>,
    /// Why Redis refuses this process, while it does.
    refused: Option<String>,
    /// When this process last brought everything that was decided to the chain (Unix milliseconds).
    as_of: u64,
}

impl Ladder {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the sale stands, as far as this process knows.
    pub fn rung(&self) -> Rung {
        match self.lock().heard {
            Some((said, at)) if at.elapsed() <= SILENCE_MAX => said.rung,
            _ => Rung::Paused,
        }
    }

    /// The process that says so, if one does.
    pub fn led_by(&self) -> Option<u64> {
        self.lock().heard.filter(|(_, at)| at.elapsed() <= SILENCE_MAX).map(|(said, _)| said.process)
    }

    /// What the operator wants.
    pub fn order(&self) -> Order {
        self.lock().order
    }

    pub(crate) fn set_order(&self, order: Order) {
        self.lock().order = order;
    }

    pub(crate) fn hear(&self, said: Said) {
        let mut inner = self.lock();
        // One that was replaced may still speak.
        let older = inner.heard.is_some_and(|(last, at)| last.epoch > said.epoch && at.elapsed() <= SILENCE_MAX);
        if !older {
            inner.heard = Some((said, Instant::now()));
        }
    }

    /// Whether another process has just said that it brings decisions to the chain.
    pub(crate) fn is_led_by_another(&self, process: u64) -> bool {
        let inner = self.lock();
        inner.heard.is_some_and(|(said, at)| {
            said.process != process && said.rung != Rung::Paused && at.elapsed() <= SILENCE_MAX
        })
    }

    /// From here on this process is responsible for the rung; `None`: no longer.
    pub(crate) fn lead(&self, rung: Option<Rung>) {
        if std::mem::replace(&mut self.lock().own, rung) != rung {
            self.turned.notify_one();
        }
    }

    /// Why this process cannot have anything decided, although others may: Redis does not take it in.
    pub fn refused(&self) -> Option<String> {
        self.lock().refused.clone()
    }

    pub(crate) fn set_refused(&self, reason: Option<String>) {
        self.lock().refused = reason;
    }

    /// This process has brought to the chain everything that was decided before `wall` (Unix milliseconds).
    pub(crate) fn note_turn(&self, wall: u64) {
        self.lock().as_of = wall;
    }

    pub(crate) fn as_of(&self) -> u64 {
        self.lock().as_of
    }

    pub(crate) fn append_begins(&self) {
        self.lock().appending = Some(Instant::now());
    }

    pub(crate) fn append_ends(&self) {
        self.lock().appending = None;
    }

    /// What this process has to say, if it is responsible.
    pub(crate) fn to_say(&self) -> Option<Rung> {
        let inner = self.lock();
        let stuck = inner.appending.is_some_and(|since| since.elapsed() > APPEND_MAX);
        inner.own.map(|own| if stuck { Rung::Paused } else { own })
    }
}
