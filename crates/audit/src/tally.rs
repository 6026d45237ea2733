//! Counts what was checked and what contradicts it, per promise and per part of the proof.

use std::collections::BTreeMap;

use domain::Promise;

use crate::report::{EVIDENCE_MAX, PromiseReport, Status};

/// What a check speaks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// One of the promises.
    Promise(Promise),
    /// Hashes, order, times, epochs, frames.
    Chain,
    /// Signatures.
    Heads,
    /// Slots and their commitment.
    Slots,
    /// Receipts that customers hold.
    Receipts,
}

impl Claim {
    fn index(self) -> usize {
        match self {
            Self::Promise(promise) => promise as usize - 1,
            Self::Chain => Promise::ALL.len(),
            Self::Heads => Promise::ALL.len() + 1,
            Self::Slots => Promise::ALL.len() + 2,
            Self::Receipts => Promise::ALL.len() + 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Promise(promise) => promise.id(),
            Self::Chain => "chain",
            Self::Heads => "heads",
            Self::Slots => "slots",
            Self::Receipts => "receipts",
        }
    }
}

impl From<Promise> for Claim {
    fn from(promise: Promise) -> Self {
        Self::Promise(promise)
    }
}

#[derive(Clone, Debug, Default)]
struct Count {
    checked: u64,
    violations: u64,
    evidence: Vec<String>,
}

/// The counts of all claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    counts: [Count; Promise::ALL.len() + 4],
}

impl Tally {
    /// Counts one fact; `evidence` is asked for only when it does not hold. Gives `holds` back.
    pub(crate) fn check(&mut self, claim: impl Into<Claim>, holds: bool, evidence: impl FnOnce() -> String) -> bool {
        let count = &mut self.counts[claim.into().index()];
        count.checked += 1;
        if !holds {
            count.violations += 1;
            if count.evidence.len() < EVIDENCE_MAX {
                count.evidence.push(evidence());
            }
        }
        holds
    }

    /// Counts one fact that does not hold.
    pub(crate) fn broken(&mut self, claim: impl Into<Claim>, evidence: impl FnOnce() -> String) {
        self.check(claim, false, evidence);
    }

    /// Counts `facts` that hold.
    pub(crate) fn kept(&mut self, claim: impl Into<Claim>, facts: u64) {
        self.counts[claim.into().index()].checked += facts;
    }

    /// Adds another tally, whose evidence is about `sale`.
    pub(crate) fn add(&mut self, mut other: Self, sale: &str) {
        for line in other.counts.iter_mut().flat_map(|count| &mut count.evidence) {
            line.insert_str(0, ": ");
            line.insert_str(0, sale);
        }
        self.add_same(other);
    }

    /// Adds another tally about the same sale.
    pub(crate) fn add_same(&mut self, other: Self) {
        for (into, from) in self.counts.iter_mut().zip(other.counts) {
            into.checked += from.checked;
            into.violations += from.violations;
            let room = EVIDENCE_MAX - into.evidence.len();
            into.evidence.extend(from.evidence.into_iter().take(room));
        }
    }

    /// Whether nothing contradicts anything.
    pub(crate) fn is_clean(&self) -> bool {
        self.counts.iter().all(|count| count.violations == 0)
    }

    /// The claims as report lines; a claim outside `applicable` that nothing was checked on is `not_applicable`.
    pub(crate) fn lines(&self, claims: &[Claim], applicable: &[Claim]) -> BTreeMap<String, PromiseReport> {
        claims.iter().map(|claim| (claim.name().to_owned(), self.line(*claim, applicable.contains(claim)))).collect()
    }

    fn line(&self, claim: Claim, applicable: bool) -> PromiseReport {
        let Count { checked, violations, evidence } = self.counts[claim.index()].clone();
        let (status, evidence) = match (checked, violations) {
            (0, _) if applicable => (Status::NothingChecked, vec!["nothing to check".to_owned()]),
            (0, _) => (Status::NotApplicable, evidence),
            (_, 0) => (Status::Kept, evidence),
            _ => (Status::Broken, evidence),
        };
        PromiseReport { checked, violations, status, evidence }
    }
}
