//! What an audit and a verification report, as values, as JSON and as a table for people.

use std::collections::BTreeMap;
use std::fmt;

use domain::Promise;
use serde::Serialize;

/// Examples kept per promise; the count goes on.
pub(crate) const EVIDENCE_MAX: usize = 20;

/// What an audit of the folder of a gate or a relay comes to.
const WITHOUT_BOOKS: &str = "there are no books to audit: none in this folder have read anything of these sales, so no order was compared \
    with its record. In a cluster, audit a worker's folder; `doorbuster log export` and `doorbuster verify` prove a chain without books";

/// What is known of one promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Checked, and nothing contradicts it.
    Kept,
    /// At least one contradiction; the evidence names some.
    Broken,
    /// What it speaks of does not exist here.
    NotApplicable,
    /// There was nothing to check it on. A full audit fails on this.
    NothingChecked,
}

impl Status {
    /// The status as the JSON names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "broken",
            Self::NotApplicable => "not_applicable",
            Self::NothingChecked => "nothing_checked",
        }
    }
}

/// One promise, or one part of the proof, as the reader found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PromiseReport {
    /// How many single facts were checked.
    pub checked: u64,
    /// How many of them contradict it.
    pub violations: u64,
    /// The verdict.
    pub status: Status,
    /// At most 20 contradictions, or the reason why nothing was checked.
    pub evidence: Vec<String>,
}

/// One sale as the reader found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SaleReport {
    /// The shop's name of the sale.
    pub sale: String,
    /// Records in its chain.
    pub records: u64,
    /// Batches in its chain.
    pub batches: u64,
    /// The head after the last batch, base64url.
    pub head: String,
    /// Orders that the chain made.
    pub orders: u64,
    /// Orders that are confirmed.
    pub paid: u64,
    /// Orders that are released.
    pub released: u64,
    /// Records that the order service had not read yet at the cut.
    pub books_lag: u64,
    /// The same for every service of the books, by its name.
    pub services: BTreeMap<&'static str, u64>,
}

/// The whole audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// No contradiction anywhere, and something to check for every promise that applies.
    pub ok: bool,
    /// Whether books had read anything of these sales. Without them no order was compared with its record, and the audit fails.
    pub books_compared: bool,
    /// `INV-1` to `INV-10`, all sales together.
    pub promises: BTreeMap<String, PromiseReport>,
    /// What the promises stand on: `chain` (hashes, order, times, epochs, frames), `heads` (signatures), `slots`.
    pub proof: BTreeMap<String, PromiseReport>,
    /// Each sale.
    pub sales: Vec<SaleReport>,
}

/// What an export proves by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// No contradiction anywhere.
    pub ok: bool,
    /// The shop's name of the sale.
    pub sale: String,
    /// The sale's id, hexadecimal.
    pub sale_id: String,
    /// The key that signed every head, base64url. It proves something only to those who know whose it is.
    pub key: String,
    /// Batches in the export.
    pub batches: u64,
    /// Records in the export.
    pub records: u64,
    /// The head after the last batch, base64url; compare it with a published one to know that nothing is missing at the end.
    pub head: String,
    /// The promises that a chain alone can show.
    pub promises: BTreeMap<String, PromiseReport>,
    /// What they stand on: `chain`, `heads`, `slots`, `receipts`.
    pub proof: BTreeMap<String, PromiseReport>,
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<40} {:>9} {:>8} {:>8} {:>8} {:>8} {:>6}",
            "sale", "records", "batches", "orders", "paid", "released", "lag"
        )?;
        for sale in &self.sales {
            writeln!(
                f,
                "{:<40} {:>9} {:>8} {:>8} {:>8} {:>8} {:>6}",
                sale.sale, sale.records, sale.batches, sale.orders, sale.paid, sale.released, sale.books_lag
            )?;
        }
        writeln!(f)?;
        write_table(f, &self.promises, &self.proof)?;
        let is_broken = self.promises.values().chain(self.proof.values()).any(|report| report.violations > 0);
        f.write_str(match (self.ok, is_broken) {
            (true, _) => "audit: every promise kept",
            (false, true) => "audit: FAILED",
            (false, false) => "audit: NOT PROVEN. Nothing contradicts anything, but there was not enough to check",
        })?;
        if self.books_compared { Ok(()) } else { write!(f, "\n{WITHOUT_BOOKS}") }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "sale     {} ({})", self.sale, self.sale_id)?;
        writeln!(f, "key      {}", self.key)?;
        writeln!(f, "chain    {} records in {} batches", self.records, self.batches)?;
        writeln!(f, "head     {}", self.head)?;
        writeln!(f)?;
        write_table(f, &self.promises, &self.proof)?;
        write!(f, "{}", if self.ok { "verify: proven" } else { "verify: FAILED" })
    }
}

fn write_table(
    f: &mut fmt::Formatter<'_>,
    promises: &BTreeMap<String, PromiseReport>,
    proof: &BTreeMap<String, PromiseReport>,
) -> fmt::Result {
    writeln!(f, "{:<10} {:<36} {:>11} {:>10}  verdict", "promise", "", "checked", "violations")?;
    let promises =
        Promise::ALL.iter().filter_map(|promise| Some((promise.id(), promise.title(), promises.get(promise.id())?)));
    let proof = proof.iter().map(|(name, report)| (name.as_str(), proof_title(name), report));
    for (id, title, report) in promises.chain(proof) {
        let verdict = report.status.name().replace('_', " ");
        writeln!(f, "{id:<10} {title:<36} {:>11} {:>10}  {verdict}", report.checked, report.violations)?;
        for line in &report.evidence {
            writeln!(f, "           - {line}")?;
        }
    }
    Ok(())
}

fn proof_title(name: &str) -> &'static str {
    match name {
        "chain" => "hashes, order, times, epochs",
        "heads" => "every batch is signed",
        "slots" => "slots follow the committed secret",
        _ => "receipts are in the chain",
    }
}
