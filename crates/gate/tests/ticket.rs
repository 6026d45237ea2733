//! Tickets of streams from outside: what they keep, and that nobody but the engine makes one.

use data_encoding::BASE64URL_NOPAD;
use domain::{ChainTime, Pseudonym, PurchaseId, SaleId};
use gate::{IdKeys, StreamTicket};

const SALE: SaleId = SaleId([1; 16]);
const PURCHASE: PurchaseId = PurchaseId([2; 12]);
const TICKET: StreamTicket =
    StreamTicket { customer: Pseudonym([3; 16]), expires_at: ChainTime(1_700_000_010_000), nonce: [4; 8] };

#[test]
fn a_ticket_comes_back_from_whoever_has_the_same_keys() {
    let text = IdKeys::new(&[42; 32]).seal_stream_ticket(SALE, PURCHASE, &TICKET);
    assert_eq!(text.len(), 67);
    assert_eq!(IdKeys::new(&[42; 32]).open_stream_ticket(SALE, PURCHASE, &text), Some(TICKET));
}

#[test]
fn a_ticket_opens_nothing_but_its_own_purchase_under_its_own_keys() {
    let keys = IdKeys::new(&[42; 32]);
    let text = keys.seal_stream_ticket(SALE, PURCHASE, &TICKET);
    assert_eq!(keys.open_stream_ticket(SaleId([9; 16]), PURCHASE, &text), None, "another sale");
    assert_eq!(keys.open_stream_ticket(SALE, PurchaseId([9; 12]), &text), None, "another purchase");
    assert_eq!(IdKeys::new(&[43; 32]).open_stream_ticket(SALE, PURCHASE, &text), None, "another deployment");
}

#[test]
fn every_flipped_bit_of_a_ticket_and_every_other_form_is_refused() {
    let keys = IdKeys::new(&[42; 32]);
    let text = keys.seal_stream_ticket(SALE, PURCHASE, &TICKET);
    let bytes = BASE64URL_NOPAD.decode(text.strip_prefix("st_").unwrap().as_bytes()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let changed = format!("st_{}", BASE64URL_NOPAD.encode(&changed));
        assert_eq!(keys.open_stream_ticket(SALE, PURCHASE, &changed), None, "bit {bit}");
    }
    for other in ["", "st_", &text[3..], &text[..66], &format!("{text}A"), &text.replace("st_", "dp_")] {
        assert_eq!(keys.open_stream_ticket(SALE, PURCHASE, other), None, "{other:?}");
    }
}
