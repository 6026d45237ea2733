//! An owner in this process, on a real log: it grants to as many customers as it is told, and some stretches of that are timed.
//!
//! What is timed is `Owner::step` with batches of 1,000 requests, made beforehand with private parts as the gate makes them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use admission::{Answer, Command, Guards, Owner, OwnerOptions, PurchaseRequest, Request, Wish};
use anyhow::{Context as _, bail, ensure};
use chain::{DiskFiles, Files, HeadSigner, PrivatePart, SpareReady};
use domain::clock::SystemClock;
use domain::{ChainTime, Clock as _, Pseudonym, PurchaseId, SaleId, limits};
use gate::{CustomerSaleKey, body_hash, seal_private};
use ledger::{Vault, VaultStore as _};
use serde::{Deserialize, Serialize};

use crate::deployment::{SALE, clocks};
use crate::process::resident_bytes;

const BATCH: u32 = limits::BATCH_DECISIONS_MAX as u32;
/// Batches made before they are needed; few, because they count among the resident bytes.
const BATCHES_AHEAD: usize = 4;
/// Every so many grants one old key is asked for again.
const OLD_KEY_EVERY: u32 = 97;

/// How far to grow.
#[derive(Serialize, Deserialize)]
pub(crate) struct GrowJob {
    /// A data folder with the bench's sale, served by nobody.
    pub(crate) data: PathBuf,
    /// Customers to have in the end, each with one grant.
    pub(crate) until: u32,
    /// Stretches to time: at how many customers they begin, and how many grants they last.
    pub(crate) timed: Vec<(u32, u32)>,
    /// Whether old keys are asked for again in the end.
    pub(crate) old_keys: bool,
}

/// How it went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct GrowReport {
    /// Grants a second in each timed stretch.
    pub(crate) per_second: Vec<f64>,
    /// Resident bytes before the first grant and after the last.
    pub(crate) resident_bytes: (u64, u64),
    /// Old keys that were asked for again and answered with their grant.
    pub(crate) old_keys: u64,
}

type Batch = VecDeque<(Request, ())>;

/// Grows.
pub(crate) fn run(job: &GrowJob) -> anyhow::Result<GrowReport> {
    let clock = SystemClock::new();
    let files: Arc<dyn Files> = Arc::new(DiskFiles);
    let mut vault = Vault::open(&job.data.join("vault.sqlite"), Arc::new(SystemClock::new()))?;
    let secrets = vault.sales()?.into_iter().find(|sale| sale.name == SALE).context("the sale is not there")?;
    drop(vault);
    let options = OwnerOptions {
        signer: HeadSigner::from_seed(&secrets.signing_seed),
        slot_secret: secrets.slot_secret,
        guards: Guards::ON,
    };
    let folder = job.data.join("sales").join(SALE);
    let owner = Owner::open(Arc::clone(&files), &folder, options, clocks(&clock))?;
    let first = owner.core().counts().iter().map(|counts| counts.held + counts.sold).sum();
    let mut growth = Growth { owner, clock, files, spares: sync_channel(1), answers: Vec::new(), granted: first };
    let before = resident_bytes()?;
    let expires_at = ChainTime(growth.clock.wall_milliseconds() + 24 * 60 * 60 * 1_000);
    let (sender, batches) = sync_channel(BATCHES_AHEAD);
    let (sale, until) = (secrets.sale, job.until);
    let making = std::thread::spawn(move || make(first, until, sale, expires_at, &sender));
    let mut per_second = Vec::new();
    let mut at = first;
    for (from, length) in &job.timed {
        growth.take(&batches, from.saturating_sub(at))?;
        let length = (*length).min(until.saturating_sub(*from));
        let stretch: Vec<Batch> = batches.iter().take(length.div_ceil(BATCH) as usize).collect();
        let decisions: usize = stretch.iter().map(VecDeque::len).sum();
        let start = Instant::now();
        for batch in stretch {
            growth.decide(batch)?;
        }
        per_second.push(decisions as f64 / start.elapsed().as_secs_f64());
        at = growth.granted;
    }
    growth.take(&batches, until.saturating_sub(at))?;
    making.join().map_err(|_| anyhow::anyhow!("making requests panicked"))?;
    ensure!(growth.granted == until.max(first), "{} grants instead of {until}", growth.granted);
    let after = resident_bytes()?;
    let old_keys = if job.old_keys { growth.ask_again(until, sale, expires_at)? } else { 0 };
    growth.owner.settle_tail()?;
    Ok(GrowReport { per_second, resident_bytes: (before, after), old_keys })
}

/// Makes the requests of customers `first..until` in batches.
fn make(first: u32, until: u32, sale: SaleId, expires_at: ChainTime, batches: &SyncSender<Batch>) {
    let key = CustomerSaleKey::derive(&[7; 32], sale);
    for from in (first..until).step_by(BATCH as usize) {
        let numbers = from..until.min(from + BATCH);
        let batch = numbers.map(|number| (request(number, &key, expires_at), ())).collect();
        if batches.send(batch).is_err() {
            return;
        }
    }
}

/// The purchase of customer `number`: always the same for the same number.
fn request(number: u32, key: &CustomerSaleKey, expires_at: ChainTime) -> Request {
    let mut random = fastrand::Rng::with_seed(u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (mut customer, mut purchase, mut key_hash) = ([0; 16], [0; 12], [0; 16]);
    random.fill(&mut customer);
    random.fill(&mut purchase);
    random.fill(&mut key_hash);
    let (customer, purchase) = (Pseudonym(customer), PurchaseId(purchase));
    let body_hash = body_hash(0, 1, None, None);
    let text = format!("5f0c2a4e-0000-4000-9000-{number:012}");
    let (commitment, sealed) = seal_private(key, purchase, &body_hash, text.as_bytes());
    let wish = Wish {
        customer,
        item: 0,
        quantity: 1,
        coupon: 0,
        pass: random.u64(..limits::INTEGER_MAX),
        pass_expires_at: expires_at,
        slot_offset: 0,
    };
    let purchase = PurchaseRequest { wish, purchase, key_hash, body_hash };
    Request::Decide(Command::Purchase(purchase), Some(PrivatePart { commitment, sealed }))
}

type SpareOutcome = std::io::Result<SpareReady>;

/// The owner with what its thread would do for it.
struct Growth {
    owner: Owner,
    clock: SystemClock,
    files: Arc<dyn Files>,
    spares: (SyncSender<SpareOutcome>, Receiver<SpareOutcome>),
    answers: Vec<((), Answer)>,
    granted: u32,
}

impl Growth {
    /// Decides so many of the batches' requests, rounded up to whole batches.
    fn take(&mut self, batches: &Receiver<Batch>, requests: u32) -> anyhow::Result<()> {
        for batch in batches.iter().take(requests.div_ceil(BATCH) as usize) {
            self.decide(batch)?;
        }
        Ok(())
    }

    fn decide(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        while !batch.is_empty() {
            let (wall, monotonic) = clocks(&self.clock);
            self.owner.step(wall, monotonic, &mut batch, &mut self.answers)?;
            self.keep_spare()?;
            for ((), answer) in self.answers.drain(..) {
                if !matches!(answer, Answer::Granted(_, Some(_))) {
                    bail!("a purchase was not granted: {answer:?}");
                }
                self.granted += 1;
            }
        }
        Ok(())
    }

    /// As the owner's thread does it: the spare segment is made beside the decisions.
    fn keep_spare(&mut self) -> anyhow::Result<()> {
        if let Ok(outcome) = self.spares.1.try_recv() {
            self.owner.spare_finished(outcome);
        }
        if let Some(task) = self.owner.spare_wanted() {
            let (files, report) = (Arc::clone(&self.files), self.spares.0.clone());
            let made = move || drop(report.send(task.run(files.as_ref())));
            std::thread::Builder::new().name("spare segment".to_owned()).spawn(made)?;
        }
        Ok(())
    }

    /// Asks for grants made earlier, all over the range, and checks that each is the same one again.
    fn ask_again(&mut self, until: u32, sale: SaleId, expires_at: ChainTime) -> anyhow::Result<u64> {
        let key = CustomerSaleKey::derive(&[7; 32], sale);
        let numbers: Vec<u32> = (0..until).step_by(OLD_KEY_EVERY as usize).collect();
        for numbers in numbers.chunks(BATCH as usize) {
            let mut batch: VecDeque<_> =
                numbers.iter().map(|number| (request(*number, &key, expires_at), *number)).collect();
            let mut answers = Vec::new();
            let (wall, monotonic) = clocks(&self.clock);
            self.owner.step(wall, monotonic, &mut batch, &mut answers)?;
            ensure!(batch.is_empty() && answers.len() == numbers.len(), "old keys were not all answered");
            for (number, answer) in answers {
                let same = matches!(&answer, Answer::Granted(grant, None) if grant.number.0 == number);
                ensure!(same, "key {number} was answered {answer:?}");
            }
        }
        Ok(numbers.len() as u64)
    }
}
