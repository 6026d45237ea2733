//! Deciding on Redis: the function library, a command as its arguments, its reply as a verdict, and a sale's whole state as it keeps it.
//!
//! Bytes only; no connection and no driver. The library is the twin of `core`: the same commands at the same times give the same
//! verdicts and records. Integers stay below 2^53, which is what a number of Lua holds exactly.

use domain::{ChainTime, PurchaseNumber, Refusal, SaleDefinition, limits};

use crate::command::{Command, PurchaseRequest};
use crate::core::{Core, Verdict};
use chain::PrivatePart;

/// The library, for `FUNCTION LOAD`.
pub const FUNCTIONS: &str = include_str!("redis/functions.lua");
/// Decides one command.
pub const DECIDE: &str = "doorbuster_decide";
/// What chain time alone brings.
pub const TICK: &str = "doorbuster_tick";
/// Notes how far the chain has come, and trims the outbox.
pub const COMMITTED: &str = "doorbuster_committed";
/// How the error of a server begins that has not been admitted to decide.
pub const FENCED: &str = "FENCED";

/// The keys of a sale in the order in which the functions take them, all in one slot. The last is for the rebuilder to write: the run
/// id of the server process that may decide.
pub fn keys(sale: &str) -> [String; 7] {
    ["state", "items", "returned", "grants", "customers", "outbox", "admitted"]
        .map(|part| format!("doorbuster:{{{sale}}}:{part}"))
}

/// A number as the library reads it, exact in a number of Lua.
fn number(number: u64) -> Vec<u8> {
    number.min(limits::INTEGER_MAX).to_string().into_bytes()
}

/// The arguments of [`DECIDE`].
pub fn decide_arguments(clock: ChainTime, command: &Command, private: Option<&PrivatePart>) -> Vec<Vec<u8>> {
    let mut arguments = vec![number(clock.0)];
    let mut named = |name: &str, fields: Vec<Vec<u8>>| {
        arguments.push(name.as_bytes().to_vec());
        arguments.extend(fields);
    };
    match command {
        Command::Purchase(request) => named("purchase", purchase_fields(request, private)),
        Command::Cancel { number: order, customer } => {
            let customer = customer.map_or(Vec::new(), |customer| customer.0.to_vec());
            named("cancel", vec![number(order.0.into()), customer]);
        }
        Command::Confirm { number: order } => named("confirm", vec![number(order.0.into())]),
        Command::Pause(reason) => named("pause", vec![number(*reason as u64)]),
        Command::Resume => named("resume", Vec::new()),
        Command::ChangeStock { item, change } => {
            let bound = limits::INTEGER_MAX.cast_signed();
            let change = (*change).clamp(-bound, bound).to_string().into_bytes();
            named("stock", vec![number((*item).into()), change]);
        }
        Command::Close => named("close", Vec::new()),
        Command::Settle => named("settle", Vec::new()),
    }
    arguments
}

fn purchase_fields(request: &PurchaseRequest, private: Option<&PrivatePart>) -> Vec<Vec<u8>> {
    let wish = &request.wish;
    vec![
        wish.customer.0.to_vec(),
        request.purchase.0.to_vec(),
        number(wish.item.into()),
        number(wish.quantity.into()),
        number(wish.coupon),
        number(wish.pass),
        number(wish.pass_expires_at.0),
        number(wish.slot_offset.into()),
        request.key_hash.to_vec(),
        request.body_hash.to_vec(),
        private.map_or(Vec::new(), |part| [&part.commitment[..], &part.sealed].concat()),
    ]
}

/// The arguments of [`DECIDE`] for time that was lost and is given back to every open hold.
pub fn credit_arguments(clock: ChainTime, milliseconds: u64) -> Vec<Vec<u8>> {
    vec![number(clock.0), b"credit".to_vec(), number(milliseconds)]
}

/// The arguments of [`TICK`].
pub fn tick_arguments(clock: ChainTime, expiries_max: usize, slot_secret: &[u8; 32]) -> Vec<Vec<u8>> {
    vec![number(clock.0), number(expiries_max as u64), slot_secret.to_vec()]
}

/// The arguments of [`COMMITTED`]: the chain has the records below `committed`, and nobody needs those below `done` from the outbox.
pub fn committed_arguments(committed: u64, done: u64) -> Vec<Vec<u8>> {
    [committed, done].map(number).to_vec()
}

/// Reads the reply of [`DECIDE`]: what, a number, and from when another try makes sense. `None` for what the library never says.
pub fn verdict(what: &str, number: u64, retry_at: u64) -> Option<Verdict> {
    let grant = || u32::try_from(number).ok().map(PurchaseNumber);
    match what {
        "changed" => grant().map(Verdict::Changed),
        "unchanged" => grant().map(Verdict::Unchanged),
        "sale" => Some(Verdict::Sale),
        "refused" => {
            let refusal = Refusal::ALL.into_iter().find(|refusal| *refusal as u64 == number)?;
            Some(Verdict::Refused(refusal, (retry_at > 0).then_some(ChainTime(retry_at))))
        }
        _ => None,
    }
}

/// One record of the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided<'a> {
    /// Chain time of the decision.
    pub time: ChainTime,
    /// Number of the record's kind.
    pub kind: u8,
    /// Its public part, as the chain has it.
    pub public: &'a [u8],
    /// Commitment and sealed part, or nothing.
    pub private: &'a [u8],
}

impl<'a> Decided<'a> {
    /// Reads an entry; `None` when it is none.
    pub fn parse(entry: &'a [u8]) -> Option<Self> {
        let (time, rest) = entry.split_first_chunk::<8>()?;
        let (kind, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (public, private) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some(Self { time: ChainTime(u64::from_le_bytes(*time)), kind: *kind, public, private })
    }
}

/// A sale as Redis keeps it: what a rebuild writes, and what the same decisions must have left there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The packed numbers.
    pub state: Vec<u8>,
    /// The keys between state and outbox, in the order of [`keys`]: fields with their values.
    pub hashes: [Vec<(Vec<u8>, Vec<u8>)>; 4],
}

impl Image {
    /// The image of a core whose records are all in the chain: the outbox is empty. Beyond `uncommitted_max` records that the chain
    /// does not have, new grants are refused.
    pub fn of(core: &Core, uncommitted_max: u64) -> Self {
        let mut image = Self { state: state(core, uncommitted_max), ..Self::default() };
        let [items, returned, grants, customers] = &mut image.hashes;
        let field = |number: &dyn std::fmt::Display| number.to_string().into_bytes();
        for (index, (stock, item)) in core.stocks.iter().zip(&core.definition.items).enumerate() {
            items.push((field(&index), pack(&stock.numbers(item.limit_per_customer, item.price))));
            for (place, unit) in stock.returned().iter().enumerate() {
                returned.push((field(&format_args!("{index}:{place}")), unit_bytes(*unit).to_vec()));
            }
        }
        for number in 0..core.grants.count() {
            let row = core.grants.row(PurchaseNumber(number)).expect("grants are numbered without gaps");
            let units = core.grants.units(PurchaseNumber(number)).flat_map(unit_bytes);
            grants.push((field(&number), row.packed().into_iter().chain(units).collect()));
            // A later grant of the same customer replaces this one when the fields are written in order.
            customers.push((row.customer.0.to_vec(), field(&number)));
        }
        image
    }
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
        core.next,
        core.next,
        uncommitted_max,
    ])
}

fn pack(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
