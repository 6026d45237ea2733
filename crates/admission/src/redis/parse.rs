//! The arguments of [`super::DECIDE`] read back: for a process that decides in Redis's place and is asked in the same words.

use chain::PrivatePart;
use domain::record::PauseReason;
use domain::{ChainTime, Currency, ParkReason, ParkedPayment, PaymentFact, Pseudonym, PurchaseId, PurchaseNumber};

use crate::command::{Command, PurchaseRequest, Query, Request, Wish};

/// The requests behind the clock; `None` where the arguments are not those of [`super::add_request`].
pub fn requests(arguments: &[Vec<u8>]) -> Option<Vec<Request>> {
    let (_clock, mut rest) = arguments.split_first()?;
    let mut requests = Vec::new();
    while let Some((count, behind)) = rest.split_first() {
        let (fields, behind) = behind.split_at_checked(usize::try_from(number(count)?).ok()?)?;
        let (name, fields) = fields.split_first()?;
        requests.push(request(name, fields)?);
        rest = behind;
    }
    Some(requests)
}

fn request(name: &[u8], fields: &[Vec<u8>]) -> Option<Request> {
    let plain = |command| Some(Request::Decide(command, None));
    match (name, fields) {
        (b"purchase", fields) => purchase(fields),
        (b"cancel", [number, customer]) => {
            plain(Command::Cancel { number: order(number)?, customer: asker(customer)? })
        }
        (b"confirm", [number]) => plain(Command::Confirm { number: order(number)? }),
        (b"pause", [reason]) => plain(Command::Pause(PauseReason::from_number(number(reason)?.try_into().ok()?)?)),
        (b"resume", []) => plain(Command::Resume),
        (b"stock", [item, change]) => {
            let change = std::str::from_utf8(change).ok()?.parse().ok()?;
            plain(Command::ChangeStock { item: number(item)?.try_into().ok()?, change })
        }
        (b"close", []) => plain(Command::Close),
        (b"settle", []) => plain(Command::Settle),
        (b"begin_payment", [number, customer]) => {
            plain(Command::BeginPayment { number: order(number)?, customer: asker(customer)? })
        }
        (b"name_payment", [number, attempt, reference]) => {
            let (number, attempt) = (order(number)?, self::number(attempt)?.try_into().ok()?);
            plain(Command::NamePayment { number, attempt, reference: reference.clone() })
        }
        (b"report_payment", [number, attempt, is_paid]) => {
            let fact = if self::number(is_paid)? == 1 { PaymentFact::Paid } else { PaymentFact::Ended };
            plain(Command::ReportPayment {
                number: order(number)?,
                attempt: self::number(attempt)?.try_into().ok()?,
                fact,
            })
        }
        (b"park_payment", fields) => park_payment(fields),
        (b"order_refund", [number]) => plain(Command::OrderRefund { number: order(number)? }),
        (b"note_refund", [number, attempt]) => {
            plain(Command::NoteRefund { number: order(number)?, attempt: self::number(attempt)?.try_into().ok()? })
        }
        (b"read_purchase", [customer, purchase]) => {
            let (customer, purchase) = (Pseudonym(bytes(customer)?), PurchaseId(bytes(purchase)?));
            Some(Request::Read(Query::Purchase { customer, purchase }))
        }
        (b"read_order", [number, customer]) => {
            Some(Request::Read(Query::Order { number: order(number)?, customer: asker(customer)? }))
        }
        (b"read_sale", []) => Some(Request::Read(Query::Sale)),
        _ => None,
    }
}

fn park_payment(fields: &[Vec<u8>]) -> Option<Request> {
    let [of, reason, evidence, amount, currency, reference] = fields else { return None };
    let parked = ParkedPayment {
        reason: ParkReason::from_number(number(reason)?.try_into().ok()?)?,
        evidence: number(evidence)?,
        amount: number(amount)?,
        currency: Currency(bytes(currency)?),
        reference: reference.clone(),
    };
    Some(Request::Decide(Command::ParkPayment { number: order(of)?, parked: Box::new(parked) }, None))
}

fn purchase(fields: &[Vec<u8>]) -> Option<Request> {
    let [customer, purchase, item, quantity, coupon, pass, pass_expires_at, slot_offset, key_hash, body_hash, private] =
        fields
    else {
        return None;
    };
    let wish = Wish {
        customer: Pseudonym(bytes(customer)?),
        item: number(item)?.try_into().ok()?,
        quantity: number(quantity)?.try_into().ok()?,
        coupon: number(coupon)?,
        pass: number(pass)?,
        pass_expires_at: ChainTime(number(pass_expires_at)?),
        slot_offset: number(slot_offset)?.try_into().ok()?,
    };
    let request = PurchaseRequest {
        wish,
        purchase: PurchaseId(bytes(purchase)?),
        key_hash: bytes(key_hash)?,
        body_hash: bytes(body_hash)?,
    };
    let private = private
        .split_first_chunk()
        .map(|(commitment, sealed)| PrivatePart { commitment: *commitment, sealed: sealed.to_vec() });
    Some(Request::Decide(Command::Purchase(request), private))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn order(text: &[u8]) -> Option<PurchaseNumber> {
    number(text)?.try_into().ok().map(PurchaseNumber)
}

fn bytes<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

/// Nobody, where the shop asks.
fn asker(customer: &[u8]) -> Option<Option<Pseudonym>> {
    if customer.is_empty() { Some(None) } else { Some(Some(Pseudonym(bytes(customer)?))) }
}
