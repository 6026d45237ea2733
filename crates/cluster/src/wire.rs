//! What gates and the process that has taken a sale over say to each other: a call as Redis gets it, and decisions.

use admission::core::Verdict;
use domain::{ChainTime, PurchaseNumber, Refusal};

use crate::decider::Decision;

const CHANGED: u8 = 1;
const UNCHANGED: u8 = 2;
const SALE: u8 = 3;
const REFUSED: u8 = 4;

/// The arguments of a call as one message.
pub(crate) fn encode_call(arguments: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(arguments.iter().map(|argument| argument.len() + 4).sum());
    for argument in arguments {
        bytes.extend((argument.len() as u32).to_le_bytes());
        bytes.extend(argument);
    }
    bytes
}

/// Reads a call; `None` when it is none.
pub(crate) fn decode_call(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut arguments = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk()?;
        let (argument, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        arguments.push(argument.to_vec());
        bytes = rest;
    }
    Some(arguments)
}

/// Decisions as one message.
pub(crate) fn encode_decisions(decisions: &[Decision]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(decisions.len() * 33);
    for Decision { verdict, epoch, next } in decisions {
        let (what, number, retry_at) = match verdict {
            Verdict::Changed(number) => (CHANGED, number.0.into(), 0),
            Verdict::Unchanged(number) => (UNCHANGED, number.0.into(), 0),
            Verdict::Sale => (SALE, 0, 0),
            Verdict::Refused(refusal, retry_at) => (REFUSED, *refusal as u64, retry_at.map_or(0, |at| at.0)),
        };
        bytes.push(what);
        [number, retry_at, *epoch, *next].iter().for_each(|part| bytes.extend(part.to_le_bytes()));
    }
    bytes
}

/// Reads decisions; `None` when they are none.
pub(crate) fn decode_decisions(bytes: &[u8]) -> Option<Vec<Decision>> {
    let (decisions, rest) = bytes.as_chunks::<33>();
    if !rest.is_empty() {
        return None;
    }
    decisions.iter().map(decision).collect()
}

fn decision(bytes: &[u8; 33]) -> Option<Decision> {
    let (what, rest) = bytes.split_first()?;
    let (numbers, _) = rest.as_chunks::<8>();
    let [number, retry_at, epoch, next] = *numbers else { return None };
    let [number, retry_at, epoch, next] = [number, retry_at, epoch, next].map(u64::from_le_bytes);
    let grant = || u32::try_from(number).ok().map(PurchaseNumber);
    let verdict = match *what {
        CHANGED => Verdict::Changed(grant()?),
        UNCHANGED => Verdict::Unchanged(grant()?),
        SALE => Verdict::Sale,
        REFUSED => {
            let refusal = Refusal::ALL.into_iter().find(|refusal| *refusal as u64 == number)?;
            Verdict::Refused(refusal, (retry_at > 0).then_some(ChainTime(retry_at)))
        }
        _ => return None,
    };
    Some(Decision { verdict, epoch, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_decisions_come_back_as_they_were_and_rubbish_does_not() {
        let call = vec![b"12".to_vec(), Vec::new(), vec![0, 255]];
        assert_eq!(decode_call(&encode_call(&call)), Some(call));
        assert_eq!(decode_call(&[9, 0, 0, 0, 1]), None);
        let decisions = [
            Verdict::Changed(PurchaseNumber(7)),
            Verdict::Unchanged(PurchaseNumber(0)),
            Verdict::Sale,
            Verdict::Refused(Refusal::SoldOut, None),
            Verdict::Refused(Refusal::BeforeSlot, Some(ChainTime(5))),
        ]
        .map(|verdict| Decision { verdict, epoch: 3, next: 99 });
        assert_eq!(decode_decisions(&encode_decisions(&decisions)), Some(decisions.to_vec()));
        assert_eq!(decode_decisions(&[1; 34]), None);
        assert_eq!(decode_decisions(&[9; 33]), None);
    }
}
