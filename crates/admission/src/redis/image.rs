//! A sale's whole state as Redis keeps it, and how it is written there.

use std::collections::{BTreeMap, BTreeSet};

use domain::{PurchaseNumber, SaleDefinition};

use super::number;
use crate::core::Core;

/// A sale as Redis keeps it: what a rebuild writes, and what the same decisions must have left there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The packed numbers.
    pub state: Vec<u8>,
    /// The keys between state and outbox, in the order of [`keys`]: fields with their values.
    pub hashes: [Vec<(Vec<u8>, Vec<u8>)>; 5],
}

impl Image {
    /// The image of a core whose records are all in the chain: the outbox is empty. Beyond `uncommitted_max` records that the chain
    /// does not have, new grants are refused.
    pub fn of(core: &Core, uncommitted_max: u64) -> Self {
        let mut image = Self { state: state(core, uncommitted_max), ..Self::default() };
        let [items, returned, grants, customers, payments] = &mut image.hashes;
        items.extend(item_fields(core).chain(coupon_fields(core)));
        returned.extend(returned_fields(core));
        for number in 0..core.grants.count() {
            let [grant, customer] = grant_fields(core, PurchaseNumber(number));
            grants.push(grant);
            customers.push(customer);
            payments.extend(payment_field(core, PurchaseNumber(number)));
        }
        image
    }
}

/// How far a server is that keeps a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The epoch under which it decided.
    pub epoch: u64,
    /// Number of the record that it would decide next.
    pub next: u64,
    /// The chain had all records below, as it was told.
    pub committed: u64,
}

impl Kept {
    /// Reads the packed numbers; `None` when they are none of this version.
    pub fn parse(state: &[u8]) -> Option<Self> {
        let (numbers, rest) = state.as_chunks::<8>();
        let number = |place: usize| numbers.get(place).map(|bytes| u64::from_le_bytes(*bytes));
        if numbers.len() != NUMBERS || !rest.is_empty() {
            return None;
        }
        Some(Self { epoch: number(EPOCH)?, next: number(EPOCH + 1)?, committed: number(NUMBERS - 2)? })
    }
}

/// How many numbers [`state`] packs, and which of them is the epoch; the next record's number stands behind it. The last but one is
/// how far the chain is.
const NUMBERS: usize = 28;
const EPOCH: usize = 18;

/// What [`super::STANDING`] must say of a sale at the end of its chain: the number of the next record, how many grants and how many holds
/// there are, and the packed numbers of items and coupons.
pub fn standing(core: &Core) -> (u64, u64, u64, Vec<Vec<u8>>) {
    let coupons = (0..core.coupons_used.len()).map(|coupon| coupon_numbers(core, coupon));
    let items = item_fields(core).map(|(_, numbers)| numbers).chain(coupons).collect();
    (core.next, core.grants.count().into(), core.held_grants.into(), items)
}

/// Fields that one step writes; with their values few enough for one call.
const FIELDS_PER_STEP: usize = 500;

/// How a sale is written to a server that may not decide yet.
pub struct Rebuild<'a> {
    /// The sale at the end of its chain, whose last record begins `epoch`.
    pub core: &'a Core,
    /// See [`Image::of`].
    pub uncommitted_max: u64,
    /// The grants that the server does not have as they stand, and the record that it would decide next: a repair. `None` where nothing
    /// that it has counts.
    pub touched: Option<(&'a BTreeSet<PurchaseNumber>, u64)>,
}

impl Rebuild<'_> {
    /// The arguments of [`super::REBUILD`], call after call. With the last one the server may decide.
    pub fn steps(&self) -> impl Iterator<Item = Vec<Vec<u8>>> {
        let core = self.core;
        let kept = match self.touched {
            Some((_, next)) => vec![b"repair".to_vec(), number(next)],
            None => vec![b"all".to_vec()],
        };
        let step = |name: &str, arguments: Vec<Vec<u8>>| {
            let mut all = vec![number(core.epoch), name.as_bytes().to_vec()];
            all.extend(arguments);
            all
        };
        let begin = std::iter::once(step("begin", kept));
        let admit = std::iter::once_with(move || step("admit", vec![state(core, self.uncommitted_max)]));
        let numbers: Box<dyn Iterator<Item = PurchaseNumber>> = match self.touched {
            Some((touched, _)) => Box::new(touched.iter().copied()),
            None => Box::new((0..core.grants.count()).map(PurchaseNumber)),
        };
        let grants = numbers.flat_map(|number| {
            let [grant, customer] = grant_fields(core, number);
            let payments = payment_field(core, number).map(|payments| (6, payments));
            [(4, grant), (5, customer)].into_iter().chain(payments)
        });
        let fields = item_fields(core)
            .chain(coupon_fields(core))
            .map(|field| (2, field))
            .chain(returned_fields(core).map(|field| (3, field)));
        let puts = Puts { fields: fields.chain(grants), waiting: Default::default() };
        begin.chain(puts.map(move |arguments| step("put", arguments))).chain(admit)
    }
}

type Field = (Vec<u8>, Vec<u8>);

/// Gathers fields by the key that they belong to, some hundreds at a time.
struct Puts<I> {
    fields: I,
    /// By the place of the key.
    waiting: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl<I: Iterator<Item = (u64, Field)>> Iterator for Puts<I> {
    type Item = Vec<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        for (key, (field, value)) in self.fields.by_ref() {
            let waiting = self.waiting.entry(key).or_insert_with(|| vec![number(key)]);
            waiting.extend([field, value]);
            if waiting.len() > 2 * FIELDS_PER_STEP {
                return self.waiting.remove(&key);
            }
        }
        self.waiting.pop_first().map(|(_, waiting)| waiting)
    }
}

fn decimal(number: &dyn std::fmt::Display) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn item_fields(core: &Core) -> impl Iterator<Item = Field> {
    let items = core.stocks.iter().zip(&core.definition.items).enumerate();
    items.map(|(index, (stock, item))| (decimal(&index), pack(&stock.numbers(item.limit_per_customer, item.price))))
}

fn returned_fields(core: &Core) -> impl Iterator<Item = Field> {
    core.stocks.iter().enumerate().flat_map(|(index, stock)| {
        let places = stock.returned().iter().enumerate();
        places.map(move |(place, unit)| (decimal(&format_args!("{index}:{place}")), unit_bytes(*unit).to_vec()))
    })
}

/// Each coupon's numbers under its index, and its index under its hash.
fn coupon_fields(core: &Core) -> impl Iterator<Item = Field> {
    core.definition.coupons.iter().enumerate().flat_map(|(index, coupon)| {
        let hash = coupon.hash.unwrap_or_default();
        let numbers = (decimal(&format_args!("coupon:{index}")), coupon_numbers(core, index));
        [numbers, (decimal(&format_args!("hash:{hash}")), decimal(&index))]
    })
}

/// `COUPON` of the library.
fn coupon_numbers(core: &Core, index: usize) -> Vec<u8> {
    let coupon = &core.definition.coupons[index];
    pack(&[coupon.percent.into(), coupon.uses_max.into(), core.coupons_used[index].into()])
}

fn payment_field(core: &Core, number: PurchaseNumber) -> Option<Field> {
    core.payments.get(&number.0).map(|payments| (decimal(&number.0), payments.packed()))
}

/// The grant's own field, and the one that leads to its customer's newest.
fn grant_fields(core: &Core, number: PurchaseNumber) -> [Field; 2] {
    let row = core.grants.row(number).expect("grants are numbered without gaps");
    let units = core.grants.units(number).flat_map(unit_bytes);
    let coupon = core.coupons.get(&number.0).map_or(0, |coupon| coupon + 1);
    let newest = core.grants.of_customer(row.customer).next().map_or(number, |(newest, _)| newest);
    let grant = (decimal(&number.0), row.packed(coupon).into_iter().chain(units).collect());
    [grant, (row.customer.0.to_vec(), decimal(&newest.0))]
}

fn unit_bytes(unit: domain::Unit) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&unit.number.to_le_bytes());
    bytes[4..].copy_from_slice(&unit.generation.to_le_bytes());
    bytes
}

/// `STATE` of the library.
fn state(core: &Core, uncommitted_max: u64) -> Vec<u8> {
    let SaleDefinition { opens_at, closes_at, hold_seconds, grace_seconds, .. } = &core.definition;
    let definition = &core.definition;
    pack(&[
        opens_at.0,
        closes_at.0,
        hold_seconds * 1_000,
        grace_seconds * 1_000,
        definition.grants_per_pass_max.into(),
        definition.grants_per_customer_max.into(),
        definition.limit_per_customer.into(),
        definition.settle_after_seconds * 1_000,
        definition.items.len() as u64,
        definition.unpaid_releases_max.into(),
        definition.hold_extension_seconds * 1_000,
        definition.coupons.len() as u64,
        core.phase as u64,
        core.paused.map_or(0, |reason| reason as u64),
        core.opened_at.0,
        core.closed_at.0,
        core.slot_secret.is_some().into(),
        core.now.0,
        core.epoch,
        core.next,
        core.credit,
        core.grants.count().into(),
        core.expires_next.0.into(),
        core.held_grants.into(),
        core.extended_next.0.into(),
        core.unsettled.into(),
        core.next,
        uncommitted_max,
    ])
}

fn pack(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
