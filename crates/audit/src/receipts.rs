//! Receipts that customers keep: read from JSON, compared with the chain.

use std::fs;
use std::path::Path;

use chain::SignedHead;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::ids::Hash;
use domain::record::Held;
use domain::{ChainTime, SaleDefinition, SaleId};
use serde::Deserialize;

use crate::replay::Replayed;
use crate::tally::{Claim, Tally};

#[derive(Deserialize)]
struct Wire {
    sale_id: String,
    position: u64,
    record_hash: String,
    head: WireHead,
}

#[derive(Deserialize)]
struct WireHead {
    epoch: u64,
    next: u64,
    time: ChainTime,
    head: String,
    signature: String,
}

/// What a whole answer says besides its receipt, as far as the chain can tell. The order's id and the status are not in it: the first
/// is masked with a key of the shop's, the second changes.
#[derive(Deserialize)]
struct Told {
    purchase: Option<String>,
    sale: Option<String>,
    item: Option<String>,
    quantity: Option<u64>,
    units: Option<Vec<ToldUnit>>,
    price: Option<ToldPrice>,
}

#[derive(Deserialize)]
struct ToldUnit {
    number: u32,
    generation: u32,
}

#[derive(Deserialize)]
struct ToldPrice {
    amount: u64,
    currency: String,
}

impl Told {
    /// What differs from the record that the receipt names.
    fn problem_with(&self, held: Option<&Held>, definition: &SaleDefinition) -> Option<&'static str> {
        let is_empty =
            self.purchase.is_none() && self.item.is_none() && self.quantity.is_none() && self.units.is_none();
        let Some(held) = held else {
            return (!is_empty).then_some("its record is not a grant");
        };
        let item = definition.items.get(usize::from(held.item)).map(|item| item.item.as_str());
        let bare = |purchase: &String| {
            let bytes = purchase.strip_prefix("pu_").and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
            bytes.is_some_and(|bytes| bytes.get(4..16) == Some(&held.purchase.0[..]))
        };
        let same_units = |units: &Vec<ToldUnit>| {
            units
                .iter()
                .map(|unit| (unit.number, unit.generation))
                .eq(held.units.iter().map(|unit| (unit.number, unit.generation)))
        };
        let same_price =
            |price: &ToldPrice| price.amount == held.price && price.currency == definition.currency.as_str();
        [
            (self.purchase.as_ref().is_none_or(bare), "it names another purchase than the chain"),
            (self.sale.as_ref().is_none_or(|sale| *sale == definition.sale), "it names another sale than the chain"),
            (self.item.as_ref().is_none_or(|told| Some(told.as_str()) == item), "it names another item than the chain"),
            (
                self.quantity.is_none_or(|told| told == held.units.len() as u64),
                "it names another quantity than the chain",
            ),
            (self.units.as_ref().is_none_or(same_units), "it names other units than the chain"),
            (self.price.as_ref().is_none_or(same_price), "it names another price than the chain"),
        ]
        .into_iter()
        .find_map(|(holds, problem)| (!holds).then_some(problem))
    }
}

/// A receipt: this record stands at this position, and this signed head covers it.
pub(crate) struct Receipt {
    /// The file it came from, for evidence.
    name: String,
    sale: SaleId,
    pub(crate) position: u64,
    record_hash: Hash,
    pub(crate) head: SignedHead,
    /// The answer around it, if there is one.
    told: Option<Told>,
}

impl Receipt {
    /// Reads a receipt from a file that holds it alone or inside a whole answer as `receipt`; then the answer is checked too.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| error.to_string())?;
        let mut value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let mut told = None;
        if value.get("receipt").is_some() {
            let inner = value["receipt"].take();
            told = Some(serde_json::from_value(value).map_err(|error| error.to_string())?);
            value = inner;
        }
        let wire: Wire = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let sale = SaleId(bytes(HEXLOWER.decode(wire.sale_id.as_bytes()).ok(), "sale_id")?);
        let head = SignedHead {
            sale,
            partition: 0,
            epoch: wire.head.epoch,
            next: wire.head.next,
            time: wire.head.time,
            head: bytes(BASE64URL_NOPAD.decode(wire.head.head.as_bytes()).ok(), "head")?,
            signature: bytes(BASE64URL_NOPAD.decode(wire.head.signature.as_bytes()).ok(), "signature")?,
        };
        let record_hash = bytes(BASE64URL_NOPAD.decode(wire.record_hash.as_bytes()).ok(), "record_hash")?;
        Ok(Self { name: path.display().to_string(), sale, position: wire.position, record_hash, head, told })
    }

    /// Checks the receipt, and the answer around it, against the chain and the key that signs it.
    pub(crate) fn check(&self, replayed: &Replayed, definition: &SaleDefinition, key: &Hash, tally: &mut Tally) {
        let named = replayed.named.get(&self.position);
        let differs = || {
            let held = named.and_then(|named| named.held.as_ref());
            self.told.as_ref()?.problem_with(held, definition)
        };
        let found = replayed.heads.get(&self.head.next);
        let same_head = |found: &SignedHead| {
            (found.head, found.epoch, found.time) == (self.head.head, self.head.epoch, self.head.time)
        };
        let problem = if Some(self.sale) != replayed.sale {
            Some("it belongs to another sale")
        } else if named.and_then(|named| named.hash) != Some(self.record_hash) {
            Some("its record is not in the chain at its position")
        } else if self.position >= self.head.next {
            Some("its head does not cover its position")
        } else if !self.head.is_signed_by(key) {
            Some("its head is not signed by the sale's key")
        } else if !found.is_some_and(same_head) {
            Some("its head is not the chain's")
        } else {
            differs()
        };
        tally.check(Claim::Receipts, problem.is_none(), || format!("{}: {}", self.name, problem.unwrap_or_default()));
    }
}

fn bytes<const N: usize>(decoded: Option<Vec<u8>>, field: &str) -> Result<[u8; N], String> {
    decoded.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{field} is not {N} bytes in its encoding"))
}
