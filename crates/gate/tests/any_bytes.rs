//! Any bytes as a token, a set of keys, a pass, an id, a ticket, a rule: nothing that was not made by the right keys is believed, what is
//! believed has one spelling, and what cannot be read ends nothing. See `fuzzing`.

use domain::{ChainTime, Pseudonym, PurchaseId, PurchaseNumber, SaleId, SaleOrdinal};
use fuzzing::check;
use gate::jwks::JWKS_KEYS_MAX;
use gate::sign::sign_hs256;
use gate::{
    CustomerSaleKey, IdKeys, IdentityConfig, IdentityVerifier, KeySet, Pass, PassKey, PassKeys, PrivateText,
    RequiredClaim, StreamTicket, token_hash,
};
use serde_json::{Value, json};
use services::keys::{ShopKey, jwks};

const SECRET: &[u8] = b"a secret of the shop, 32 bytes at least";
const NOW_SECONDS: u64 = 1_800_000_000;
const NOW: u64 = NOW_SECONDS * 1_000;
const SALE: SaleId = SaleId([7; 16]);

fn verifier() -> IdentityVerifier {
    let config = IdentityConfig {
        issuer: "https://shop.example".to_owned(),
        audience: "doorbuster".to_owned(),
        secrets: vec![SECRET.to_vec()],
        fixed_keys: KeySet::default(),
        keys_are_published: true,
        required_claims: vec![RequiredClaim::parse("vip=true").unwrap()],
        leeway_seconds: 5,
        guest_tokens: false,
    };
    IdentityVerifier::new(config).unwrap()
}

fn claims(subject: &str) -> Value {
    json!({"iss": "https://shop.example", "aud": "doorbuster", "sub": subject, "exp": NOW_SECONDS + 60, "vip": true})
}

/// Of a text that is nearly one of these, all that was changed.
fn differs_in_signature_only(token: &str, good: &str) -> bool {
    let signed = |token: &str| token.rsplit_once('.').map(|(signed, _)| signed.to_owned());
    signed(token) == signed(good)
}

#[test]
fn any_bytes_as_a_token_are_refused_unless_the_shop_signed_them() {
    let keys = [ShopKey::rs256("r"), ShopKey::es256("e"), ShopKey::ed25519("d")];
    let published = KeySet::read(jwks(&keys).as_bytes()).unwrap().keys;
    let verifier = verifier();
    let shared = sign_hs256(SECRET, "https://shop.example", "doorbuster", "anna", NOW_SECONDS + 60);
    let good: Vec<String> = keys.iter().map(|key| key.token(&claims("anna"))).chain([shared]).collect();
    let nearly = [
        keys[0].token_with(r#"{"alg":"HS256","kid":"r"}"#, &claims("ben")),
        keys[1].token_with(r#"{"alg":"none"}"#, &claims("ben")),
        keys[2].token_with(r#"{"alg":"EdDSA","kid":"d","crit":["exp"],"jku":"https://x"}"#, &claims("ben")),
        sign_hs256(&[9; 32], "https://shop.example", "doorbuster", "ben", NOW_SECONDS + 60),
        keys[1].token(&json!({"iss": 1, "aud": ["doorbuster"], "sub": null, "exp": 1e300, "nbf": -1})),
    ];
    let seeds: Vec<&[u8]> = good.iter().chain(&nearly).map(|token| token.as_bytes()).collect();
    check("token", &seeds, |bytes| {
        let Ok(token) = std::str::from_utf8(bytes) else { return };
        if let Ok(identity) = verifier.verify(token, &published, NOW) {
            assert!(good.iter().any(|good| differs_in_signature_only(token, good)), "a forged token is believed");
            assert_eq!((identity.issuer.as_str(), identity.subject.as_str()), ("https://shop.example", "anna"));
        }
    });
    for token in &good {
        assert!(verifier.verify(token, &published, NOW).is_ok(), "{token}");
    }
}

#[test]
fn any_byte_that_is_changed_in_a_token_is_noticed() {
    let keys = [ShopKey::rs256("r"), ShopKey::es256("e"), ShopKey::ed25519("d")];
    let published = KeySet::read(jwks(&keys).as_bytes()).unwrap().keys;
    let verifier = verifier();
    let shared = sign_hs256(SECRET, "https://shop.example", "doorbuster", "anna", NOW_SECONDS + 60);
    for token in keys.iter().map(|key| key.token(&claims("anna"))).chain([shared]) {
        for place in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(verifier.verify(&changed, &published, NOW).is_err(), "byte {place} of {token}");
        }
    }
}

#[test]
fn any_bytes_as_a_set_of_keys_give_keys_or_a_reason() {
    let keys = [ShopKey::rs256("r"), ShopKey::es256("e"), ShopKey::ed25519("d")];
    let verifier = verifier();
    let stranger = ShopKey::ed25519("d").token(&claims("ben"));
    let mut odd = keys[1].jwk();
    odd["key_ops"] = json!(["verify", "sign"]);
    odd["x5c"] = json!(["MIIB"]);
    let mut private = keys[2].jwk();
    private["d"] = json!("AAAA");
    let symmetric = json!({"kty": "oct", "k": "AAAA", "alg": "HS256"});
    let mixed = json!({"keys": [odd, private, symmetric, keys[0].jwk(), keys[0].jwk(), 1, null]}).to_string();
    let all = jwks(&keys);
    check("jwks", &[all.as_bytes(), mixed.as_bytes(), b"{\"keys\":[]}"], |bytes| {
        let Ok(read) = KeySet::read(bytes) else { return };
        let listed = serde_json::from_slice::<Value>(bytes).unwrap()["keys"].as_array().unwrap().len();
        assert_eq!(read.keys.count() + read.left_out.len(), listed, "every key is read or left out");
        assert!((1..=JWKS_KEYS_MAX).contains(&read.keys.count()));
        assert!(verifier.verify(&stranger, &read.keys, NOW).is_err(), "a key that is not in the set signs nobody in");
    });
}

fn pass(number: u64) -> Pass {
    Pass {
        sale: SaleOrdinal(3),
        customer: Pseudonym([5; 16]),
        number,
        slot_offset: 1_234,
        expires_at: ChainTime(NOW),
        token_hash: token_hash("token"),
        identity_hash: [6; 16],
        token_expires_at_milliseconds: (number > 1).then_some(NOW),
    }
}

#[test]
fn any_bytes_as_a_pass_are_refused_unless_we_made_them() {
    let (old, new) = (PassKey { id: 1, secret: [1; 32] }, PassKey { id: 2, secret: [2; 32] });
    let key = CustomerSaleKey::derive(&[8; 32], SALE);
    let both = PassKeys::new(&new, std::slice::from_ref(&old));
    let retired = PassKeys::new(&PassKey { id: 3, secret: [3; 32] }, &[]).seal(&pass(4), &key);
    let good = [PassKeys::new(&old, &[]).seal(&pass(1), &key), both.seal(&pass(2), &key)];
    let seeds: Vec<&[u8]> = good.iter().chain([&retired]).map(|pass| pass.as_bytes()).collect();
    check("pass", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Ok(open) = both.open(text) {
            assert!(good.iter().any(|good| good == text), "a forged pass is believed");
            assert_eq!(open.customer_sale_key(&both).unwrap(), key);
        }
    });
}

#[test]
fn any_bytes_as_an_id_or_a_ticket_are_refused_unless_we_made_them() {
    let keys = IdKeys::new(&[4; 32]);
    let (purchase, ticket) =
        (PurchaseId([9; 12]), StreamTicket { customer: Pseudonym([5; 16]), expires_at: ChainTime(NOW), nonce: [1; 8] });
    let good = [
        keys.public_purchase(SaleOrdinal(3), purchase),
        keys.public_order(SaleOrdinal(3), PurchaseNumber(77), 1_023),
        keys.seal_stream_ticket(SALE, purchase, &ticket),
    ];
    let seeds: Vec<&[u8]> = good.iter().map(|id| id.as_bytes()).collect();
    check("id", &seeds, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Some((sale, purchase)) = keys.parse_purchase(text) {
            assert_eq!((keys.public_purchase(sale, purchase).as_str(), good[0].as_str()), (text, text));
        }
        if let Some((sale, number, shard)) = keys.parse_order(text) {
            // Six bytes of zeros stand for a MAC here; whatever has them is an id that we would have made.
            assert_eq!(keys.public_order(sale, number, shard), text);
        }
        if let Some(read) = keys.open_stream_ticket(SALE, purchase, text) {
            assert_eq!((read, good[2].as_str()), (ticket, text), "a forged ticket is believed");
        }
    });
}

#[test]
fn any_bytes_as_a_rule_or_a_private_text_come_back_as_they_were() {
    let whole = PrivateText { key: "a-key", attributes: Some("{\"size\":42}") }.to_bytes();
    check("text", &[&whole, b"a-key", b"vip=true", b"scope=drop=1"], |bytes| {
        if let Some(text) = PrivateText::parse(bytes) {
            assert_eq!(text.to_bytes(), bytes);
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Some(rule) = RequiredClaim::parse(text) {
            let (name, value) = text.split_once('=').unwrap();
            let said = |value: Value| rule.is_met(json!({ name: value }).as_object().unwrap());
            assert!(said(json!([null, value])) && !said(json!([null, format!("{value}x")])));
        }
    });
}
