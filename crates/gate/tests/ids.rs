//! Purchase and order ids from outside: what they keep, what they hide, and that nobody but the engine makes one.

use data_encoding::BASE64URL_NOPAD;
use domain::{Pseudonym, PurchaseId, PurchaseNumber, SaleId, SaleOrdinal};
use gate::ids::SHARDS;
use gate::{IdKeys, shard_of};
use proptest::prelude::*;

const SALE: SaleId = SaleId([1; 16]);

fn keys() -> IdKeys {
    IdKeys::new(&[42; 32])
}

fn flips(id: &str) -> impl Iterator<Item = String> {
    let (prefix, encoded) = id.split_at(3);
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap();
    (0..bytes.len() * 8).map(move |bit| {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        format!("{prefix}{}", BASE64URL_NOPAD.encode(&changed))
    })
}

#[test]
fn a_purchase_id_depends_on_sale_customer_and_key_and_on_nothing_else() {
    let (keys, again) = (keys(), keys());
    let bound = keys.bind_key(SALE, Pseudonym([2; 16]), b"k-1");
    assert_eq!(bound, again.bind_key(SALE, Pseudonym([2; 16]), b"k-1"));
    let others = [
        keys.bind_key(SaleId([9; 16]), Pseudonym([2; 16]), b"k-1"),
        keys.bind_key(SALE, Pseudonym([3; 16]), b"k-1"),
        keys.bind_key(SALE, Pseudonym([2; 16]), b"k-2"),
        IdKeys::new(&[43; 32]).bind_key(SALE, Pseudonym([2; 16]), b"k-1"),
    ];
    for other in others {
        assert_ne!(bound.0, other.0);
        assert_ne!(bound.1, other.1);
    }
    let ticket = keys.pending_ticket(SALE, Pseudonym([2; 16]), bound.0, 7);
    assert_ne!(ticket[..16], keys.pending_ticket(SALE, Pseudonym([3; 16]), bound.0, 7)[..16]);
    assert_ne!(ticket[..16], keys.pending_ticket(SALE, Pseudonym([2; 16]), bound.0, 8)[..16]);
}

#[test]
fn a_reader_without_keys_finds_the_bare_purchase_id_but_not_the_sale() {
    let purchase = PurchaseId(*b"purchase-id!");
    let id = keys().public_purchase(SaleOrdinal(7), purchase);
    let bytes = BASE64URL_NOPAD.decode(id.strip_prefix("pu_").unwrap().as_bytes()).unwrap();
    assert_eq!(bytes.len(), 24);
    assert_eq!(bytes[4..16], purchase.0);
    assert_ne!(bytes[..4], 7u32.to_be_bytes());
}

#[test]
fn every_flipped_bit_of_a_purchase_id_is_refused() {
    let keys = keys();
    let id = keys.public_purchase(SaleOrdinal(7), PurchaseId([5; 12]));
    assert_eq!(keys.parse_purchase(&id), Some((SaleOrdinal(7), PurchaseId([5; 12]))));
    assert_eq!(flips(&id).count(), 192);
    for changed in flips(&id) {
        assert_eq!(keys.parse_purchase(&changed), None, "{changed}");
    }
}

#[test]
fn every_flipped_bit_of_an_order_id_is_refused() {
    let keys = keys();
    let id = keys.public_order(SaleOrdinal(7), PurchaseNumber(12), 1023);
    assert_eq!(keys.parse_order(&id), Some((SaleOrdinal(7), PurchaseNumber(12), 1023)));
    assert_eq!(flips(&id).count(), 128);
    for changed in flips(&id) {
        assert_eq!(keys.parse_order(&changed), None, "{changed}");
    }
}

#[test]
fn ids_of_other_kinds_keys_and_lengths_are_refused() {
    let keys = keys();
    let purchase = keys.public_purchase(SaleOrdinal(1), PurchaseId([5; 12]));
    let order = keys.public_order(SaleOrdinal(1), PurchaseNumber(1), 1);
    let strangers = IdKeys::new(&[43; 32]);
    assert_eq!(strangers.parse_purchase(&purchase), None);
    assert_eq!(strangers.parse_order(&order), None);
    for wrong in [
        String::new(),
        "pu_".to_owned(),
        "or_".to_owned(),
        purchase.replace("pu_", "or_"),
        order.replace("or_", "pu_"),
        purchase.replace("pu_", "PU_"),
        format!("{purchase}A"),
        format!("{order}="),
        purchase[..purchase.len() - 1].to_owned(),
        format!("pu_{}", "!".repeat(32)),
        format!("or_{}", "é".repeat(11)),
        "A".repeat(100_000),
    ] {
        assert_eq!(keys.parse_purchase(&wrong), None, "{wrong}");
        assert_eq!(keys.parse_order(&wrong), None, "{wrong}");
    }
}

#[test]
fn order_ids_of_consecutive_numbers_look_unrelated() {
    let keys = keys();
    let bytes: Vec<Vec<u8>> = (0..500)
        .map(|number| keys.public_order(SaleOrdinal(1), PurchaseNumber(number), 1))
        .map(|id| BASE64URL_NOPAD.decode(&id.as_bytes()[3..]).unwrap())
        .collect();
    let mut differing_bits = 0;
    for pair in bytes.windows(2) {
        let bits: u32 = pair[0].iter().zip(&pair[1]).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert!((26..=102).contains(&bits), "{bits} of 128 bits differ");
        differing_bits += bits;
    }
    let mean = f64::from(differing_bits) / 499.0;
    assert!((62.0..=66.0).contains(&mean), "{mean} of 128 bits differ on average; 64 would be chance");
    let mut sorted = bytes.clone();
    sorted.sort();
    assert_ne!(sorted, bytes, "the order of ids tells nothing");
}

#[test]
fn shards_are_even_and_stay_below_their_count() {
    let keys = keys();
    let mut counts = vec![0_u32; usize::from(SHARDS)];
    for number in 0..40_960_u32 {
        let id = keys.bind_key(SALE, Pseudonym([2; 16]), &number.to_le_bytes()).1;
        counts[usize::from(shard_of(Pseudonym(id)))] += 1;
    }
    assert!(counts.iter().all(|count| (10..=80).contains(count)), "40 expected in each");
}

proptest! {
    #[test]
    fn purchase_ids_come_back(ordinal: u32, bare: [u8; 12]) {
        let keys = keys();
        let id = keys.public_purchase(SaleOrdinal(ordinal), PurchaseId(bare));
        prop_assert_eq!(id.len(), 35);
        prop_assert_eq!(keys.parse_purchase(&id), Some((SaleOrdinal(ordinal), PurchaseId(bare))));
    }

    #[test]
    fn order_ids_come_back(ordinal: u32, number: u32, shard: u16) {
        let keys = keys();
        let id = keys.public_order(SaleOrdinal(ordinal), PurchaseNumber(number), shard);
        prop_assert_eq!(id.len(), 25);
        prop_assert_eq!(keys.parse_order(&id), Some((SaleOrdinal(ordinal), PurchaseNumber(number), shard)));
    }

    #[test]
    fn no_text_makes_a_parser_fail_otherwise_than_by_refusing(text in ".*") {
        let keys = keys();
        prop_assert_eq!(keys.parse_purchase(&text), None);
        prop_assert_eq!(keys.parse_order(&text), None);
    }
}
