//! A rebuild: Redis gets a sale anew from the chain, after anything that may have made it forget.
//!
//! First the chain is sealed with a new epoch, so that nothing that was decided before and is not in the chain can come into it. Then
//! Redis is given what it lacks, or everything, and is admitted. Between the event and the admission nothing is decided: the fence of
//! the library sees to that, not this file.

use std::collections::BTreeSet;

use admission::redis::{FUNCTIONS, Kept, REBUILD, Rebuild};
use chain::batch::Batch;
use domain::{ChainTime, PurchaseNumber, Record};

use crate::link::LinkError;
use crate::relay::{Entry, Relay, RelayError};

/// Between two renewals of the lock; a step takes about a millisecond.
const STEPS_PER_LOCK: usize = 200;

impl Relay<'_> {
    /// Seals the chain, writes the sale to Redis and lets it decide.
    pub(crate) async fn rebuild(&mut self) -> Result<(), RelayError> {
        self.catch_up().await?;
        let there = self.link.state().await?.as_deref().and_then(Kept::parse);
        if let Some(there) = &there {
            self.check_whole(there.committed)?;
        }
        self.seal().await?;
        self.link.load(FUNCTIONS).await?;
        // What it has is a part of the chain, if it decided nothing that came too late: then only the rest is missing.
        let missing = match there.filter(|there| !self.reconciler.distrusts && self.is_part_of_chain(there)) {
            Some(there) => Some((self.touched_since(there.next)?, there.next)),
            None => None,
        };
        let steps: Vec<_> = {
            let state = self.follower.lock();
            let core = state.replica.core();
            Rebuild {
                core,
                uncommitted_max: self.options.redis.uncommitted_max,
                touched: missing.as_ref().map(|(touched, next)| (touched, *next)),
            }
            .steps()
            .collect()
        };
        for (number, step) in steps.iter().enumerate() {
            if number % STEPS_PER_LOCK == STEPS_PER_LOCK - 1 {
                self.keep_lock().await?;
            }
            self.link.call::<u64>(REBUILD, step).await?;
        }
        self.turned_now();
        self.reconciler.distrusts = false;
        let way = if missing.is_some() { "repaired" } else { "loaded in full" };
        tracing::info!(sale = self.follower.name, epoch = self.log.epoch(), way, "Redis may decide again");
        Ok(())
    }

    fn is_part_of_chain(&self, there: &Kept) -> bool {
        let sealed_at = self.follower.lock().replica.sealed_at(there.epoch);
        sealed_at.is_some_and(|first| there.next <= first)
    }

    /// Begins the next epoch, and gives the time since the chain's last record back to open holds.
    pub(crate) async fn seal(&mut self) -> Result<(), RelayError> {
        let (epoch, now, held) = {
            let state = self.follower.lock();
            let core = state.replica.core();
            (core.epoch(), core.now(), core.held_grants())
        };
        let wall = self.clock.wall_milliseconds();
        let (time, outage) = (now.max(ChainTime(wall)), wall.saturating_sub(now.0));
        let entry = |record| Entry { time, record, private: None };
        let mut entries = vec![entry(Record::Epoch(epoch + 1))];
        if held > 0 && outage > 0 {
            entries.push(entry(Record::ClockCredit(outage)));
        }
        self.chain(entries).await
    }

    /// The grants that the chain made or changed from record `from` on.
    fn touched_since(&self, from: u64) -> Result<BTreeSet<PurchaseNumber>, RelayError> {
        let unreadable = |error: &dyn std::fmt::Display| RelayError::Replay(error.to_string());
        let mut touched = BTreeSet::new();
        let mut reader = self.follower.reader()?;
        let mut next = from;
        while let Some(bytes) = reader.batch_containing(next).map_err(|error| unreadable(&error))? {
            let batch = Batch::parse(&bytes).map_err(|error| unreadable(&error))?;
            for record in batch.records() {
                let record = record.and_then(|bytes| bytes.decode()).map_err(|error| unreadable(&error))?;
                touched.extend(record.grant());
            }
            next = batch.header.next();
        }
        if next < self.log.next() {
            return Err(LinkError::Unreachable("the copy of the chain is behind".to_owned()).into());
        }
        Ok(touched)
    }
}
