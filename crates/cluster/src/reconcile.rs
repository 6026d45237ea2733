//! Reconciliation of Redis with the chain: now and then, at equal positions, both must believe the same.

use std::time::{Duration, Instant};

use admission::redis::{STANDING, standing};
use domain::Promise;

use crate::link::LinkError;
use crate::relay::{Relay, RelayError};

/// Between two comparisons.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// A busy sale is hardly ever at one position on both sides; then it is looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// When to compare next.
pub(crate) struct Reconciler {
    due: Instant,
    /// What was found wrong is written anew in full, for nothing that stands there can be believed.
    pub(crate) distrusts: bool,
}

impl Reconciler {
    pub(crate) fn new() -> Self {
        Self { due: Instant::now() + COMPARE_EVERY, distrusts: false }
    }
}

impl Relay<'_> {
    /// Compares if that is due. The error has the sale rebuilt: the chain is right by definition.
    pub(crate) async fn reconcile(&mut self) -> Result<(), RelayError> {
        if Instant::now() < self.reconciler.due {
            return Ok(());
        }
        let believed: (u64, u64, u64, Vec<Vec<u8>>) = self.link.call(STANDING, &[]).await?;
        let chained = standing(self.follower.lock().replica.core());
        if believed.0 != chained.0 {
            self.reconciler.due = Instant::now() + LOOK_AGAIN;
            return Ok(());
        }
        self.reconciler.due = Instant::now() + COMPARE_EVERY;
        if believed == chained {
            return Ok(());
        }
        let promise = Promise::Conservation.id();
        tracing::error!(sale = self.follower.name, record = chained.0, "{promise}: Redis contradicts the chain");
        self.reconciler.distrusts = true;
        Err(LinkError::Fenced("it contradicts the chain".to_owned()).into())
    }
}
