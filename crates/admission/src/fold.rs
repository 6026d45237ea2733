//! The owner's state hash: kept as records are applied, and checked against every digest when a chain is replayed.

use chain::batch::Batch;
use chain::digest::{GrantStatus as DigestStatus, StateHash};
use domain::record::Attempt;
use domain::{Received, Record, SaleDefinition, Units};

use crate::core::{Core, Guards};

/// Follows one batch of an existing chain; the first builds the core from the definition in `created`.
pub(crate) fn replay(
    replayed: &mut Option<(Core, StateHash)>,
    batch: &Batch<'_>,
    guards: Guards,
) -> Result<(), String> {
    for record in batch.records() {
        let record = record.and_then(|bytes| bytes.decode()).map_err(|error| error.to_string())?;
        if let Record::Created(created) = &record
            && replayed.is_none()
        {
            let definition: SaleDefinition =
                serde_json::from_slice(&created.definition).map_err(|error| error.to_string())?;
            definition.validate()?;
            *replayed = Some((Core::new(definition, guards), StateHash::default()));
        }
        let (core, state_hash) = replayed.as_mut().ok_or("the first record does not create the sale")?;
        follow(core, state_hash, batch.header.time, &record)?;
    }
    Ok(())
}

/// Applies one record of the chain.
pub(crate) fn follow(
    core: &mut Core,
    state_hash: &mut StateHash,
    time: domain::ChainTime,
    record: &Record,
) -> Result<(), String> {
    core.advance(time);
    core.apply(record).map_err(|contradiction| contradiction.to_string())?;
    fold_record(state_hash, core, record);
    match record {
        Record::Digest { state, .. } if *state != state_hash.bytes() => {
            Err("the recorded state hash is not that of the records before".to_owned())
        }
        _ => Ok(()),
    }
}

/// Folds a record that the core has just applied.
pub(crate) fn fold_record(state_hash: &mut StateHash, core: &Core, record: &Record) {
    let item_of = |number| core.grants.row(number).map_or(0, |row| u16::from(row.item));
    let units_of = |number| core.grants.units(number).collect::<Units>();
    match record {
        Record::Held(held) => state_hash.add(held.number.0, DigestStatus::Held, held.item, &held.units),
        Record::Released { number, .. } => {
            state_hash.remove(number.0, DigestStatus::Held, item_of(*number), &units_of(*number));
            state_hash.add(number.0, DigestStatus::Released, item_of(*number), &[]);
        }
        Record::Confirmed { number, .. } | Record::PaymentReceived(Attempt { number, .. }, Received::Confirms) => {
            state_hash.remove(number.0, DigestStatus::Held, item_of(*number), &units_of(*number));
            state_hash.add(number.0, DigestStatus::Confirmed, item_of(*number), &units_of(*number));
        }
        Record::Retaken { number, units, .. }
        | Record::PaymentReceived(Attempt { number, .. }, Received::Retakes(units)) => {
            state_hash.remove(number.0, DigestStatus::Released, item_of(*number), &[]);
            state_hash.add(number.0, DigestStatus::Confirmed, item_of(*number), units);
        }
        Record::Created(_)
        | Record::Epoch(_)
        | Record::Opened
        | Record::StockChanged { .. }
        | Record::Paused(_)
        | Record::Resumed
        | Record::ClockCredit(_)
        | Record::Digest { .. }
        | Record::Closed
        | Record::SecretRevealed(_)
        | Record::Settled(_)
        | Record::PaymentBegun(_)
        | Record::PaymentNamed(..)
        | Record::PaymentEnded(_)
        | Record::PaymentReceived(_, Received::RefundDue)
        | Record::RefundOrdered(_)
        | Record::Refunded(_)
        | Record::PaymentParked { .. } => {}
    }
}
