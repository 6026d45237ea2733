//! What every gate may know of a sale without asking its owner: the window, who holds, and the sold-out marks.
//!
//! All of it rests on durable records: the owner publishes after the sync. A mark carries the position S that it rests on and is used
//! only for a customer who is not among the holders up to S; everybody else is for the owner to answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};

use chain::disk::Watermark;
use domain::ids::Hash;
use domain::{ChainTime, Pseudonym, Refusal, SaleDefinition, SalePhase, limits};

use crate::command::Wish;
use crate::core::{Core, Guards};
use crate::holders::Holders;
use crate::verdict::{self, Holdings, Window};

/// No mark: the item has not been sold out yet.
const UNMARKED: u64 = u64::MAX;
/// No unit is free.
const NOT_FREE: u64 = u64::MAX;
/// What is decided is published here before anybody hears of it.
const ALWAYS: u64 = u64::MAX;
/// News may be this old, in milliseconds, where a sale wants them fresher than they can come.
const NEWS_MILLISECONDS_MIN: u64 = 1_000;

struct Mark {
    /// Position that the mark rests on, or `UNMARKED`.
    position: AtomicU64,
    /// Requests that may pass the mark since units came back, and the chain time from which they may.
    permits: AtomicI64,
    permits_from: AtomicU64,
    free: AtomicU64,
    /// Units in holds, which may come back.
    held: AtomicU64,
    /// Chain time since which units have been free without a break, or `NOT_FREE`.
    free_since: AtomicU64,
}

/// The shared view of one sale.
pub struct SaleView {
    definition: SaleDefinition,
    phase: AtomicU8,
    paused: AtomicBool,
    /// Nothing can be decided for now, for a reason outside of the sale.
    suspended: AtomicBool,
    /// Up to which time everything decided is known here; `ALWAYS` where that is so by itself.
    informed_at: AtomicU64,
    storage_full: AtomicBool,
    opened_at: AtomicU64,
    /// Chain time as last published.
    time: AtomicU64,
    holders: Holders,
    marks: Vec<Mark>,
    /// Which coupons may be used once more.
    coupons: Vec<AtomicBool>,
    watermark: Arc<Watermark>,
    /// Draws how long units rest that came back.
    secret: Hash,
}

/// What a gate may answer by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyRefusal {
    /// Why.
    pub refusal: Refusal,
    /// The chain position that it rests on.
    pub position: u64,
    /// From when another try makes sense.
    pub retry_at: Option<ChainTime>,
}

impl SaleView {
    pub(crate) fn new(definition: SaleDefinition, watermark: Arc<Watermark>, secret: Hash) -> Self {
        let mark = || Mark {
            position: AtomicU64::new(UNMARKED),
            permits: AtomicI64::new(0),
            permits_from: AtomicU64::new(0),
            free: AtomicU64::new(0),
            held: AtomicU64::new(0),
            free_since: AtomicU64::new(NOT_FREE),
        };
        Self {
            marks: definition.items.iter().map(|_| mark()).collect(),
            coupons: definition.coupons.iter().map(|_| AtomicBool::new(true)).collect(),
            definition,
            phase: AtomicU8::new(0),
            paused: AtomicBool::new(false),
            suspended: AtomicBool::new(false),
            informed_at: AtomicU64::new(ALWAYS),
            storage_full: AtomicBool::new(false),
            opened_at: AtomicU64::new(0),
            time: AtomicU64::new(0),
            holders: Holders::new(),
            watermark,
            secret,
        }
    }

    /// Publishes the window and the marks. The owner has put every holder of the batch into `holders` before.
    pub(crate) fn publish(&self, core: &Core) {
        self.opened_at.store(core.opened_at.0, Ordering::Relaxed);
        self.time.store(core.now.0, Ordering::Relaxed);
        self.paused.store(core.paused.is_some(), Ordering::Relaxed);
        self.storage_full.store(core.storage_full, Ordering::Relaxed);
        self.phase.store(core.phase as u8, Ordering::Release);
        for (coupon, is_free) in self.coupons.iter().enumerate() {
            is_free.store(core.coupon_is_free(coupon), Ordering::Relaxed);
        }
        for (item, (mark, stock)) in (0..).zip(self.marks.iter().zip(&core.stocks)) {
            let free = u64::from(stock.free());
            if free > mark.free.swap(free, Ordering::Relaxed) {
                // Whoever gives units back knows when; they must not know from when these can be had.
                let rest = self.definition.resale_delay_milliseconds;
                let rest = chain::head::resale_offset(&self.secret, core.next, item, rest);
                mark.permits_from.store(core.now.0 + rest, Ordering::Relaxed);
            }
            mark.held.store(u64::from(stock.counts().held), Ordering::Relaxed);
            // Permits first: whoever sees the new mark must not find permits of units that are gone.
            mark.permits.store((free * limits::PERMITS_PER_FREE_UNIT) as i64, Ordering::Relaxed);
            let since = if free == 0 { NOT_FREE } else { mark.free_since.load(Ordering::Relaxed).min(core.now.0) };
            mark.free_since.store(since, Ordering::Relaxed);
            if free == 0 {
                mark.position.store(core.next.saturating_sub(1), Ordering::Release);
            }
        }
    }

    /// Publishes a core that was replayed, or whose last batch was appended late: every holder, then window and marks.
    pub(crate) fn publish_replayed(&self, core: &Core) {
        core.grants.customers().for_each(|customer| self.holders.insert(customer));
        self.publish(core);
    }

    /// The verdict that the owner would give, where this view is enough to know it; `None` sends the request to the owner.
    ///
    /// A request that passes a mark on a permit must be submitted: the owner renews the permits when it has seen it.
    pub fn refuse_early(&self, wish: &Wish, now: ChainTime) -> Option<EarlyRefusal> {
        self.early(wish, now, |permits| permits.fetch_sub(1, Ordering::Relaxed))
    }

    /// Whether it would be refused early now. Takes no permit.
    pub fn is_refused_early(&self, wish: &Wish, now: ChainTime) -> bool {
        self.early(wish, now, |permits| permits.load(Ordering::Relaxed)).is_some()
    }

    fn early(&self, wish: &Wish, now: ChainTime, permits: impl FnOnce(&AtomicI64) -> i64) -> Option<EarlyRefusal> {
        // Chain time is what counts, also where the wall clock has fallen behind it.
        let now = now.max(ChainTime(self.time.load(Ordering::Relaxed)));
        let mark = &self.marks[usize::from(wish.item)];
        // The mark before the holders: a grant that made the mark true is then among them.
        let position = mark.position.load(Ordering::Acquire);
        let window = self.window();
        if self.holders.may_hold(wish.customer) {
            return None;
        }
        if window.phase == SalePhase::Planned && now >= self.definition.opens_at {
            return None;
        }
        let stranger = Holdings::default();
        let coupon = self.definition.coupon_index(wish.coupon);
        let coupon = coupon.is_some_and(|coupon| self.coupons[coupon].load(Ordering::Relaxed));
        if let Err(refusal) = verdict::before_stock(&self.definition, window, now, wish, stranger, coupon, Guards::ON) {
            let retry_at = verdict::retry_at(&self.definition, window, wish, refusal);
            return Some(EarlyRefusal { refusal, position: self.durable_position(), retry_at });
        }
        // Permits can be lost, or spent by those who ask for more than is free. So the mark is not believed for longer than a unit
        // may be free while `sold_out` is told (INV-10).
        let believed_until =
            mark.free_since.load(Ordering::Relaxed).saturating_add(self.definition.resale_delay_milliseconds);
        // Nor is it believed while units may have come back that nobody has told of.
        let news_last = self.definition.resale_delay_milliseconds.max(NEWS_MILLISECONDS_MIN);
        let informed_until = self.informed_at.load(Ordering::Relaxed).saturating_add(news_last);
        let is_old = now.0 >= believed_until.min(informed_until);
        let has_rested = now.0 >= mark.permits_from.load(Ordering::Relaxed);
        if position == UNMARKED || is_old || has_rested && permits(&mark.permits) > 0 {
            return None;
        }
        Some(EarlyRefusal { refusal: Refusal::SoldOut, position, retry_at: None })
    }

    fn window(&self) -> Window {
        let phase = match self.phase.load(Ordering::Acquire) {
            0 => SalePhase::Planned,
            1 => SalePhase::Open,
            2 => SalePhase::Closed,
            _ => SalePhase::Settled,
        };
        Window {
            phase,
            paused: self.is_paused(),
            storage_full: self.storage_full.load(Ordering::Relaxed),
            opened_at: ChainTime(self.opened_at.load(Ordering::Relaxed)),
        }
    }

    pub(crate) fn holders(&self) -> &Holders {
        &self.holders
    }

    /// Whether the customer may have a grant in the sale. `false` is certain.
    pub fn may_hold(&self, customer: Pseudonym) -> bool {
        self.holders.may_hold(customer)
    }

    /// The sale's definition.
    pub fn definition(&self) -> &SaleDefinition {
        &self.definition
    }

    /// The phase as last published.
    pub fn phase(&self) -> SalePhase {
        self.window().phase
    }

    /// Whether purchases are paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed) || self.suspended.load(Ordering::Relaxed)
    }

    /// Tells strangers `paused` while nothing can be decided, or no longer. The chain knows nothing of it.
    pub fn suspend(&self, suspended: bool) {
        self.suspended.store(suspended, Ordering::Relaxed);
    }

    /// Tells up to which time (Unix milliseconds) everything that was decided elsewhere is known here.
    pub fn inform(&self, at: u64) {
        self.informed_at.store(at, Ordering::Relaxed);
    }

    /// Whether nothing can be decided at the moment.
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed)
    }

    /// Whether the disk takes no purchases.
    pub fn is_storage_full(&self) -> bool {
        self.storage_full.load(Ordering::Relaxed)
    }

    /// When the sale opened, once it has.
    pub fn opened_at(&self) -> Option<ChainTime> {
        let window = self.window();
        (window.phase > SalePhase::Planned).then_some(window.opened_at)
    }

    /// Free units of an item as last published.
    pub fn free(&self, item: u16) -> u64 {
        self.marks[usize::from(item)].free.load(Ordering::Relaxed)
    }

    /// Units of an item in holds, as last published.
    pub fn held(&self, item: u16) -> u64 {
        self.marks[usize::from(item)].held.load(Ordering::Relaxed)
    }

    /// Number of the last durable record.
    pub fn durable_position(&self) -> u64 {
        self.watermark.next().saturating_sub(1)
    }

    /// The log's watermark, for whoever follows the chain.
    pub fn watermark(&self) -> &Arc<Watermark> {
        &self.watermark
    }
}
