//! Records to bytes and back: fixed little-endian fields, one canonical form per record, nothing left over.

use domain::record::{Attempt, Counts, Created, Held, PauseReason, ReleaseReason};
use domain::{
    ChainTime, Currency, ParkReason, ParkedPayment, Pseudonym, PurchaseId, PurchaseNumber, Received, Record,
    RecordKind, SaleOrdinal, Unit, Units, limits,
};

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The kind is not known to this version; the chain was written by a newer one or is damaged.
    #[error("record kind {0} is not known to this version")]
    UnknownKind(u8),
    /// A field ends after the bytes do, or bytes are left over.
    #[error("a {0:?} record has the wrong length")]
    Length(RecordKind),
    /// A field has a value that no writer gives it.
    #[error("a {0:?} record has a field out of range")]
    Range(RecordKind),
}

/// About how many bytes a record takes in a batch; only those whose size varies matter.
pub fn bytes_about(record: &Record) -> usize {
    let units = match record {
        Record::Held(held) => held.units.len(),
        Record::Retaken { units, .. } | Record::PaymentReceived(_, Received::Retakes(units)) => units.len(),
        Record::StockChanged { withdrawn, .. } => withdrawn.len(),
        _ => 0,
    };
    192 + units * 8
}

/// Appends the record's public bytes to `out`.
pub fn encode(record: &Record, out: &mut Vec<u8>) {
    match record {
        Record::Created(created) => {
            out.extend(created.ordinal.0.to_le_bytes());
            out.extend(created.slot_commitment);
            out.extend(created.pseudonym_commitment);
            out.extend(created.signing_key);
            out.extend(&created.definition);
        }
        Record::Epoch(epoch) => out.extend(epoch.to_le_bytes()),
        Record::Opened | Record::Resumed | Record::Closed => {}
        Record::Held(held) => encode_held(held, out),
        Record::Released { number, purchase, reason } => {
            encode_grant(*number, *purchase, out);
            out.push(*reason as u8);
        }
        Record::Confirmed { number, purchase } => encode_grant(*number, *purchase, out),
        Record::PaymentBegun(attempt)
        | Record::PaymentEnded(attempt)
        | Record::RefundOrdered(attempt)
        | Record::Refunded(attempt) => encode_attempt(attempt, out),
        Record::PaymentReceived(attempt, received) => {
            encode_attempt(attempt, out);
            match received {
                Received::Confirms => out.push(CONFIRMS),
                Received::Retakes(units) => {
                    out.push(RETAKES);
                    encode_units(units, out);
                }
                Received::RefundDue => out.push(REFUND_DUE),
            }
        }
        Record::PaymentNamed(attempt, reference) => {
            assert!(is_reference(reference), "INV-4: a record that nobody could read again must not be written");
            encode_attempt(attempt, out);
            out.extend(reference);
        }
        Record::PaymentParked { number, purchase, parked } => {
            encode_grant(*number, *purchase, out);
            assert!(
                is_reference(&parked.reference),
                "INV-4: a record that nobody could read again must not be written"
            );
            out.push(parked.reason as u8);
            out.extend(parked.evidence.to_le_bytes());
            out.extend(parked.amount.to_le_bytes());
            out.extend(parked.currency.0);
            out.extend(&parked.reference);
        }
        Record::Retaken { number, purchase, units } => {
            encode_grant(*number, *purchase, out);
            encode_units(units, out);
        }
        Record::StockChanged { item, added, withdrawn } => {
            out.extend(item.to_le_bytes());
            out.extend(added.to_le_bytes());
            encode_units(withdrawn, out);
        }
        Record::Paused(reason) => out.push(*reason as u8),
        Record::ClockCredit(milliseconds) => out.extend(milliseconds.to_le_bytes()),
        Record::Digest { state, counts } => {
            out.extend(state);
            encode_counts(counts, out);
        }
        Record::SecretRevealed(secret) => out.extend(secret),
        Record::Settled(counts) => encode_counts(counts, out),
    }
}

/// What became of money, in a `payment_received` record.
const CONFIRMS: u8 = 0;
const RETAKES: u8 = 1;
const REFUND_DUE: u8 = 2;

/// Whether a record can hold a provider's name of a payment: visible ASCII, not too long. Nothing is no name, but can be held.
pub fn is_reference(reference: &[u8]) -> bool {
    reference.len() <= limits::PAYMENT_REFERENCE_BYTES_MAX && reference.iter().all(u8::is_ascii_graphic)
}

fn encode_attempt(Attempt { number, purchase, attempt }: &Attempt, out: &mut Vec<u8>) {
    encode_grant(*number, *purchase, out);
    out.push(*attempt);
}

fn encode_grant(number: PurchaseNumber, purchase: PurchaseId, out: &mut Vec<u8>) {
    out.extend(number.0.to_le_bytes());
    out.extend(purchase.0);
}

fn encode_units(units: &[Unit], out: &mut Vec<u8>) {
    for unit in units {
        out.extend(unit.number.to_le_bytes());
        out.extend(unit.generation.to_le_bytes());
    }
}

fn encode_counts(counts: &[Counts], out: &mut Vec<u8>) {
    for count in counts {
        for number in [count.free, count.held, count.sold, count.withdrawn] {
            out.extend(number.to_le_bytes());
        }
    }
}

fn encode_held(held: &Held, out: &mut Vec<u8>) {
    encode_grant(held.number, held.purchase, out);
    out.extend(held.customer.0);
    out.extend(held.item.to_le_bytes());
    out.extend(held.price.to_le_bytes());
    out.extend(held.key_hash);
    out.extend(held.body_hash);
    out.extend(held.pass.to_le_bytes());
    out.extend(held.slot_offset.to_le_bytes());
    out.extend(held.coupon.to_le_bytes());
    out.extend(held.pay_by.0.to_le_bytes());
    encode_units(&held.units, out);
}

/// Reads the public bytes of a record of kind number `kind`; all bytes must be used.
pub fn decode(kind: u8, bytes: &[u8]) -> Result<Record, CodecError> {
    let kind = RecordKind::from_number(kind).ok_or(CodecError::UnknownKind(kind))?;
    let mut fields = Fields { kind, rest: bytes };
    let record = match kind {
        RecordKind::Created => Record::Created(Box::new(Created {
            ordinal: SaleOrdinal(fields.u32()?),
            slot_commitment: fields.array()?,
            pseudonym_commitment: fields.array()?,
            signing_key: fields.array()?,
            definition: std::mem::take(&mut fields.rest).to_vec(),
        })),
        RecordKind::Epoch => Record::Epoch(fields.u64()?),
        RecordKind::Opened => Record::Opened,
        RecordKind::Held => Record::Held(fields.held()?),
        RecordKind::Released => Record::Released {
            number: PurchaseNumber(fields.u32()?),
            purchase: PurchaseId(fields.array()?),
            reason: ReleaseReason::from_number(fields.u8()?).ok_or(CodecError::Range(kind))?,
        },
        RecordKind::Confirmed => {
            Record::Confirmed { number: PurchaseNumber(fields.u32()?), purchase: PurchaseId(fields.array()?) }
        }
        RecordKind::PaymentBegun => Record::PaymentBegun(fields.attempt()?),
        RecordKind::PaymentEnded => Record::PaymentEnded(fields.attempt()?),
        RecordKind::RefundOrdered => Record::RefundOrdered(fields.attempt()?),
        RecordKind::Refunded => Record::Refunded(fields.attempt()?),
        RecordKind::PaymentReceived => Record::PaymentReceived(
            fields.attempt()?,
            match fields.u8()? {
                CONFIRMS => Received::Confirms,
                RETAKES => Received::Retakes(fields.units(1..=limits::QUANTITY_MAX as usize)?),
                REFUND_DUE => Received::RefundDue,
                _ => return Err(CodecError::Range(kind)),
            },
        ),
        RecordKind::PaymentNamed => Record::PaymentNamed(fields.attempt()?, fields.reference()?),
        RecordKind::PaymentParked => Record::PaymentParked {
            number: PurchaseNumber(fields.u32()?),
            purchase: PurchaseId(fields.array()?),
            parked: Box::new(fields.parked()?),
        },
        RecordKind::Retaken => Record::Retaken {
            number: PurchaseNumber(fields.u32()?),
            purchase: PurchaseId(fields.array()?),
            units: fields.units(1..=limits::QUANTITY_MAX as usize)?,
        },
        RecordKind::StockChanged => Record::StockChanged {
            item: fields.u16()?,
            added: fields.u32()?,
            withdrawn: fields.units(0..=limits::WITHDRAWN_PER_RECORD_MAX as usize)?,
        },
        RecordKind::Paused => Record::Paused(PauseReason::from_number(fields.u8()?).ok_or(CodecError::Range(kind))?),
        RecordKind::Resumed => Record::Resumed,
        RecordKind::ClockCredit => Record::ClockCredit(fields.u64()?),
        RecordKind::Digest => Record::Digest { state: fields.array()?, counts: fields.counts()? },
        RecordKind::Closed => Record::Closed,
        RecordKind::SecretRevealed => Record::SecretRevealed(fields.array()?),
        RecordKind::Settled => Record::Settled(fields.counts()?),
    };
    if fields.rest.is_empty() { Ok(record) } else { Err(CodecError::Length(kind)) }
}

struct Fields<'a> {
    kind: RecordKind,
    rest: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (field, rest) = self.rest.split_first_chunk::<N>().ok_or(CodecError::Length(self.kind))?;
        self.rest = rest;
        Ok(*field)
    }

    fn u8(&mut self) -> Result<u8, CodecError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, CodecError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, CodecError> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes units to the end of the bytes.
    fn units(&mut self, count: std::ops::RangeInclusive<usize>) -> Result<Units, CodecError> {
        if !self.rest.len().is_multiple_of(8) {
            return Err(CodecError::Length(self.kind));
        }
        if !count.contains(&(self.rest.len() / 8)) {
            return Err(CodecError::Range(self.kind));
        }
        let mut units = Units::with_capacity(self.rest.len() / 8);
        while !self.rest.is_empty() {
            units.push(Unit { number: self.u32()?, generation: self.u32()? });
        }
        Ok(units)
    }

    /// Takes counts to the end of the bytes.
    fn counts(&mut self) -> Result<Vec<Counts>, CodecError> {
        let mut counts = Vec::new();
        while !self.rest.is_empty() {
            counts.push(Counts { free: self.u32()?, held: self.u32()?, sold: self.u32()?, withdrawn: self.u32()? });
        }
        Ok(counts)
    }

    fn attempt(&mut self) -> Result<Attempt, CodecError> {
        let (number, purchase, attempt) = (PurchaseNumber(self.u32()?), PurchaseId(self.array()?), self.u8()?);
        if usize::from(attempt) >= limits::PAYMENT_ATTEMPTS_MAX {
            return Err(CodecError::Range(self.kind));
        }
        Ok(Attempt { number, purchase, attempt })
    }

    /// Takes a provider's name of a payment, to the end of the bytes.
    fn reference(&mut self) -> Result<Vec<u8>, CodecError> {
        let reference = std::mem::take(&mut self.rest);
        if is_reference(reference) { Ok(reference.to_vec()) } else { Err(CodecError::Range(self.kind)) }
    }

    /// Takes what was parked, to the end of the bytes.
    fn parked(&mut self) -> Result<ParkedPayment, CodecError> {
        let out_of_range = CodecError::Range(self.kind);
        let parked = ParkedPayment {
            reason: ParkReason::from_number(self.u8()?).ok_or(out_of_range)?,
            evidence: self.u64()?,
            amount: self.u64()?,
            currency: Currency(self.array()?),
            reference: self.reference()?,
        };
        let fits = parked.evidence <= limits::INTEGER_MAX && parked.amount <= limits::INTEGER_MAX;
        let is_currency = parked.currency.0.iter().all(u8::is_ascii_uppercase);
        if fits && is_currency { Ok(parked) } else { Err(out_of_range) }
    }

    fn held(&mut self) -> Result<Held, CodecError> {
        Ok(Held {
            number: PurchaseNumber(self.u32()?),
            purchase: PurchaseId(self.array()?),
            customer: Pseudonym(self.array()?),
            item: self.u16()?,
            price: self.u64()?,
            key_hash: self.array()?,
            body_hash: self.array()?,
            pass: self.u64()?,
            slot_offset: self.u32()?,
            coupon: self.u64()?,
            pay_by: ChainTime(self.u64()?),
            units: self.units(1..=limits::QUANTITY_MAX as usize)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_back_to_themselves(kind in 0u8..26, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(record) = decode(kind, &bytes) {
                let mut again = Vec::new();
                encode(&record, &mut again);
                prop_assert_eq!(record.kind() as u8, kind);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
