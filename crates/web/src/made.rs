//! The bodies of answers to winners, written by hand: the one place where serde would be too slow.

use std::sync::Arc;

use admission::{Grant, Receipt};
use chain::SignedHead;
use data_encoding::{BASE64URL_NOPAD, Encoding, HEXLOWER};
use domain::{ChainTime, SaleDefinition, SaleOrdinal};
use engine::{Engine, Sale};
use gate::IdKeys;

use crate::wire::HeadBody;

/// Writes the answers of a batch: the same bytes that serde would write of [`crate::wire::purchase`], in a quarter of the time. What all answers
/// of a batch share, the signed head above all, is written once for each serving thread.
#[derive(Default)]
pub(crate) struct Made {
    head: Option<(Arc<SignedHead>, Vec<u8>)>,
    pay_by: Option<(ChainTime, String)>,
}

impl Made {
    /// The body for a grant that was made just now.
    pub(crate) fn answer(&mut self, engine: &Engine, sale: &Sale, grant: &Grant, receipt: &Receipt) -> Vec<u8> {
        self.write(&engine.ids, sale.ordinal, sale.definition(), grant, receipt)
    }

    fn write(
        &mut self,
        ids: &IdKeys,
        ordinal: SaleOrdinal,
        definition: &SaleDefinition,
        grant: &Grant,
        receipt: &Receipt,
    ) -> Vec<u8> {
        let mut out = Vec::with_capacity(1_024);
        // Names of sales and items, ids and hashes have no character that JSON would escape.
        let text = |out: &mut Vec<u8>, before: &str, value: &str| {
            out.extend(before.as_bytes());
            out.extend(value.as_bytes());
        };
        let number = |out: &mut Vec<u8>, before: &str, value: u64| {
            out.extend(before.as_bytes());
            out.extend(itoa::Buffer::new().format(value).as_bytes());
        };
        text(&mut out, r#"{"status":""#, grant.status.name());
        text(&mut out, r#"","purchase":""#, &ids.public_purchase(ordinal, grant.purchase));
        let shard = gate::ids::shard_of(grant.customer);
        text(&mut out, r#"","order":""#, &ids.public_order(ordinal, grant.number, shard));
        text(&mut out, r#"","sale":""#, &definition.sale);
        let item = if definition.test { r#"","test":true,"item":""# } else { r#"","item":""# };
        text(&mut out, item, &definition.items[usize::from(grant.item)].item);
        number(&mut out, r#"","quantity":"#, grant.units.len() as u64);
        for (index, unit) in grant.units.iter().enumerate() {
            let before = if index == 0 { r#","units":[{"number":"# } else { r#"},{"number":"# };
            number(&mut out, before, u64::from(unit.number));
            number(&mut out, r#","generation":"#, u64::from(unit.generation));
        }
        number(&mut out, r#"}],"price":{"amount":"#, grant.price);
        text(&mut out, r#","currency":""#, definition.currency.as_str());
        text(&mut out, r#""},"pay_by":""#, self.pay_by(grant.pay_by));
        out.extend(br#"","receipt":{"sale_id":""#);
        write_encoded(&HEXLOWER, &receipt.head.sale.0, &mut out);
        number(&mut out, r#"","position":"#, receipt.position);
        out.extend(br#","record_hash":""#);
        write_encoded(&BASE64URL_NOPAD, &receipt.record_hash, &mut out);
        out.extend(br#"","head":"#);
        out.extend(self.head(&receipt.head));
        out.extend(b"}}");
        out
    }

    fn head(&mut self, head: &Arc<SignedHead>) -> &[u8] {
        if self.head.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, head)) {
            let bytes = serde_json::to_vec(&HeadBody::from(head.as_ref())).expect("a head has no map with odd keys");
            self.head = Some((Arc::clone(head), bytes));
        }
        self.head.as_ref().map_or(&[], |(_, bytes)| bytes)
    }

    fn pay_by(&mut self, time: ChainTime) -> &str {
        if self.pay_by.as_ref().is_none_or(|(of, _)| *of != time) {
            self.pay_by = Some((time, time.rfc3339()));
        }
        self.pay_by.as_ref().map_or("", |(_, text)| text)
    }
}

fn write_encoded(encoding: &Encoding, bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + encoding.encode_len(bytes.len()), 0);
    encoding.encode_mut(bytes, &mut out[start..]);
}

#[cfg(test)]
mod tests {
    use admission::GrantStatus;
    use domain::{Pseudonym, PurchaseId, PurchaseNumber, SaleId, Unit};

    use super::*;
    use crate::wire::{ReceiptBody, describe};

    fn definition() -> SaleDefinition {
        let text = r#"{"sale": "drop-7", "title": "Two posters", "currency": "EUR", "opens_at": "2026-11-27T20:00:00Z",
            "closes_at": "2026-11-27T21:00:00Z", "limit_per_customer": 1, "items": [
            {"item": "poster-a", "title": "Poster", "stock": 2, "price": 1500, "limit_per_customer": 1}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn answers_of_a_batch_are_the_bytes_that_serde_writes() {
        let (ids, mut definition, sale) = (IdKeys::new(&[42; 32]), definition(), SaleId([0xab; 16]));
        let mut made = Made::default();
        for batch in 0..3_u8 {
            definition.test = batch == 1;
            let time = ChainTime(1_700_000_000_007 + u64::from(batch));
            let head = Arc::new(SignedHead {
                sale,
                partition: 0,
                epoch: 3,
                next: 1_000,
                time,
                head: [batch; 32],
                signature: [batch; 64],
            });
            for units in [1_u32, 2, 100] {
                let grant = Grant {
                    number: PurchaseNumber(units + 77),
                    purchase: PurchaseId([batch; 12]),
                    customer: Pseudonym([9; 16]),
                    item: 0,
                    units: (0..units).map(|number| Unit { number, generation: number % 3 }).collect(),
                    price: 1_500 * u64::from(units),
                    pay_by: time.plus(600_000),
                    status: GrantStatus::Held,
                    record: 999,
                    attempts: Vec::new(),
                    references: Vec::new(),
                };
                let receipt = Receipt { position: 999, record_hash: [units as u8; 32], head: Arc::clone(&head) };
                let body = ReceiptBody {
                    sale_id: HEXLOWER.encode(&sale.0),
                    position: 999,
                    record_hash: BASE64URL_NOPAD.encode(&receipt.record_hash),
                    head: head.as_ref().into(),
                };
                let whole = describe(&ids, SaleOrdinal(7), &definition, &grant, Some(body));
                let written = made.write(&ids, SaleOrdinal(7), &definition, &grant, &receipt);
                assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&whole).unwrap());
            }
        }
    }
}
