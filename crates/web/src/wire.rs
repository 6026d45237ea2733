//! The JSON of the public contract. Wire types are not domain types: they change only when the contract does.

use admission::{Grant, GrantStatus};
use chain::SignedHead;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::ids::Hash;
use domain::{ChainTime, Money, SaleDefinition, SaleOrdinal, SalePhase};
use engine::{Engine, Sale};
use gate::IdKeys;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a purchase asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PurchaseBody {
    /// How many units, 1 to 100.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 100, default = 1)]
    pub quantity: i64,
    /// Code of a coupon of the sale.
    #[serde(default)]
    pub coupon: Option<String>,
    /// Whatever the shop wants to keep with the purchase: a JSON object of 2,048 bytes at most. The engine does not look into it and keeps it
    /// byte for byte; it is encrypted for the customer, and erased with them.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub attributes: Option<Box<serde_json::value::RawValue>>,
}

fn one() -> i64 {
    1
}

/// One numbered unit.
#[derive(Serialize, ToSchema)]
pub struct UnitBody {
    /// Number within its item.
    pub number: u32,
    /// How many times it had come back before.
    pub generation: u32,
}

/// A purchase as it stands.
#[derive(Serialize, ToSchema)]
pub struct PurchaseAnswer<'a> {
    /// `held`, `confirmed` or `released`.
    pub status: &'static str,
    /// Id of the purchase; it proves itself, so keep it.
    pub purchase: String,
    /// Id of the order.
    pub order: String,
    /// Name of the sale.
    pub sale: &'a str,
    /// There, and true, if the sale is a rehearsal.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// Name of the item.
    pub item: &'a str,
    /// Units.
    pub quantity: u32,
    /// The units, or those it had when it was released.
    pub units: Vec<UnitBody>,
    /// Price of all units together.
    pub price: Money,
    /// Until when to pay.
    #[schema(value_type = String, format = DateTime)]
    pub pay_by: ChainTime,
    /// Why it was released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_reason: Option<&'static str>,
    /// Attempts to pay it at a provider, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub payments: Vec<PaymentBody>,
    /// Proof that it stands in the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptBody>,
    /// What the customer holds, signed for the shop's own checkout, where `Prefer: hold-token` asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_token: Option<String>,
}

/// One attempt to pay an order at a provider.
#[derive(Serialize, ToSchema)]
pub struct PaymentBody {
    /// Its number within the order, from 0.
    pub attempt: u8,
    /// `open`, `ended`, `paid`, `refund_due` or `refunded`.
    pub status: &'static str,
}

/// Proof that a grant stands in the chain.
#[derive(Serialize, ToSchema)]
pub struct ReceiptBody {
    /// The sale's id in the chain, hexadecimal.
    pub sale_id: String,
    /// Number of the record.
    pub position: u64,
    /// The chain's hash after the record, base64url.
    pub record_hash: String,
    /// The signed head of its batch.
    pub head: HeadBody,
}

/// A signed head.
#[derive(Serialize, ToSchema)]
pub struct HeadBody {
    /// The writer's epoch.
    pub epoch: u64,
    /// Number of the first record after the batch.
    pub next: u64,
    /// The batch's chain time.
    #[schema(value_type = String, format = DateTime)]
    pub time: ChainTime,
    /// The chain's hash after the batch, base64url.
    pub head: String,
    /// Ed25519 over the head and its place, base64url.
    pub signature: String,
}

impl From<&SignedHead> for HeadBody {
    fn from(head: &SignedHead) -> Self {
        Self {
            epoch: head.epoch,
            next: head.next,
            time: head.time,
            head: BASE64URL_NOPAD.encode(&head.head),
            signature: BASE64URL_NOPAD.encode(&head.signature),
        }
    }
}

/// A receipt's body.
pub(crate) fn receipt(sale: &Sale, position: u64, record_hash: &Hash, head: &SignedHead) -> ReceiptBody {
    ReceiptBody {
        sale_id: HEXLOWER.encode(&sale.id.0),
        position,
        record_hash: BASE64URL_NOPAD.encode(record_hash),
        head: head.into(),
    }
}

/// A grant's body.
pub(crate) fn purchase<'a>(
    engine: &Engine,
    sale: &'a Sale,
    grant: &Grant,
    receipt: Option<ReceiptBody>,
) -> PurchaseAnswer<'a> {
    describe(&engine.ids, sale.ordinal, sale.definition(), grant, receipt)
}

/// The same, of what it is made of.
pub(crate) fn describe<'a>(
    ids: &IdKeys,
    ordinal: SaleOrdinal,
    definition: &'a SaleDefinition,
    grant: &Grant,
    receipt: Option<ReceiptBody>,
) -> PurchaseAnswer<'a> {
    let release_reason = match grant.status {
        GrantStatus::Released(reason) => Some(reason.name()),
        GrantStatus::Held | GrantStatus::Confirmed => None,
    };
    PurchaseAnswer {
        status: grant.status.name(),
        purchase: ids.public_purchase(ordinal, grant.purchase),
        order: ids.public_order(ordinal, grant.number, gate::ids::shard_of(grant.customer)),
        sale: &definition.sale,
        test: definition.test,
        item: &definition.items[usize::from(grant.item)].item,
        quantity: grant.units.len() as u32,
        units: grant.units.iter().map(|unit| UnitBody { number: unit.number, generation: unit.generation }).collect(),
        price: Money { amount: grant.price, currency: definition.currency },
        pay_by: grant.pay_by,
        release_reason,
        payments: (0..).zip(&grant.attempts).map(|(attempt, of)| PaymentBody { attempt, status: of.name() }).collect(),
        receipt,
        hold_token: None,
    }
}

/// A purchase whose decision is not known yet.
#[derive(Serialize, ToSchema)]
pub struct PendingAnswer {
    /// `pending`.
    pub status: &'static str,
    /// Id of the purchase, should it be granted.
    pub purchase: String,
    /// Where to ask how it ended.
    pub location: String,
}

/// A pass.
#[derive(Serialize, ToSchema)]
pub struct PassAnswer {
    /// The token to send as `Doorbuster-Pass`.
    pub pass: String,
    /// Milliseconds from the opening to the customer's slot; the same for every pass of the customer in this sale.
    pub slot_offset_ms: u32,
    /// When the slot comes: exact once the sale is open, expected before.
    #[schema(value_type = String, format = DateTime)]
    pub slot: ChainTime,
    /// When the sale is to open.
    #[schema(value_type = String, format = DateTime)]
    pub opens_at: ChainTime,
    /// When the pass expires; take another then.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: ChainTime,
}

/// The server's clock.
#[derive(Serialize, ToSchema)]
pub struct TimeAnswer {
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    pub now: ChainTime,
    /// Now in milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// A sale as anybody may see it.
#[derive(Serialize, ToSchema)]
pub struct SaleAnswer {
    /// Name.
    pub sale: String,
    /// Id in the chain, hexadecimal.
    pub sale_id: String,
    /// Ed25519 public key of its heads, base64url.
    pub signing_key: String,
    /// Title.
    pub title: String,
    /// The sale's name in the shop's own systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Whether it is a rehearsal.
    pub test: bool,
    /// Phase.
    pub phase: SalePhase,
    /// Whether purchases are paused.
    pub paused: bool,
    /// What it asks of a customer before the first pass: `none`, `proof_of_work`, `answer` or `static`.
    pub human_check: &'static str,
    /// From when passes are given out.
    #[schema(value_type = String, format = DateTime)]
    pub passes_open_at: ChainTime,
    /// When it opens.
    #[schema(value_type = String, format = DateTime)]
    pub opens_at: ChainTime,
    /// When it really opened.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub opened_at: Option<ChainTime>,
    /// When it closes.
    #[schema(value_type = String, format = DateTime)]
    pub closes_at: ChainTime,
    /// How long a winner has to pay.
    pub hold_seconds: u64,
    /// Units of all items that one customer may have.
    pub limit_per_customer: u32,
    /// The items.
    pub items: Vec<ItemAnswer>,
    /// The chain position that this rests on.
    pub position: u64,
    /// Now.
    #[schema(value_type = String, format = DateTime)]
    pub server_time: ChainTime,
    /// When asking again makes sense.
    pub next_poll_ms: u64,
}

/// An item as anybody may see it.
#[derive(Serialize, ToSchema)]
pub struct ItemAnswer {
    /// Name.
    pub item: String,
    /// Title.
    pub title: String,
    /// Price of one unit.
    pub price: Money,
    /// Units that one customer may have.
    pub limit_per_customer: u32,
    /// The shop's stock keeping unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// The item's name in the shop's own systems.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// `yes`, `may_return` while the sale is open and holds may still end, or `no`.
    pub available: &'static str,
    /// What it looks like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureAnswer>,
}

/// A picture, in several widths.
#[derive(Serialize, ToSchema)]
pub struct PictureAnswer {
    /// Pixels of the largest file.
    pub width: u32,
    /// Pixels of the largest file.
    pub height: u32,
    /// The files, by ascending width.
    pub sources: Vec<SourceAnswer>,
    /// What it shows, for those who cannot see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A picture in one width.
#[derive(Serialize, ToSchema)]
pub struct SourceAnswer {
    /// Pixels.
    pub width: u32,
    /// Path of the WebP file.
    pub webp: String,
    /// Path of the JPEG file.
    pub jpeg: String,
}

/// The picture beside an item.
#[derive(Serialize, ToSchema)]
pub struct ItemPictureAnswer {
    /// Name of the item.
    pub item: String,
    /// What it looks like; null when it has no picture.
    pub picture: Option<PictureAnswer>,
}

/// Everything of one customer in a sale.
#[derive(Serialize, ToSchema)]
pub struct MineAnswer<'a> {
    /// A pass, while the sale gives them out; and where it has a human check, for whoever has passed it.
    pub pass: Option<PassAnswer>,
    /// Purchases with their orders, newest first.
    pub purchases: Vec<PurchaseAnswer<'a>>,
}

/// A page of orders.
#[derive(Serialize, ToSchema)]
pub struct OrdersAnswer {
    /// Orders.
    #[schema(value_type = Vec<Object>)]
    pub orders: Vec<serde_json::Value>,
    /// Pass it as `cursor` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A page of signed heads.
#[derive(Serialize, ToSchema)]
pub struct HeadsAnswer {
    /// Sale id, hexadecimal.
    pub sale_id: String,
    /// Ed25519 public key, base64url.
    pub signing_key: String,
    /// Heads in order.
    pub heads: Vec<HeadBody>,
    /// Pass it as `from` for the next page; absent at the chain's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_from: Option<u64>,
}

/// A change of stock.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StockBody {
    /// Units to add, or free units to withdraw when negative.
    pub change: i64,
}

/// A sale as the operator sees it.
#[derive(Serialize, ToSchema)]
pub struct AdminSaleAnswer {
    /// The public part.
    #[serde(flatten)]
    pub sale: SaleAnswer,
    /// Why it is paused.
    pub pause_reason: Option<&'static str>,
    /// Whether the disk takes no purchases.
    pub storage_full: bool,
    /// When its customers became unknown for good. Null while they are known.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub anonymised_at: Option<ChainTime>,
    /// Counts per item.
    pub counts: Vec<CountsAnswer>,
    /// On which rung of the ladder a cluster serves it: `full`, `takeover` or `paused`. Null for a process that is alone.
    pub rung: Option<&'static str>,
    /// The process that brings its decisions to the chain, by the number that it logs at its start. Null where nobody is heard.
    pub relay: Option<String>,
    /// How far its books are.
    #[serde(flatten)]
    pub books: crate::accounts::BooksAnswer,
}

/// Counts of one item.
#[derive(Serialize, ToSchema)]
pub struct CountsAnswer {
    /// Item.
    pub item: String,
    /// All units ever.
    pub total: u64,
    /// Free units.
    pub free: u32,
    /// Units in holds.
    pub held: u32,
    /// Sold units.
    pub sold: u32,
    /// Withdrawn units.
    pub withdrawn: u32,
}
