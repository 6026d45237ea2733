//! Deciding on Redis: the function library, a command as its arguments, its reply as a verdict, and a sale's whole state as it keeps it.
//!
//! Bytes only; no connection and no driver. The library is the twin of `core`: the same commands at the same times give the same
//! verdicts and records. Integers stay below 2^53, which is what a number of Lua holds exactly.

use domain::{ChainTime, ParkedPayment, PaymentFact, PurchaseNumber, Refusal, limits};

use crate::command::{Command, PurchaseRequest, Query, Request};
use crate::core::Verdict;
use chain::PrivatePart;

mod image;
mod parse;

pub use image::{Image, Kept, Rebuild, standing};
pub use parse::requests;

/// The library, for `FUNCTION LOAD`.
pub const FUNCTIONS: &str = concat!(
    include_str!("redis/state.lua"),
    include_str!("redis/decide.lua"),
    include_str!("redis/pay.lua"),
    include_str!("redis/serve.lua")
);
/// Decides commands.
pub const DECIDE: &str = "doorbuster_decide";
/// What chain time alone brings.
pub const TICK: &str = "doorbuster_tick";
/// Notes how far the chain has come, and tells what it does not have yet.
pub const OUTBOX: &str = "doorbuster_outbox";
/// What the server believes of a sale, to be compared with the chain.
pub const STANDING: &str = "doorbuster_standing";
/// Writes a sale's state anew, step by step.
pub const REBUILD: &str = "doorbuster_rebuild";
/// How the error of a server begins that has not been admitted to decide.
pub const FENCED: &str = "FENCED";
/// How the error begins when the server's clock and the caller's do not agree.
pub const CLOCK: &str = "CLOCK";
/// How the error begins of a rebuild that a newer one has overtaken.
pub const STALE: &str = "STALE";

/// The keys of a sale, or of one of that name in one of several clusters, in the order in which the functions take them, all in one slot. The last is for a rebuild to write: the run
/// id of the server process that may decide.
pub fn keys(sale: &str) -> [String; 8] {
    ["state", "items", "returned", "grants", "customers", "payments", "outbox", "admitted"]
        .map(|part| format!("doorbuster:{{{sale}}}:{part}"))
}

/// A number as the library reads it, exact in a number of Lua.
fn number(number: u64) -> Vec<u8> {
    number.min(limits::INTEGER_MAX).to_string().into_bytes()
}

/// Appends to the arguments of [`DECIDE`], which begin with [`clock_argument`], one request.
pub fn add_request(arguments: &mut Vec<Vec<u8>>, request: &Request) {
    match request {
        Request::Decide(command, private) => add_command(arguments, command, private.as_ref()),
        Request::Read(query) => add_query(arguments, query),
    }
}

/// The first argument of [`DECIDE`]: the caller's clock, which must agree with the server's.
pub fn clock_argument(clock: ChainTime) -> Vec<u8> {
    number(clock.0)
}

fn add(arguments: &mut Vec<Vec<u8>>, name: &str, fields: Vec<Vec<u8>>) {
    arguments.push(number(fields.len() as u64 + 1));
    arguments.push(name.as_bytes().to_vec());
    arguments.extend(fields);
}

/// Appends one command.
pub fn add_command(arguments: &mut Vec<Vec<u8>>, command: &Command, private: Option<&PrivatePart>) {
    let mut named = |name, fields| add(arguments, name, fields);
    match command {
        Command::Purchase(request) => named("purchase", purchase_fields(request, private)),
        Command::Cancel { number: order, customer } => named("cancel", vec![number(order.0.into()), asker(*customer)]),
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
        Command::BeginPayment { number: order, customer } => {
            named("begin_payment", vec![number(order.0.into()), asker(*customer)]);
        }
        Command::NamePayment { number: order, attempt, reference } => {
            named("name_payment", vec![number(order.0.into()), number((*attempt).into()), reference.clone()]);
        }
        Command::ReportPayment { number: order, attempt, fact } => {
            let is_paid = number((*fact == PaymentFact::Paid).into());
            named("report_payment", vec![number(order.0.into()), number((*attempt).into()), is_paid]);
        }
        Command::ParkPayment { number: order, parked } => {
            let ParkedPayment { reason, evidence, amount, currency, reference } = parked.as_ref();
            let numbers = [u64::from(order.0), *reason as u64, *evidence, *amount].map(number);
            named("park_payment", numbers.into_iter().chain([currency.0.to_vec(), reference.clone()]).collect());
        }
        Command::OrderRefund { number: order } => named("order_refund", vec![number(order.0.into())]),
        Command::NoteRefund { number: order, attempt } => {
            named("note_refund", vec![number(order.0.into()), number((*attempt).into())]);
        }
    }
}

fn add_query(arguments: &mut Vec<Vec<u8>>, query: &Query) {
    match query {
        Query::Purchase { customer, purchase } => {
            add(arguments, "read_purchase", vec![customer.0.to_vec(), purchase.0.to_vec()]);
        }
        Query::Order { number: order, customer } => {
            add(arguments, "read_order", vec![number(order.0.into()), asker(*customer)]);
        }
        Query::Mine { .. } | Query::Sale | Query::Unsettled { .. } => add(arguments, "read_sale", Vec::new()),
    }
}

fn asker(customer: Option<domain::Pseudonym>) -> Vec<u8> {
    customer.map_or(Vec::new(), |customer| customer.0.to_vec())
}

/// Appends time that was lost and is given back to every open hold.
pub fn add_credit(arguments: &mut Vec<Vec<u8>>, milliseconds: u64) {
    add(arguments, "credit", vec![number(milliseconds)]);
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

/// The arguments of [`TICK`].
pub fn tick_arguments(clock: ChainTime, expiries_max: usize, slot_secret: &[u8; 32], digest: bool) -> Vec<Vec<u8>> {
    vec![number(clock.0), number(expiries_max as u64), slot_secret.to_vec(), number(digest.into())]
}

/// The arguments of [`OUTBOX`]: how many records at most, and the first that the chain does not have.
pub fn outbox_arguments(records_max: usize, committed: u64) -> Vec<Vec<u8>> {
    [records_max as u64, committed].map(number).to_vec()
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
