//! Reads the engine's answers and judges them: shape, sense, and whether the code is one of the closed set.
//!
//! It decides what an answer means for the asker, not what the asker does next. It trusts nothing.

use std::borrow::Cow;
use std::time::Duration;

use domain::{ChainTime, Refusal};
use serde::Deserialize;

use crate::http::Reply;
use crate::notes::unix_milliseconds;

/// A `Retry-After` beyond this is cut, so that one wrong header does not send a person away for the day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What a purchase request was told.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The key is bound to a purchase.
    Purchase(Purchase),
    /// Being decided.
    Pending {
        purchase: Option<String>,
    },
    Refused(Refused),
}

#[derive(Debug)]
pub(crate) struct Purchase {
    pub(crate) status: PurchaseStatus,
    pub(crate) purchase: String,
    pub(crate) order: Option<String>,
    pub(crate) position: Option<u64>,
    pub(crate) record_hash: Option<String>,
    /// Of each unit, how often it had come back before.
    pub(crate) generations: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PurchaseStatus {
    Held,
    Confirmed,
    Released,
}

impl PurchaseStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Refused {
    /// As sent; `refusal` is absent when the code is not one of the closed set.
    pub(crate) code: String,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) position: Option<u64>,
    /// From `retry_at` or `Retry-After`.
    pub(crate) retry_after: Option<Duration>,
}

/// What a refusal means for somebody who wants the same purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Asking again changes nothing by itself.
    Stop,
    /// The same request may succeed a little later.
    Repeat,
    /// A new pass is needed first.
    RenewPass,
}

/// What to do after `refusal`, and whether it tells that nothing is bound to the key.
///
/// Refusals that stand before the key look-up tell nothing about an earlier request whose reply was lost.
pub(crate) fn advice(refusal: Refusal) -> (Advice, bool) {
    match refusal {
        Refusal::Malformed
        | Refusal::BodyTooLarge
        | Refusal::MediaTypeUnsupported
        | Refusal::QuantityInvalid
        | Refusal::NotFound
        | Refusal::MethodNotAllowed
        | Refusal::TokenInvalid
        | Refusal::TokenExpired
        | Refusal::RoleInsufficient
        | Refusal::OriginRefused
        | Refusal::NotEligible
        | Refusal::Blocked
        | Refusal::ChallengeRequired
        | Refusal::ChallengeFailed
        | Refusal::TicketInvalid => (Advice::Stop, false),
        Refusal::PassInvalid | Refusal::PassForeign => (Advice::RenewPass, false),
        Refusal::IdentityUnavailable
        | Refusal::RateLimited
        | Refusal::Overloaded
        | Refusal::OutcomeUnknown
        | Refusal::Internal => (Advice::Repeat, false),
        Refusal::NotOpen
        | Refusal::Paused
        | Refusal::StorageFull
        | Refusal::BeforeSlot
        | Refusal::Interrupted
        | Refusal::PaymentOpen => (Advice::Repeat, true),
        Refusal::PassExpired | Refusal::PassSpent => (Advice::RenewPass, true),
        Refusal::KeyReused
        | Refusal::Closed
        | Refusal::LimitItemReached
        | Refusal::LimitSaleReached
        | Refusal::GrantsExhausted
        | Refusal::UnpaidReleases
        | Refusal::CouponRefused
        | Refusal::StockInsufficient
        | Refusal::SoldOut
        | Refusal::HoldEnded
        | Refusal::OrderConfirmed
        | Refusal::RefundDue
        | Refusal::PaymentsExhausted
        | Refusal::NothingToRefund
        | Refusal::SaleExists
        | Refusal::SaleInvalid
        | Refusal::SalePhaseWrong
        | Refusal::StockUnavailable
        | Refusal::LastOwner
        | Refusal::HoldOpen
        | Refusal::PictureInvalid => (Advice::Stop, true),
    }
}

/// What somebody may still hope for whose key was refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hope {
    Nothing,
    /// More units may come back.
    UnitsComeBack,
    /// The same without the coupon, under a new key.
    WithoutCoupon,
}

pub(crate) fn hope(refusal: Refusal) -> Hope {
    match refusal {
        Refusal::SoldOut | Refusal::StockInsufficient => Hope::UnitsComeBack,
        Refusal::CouponRefused => Hope::WithoutCoupon,
        _ => Hope::Nothing,
    }
}

#[derive(Deserialize)]
struct PurchaseBody<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    purchase: Option<String>,
    order: Option<String>,
    #[serde(borrow)]
    sale: Option<Cow<'a, str>>,
    #[serde(borrow)]
    item: Option<Cow<'a, str>>,
    quantity: Option<u64>,
    units: Option<Vec<UnitBody>>,
    #[serde(borrow)]
    pay_by: Option<Cow<'a, str>>,
    receipt: Option<ReceiptBody>,
}

#[derive(Deserialize)]
struct UnitBody {
    generation: u64,
}

#[derive(Deserialize)]
struct ReceiptBody {
    sale_id: Option<String>,
    position: Option<u64>,
    record_hash: Option<String>,
}

#[derive(Deserialize)]
struct ProblemBody {
    code: String,
    position: Option<u64>,
    retry_at: Option<ChainTime>,
}

#[derive(Deserialize)]
struct PassBody {
    pass: String,
    slot: Option<ChainTime>,
    slot_offset_ms: u64,
}

/// A pass and when its slot comes, in Unix milliseconds.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) pass: String,
    pub(crate) slot_unix_ms: u64,
}

/// Reads the answer to a purchase of one unit of `item`. The second value complains of what breaks the contract although
/// the answer could be used; an error means that it could not.
pub(crate) fn read_purchase(reply: &Reply, sale: &str, item: &str) -> Result<(Answer, Option<String>), String> {
    match reply.status {
        200 | 201 => {
            let body: PurchaseBody<'_> = parse(reply)?;
            let status = match body.status.as_ref() {
                "held" => PurchaseStatus::Held,
                "confirmed" => PurchaseStatus::Confirmed,
                "released" => PurchaseStatus::Released,
                _ => return Err(sample("an unknown status", reply)),
            };
            let complaint = purchase_complaint(&body, status, sale, item).map(|complaint| sample(complaint, reply));
            let Some(purchase) = body.purchase else { return Err(sample("no purchase id", reply)) };
            let (position, record_hash) = body.receipt.map_or((None, None), |r| (r.position, r.record_hash));
            let generations = body.units.into_iter().flatten().map(|unit| unit.generation).collect();
            let purchase = Purchase { status, purchase, order: body.order, position, record_hash, generations };
            Ok((Answer::Purchase(purchase), complaint))
        }
        202 => {
            let body: PurchaseBody<'_> = parse(reply)?;
            let sound = body.status == "pending" && body.purchase.is_some();
            let complaint = (!sound).then(|| sample("202 needs status pending and a purchase", reply));
            Ok((Answer::Pending { purchase: body.purchase }, complaint))
        }
        _ => read_refusal(reply).map(|(refused, complaint)| (Answer::Refused(refused), complaint)),
    }
}

fn purchase_complaint(body: &PurchaseBody<'_>, status: PurchaseStatus, sale: &str, item: &str) -> Option<&'static str> {
    let receipt = body.receipt.as_ref();
    let rules = [
        (body.purchase.as_ref().is_some_and(|id| id.starts_with("pu_")), "a purchase id starts with pu_"),
        (body.order.as_ref().is_some_and(|id| id.starts_with("or_")), "an order id starts with or_"),
        (body.sale.as_deref() == Some(sale), "the answer names another sale"),
        (body.item.as_deref() == Some(item), "the answer names another item"),
        (body.quantity == Some(1), "the answer names another quantity"),
        (body.units.as_ref().is_some_and(|units| units.len() == 1), "one unit was asked for"),
        (receipt.is_some_and(|r| r.position.is_some()), "the receipt has no position"),
        (receipt.is_some_and(|r| r.sale_id.as_ref().is_some_and(|id| id.len() == 32)), "the receipt has no sale id"),
        (
            receipt.is_some_and(|r| r.record_hash.as_ref().is_some_and(|hash| hash.len() == 43)),
            "the receipt has no record hash",
        ),
        (
            status != PurchaseStatus::Held || body.pay_by.as_deref().and_then(ChainTime::parse_rfc3339).is_some(),
            "held without a pay-by time",
        ),
    ];
    rules.into_iter().find(|(holds, _)| !holds).map(|(_, complaint)| complaint)
}

/// Reads a problem document. Complaint and error as in [`read_purchase`].
pub(crate) fn read_refusal(reply: &Reply) -> Result<(Refused, Option<String>), String> {
    if reply.status < 400 {
        return Err(sample("an unexpected status", reply));
    }
    let body: ProblemBody = parse(reply)?;
    let refusal = Refusal::parse(&body.code);
    let complaint = match refusal {
        None => Some("an unknown code"),
        Some(refusal) if refusal.status() != reply.status => Some("the code has another status"),
        Some(Refusal::SoldOut) if body.position.is_none() => Some("sold_out rests on no position"),
        Some(_) if reply.header("content-type") != Some("application/problem+json") => Some("not a problem document"),
        Some(_) => None,
    };
    let from_header = reply.header("retry-after").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let from_body = body.retry_at.map(|at| Duration::from_millis(at.0.saturating_sub(unix_milliseconds())));
    let retry_after = from_body.or(from_header).map(|wait| wait.min(RETRY_AFTER_MAX));
    let complaint = complaint.map(|complaint| sample(complaint, reply));
    Ok((Refused { code: body.code, refusal, position: body.position, retry_after }, complaint))
}

/// Reads a pass. `opens_unix_ms` serves where the slot is still an offset to an opening that is to come.
pub(crate) fn read_pass(reply: &Reply, opens_unix_ms: u64) -> Result<Pass, String> {
    let body: PassBody = parse(reply)?;
    let slot_unix_ms = body.slot.map_or(opens_unix_ms.saturating_add(body.slot_offset_ms), |slot| slot.0);
    Ok(Pass { pass: body.pass, slot_unix_ms })
}

fn parse<'a, T: Deserialize<'a>>(reply: &'a Reply) -> Result<T, String> {
    serde_json::from_slice(&reply.body).map_err(|error| sample(&error.to_string(), reply))
}

/// A complaint with enough of the reply to find its cause.
pub(crate) fn sample(complaint: &str, reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(300)]).into_owned();
    format!("{complaint}: {} {text}", reply.status)
}

#[cfg(test)]
mod tests {
    use super::{Answer, read_purchase};
    use crate::http::Reply;

    fn reply(status: u16, body: &serde_json::Value) -> Reply {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/problem+json"));
        Reply { status, headers, body: body.to_string().into() }
    }

    fn held() -> serde_json::Value {
        serde_json::json!({
            "status": "held", "purchase": "pu_a", "order": "or_a", "sale": "drop", "item": "boot", "quantity": 1,
            "units": [{"number": 5, "generation": 0}], "pay_by": "2026-11-27T20:10:00.000Z",
            "receipt": {"sale_id": "0".repeat(32), "position": 9, "record_hash": "h".repeat(43)},
        })
    }

    #[test]
    fn a_sound_held_answer_draws_no_complaint() {
        let (answer, complaint) = read_purchase(&reply(201, &held()), "drop", "boot").unwrap();
        assert_eq!(complaint, None);
        assert!(matches!(answer, Answer::Purchase(purchase) if purchase.position == Some(9)));
    }

    #[test]
    fn every_missing_part_of_a_held_answer_draws_a_complaint() {
        for part in ["order", "sale", "item", "quantity", "units", "pay_by", "receipt"] {
            let mut body = held();
            body.as_object_mut().unwrap().remove(part);
            let (_, complaint) = read_purchase(&reply(201, &body), "drop", "boot").unwrap();
            assert!(complaint.is_some(), "{part}");
        }
        let mut body = held();
        body.as_object_mut().unwrap().remove("purchase");
        assert!(read_purchase(&reply(201, &body), "drop", "boot").is_err());
    }

    #[test]
    fn a_refusal_needs_a_known_code_its_own_status_and_sold_out_a_position() {
        let complaint = |status, body| read_purchase(&reply(status, &body), "drop", "boot").unwrap().1;
        assert_eq!(complaint(409, serde_json::json!({"code": "sold_out", "position": 3})), None);
        assert!(complaint(409, serde_json::json!({"code": "sold_out"})).is_some());
        assert!(complaint(200 + 220, serde_json::json!({"code": "closed"})).is_some());
        assert!(complaint(409, serde_json::json!({"code": "no_luck"})).is_some());
        assert!(read_purchase(&reply(500, &serde_json::json!("oops")), "drop", "boot").is_err());
    }
}
