//! What a seed decides beforehand: the sale, its crowd and the weather over it.

use std::ops::Range;

use chain::HeadSigner;
use chain::head::{pseudonym_commitment, slot_commitment};
use domain::record::Created;
use domain::{ChainTime, CouponDefinition, Currency, ItemDefinition, SaleDefinition, SaleId, SaleOrdinal};

/// How likely things are in one step, out of 1,000.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    /// The power goes during one of the next operations of the disk.
    pub(crate) power: u32,
    /// The process is killed.
    pub(crate) kill: u32,
    /// One write or sync fails.
    pub(crate) disk_error: u32,
    /// The disk is full for a while.
    pub(crate) full: u32,
    /// One write lands elsewhere.
    pub(crate) misdirect: u32,
    /// A clock jumps.
    pub(crate) jump: u32,
    /// The process stalls.
    pub(crate) stall: u32,
    /// A reply is lost.
    pub(crate) reply_lost: u32,
    /// The books are deleted or lose transactions, at a restart.
    pub(crate) books_lost: u32,
    /// The operator does something.
    pub(crate) operator: u32,
}

/// Everything that stands before the first step.
pub(crate) struct Plan {
    pub(crate) sale: SaleId,
    pub(crate) definition: SaleDefinition,
    pub(crate) slot_secret: [u8; 32],
    pub(crate) signing_seed: [u8; 32],
    pub(crate) shoppers: usize,
    /// Actions of shoppers in one step.
    pub(crate) actions: Range<u32>,
    /// Bytes of private parts; large ones roll segments and fill disks.
    pub(crate) private_bytes: Range<usize>,
    pub(crate) steps: u32,
    /// Steps that filling a spare segment takes, about.
    pub(crate) spare_steps: u32,
    pub(crate) weather: Weather,
    /// When it begins, by the wall clock.
    pub(crate) begins_at: u64,
}

impl Plan {
    pub(crate) fn draw(random: &mut fastrand::Rng, steps: u32) -> Self {
        let begins_at = 1_800_000_000_000 + random.u64(0..1_000_000);
        // A few seeds have a crowd whose records fill segments, and disks.
        let large = random.u8(0..6) == 0;
        Self {
            sale: SaleId(bytes(random)),
            definition: definition(random, begins_at, large),
            slot_secret: bytes(random),
            signing_seed: bytes(random),
            shoppers: if large { random.usize(50..200) } else { random.usize(1..14) },
            actions: 0..if large { random.u32(20..60) } else { random.u32(2..12) },
            private_bytes: if large { 3_000..4_000 } else { 0..200 },
            steps: random.u32(steps / 4..=steps) / if large { 6 } else { 1 },
            spare_steps: if random.bool() { 4 } else { 100 },
            weather: weather(random, large),
            begins_at,
        }
    }

    /// A sale that is open for longer than an hour and whose limits are in nobody's way.
    pub(crate) fn draw_an_hour(random: &mut fastrand::Rng, steps: u32) -> Self {
        let mut plan = Self::draw(random, steps);
        let definition = &mut plan.definition;
        definition.opens_at = ChainTime(plan.begins_at);
        definition.closes_at = ChainTime(plan.begins_at + 2 * 3_600_000);
        definition.spread_milliseconds = 0;
        definition.limit_per_customer = 1_000_000;
        (definition.grants_per_pass_max, definition.grants_per_customer_max) = (1_000, 1_000);
        definition.unpaid_releases_max = 1_000;
        for item in &mut definition.items {
            (item.stock, item.limit_per_customer) = (1_000, 1_000_000);
        }
        Self { shoppers: 20, private_bytes: 0..200, ..plan }
    }

    pub(crate) fn signer(&self) -> HeadSigner {
        HeadSigner::from_seed(&self.signing_seed)
    }

    pub(crate) fn created(&self) -> Created {
        Created {
            ordinal: SaleOrdinal(1),
            slot_commitment: slot_commitment(self.sale, &self.slot_secret),
            pseudonym_commitment: pseudonym_commitment(self.sale, &[9; 32]),
            signing_key: self.signer().public_key(),
            definition: serde_json::to_vec(&self.definition).expect("a definition has text keys and plain values"),
        }
    }
}

fn bytes<const N: usize>(random: &mut fastrand::Rng) -> [u8; N] {
    std::array::from_fn(|_| random.u8(..))
}

fn weather(random: &mut fastrand::Rng, large: bool) -> Weather {
    // Calm seeds go deep into a sale, rough ones crash at every corner.
    let roughness = random.u32(0..if large { 2 } else { 4 });
    let mut likely = |at_most: u32| random.u32(0..=at_most * roughness);
    let (power, kill, disk_error, full) = (likely(15), likely(10), likely(8), likely(10));
    Weather {
        power,
        kill,
        disk_error,
        full: if large { full + 400 } else { full },
        misdirect: if random.u8(0..8) == 0 { 8 } else { 0 },
        jump: random.u32(0..15),
        stall: random.u32(0..20),
        reply_lost: random.u32(0..400),
        books_lost: random.u32(0..700),
        operator: random.u32(0..60),
    }
}

fn definition(random: &mut fastrand::Rng, begins_at: u64, large: bool) -> SaleDefinition {
    let generous = if large { 20 } else { 1 };
    let opens_at = begins_at + random.u64(0..if large { 200 } else { 6_000 });
    let closes_at = opens_at + random.u64(10_000..150_000);
    let items = (0..random.usize(1..4)).map(|index| ItemDefinition {
        item: format!("item-{index}"),
        title: format!("Item {index}"),
        stock: if large { random.u32(200..500) } else { random.u32(0..16) },
        price: random.u64(0..10_000),
        limit_per_customer: random.u32(1..5) * generous,
        sku: None,
        external_id: None,
        points: if index == 0 { 7 } else { 0 },
    });
    let items = items.collect();
    SaleDefinition {
        sale: "drop".to_owned(),
        title: "Drop".to_owned(),
        currency: Currency(*b"EUR"),
        passes_open_at: ChainTime(0),
        opens_at: ChainTime(opens_at),
        closes_at: ChainTime(closes_at),
        spread_milliseconds: if large || random.bool() { 0 } else { random.u64(1..5_000) },
        hold_seconds: random.u64(1..40),
        grace_seconds: random.u64(0..5),
        pass_seconds: random.u64(5..120),
        grants_per_pass_max: random.u32(1..4) * generous,
        grants_per_customer_max: random.u32(1..9) * generous,
        unpaid_releases_max: if large { 1_000 } else { random.u32(1..12) },
        hold_extension_seconds: random.u64(0..40),
        limit_per_customer: random.u32(1..7) * generous,
        resale_delay_milliseconds: 1_000,
        settle_after_seconds: random.u64(0..60),
        external_id: None,
        test: false,
        items,
        coupons: (0..random.u64(0..3)).map(|index| coupon(random, index + 7)).collect(),
    }
}

fn coupon(random: &mut fastrand::Rng, hash: u64) -> CouponDefinition {
    CouponDefinition { code: None, hash: Some(hash), percent: random.u8(1..=100), uses_max: random.u32(1..4) }
}
