//! Fault points: places, named after the stages, where a test may have the real process killed.
//!
//! Nothing is armed unless the configuration says `dangerous_fault_point`; an unarmed point is one relaxed load.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::stage::Stage;

struct Fault {
    stage: Stage,
    remaining: AtomicU64,
}

static ARMED: OnceLock<Fault> = OnceLock::new();

/// Arms the one fault point of this process: it aborts the `passage`th time that `stage` is reached, counting from 1.
/// A second call changes nothing.
pub fn arm(stage: Stage, passage: u64) {
    let _ = ARMED.set(Fault { stage, remaining: AtomicU64::new(passage) });
}

/// Says that a purchase has reached `stage`. Does not return where the armed fault strikes.
#[inline]
pub fn reach(stage: Stage) {
    if let Some(fault) = ARMED.get()
        && fault.stage == stage
        && fault.remaining.fetch_sub(1, Ordering::Relaxed) == 1
    {
        // As sudden as kill -9: no destructor runs, no buffer is flushed.
        std::process::abort();
    }
}
