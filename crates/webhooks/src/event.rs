//! An event: one record of a chain in the shop's words. What it says follows from the chain and the deployment's id keys, so it is the
//! same, byte for byte, whenever and wherever it is made.

use data_encoding::{BASE32_DNSSEC, HEXLOWER};
use domain::record::{Counts, Held};
use domain::{
    ChainTime, Currency, ItemDefinition, Money, PurchaseId, PurchaseNumber, Received, Record, SaleId, SaleOrdinal,
};
use gate::IdKeys;
use gate::ids::shard_of;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Units are held for a customer, and the order exists: there is no event of its own for that.
    Held,
    /// The hold ended without a sale; `reason` says why.
    Released,
    /// The order is paid. `retaken` says that it had been released before.
    Confirmed,
    /// Money has to go back: it came too late or twice, or the shop ordered it.
    RefundDue,
    /// Money went back.
    Refunded,
    /// A provider reported something that does not fit the order; `reason` says what. Somebody has to look.
    PaymentParked,
    /// Purchases can be made.
    SaleOpened,
    /// Purchases stopped; `reason` says why.
    SalePaused,
    /// Purchases go on.
    SaleResumed,
    /// No new hold from here on.
    SaleClosed,
    /// Every unit is sold, free or withdrawn; `items` has the counts.
    SaleSettled,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Held,
        Self::Released,
        Self::Confirmed,
        Self::RefundDue,
        Self::Refunded,
        Self::PaymentParked,
        Self::SaleOpened,
        Self::SalePaused,
        Self::SaleResumed,
        Self::SaleClosed,
        Self::SaleSettled,
    ];

    /// The kind as payloads and subscriptions write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Released => "released",
            Self::Confirmed => "confirmed",
            Self::RefundDue => "refund_due",
            Self::Refunded => "refunded",
            Self::PaymentParked => "payment_parked",
            Self::SaleOpened => "sale_opened",
            Self::SalePaused => "sale_paused",
            Self::SaleResumed => "sale_resumed",
            Self::SaleClosed => "sale_closed",
            Self::SaleSettled => "sale_settled",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One event, as the feed lists it and as a webhook's body carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Event {
    /// The same for the same record, for ever: remember it to notice what comes twice.
    #[schema(example = "evt_040g2081040g2081040g2081040000000000028")]
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// When, by chain time.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: ChainTime,
    /// Name of the sale.
    pub sale: String,
    /// Whether the sale is a test; left out where it is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Number of the record in the sale's chain; grows with every event of the sale.
    pub position: u64,
    /// What it is about.
    pub data: EventData,
    /// Whose turn it is: events of one purchase are told in order. `None` for the sale itself.
    #[serde(skip)]
    pub lane: Option<PurchaseNumber>,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EventData {
    /// An order.
    Order(OrderData),
    /// The sale.
    Sale(SaleData),
}

/// The order of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OrderData {
    /// Id of the order.
    pub order: String,
    /// Id of the purchase.
    pub purchase: String,
    /// The customer's pseudonym in this sale, hexadecimal.
    pub customer: String,
    /// Name of the item.
    pub item: String,
    /// Units.
    pub quantity: u32,
    /// Price of all units together.
    pub price: Money,
    /// With `held`: until when to pay, before any clock credit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub pay_by: Option<ChainTime>,
    /// With `released` and `payment_parked`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// With `confirmed`: whether the order had been released, and the money came late. Left out where not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub retaken: bool,
    /// With `confirmed` by a provider's payment, `refund_due` and `refunded`: the attempt to pay, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u8>,
}

/// The sale of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SaleData {
    /// With `sale_paused`: why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// With `sale_settled`: what became of every item's units.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<SettledItem>,
}

/// What became of an item's units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SettledItem {
    /// Name of the item.
    pub item: String,
    /// In confirmed orders.
    pub sold: u32,
    /// Free when the sale ended.
    pub unsold: u32,
    /// Taken out by the shop.
    pub withdrawn: u32,
}

/// What the events of a sale have to know of its definition, as the chain's first record carries it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Definition {
    currency: Currency,
    items: Vec<ItemDefinition>,
    /// A definition says so only where it is one.
    #[serde(default)]
    test: bool,
}

/// What an order's `held` record fixed, and later records leave out.
#[derive(Clone, Debug)]
pub(crate) struct OrderFacts {
    pub(crate) customer: domain::Pseudonym,
    pub(crate) item: u16,
    pub(crate) quantity: u32,
    pub(crate) price: u64,
}

impl OrderFacts {
    pub(crate) fn of(held: &Held) -> Self {
        let quantity = u32::try_from(held.units.len()).expect("a hold has 100 units at most");
        Self { customer: held.customer, item: held.item, quantity, price: held.price }
    }
}

/// The sale whose records are told.
pub(crate) struct Teller<'a> {
    pub(crate) ids: &'a IdKeys,
    pub(crate) name: &'a str,
    pub(crate) sale: SaleId,
    pub(crate) ordinal: SaleOrdinal,
    pub(crate) definition: &'a Definition,
}

/// The event's id: `evt_` and base32 of the sale's id and the record's number, in small letters and digits.
pub fn event_id(sale: SaleId, position: u64) -> String {
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&sale.0);
    bytes[16..].copy_from_slice(&position.to_be_bytes());
    format!("evt_{}", BASE32_DNSSEC.encode(&bytes))
}

impl Teller<'_> {
    /// The event that a record is, if it is one. `facts` finds what the `held` record of a purchase said.
    ///
    /// A record is one event at most, since the record's number is the event's id.
    pub(crate) fn tell<E>(
        &self,
        position: u64,
        time: ChainTime,
        record: &Record,
        facts: impl FnOnce(PurchaseNumber) -> Result<OrderFacts, E>,
    ) -> Result<Option<Event>, E> {
        let order = |number, purchase| Ok(self.order(number, purchase, &facts(number)?));
        let (kind, data) = match record {
            Record::Held(held) => {
                let data = self.order(held.number, held.purchase, &OrderFacts::of(held));
                (EventKind::Held, EventData::Order(OrderData { pay_by: Some(held.pay_by), ..data }))
            }
            Record::Released { number, purchase, reason } => {
                let data = OrderData { reason: Some(reason.name()), ..order(*number, *purchase)? };
                (EventKind::Released, EventData::Order(data))
            }
            Record::Confirmed { number, purchase } => {
                (EventKind::Confirmed, EventData::Order(order(*number, *purchase)?))
            }
            Record::Retaken { number, purchase, .. } => {
                let data = OrderData { retaken: true, ..order(*number, *purchase)? };
                (EventKind::Confirmed, EventData::Order(data))
            }
            Record::PaymentReceived(of, _) | Record::RefundOrdered(of) | Record::Refunded(of) => {
                let data = OrderData { attempt: Some(of.attempt), ..order(of.number, of.purchase)? };
                payment(record, data)
            }
            Record::PaymentParked { number, purchase, parked } => {
                let data = OrderData { reason: Some(parked.reason.name()), ..order(*number, *purchase)? };
                (EventKind::PaymentParked, EventData::Order(data))
            }
            Record::Opened => (EventKind::SaleOpened, EventData::Sale(SaleData::default())),
            Record::Paused(reason) => {
                let data = SaleData { reason: Some(reason.name()), ..SaleData::default() };
                (EventKind::SalePaused, EventData::Sale(data))
            }
            Record::Resumed => (EventKind::SaleResumed, EventData::Sale(SaleData::default())),
            Record::Closed => (EventKind::SaleClosed, EventData::Sale(SaleData::default())),
            Record::Settled(counts) => {
                let data = SaleData { items: self.settled(counts), ..SaleData::default() };
                (EventKind::SaleSettled, EventData::Sale(data))
            }
            // What the shop has done itself, what is still under way, and what only an auditor reads.
            Record::Created(_)
            | Record::Epoch(_)
            | Record::StockChanged { .. }
            | Record::ClockCredit(_)
            | Record::Digest { .. }
            | Record::SecretRevealed(_)
            | Record::PaymentBegun(_)
            | Record::PaymentNamed(..)
            | Record::PaymentEnded(_) => return Ok(None),
        };
        Ok(Some(Event {
            id: event_id(self.sale, position),
            kind,
            timestamp: time,
            sale: self.name.to_owned(),
            test: self.definition.test,
            position,
            data,
            lane: record.grant(),
        }))
    }

    fn order(&self, number: PurchaseNumber, purchase: PurchaseId, facts: &OrderFacts) -> OrderData {
        OrderData {
            order: self.ids.public_order(self.ordinal, number, shard_of(facts.customer)),
            purchase: self.ids.public_purchase(self.ordinal, purchase),
            customer: HEXLOWER.encode(&facts.customer.0),
            item: self.item(usize::from(facts.item)),
            quantity: facts.quantity,
            price: Money { amount: facts.price, currency: self.definition.currency },
            pay_by: None,
            reason: None,
            retaken: false,
            attempt: None,
        }
    }

    /// Empty for an index beyond the definition, which the books have parked with an alarm.
    fn item(&self, index: usize) -> String {
        self.definition.items.get(index).map(|item| item.item.clone()).unwrap_or_default()
    }

    fn settled(&self, counts: &[Counts]) -> Vec<SettledItem> {
        let item = |(index, counts): (usize, &Counts)| SettledItem {
            item: self.item(index),
            sold: counts.sold,
            unsold: counts.free,
            withdrawn: counts.withdrawn,
        };
        counts.iter().enumerate().map(item).collect()
    }
}

/// What becomes of an order by a record of its money.
fn payment(record: &Record, data: OrderData) -> (EventKind, EventData) {
    let (kind, data) = match record {
        Record::PaymentReceived(_, Received::Confirms) => (EventKind::Confirmed, data),
        Record::PaymentReceived(_, Received::Retakes(_)) => (EventKind::Confirmed, OrderData { retaken: true, ..data }),
        Record::Refunded(_) => (EventKind::Refunded, data),
        _ => (EventKind::RefundDue, data),
    };
    (kind, EventData::Order(data))
}

#[cfg(test)]
mod tests {
    use domain::record::ReleaseReason;
    use domain::{Pseudonym, Unit};
    use serde_json::{Value, json};

    use super::*;

    const DEFINITION: &str = r#"{"sale":"drop","currency":"EUR","test":true,"whatever":1,
        "items":[{"item":"boot","title":"Boot","stock":3,"price":4900,"limit_per_customer":1}]}"#;

    fn told(definition: &str, position: u64, record: &Record) -> Option<Value> {
        let definition = serde_json::from_str(definition).unwrap();
        let ids = IdKeys::new(&[7; 32]);
        let (sale, ordinal) = (SaleId([1; 16]), SaleOrdinal(1));
        let teller = Teller { ids: &ids, name: "drop", sale, ordinal, definition: &definition };
        let facts = |_| Ok::<_, ()>(OrderFacts { customer: Pseudonym([2; 16]), item: 0, quantity: 2, price: 9_800 });
        let event = teller.tell(position, ChainTime(1_700_000_000_123), record, facts).unwrap();
        event.map(|event| serde_json::to_value(event).unwrap())
    }

    #[test]
    fn an_event_says_the_same_whether_its_order_is_in_the_record_or_looked_up() {
        let held = Record::Held(Held {
            number: PurchaseNumber(4),
            purchase: PurchaseId([3; 12]),
            customer: Pseudonym([2; 16]),
            item: 0,
            units: (0..2).map(|number| Unit { number, generation: 0 }).collect(),
            price: 9_800,
            key_hash: [0; 16],
            body_hash: [0; 16],
            pass: 0,
            slot_offset: 0,
            coupon: 0,
            pay_by: ChainTime(1_700_000_600_123),
        });
        let (number, purchase) = (PurchaseNumber(4), PurchaseId([3; 12]));
        let held = told(DEFINITION, 9, &held).unwrap();
        let reason = ReleaseReason::Expired;
        let released = told(DEFINITION, 10, &Record::Released { number, purchase, reason }).unwrap();
        for field in ["order", "purchase", "customer", "item", "quantity", "price"] {
            assert_eq!(held["data"][field], released["data"][field], "{field}");
        }
        assert_eq!(
            (&held["data"]["pay_by"], &released["data"]["reason"]),
            (&json!("2023-11-14T22:23:20.123Z"), &json!("expired"))
        );
        assert_eq!(held["id"], "evt_040g2081040g2081040g2081040000000000028");
        assert_eq!((&held["type"], &held["test"]), (&json!("held"), &json!(true)));
    }

    #[test]
    fn only_a_test_says_that_it_is_one() {
        let real = DEFINITION.replace("true", "false");
        assert_eq!(told(&real, 1, &Record::Opened).unwrap()["test"], Value::Null);
        assert_eq!(told(&real.replace(r#""test":false,"#, ""), 1, &Record::Opened).unwrap()["test"], Value::Null);
    }

    #[test]
    fn a_settled_sale_says_what_was_sold() {
        let counts = vec![Counts { free: 1, held: 0, sold: 2, withdrawn: 0 }];
        let settled = told(DEFINITION, 1, &Record::Settled(counts)).unwrap();
        assert_eq!(settled["data"], json!({"items":[{"item":"boot","sold":2,"unsold":1,"withdrawn":0}]}));
        assert_eq!(told(DEFINITION, 1, &Record::Epoch(2)), None);
    }

    #[test]
    fn every_kind_has_one_name() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.name()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
