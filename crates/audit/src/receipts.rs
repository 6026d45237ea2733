//! Receipts that customers keep: read from JSON, compared with the chain.

use std::fs;
use std::path::Path;

use chain::SignedHead;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use domain::ids::Hash;
use domain::{ChainTime, SaleId};
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

/// A receipt: this record stands at this position, and this signed head covers it.
pub(crate) struct Receipt {
    /// The file it came from, for evidence.
    name: String,
    sale: SaleId,
    pub(crate) position: u64,
    record_hash: Hash,
    pub(crate) head: SignedHead,
}

impl Receipt {
    /// Reads a receipt from a file that holds it alone or inside a whole answer as `receipt`.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read(path).map_err(|error| error.to_string())?;
        let mut value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if let Some(inner) = value.get_mut("receipt") {
            value = inner.take();
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
        Ok(Self { name: path.display().to_string(), sale, position: wire.position, record_hash, head })
    }

    /// Checks the receipt against the chain and the key that signs it.
    pub(crate) fn check(&self, replayed: &Replayed, key: &Hash, tally: &mut Tally) {
        let named = replayed.named.get(&self.position).and_then(|named| named.hash);
        let found = replayed.heads.get(&self.head.next);
        let same_head = |found: &SignedHead| {
            (found.head, found.epoch, found.time) == (self.head.head, self.head.epoch, self.head.time)
        };
        let problem = if Some(self.sale) != replayed.sale {
            Some("it belongs to another sale")
        } else if named != Some(self.record_hash) {
            Some("its record is not in the chain at its position")
        } else if self.position >= self.head.next {
            Some("its head does not cover its position")
        } else if !self.head.is_signed_by(key) {
            Some("its head is not signed by the sale's key")
        } else if !found.is_some_and(same_head) {
            Some("its head is not the chain's")
        } else {
            None
        };
        tally.check(Claim::Receipts, problem.is_none(), || format!("{}: {}", self.name, problem.unwrap_or_default()));
    }
}

fn bytes<const N: usize>(decoded: Option<Vec<u8>>, field: &str) -> Result<[u8; N], String> {
    decoded.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| format!("{field} is not {N} bytes in its encoding"))
}
