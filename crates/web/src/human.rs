//! Human checks: challenges are given out, and an answer lets a customer take the first pass of a sale.
//!
//! Gates of a cluster share in Redis which challenges were used, and who failed how often. While it is away each knows its own only: a challenge may
//! then be used at each gate, for the same customer's same pass.
//!
//! Whoever the vault knows in a sale has a pass of it already, and is asked for nothing. So a lost reply costs nobody a second check.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::human::{Challenge, CheckKeys, FixedSet, Made, Pool, Solution, Voice};
use domain::{ChainTime, HumanCheck, Pseudonym, Refusal, SaleOrdinal, limits, milliseconds};
use engine::{Sale, Shared};
use ledger::vault::Secret;
use ledger::{CustomerError, NewCustomer, StoreError, VaultError};
use limiter::{Backoff, Hasher, Once, Spent, Tally};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::metrics::CheckOutcome;
use crate::problem::Problem;

/// What a wrong answer counts, and one that came too fast.
const WRONG: u32 = 1;
const TOO_FAST: u32 = 2;
/// So many failures make the next challenge harder by one level.
const FAILURES_PER_LEVEL: u32 = 2;
/// Names of what gates share.
const USED: &str = "challenge";
const FAILED: &str = "failures";
/// By how many levels a proof is harder that stands for letters.
const ALTERNATIVE_LEVELS: u8 = 1;
/// Sets of pictures that are kept, about 50 KiB each: those of 64 sales.
const SETS_MAX: usize = 512;
/// Proofs that are computed at the same time; the other cores serve.
const PROOFS_AT_ONCE: usize = 2;
/// Of the counts of failures, and of the blocks.
const TABLE_BYTES: usize = 1 << 20;

/// How human checks behave.
#[derive(Clone, Debug)]
pub struct HumanOptions {
    /// Rounds of one try of a proof of work at its lowest level.
    pub proof_rounds: u32,
    /// For how long a challenge can be answered.
    pub lifetime: Duration,
    /// Below this time no person answers letters.
    pub letters_floor: Duration,
    /// Below this time no proof is believed; an honest device waits for it.
    pub proof_floor: Duration,
    /// After this time one failure is forgotten.
    pub failure_fades_after: Duration,
    /// How long a customer is refused who answers too fast again: the first time, and the longest.
    pub block: (Duration, Duration),
}

impl Default for HumanOptions {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            proof_rounds: 5_000,
            lifetime: seconds(300),
            letters_floor: Duration::from_millis(1_200),
            proof_floor: Duration::from_millis(200),
            failure_fades_after: seconds(120),
            block: (seconds(10), seconds(600)),
        }
    }
}

/// A pass that is asked for, with the answer to a challenge where there is one.
#[derive(Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PassBody {
    /// From `POST /v1/sales/{sale}/challenges`, where the sale has a human check.
    #[serde(default)]
    challenge: Option<String>,
    /// The letters, as a text; or what the proof of work found: `{"counter": 12, "derivedKey": "00ab..."}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    answer: Option<Answer>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "answer is the letters as a text, or counter and derivedKey of a proof of work")]
enum Answer {
    Letters(String),
    Work(Solution),
}

/// All human checks of a process.
pub(crate) struct HumanChecks {
    pub(crate) keys: Arc<CheckKeys>,
    pub(crate) options: HumanOptions,
    used: Mutex<Once<[u8; 16]>>,
    hasher: Hasher,
    /// What the gates of a cluster keep together.
    shared: Option<Arc<Shared>>,
    failures: Tally,
    blocks: Backoff,
    pool: OnceLock<Arc<Pool>>,
    voice: OnceLock<Voice>,
    sets: Mutex<HashMap<(SaleOrdinal, u64), Arc<FixedSet>>>,
    /// The right to make a set.
    making: Semaphore,
    /// The right to compute a try.
    proving: Semaphore,
}

/// How a customer has done so far, over all sales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Failures that have not faded.
    pub(crate) failures: u32,
    /// Milliseconds for which nothing is asked and nothing believed.
    pub(crate) blocked_for: Option<u64>,
}

/// What is remembered of challenges and of those who failed them.
impl HumanChecks {
    /// `counting` is what customers are told apart by, at all gates, and where the gates meet.
    pub(crate) fn new(secret: &[u8; 32], options: HumanOptions, counting: (Hasher, Option<Arc<Shared>>)) -> Self {
        let (first, max) = options.block;
        let (hasher, shared) = counting;
        Self {
            keys: Arc::new(CheckKeys::new(secret)),
            used: Mutex::new(Once::new(limits::CHALLENGES_USED_MAX)),
            hasher,
            shared,
            failures: Tally::new(TABLE_BYTES, milliseconds(options.failure_fades_after)),
            blocks: Backoff::new(TABLE_BYTES / 4, milliseconds(first), milliseconds(max)),
            pool: OnceLock::new(),
            voice: OnceLock::new(),
            sets: Mutex::default(),
            making: Semaphore::new(1),
            proving: Semaphore::new(PROOFS_AT_ONCE),
            options,
        }
    }

    /// Uses a challenge: of all who try, one hears [`Spent::Now`].
    pub(crate) async fn spend(&self, id: [u8; 16], until: ChainTime, now: u64) -> Spent {
        let here = self.used.lock().unwrap_or_else(PoisonError::into_inner).spend(id, until.0, now);
        let (Some(shared), Spent::Now) = (&self.shared, here) else { return here };
        let within = Duration::from_millis(until.0.saturating_sub(now));
        match shared.spend(USED, self.hasher.hash(&id), within).await {
            Some(false) => Spent::Before,
            // Unknown is not used: a customer who did what was asked is not sent away because Redis is.
            Some(true) | None => Spent::Now,
        }
    }

    /// The right answer was given, and no pass could be: the challenge may be used again.
    pub(crate) async fn restore(&self, id: [u8; 16], until: ChainTime) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).restore(id, until.0);
        if let Some(shared) = &self.shared {
            shared.restore(USED, self.hasher.hash(&id)).await;
        }
    }

    /// Counts a failure of the customer, whom `key` tells apart over all sales. Too fast again, while earlier failures count: a block.
    pub(crate) async fn count_failure(&self, key: &[u8; 16], weight: u32, now: u64) {
        let hash = self.hasher.hash(key);
        let here = self.failures.add(hash, weight, now);
        let everywhere = self.count_everywhere(hash, weight).await;
        let before = here.max(everywhere.saturating_sub(weight));
        if weight >= TOO_FAST && before >= TOO_FAST {
            self.blocks.block(hash, now);
        }
    }

    /// How the customer has done so far.
    pub(crate) async fn standing(&self, key: &[u8; 16], now: u64) -> Standing {
        let hash = self.hasher.hash(key);
        let here = self.failures.count(hash, now);
        let failures = here.max(self.count_everywhere(hash, 0).await);
        Standing { failures, blocked_for: self.blocks.rest(hash, now) }
    }

    /// Failures at all gates together with so many more; 0 where nobody knows. They are forgotten together, some time after the first.
    async fn count_everywhere(&self, hash: u64, more: u32) -> u32 {
        let Some(shared) = &self.shared else { return 0 };
        let within = self.options.failure_fades_after * FAILURES_PER_LEVEL;
        shared.count(FAILED, hash, more, within).await.unwrap_or(0).try_into().unwrap_or(u32::MAX)
    }
}

impl Standing {
    /// Refuses a customer who answered too fast more than once.
    pub(crate) fn admit(self, now: u64) -> Result<Self, Problem> {
        let Some(wait) = self.blocked_for else { return Ok(self) };
        Err(Problem {
            retry_at: Some(ChainTime(now.saturating_add(wait))),
            retry_after_seconds: Some(wait.div_ceil(1_000)),
            ..Problem::new(Refusal::RateLimited, "challenges were answered too fast, more than once")
        })
    }

    /// How hard the customer's next challenge is.
    pub(crate) fn level(self, check: HumanCheck, is_alternative: bool) -> u8 {
        let risen = u8::try_from(self.failures / FAILURES_PER_LEVEL).unwrap_or(u8::MAX);
        match check {
            HumanCheck::ProofOfWork if is_alternative => {
                risen.saturating_add(ALTERNATIVE_LEVELS).min(::human::PROOF_LEVEL_MAX)
            }
            HumanCheck::ProofOfWork => risen.min(::human::PROOF_LEVEL_MAX),
            HumanCheck::Answer => risen.min(::human::PICTURE_LEVEL_MAX),
            // Its pictures are everybody's.
            HumanCheck::Static => 0,
        }
    }
}

/// What challenges are made of.
impl HumanChecks {
    /// The earliest moment at which an answer is believed.
    pub(crate) fn not_before(&self, challenge: &Challenge) -> ChainTime {
        let floor = match challenge.check {
            HumanCheck::ProofOfWork => self.options.proof_floor,
            HumanCheck::Answer | HumanCheck::Static => self.options.letters_floor,
        };
        challenge.issued_at.plus(milliseconds(floor))
    }

    /// A picture of that level; the first one that is asked for begins the making of more.
    pub(crate) async fn picture(&self, level: u8) -> Result<Arc<Made>, Problem> {
        let pool = match self.pool.get() {
            Some(pool) => pool,
            None => {
                let pool = Pool::start(Arc::clone(&self.keys)).map_err(|error| Problem::internal(&error))?;
                // Whoever was faster has one, and this one ends.
                self.pool.get_or_init(|| Arc::new(pool))
            }
        };
        if let Some(made) = pool.take(level) {
            return Ok(made);
        }
        let waiting = Arc::clone(pool);
        tokio::task::spawn_blocking(move || waiting.wait(level)).await.map_err(|error| Problem::internal(&error))
    }

    /// Letters as a sound.
    pub(crate) fn spoken(&self, letters: &str) -> Vec<u8> {
        self.voice.get_or_init(Voice::new).speak(letters)
    }

    /// A set of pictures, made by whoever asks for it first.
    pub(crate) async fn set(&self, sale: &Sale, number: u64, now: ChainTime) -> Result<Arc<FixedSet>, Problem> {
        let key = (sale.ordinal, number);
        let kept = || self.sets.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(set) = kept() {
            return Ok(set);
        }
        let _one_at_a_time = self.making.acquire().await.map_err(|error| Problem::internal(&error))?;
        if let Some(set) = kept() {
            return Ok(set);
        }
        let (keys, id) = (Arc::clone(&self.keys), sale.id);
        let made = tokio::task::spawn_blocking(move || keys.make_set(id, number)).await;
        let made = Arc::new(made.map_err(|error| Problem::internal(&error))?);
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= SETS_MAX {
            sets.retain(|(_, number), _| ::human::is_current(*number, now));
        }
        if sets.len() >= SETS_MAX {
            sets.clear();
        }
        sets.insert(key, Arc::clone(&made));
        Ok(made)
    }
}

/// The key of a customer in a sale with a check: of one who is known, or whose answer is right. `key` tells customers apart over all sales.
pub(crate) async fn admitted(
    app: &App,
    sale: &Sale,
    customer: NewCustomer,
    key: &[u8; 16],
    body: &PassBody,
) -> Result<Secret, Problem> {
    let known = |customer: NewCustomer| async { app.engine.vault.known_customer(customer).await.map_err(of_vault) };
    let Some(text) = &body.challenge else {
        return known(customer).await?.ok_or(Refusal::ChallengeRequired.into());
    };
    match judge(app, sale, customer.pseudonym, key, text, body.answer.as_ref()).await {
        Ok(challenge) => {
            let ensured = app.engine.vault.ensure_customer(customer).await;
            if ensured.is_err() {
                // The customer has done what was asked, and sends the same again.
                app.human.restore(challenge.id, challenge.expires_at).await;
            }
            ensured.map_err(of_vault)
        }
        // The pass may have been given out, and the answer that had it got lost.
        Err(problem) => known(customer).await?.ok_or(problem),
    }
}

/// Why the vault gave no key, for a customer.
pub(crate) fn of_vault(error: CustomerError) -> Problem {
    match error {
        CustomerError::Overloaded => Refusal::Overloaded.into(),
        CustomerError::Vault(VaultError::Store(StoreError::Full)) => Refusal::StorageFull.into(),
        // Purchases with passes that are out go on meanwhile.
        CustomerError::Vault(VaultError::Store(StoreError::Unreachable(reason))) => {
            tracing::error!(reason, "the vault is away: no pass is given out");
            Refusal::Overloaded.into()
        }
        CustomerError::Closed | CustomerError::Vault(_) => Problem::internal(&error),
    }
}

/// Uses a challenge, and says whether it was answered rightly.
async fn judge(
    app: &App,
    sale: &Sale,
    customer: Pseudonym,
    key: &[u8; 16],
    text: &str,
    answer: Option<&Answer>,
) -> Result<Challenge, Problem> {
    let (checks, now) = (&app.human, app.engine.now());
    checks.standing(key, now).await.admit(now)?;
    let failed = |why: &str| Problem::new(Refusal::ChallengeFailed, why);
    // What costs nothing to make up costs nothing to refuse, and counts for nobody.
    let Some(challenge) = checks.keys.open(sale.id, customer, text) else {
        app.metrics.count_check(None, CheckOutcome::NotBelieved);
        return Err(failed("this challenge was not given to you for this sale"));
    };
    let count = |outcome| app.metrics.count_check(Some(challenge.check), outcome);
    if challenge.expires_at.0 <= now {
        count(CheckOutcome::Expired);
        return Err(failed("the challenge has expired"));
    }
    let answer =
        answer.ok_or_else(|| Problem::new(Refusal::Malformed, "answer: send the answer with its challenge"))?;
    // Used before it is looked at, so that one challenge is one try, however many are sent at once.
    match checks.spend(challenge.id, challenge.expires_at, now).await {
        Spent::Now => {}
        Spent::Before => {
            count(CheckOutcome::Used);
            return Err(failed("the challenge has been used"));
        }
        Spent::Full => return Err(Refusal::Overloaded.into()),
    }
    if now < checks.not_before(&challenge).0 {
        count(CheckOutcome::TooFast);
        checks.count_failure(key, TOO_FAST, now).await;
        return Err(failed("the answer came too fast"));
    }
    if !is_right(checks, sale, challenge, answer).await? {
        count(CheckOutcome::Wrong);
        checks.count_failure(key, WRONG, now).await;
        return Err(failed("the answer is wrong"));
    }
    count(CheckOutcome::Passed);
    Ok(challenge)
}

async fn is_right(checks: &HumanChecks, sale: &Sale, challenge: Challenge, answer: &Answer) -> Result<bool, Problem> {
    match (challenge.check, answer) {
        (HumanCheck::ProofOfWork, Answer::Work(solution)) => {
            let _permit = checks.proving.acquire().await.map_err(|error| Problem::internal(&error))?;
            let (keys, solution) = (Arc::clone(&checks.keys), solution.clone());
            let solved = tokio::task::spawn_blocking(move || keys.is_solved(&challenge, &solution)).await;
            solved.map_err(|error| Problem::internal(&error))
        }
        (HumanCheck::Answer | HumanCheck::Static, Answer::Letters(letters)) => {
            Ok(::human::same_letters(&checks.keys.letters_of(sale.id, &challenge), letters))
        }
        (HumanCheck::ProofOfWork, Answer::Letters(_)) | (HumanCheck::Answer | HumanCheck::Static, Answer::Work(_)) => {
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;
    const KEY: [u8; 16] = [5; 16];

    fn checks() -> HumanChecks {
        HumanChecks::new(&[7; 32], HumanOptions::default(), (Hasher::new(&[8; 16]), None))
    }

    #[tokio::test]
    async fn a_challenge_is_used_once_by_whoever_is_first_and_again_after_it_was_restored() {
        let checks = checks();
        let end = ChainTime(NOW + 1_000);
        assert_eq!(checks.spend([1; 16], end, NOW).await, Spent::Now);
        assert_eq!(checks.spend([1; 16], end, NOW + 999).await, Spent::Before);
        assert_eq!(checks.spend([2; 16], end, NOW).await, Spent::Now);
        checks.restore([1; 16], end).await;
        assert_eq!(checks.spend([1; 16], end, NOW).await, Spent::Now);
        assert_eq!(checks.spend([2; 16], end, NOW).await, Spent::Before);
    }

    #[tokio::test]
    async fn too_fast_makes_it_harder_and_again_blocks_for_longer_each_time() {
        let checks = checks();
        let mut now = NOW;
        checks.count_failure(&KEY, TOO_FAST, now).await;
        let standing = checks.standing(&KEY, now).await;
        assert_eq!(standing, Standing { failures: 2, blocked_for: None });
        assert_eq!(standing.level(HumanCheck::Answer, false), 1);
        for seconds in [10, 20, 40] {
            checks.count_failure(&KEY, TOO_FAST, now).await;
            let refused = checks.standing(&KEY, now).await.admit(now).unwrap_err();
            assert_eq!(refused.refusal, Refusal::RateLimited);
            assert_eq!(refused.retry_at, Some(ChainTime(now + seconds * 1_000)));
            now += seconds * 1_000;
            assert!(checks.standing(&KEY, now).await.admit(now).is_ok(), "nobody is locked out");
        }
        assert_eq!(checks.standing(&[6; 16], now).await, Standing { failures: 0, blocked_for: None });
        assert_eq!(checks.standing(&KEY, now + 3_600_000).await.failures, 0, "failures fade");
    }

    #[tokio::test]
    async fn wrong_answers_make_it_harder_and_block_nobody() {
        let checks = checks();
        for _ in 0..40 {
            checks.count_failure(&KEY, WRONG, NOW).await;
        }
        let standing = checks.standing(&KEY, NOW).await;
        assert_eq!(standing.blocked_for, None);
        let levels = HumanCheck::ALL.map(|check| standing.level(check, false));
        assert_eq!(levels, [::human::PROOF_LEVEL_MAX, ::human::PICTURE_LEVEL_MAX, 0]);
        let fresh = Standing { failures: 0, blocked_for: None };
        assert_eq!(HumanCheck::ALL.map(|check| fresh.level(check, false)), [0, 0, 0]);
        assert_eq!(fresh.level(HumanCheck::ProofOfWork, true), 1, "what stands for letters is harder");
    }
}
