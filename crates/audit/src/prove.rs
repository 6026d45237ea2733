//! Hashes and signatures of batches, on all cores, while the caller replays the same batches.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chain::Batch;
use domain::ids::Hash;

use crate::model::cores;
use crate::tally::Claim;

/// Batches that a thread takes at a time.
const SHARE: usize = 8;

/// What hashing and signature checking found.
#[derive(Default)]
pub(crate) struct Proven {
    /// Hashes of the records that were asked for, by number.
    pub(crate) hashes: Vec<(u64, Hash)>,
    /// Contradictions, with the position of their batch.
    pub(crate) broken: Vec<(u64, Claim, String)>,
    /// Batches looked at.
    pub(crate) batches: u64,
}

/// Runs `work` here and proves `batches` on the other cores, and here too once `work` is done. `wanted` is sorted.
pub(crate) fn prove_beside<R>(
    batches: &[Batch<'_>],
    key: &Hash,
    wanted: &[u64],
    work: impl FnOnce() -> R,
) -> (R, Proven) {
    let taken = AtomicUsize::new(0);
    let prove = || {
        let mut proven = Proven::default();
        loop {
            let from = taken.fetch_add(SHARE, Ordering::Relaxed);
            let Some(rest) = batches.get(from..).filter(|rest| !rest.is_empty()) else { return proven };
            for batch in &rest[..rest.len().min(SHARE)] {
                prove_one(batch, key, wanted, &mut proven);
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (1..cores()).map(|_| scope.spawn(prove)).collect();
        let result = work();
        let mut all = prove();
        for thread in threads {
            let proven = thread.join().expect("proving does not panic");
            all.hashes.extend(proven.hashes);
            all.broken.extend(proven.broken);
            all.batches += proven.batches;
        }
        all.broken.sort_by_key(|(position, ..)| *position);
        (result, all)
    })
}

fn prove_one(batch: &Batch<'_>, key: &Hash, wanted: &[u64], proven: &mut Proven) {
    proven.batches += 1;
    let first = batch.header.first;
    let mut wanted = wanted[wanted.partition_point(|position| *position < first)..].iter().peekable();
    let mut running = batch.running_start();
    let mut problem = None;
    for record in batch.records() {
        match record {
            Ok(record) => {
                running = record.hash(&running);
                if wanted.next_if_eq(&&record.number).is_some() {
                    proven.hashes.push((record.number, running));
                }
            }
            Err(error) => problem = Some(error.to_string()),
        }
    }
    if problem.is_none() && running != batch.head.head {
        problem = Some("the records do not hash to the stated head".to_owned());
    }
    if let Some(problem) = problem {
        proven.broken.push((first, Claim::Chain, format!("batch at record {first}: {problem}")));
    }
    if !batch.head.is_signed_by(key) {
        let line = format!("batch at record {first}: its head is not signed by the key in created");
        proven.broken.push((first, Claim::Heads, line));
    }
}
