//! The order of verdicts on a purchase whose key is bound to nothing. The owner and every gate judge by this one function.

use domain::{ChainTime, Refusal, SaleDefinition, SalePhase};

use crate::command::Wish;
use crate::core::Guards;

/// The sale's state as far as a verdict needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) phase: SalePhase,
    pub(crate) paused: bool,
    pub(crate) storage_full: bool,
    pub(crate) opened_at: ChainTime,
}

/// What the customer already has; all zero for a stranger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) grants: u32,
    pub(crate) grants_of_pass: u32,
    pub(crate) unpaid_releases: u32,
    pub(crate) live_of_item: u32,
    pub(crate) live_of_sale: u32,
}

/// The first reason against the purchase, stock apart, in the order in which `Refusal` declares them.
pub(crate) fn before_stock(
    definition: &SaleDefinition,
    window: Window,
    now: ChainTime,
    wish: &Wish,
    holdings: Holdings,
    coupon_is_good: bool,
    guards: Guards,
) -> Result<(), Refusal> {
    refuse(guards.window && window.phase == SalePhase::Planned, Refusal::NotOpen)?;
    refuse(guards.window && window.phase > SalePhase::Open, Refusal::Closed)?;
    refuse(guards.pause && window.paused, Refusal::Paused)?;
    refuse(window.storage_full, Refusal::StorageFull)?;
    refuse(wish.pass_expires_at <= now, Refusal::PassExpired)?;
    refuse(guards.slot && now < slot(window, wish), Refusal::BeforeSlot)?;
    refuse(holdings.grants_of_pass >= definition.grants_per_pass_max, Refusal::PassSpent)?;
    let item = &definition.items[usize::from(wish.item)];
    let limit_item = item.limit_per_customer;
    refuse(guards.limit && holdings.live_of_item + wish.quantity > limit_item, Refusal::LimitItemReached)?;
    let limit_sale = definition.limit_per_customer;
    refuse(guards.limit && holdings.live_of_sale + wish.quantity > limit_sale, Refusal::LimitSaleReached)?;
    refuse(holdings.grants >= definition.grants_per_customer_max, Refusal::GrantsExhausted)?;
    refuse(holdings.unpaid_releases >= definition.unpaid_releases_max, Refusal::UnpaidReleases)?;
    refuse(wish.coupon != 0 && !coupon_is_good, Refusal::CouponRefused)
}

/// When the customer's slot comes.
pub(crate) fn slot(window: Window, wish: &Wish) -> ChainTime {
    window.opened_at.plus(u64::from(wish.slot_offset))
}

/// From when another try makes sense.
pub(crate) fn retry_at(
    definition: &SaleDefinition,
    window: Window,
    wish: &Wish,
    refusal: Refusal,
) -> Option<ChainTime> {
    match refusal {
        Refusal::NotOpen => Some(definition.opens_at.plus(u64::from(wish.slot_offset))),
        Refusal::BeforeSlot => Some(slot(window, wish)),
        _ => None,
    }
}

fn refuse(holds: bool, refusal: Refusal) -> Result<(), Refusal> {
    if holds { Err(refusal) } else { Ok(()) }
}
