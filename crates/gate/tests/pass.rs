//! Passes from outside: nobody but the engine makes one, none can be changed, and taking many changes no slot.

use data_encoding::BASE64URL_NOPAD;
use domain::{ChainTime, Pseudonym, Refusal, SaleId, SaleOrdinal};
use gate::{CustomerSaleKey, Pass, PassError, PassKey, PassKeys, PseudonymKey, token_hash};
use proptest::prelude::*;

fn key(id: u16) -> PassKey {
    PassKey { id, secret: [u8::try_from(id).unwrap(); 32] }
}

fn customer_sale_key() -> CustomerSaleKey {
    CustomerSaleKey::derive(&[6; 32], SaleId([9; 16]))
}

fn pass() -> Pass {
    Pass {
        sale: SaleOrdinal(3),
        customer: Pseudonym([4; 16]),
        number: 77,
        slot_offset: 1_234,
        expires_at: ChainTime(1_800_000_000_000),
        token_hash: token_hash("token"),
        identity_hash: [5; 16],
        token_expires_at_milliseconds: Some(1_900_000_000_000),
    }
}

#[test]
fn a_pass_opens_with_the_customers_key_inside() {
    let keys = PassKeys::new(&key(1), &[]);
    let token = keys.seal(&pass(), &customer_sale_key());
    assert!(token.len() == 215 && token.starts_with("dp_"), "{token}");
    let open = keys.open(&token).unwrap();
    assert_eq!(open.pass, pass());
    assert_eq!(open.customer_sale_key(&keys).unwrap(), customer_sale_key());
}

#[test]
fn every_flipped_bit_of_a_pass_is_refused() {
    let keys = PassKeys::new(&key(1), &[]);
    let token = keys.seal(&pass(), &customer_sale_key());
    let bytes = BASE64URL_NOPAD.decode(&token.as_bytes()[3..]).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let refused = keys.open(&format!("dp_{}", BASE64URL_NOPAD.encode(&changed))).unwrap_err();
        assert_eq!(refused.refusal(), Refusal::PassInvalid, "bit {bit}");
    }
}

#[test]
fn every_changed_character_of_a_pass_is_refused() {
    let keys = PassKeys::new(&key(1), &[]);
    let token = keys.seal(&pass(), &customer_sale_key());
    for at in 0..token.len() {
        for other in ["A", "B", "=", " ", "+", "/"] {
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            assert!(changed == token || keys.open(&changed).is_err(), "{changed}");
        }
    }
}

#[test]
fn what_is_no_pass_is_malformed() {
    let keys = PassKeys::new(&key(1), &[]);
    let token = keys.seal(&pass(), &customer_sale_key());
    for text in [
        String::new(),
        "dp_".to_owned(),
        token[3..].to_owned(),
        token[..214].to_owned(),
        format!("{token}A"),
        format!(" {token}"),
        token.replace("dp_", "dP_"),
        format!("dp_{}", "é".repeat(106)),
        "A".repeat(100_000),
    ] {
        assert_eq!(keys.open(&text), Err(PassError::Malformed), "{text}");
    }
}

#[test]
fn a_rotated_key_opens_old_passes_until_it_is_retired() {
    let before = PassKeys::new(&key(1), &[]);
    let rotated = PassKeys::new(&key(2), &[key(1)]);
    let retired = PassKeys::new(&key(2), &[]);
    let old = before.seal(&pass(), &customer_sale_key());
    let open = rotated.open(&old).unwrap();
    assert_eq!(open.customer_sale_key(&rotated).unwrap(), customer_sale_key());
    assert_eq!(retired.open(&old), Err(PassError::KeyUnknown(1)));
    let new = rotated.seal(&pass(), &customer_sale_key());
    assert_eq!(before.open(&new), Err(PassError::KeyUnknown(2)));
    assert_eq!(retired.open(&new).unwrap().pass, pass());
}

#[test]
fn a_pass_under_another_secret_of_the_same_number_is_forged() {
    let ours = PassKeys::new(&key(1), &[]);
    let theirs = PassKeys::new(&PassKey { id: 1, secret: [99; 32] }, &[]);
    let token = theirs.seal(&pass(), &customer_sale_key());
    assert_eq!(ours.open(&token), Err(PassError::Forged));
}

#[test]
fn a_pass_knows_the_token_that_it_was_taken_with() {
    assert!(pass().matches_token("token"));
    for other in ["", "Token", "token ", "token2"] {
        assert!(!pass().matches_token(other), "{other:?}");
    }
}

#[test]
fn thousand_passes_one_slot() {
    let (slot_secret, spread) = ([8; 32], 60_000);
    let keys = PassKeys::new(&key(1), &[]);
    let pseudonyms = PseudonymKey::new(&[7; 32]);
    let mut slots: Vec<u32> = (0..1_000)
        .map(|number| {
            let customer = pseudonyms.pseudonym("shop", "anna");
            let taken = Pass {
                customer,
                number,
                slot_offset: chain::head::slot_offset(&slot_secret, customer, spread),
                expires_at: ChainTime(1_800_000_000_000 + number),
                token_hash: token_hash(&format!("token {number}")),
                ..pass()
            };
            keys.open(&keys.seal(&taken, &customer_sale_key())).unwrap().pass.slot_offset
        })
        .collect();
    slots.dedup();
    assert_eq!(slots.len(), 1, "asking often draws once");
    let other = chain::head::slot_offset(&slot_secret, pseudonyms.pseudonym("shop", "bert"), spread);
    assert_ne!(slots[0], other);
}

proptest! {
    #[test]
    fn passes_come_back(
        sale: u32,
        customer: [u8; 16],
        number: u64,
        slot_offset: u32,
        expires_at: u64,
        token_hash: [u8; 16],
        identity_hash: [u8; 16],
        token_expires_at in proptest::option::of(0..u64::MAX),
        customer_key: [u8; 32],
    ) {
        let keys = PassKeys::new(&key(1), &[key(2)]);
        let pass = Pass {
            sale: SaleOrdinal(sale),
            customer: Pseudonym(customer),
            number,
            slot_offset,
            expires_at: ChainTime(expires_at),
            token_hash,
            identity_hash,
            token_expires_at_milliseconds: token_expires_at,
        };
        let inside = CustomerSaleKey::derive(&customer_key, SaleId([9; 16]));
        let open = keys.open(&keys.seal(&pass, &inside)).unwrap();
        prop_assert_eq!(&open.pass, &pass);
        prop_assert!(open.customer_sale_key(&keys).unwrap() == inside);
    }

    #[test]
    fn no_text_opens(text in "(dp_)?[A-Za-z0-9_-]{0,230}") {
        prop_assert!(PassKeys::new(&key(1), &[]).open(&text).is_err());
    }
}
