//! Access tokens under the shop's public keys: what is believed, what is not, and that no token talks its way to another algorithm.

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::KeySize;
use data_encoding::BASE64URL_NOPAD;
use domain::Refusal;
use gate::eligible::REQUIRED_CLAIMS_MAX;
use gate::jwks::{JWKS_BYTES_MAX, JWKS_KEYS_MAX, LeftOut, ReadKeys};
use gate::{
    Disbelief, Identity, IdentityConfig, IdentityConfigError, IdentityVerifier, JwksError, KeySet, RequiredClaim,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use services::keys::{ShopKey, jwks};

const SECRET: &[u8] = b"a secret of the shop, 32 bytes at least";
const NOW_SECONDS: u64 = 1_800_000_000;
const NOW: u64 = NOW_SECONDS * 1_000;
const INVALID: Result<Identity, Disbelief> = Err(Disbelief::Refused(Refusal::TokenInvalid));

fn config() -> IdentityConfig {
    IdentityConfig {
        issuer: "https://shop.example".to_owned(),
        audience: "doorbuster".to_owned(),
        secrets: vec![SECRET.to_vec()],
        fixed_keys: KeySet::default(),
        keys_are_published: true,
        required_claims: Vec::new(),
        leeway_seconds: 5,
        guest_tokens: false,
    }
}

fn claims() -> Value {
    json!({"iss": "https://shop.example", "aud": "doorbuster", "sub": "anna", "exp": NOW_SECONDS + 60})
}

fn read(jwks: &Value) -> ReadKeys {
    KeySet::read(jwks.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}: {jwks}"))
}

fn set<'a>(keys: impl IntoIterator<Item = &'a ShopKey>) -> KeySet {
    KeySet::read(jwks(keys).as_bytes()).unwrap().keys
}

fn verify(token: &str, published: &KeySet) -> Result<Identity, Disbelief> {
    IdentityVerifier::new(config()).unwrap().verify(token, published, NOW)
}

fn one_of_each() -> [ShopKey; 3] {
    [ShopKey::rs256("r"), ShopKey::es256("e"), ShopKey::ed25519("d")]
}

fn with_signature(header: &str, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", part(header), part(&claims.to_string()));
    let signature = BASE64URL_NOPAD.encode(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn hs256(secret: &[u8]) -> impl FnOnce(&[u8]) -> Vec<u8> {
    move |signed| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed).as_ref().to_vec()
}

#[test]
fn every_algorithm_is_believed_by_name_and_without_one_if_only_one_key_fits() {
    let keys = one_of_each();
    let all = set(&keys);
    for key in &keys {
        let anna = verify(&key.token(&claims()), &all).unwrap();
        assert_eq!((anna.subject.as_str(), anna.is_eligible), ("anna", true), "{}", key.algorithm());
        let nameless = key.token_with(&json!({"alg": key.algorithm()}).to_string(), &claims());
        assert_eq!(verify(&nameless, &all), Ok(anna.clone()), "{} without a name", key.algorithm());
        let twin = match key.algorithm() {
            "RS256" => ShopKey::rs256("twin"),
            "ES256" => ShopKey::es256("twin"),
            _ => ShopKey::ed25519("twin"),
        };
        assert_eq!(verify(&nameless, &set([key, &twin])), INVALID, "{}: two fit", key.algorithm());
    }
    assert!(
        verify(&gate::sign::sign_hs256(SECRET, "https://shop.example", "doorbuster", "anna", NOW_SECONDS), &all)
            .is_ok()
    );
}

#[test]
fn fixed_keys_are_believed_beside_published_ones_and_one_key_in_both_is_one_key() {
    let [fixed, published, _] = one_of_each();
    let verifier = IdentityVerifier::new(IdentityConfig { fixed_keys: set([&fixed]), ..config() }).unwrap();
    let nameless = fixed.token_with(r#"{"alg":"RS256"}"#, &claims());
    for set in [set([&published]), set([&published, &fixed])] {
        for token in [&fixed.token(&claims()), &published.token(&claims()), &nameless] {
            assert!(verifier.verify(token, &set, NOW).is_ok());
        }
    }
    let only_fixed = IdentityConfig { fixed_keys: set([&fixed]), keys_are_published: false, ..config() };
    let only_fixed = IdentityVerifier::new(IdentityConfig { secrets: vec![], ..only_fixed }).unwrap();
    assert!(only_fixed.verify(&fixed.token(&claims()), &KeySet::default(), NOW).is_ok());
    assert_eq!(only_fixed.verify(&published.token(&claims()), &KeySet::default(), NOW), INVALID, "nobody to ask");
}

#[test]
fn a_changed_signature_a_foreign_key_and_changed_claims_are_refused_with_every_algorithm() {
    let strangers = one_of_each();
    for (key, stranger) in one_of_each().iter().zip(&strangers) {
        let all = set([key]);
        let good = key.token(&claims());
        assert!(verify(&good, &all).is_ok());
        assert_eq!(verify(&stranger.token(&claims()), &all), INVALID, "{}: a foreign key", key.algorithm());
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
        for bit in (0..bytes.len() * 8).step_by(7) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let token = format!("{signed}.{}", BASE64URL_NOPAD.encode(&changed));
            assert_eq!(verify(&token, &all), INVALID, "{}: bit {bit}", key.algorithm());
        }
        let mut other = claims();
        other["sub"] = "bert".into();
        let other = key.token(&other);
        let (other, _) = other.rsplit_once('.').unwrap();
        assert_eq!(verify(&format!("{other}.{signature}"), &all), INVALID, "{}: other claims", key.algorithm());
        for wrong in ["", "AAAA", &signature[..signature.len() - 4], &format!("{signature}AAAA")] {
            assert_eq!(verify(&format!("{signed}.{wrong}"), &all), INVALID, "{}: {wrong}", key.algorithm());
        }
    }
    let es256 = ShopKey::es256("e");
    let zeros = with_signature(r#"{"alg":"ES256","kid":"e"}"#, &claims(), |_| vec![0; 64]);
    assert_eq!(verify(&zeros, &set([&es256])), INVALID, "r = s = 0");
}

#[test]
fn no_header_talks_a_key_into_another_algorithm() {
    let [rs256, es256, ed25519] = one_of_each();
    let all = set([&rs256, &es256, &ed25519]);
    let n = BASE64URL_NOPAD.decode(rs256.jwk()["n"].as_str().unwrap().as_bytes()).unwrap();
    let published = jwks([&rs256, &es256, &ed25519]);
    let x = BASE64URL_NOPAD.decode(ed25519.jwk()["x"].as_str().unwrap().as_bytes()).unwrap();
    let table = [
        ("the modulus as a secret", with_signature(r#"{"alg":"HS256","kid":"r"}"#, &claims(), hs256(&n))),
        ("the point as a secret", with_signature(r#"{"alg":"HS256","kid":"d"}"#, &claims(), hs256(&x))),
        ("the set as a secret", with_signature(r#"{"alg":"HS256"}"#, &claims(), hs256(published.as_bytes()))),
        ("an empty secret", with_signature(r#"{"alg":"HS256","kid":"r"}"#, &claims(), hs256(b""))),
        ("none", with_signature(r#"{"alg":"none","kid":"r"}"#, &claims(), |_| Vec::new())),
        ("None", with_signature(r#"{"alg":"None","kid":"r"}"#, &claims(), |_| Vec::new())),
        ("a MAC as RS256", with_signature(r#"{"alg":"RS256","kid":"r"}"#, &claims(), hs256(SECRET))),
        ("ES256 as RS256", es256.token_with(r#"{"alg":"RS256","kid":"e"}"#, &claims())),
        ("ES256 under RSA's name", es256.token_with(r#"{"alg":"ES256","kid":"r"}"#, &claims())),
        ("RS256 as ES256", rs256.token_with(r#"{"alg":"ES256","kid":"r"}"#, &claims())),
        ("RS256 under the point's name", rs256.token_with(r#"{"alg":"RS256","kid":"e"}"#, &claims())),
        ("EdDSA as ES256", ed25519.token_with(r#"{"alg":"ES256","kid":"d"}"#, &claims())),
        ("RS256 as PS256", rs256.token_with(r#"{"alg":"PS256","kid":"r"}"#, &claims())),
        ("RS256 as RS384", rs256.token_with(r#"{"alg":"RS384","kid":"r"}"#, &claims())),
        ("ES256 as ES384", es256.token_with(r#"{"alg":"ES384","kid":"e"}"#, &claims())),
        ("no algorithm", rs256.token_with(r#"{"kid":"r"}"#, &claims())),
        ("two algorithms", rs256.token_with(r#"{"alg":"RS256","alg":"HS256","kid":"r"}"#, &claims())),
        ("a list of algorithms", rs256.token_with(r#"{"alg":["RS256"],"kid":"r"}"#, &claims())),
    ];
    for (name, token) in table {
        assert_eq!(verify(&token, &all), INVALID, "{name}");
    }
}

#[test]
fn headers_that_bring_a_key_a_place_or_a_condition_are_refused_though_the_signature_is_good() {
    let key = ShopKey::es256("e");
    let own = ShopKey::es256("own");
    let all = set([&key]);
    let mut table: Vec<String> = [
        r#"{"alg":"ES256","kid":"e","crit":["exp"]}"#,
        r#"{"alg":"ES256","kid":"e","crit":[]}"#,
        r#"{"alg":"ES256","kid":"e","crit":["b64"],"b64":false}"#,
        r#"{"alg":"ES256","kid":"e","jku":"https://evil.example/keys"}"#,
        r#"{"alg":"ES256","kid":"e","x5u":"https://evil.example/cert"}"#,
        r#"{"alg":"ES256","kid":"e","x5c":["AAAA"]}"#,
        r#"{"alg":"ES256","kid":"e","zip":"DEF"}"#,
        r#"{"alg":"ES256","kid":"e","enc":"A256GCM"}"#,
        r#"{"alg":"ES256","kid":"e","kid":"e"}"#,
        r#"{"alg":"ES256","kid":["e"]}"#,
        r#"{"alg":"ES256","kid":""}"#,
    ]
    .map(str::to_owned)
    .to_vec();
    table.push(format!(r#"{{"alg":"ES256","kid":"{}"}}"#, "k".repeat(257)));
    table.push(format!(r#"{{"alg":"ES256","kid":"e","x":{}1{}}}"#, "[".repeat(1_000), "]".repeat(1_000)));
    table.push(format!(r#"{{"alg":"ES256","kid":"e","x":"{}"}}"#, "x".repeat(4_000)));
    for header in table {
        assert_eq!(verify(&key.token_with(&header, &claims()), &all), INVALID, "{header}");
    }
    let brought = json!({"alg": "ES256", "jwk": own.jwk()}).to_string();
    assert_eq!(verify(&own.token_with(&brought, &claims()), &all), INVALID, "a key in the header");
    let named = json!({"alg": "ES256", "kid": "own", "jwk": own.jwk()}).to_string();
    assert_eq!(verify(&own.token_with(&named, &claims()), &all), INVALID, "a key in the header under a new name");
}

#[test]
fn an_unknown_name_is_told_apart_only_for_tokens_that_name_this_shop() {
    let [rs256, es256, _] = one_of_each();
    let unknown = Err(Disbelief::KeyUnknown);
    let all = set([&rs256]);
    for name in ["e", "../../etc/passwd", "' OR 1=1 --", "r\u{0}", "R", &"k".repeat(256)] {
        let header = json!({"alg": "RS256", "kid": name}).to_string();
        assert_eq!(verify(&rs256.token_with(&header, &claims()), &all), unknown, "{name:?}");
    }
    assert_eq!(verify(&rs256.token(&claims()), &KeySet::default()), unknown, "no key at all");
    assert_eq!(verify(&es256.token_with(r#"{"alg":"ES256"}"#, &claims()), &all), unknown, "no key of the algorithm");
    for (claim, value) in [("iss", json!("https://other.example")), ("aud", json!("other")), ("exp", Value::Null)] {
        let mut other = claims();
        other[claim] = value;
        assert_eq!(verify(&es256.token(&other), &all), INVALID, "{claim}");
    }
    let not_a_payload = format!("{}.AAAA.AAAA", es256.token(&claims()).split('.').next().unwrap());
    assert_eq!(verify(&not_a_payload, &all), INVALID);
}

#[test]
fn the_leeway_holds_for_every_algorithm() {
    let keys = one_of_each();
    let all = set(&keys);
    let expired = Err(Disbelief::Refused(Refusal::TokenExpired));
    for key in &keys {
        let at = |claim: &str, offset: i64| {
            let mut claims = claims();
            claims[claim] = (NOW_SECONDS as i64 + offset).into();
            verify(&key.token(&claims), &all).map(|identity| identity.subject)
        };
        for (claim, offset, expected) in [
            ("exp", 0, Ok(())),
            ("exp", -4, Ok(())),
            ("exp", -5, expired),
            ("exp", -300, expired),
            ("nbf", 0, Ok(())),
            ("nbf", 5, Ok(())),
            ("nbf", 6, Err(Disbelief::Refused(Refusal::TokenInvalid))),
            ("iat", 300, Ok(())),
        ] {
            assert_eq!(at(claim, offset).map(drop), expected, "{} {claim} {offset}", key.algorithm());
        }
    }
}

#[test]
fn a_key_is_bound_to_one_algorithm_or_left_out_with_its_reason() {
    let [rs256, es256, ed25519] = one_of_each();
    let with = |key: &ShopKey, changes: Value| {
        let mut jwk = key.jwk();
        for (name, value) in changes.as_object().unwrap() {
            jwk[name] = value.clone();
            if value.is_null() {
                jwk.as_object_mut().unwrap().remove(name);
            }
        }
        jwk
    };
    let good = ShopKey::ed25519("good");
    let reason = |jwk: &Value| read(&json!({"keys": [jwk, good.jwk()]})).left_out.first().map(|(_, reason)| *reason);
    let weak = ShopKey::es256("weak");
    let mut small = rs256.jwk();
    small["n"] = BASE64URL_NOPAD.encode(&[0xff; 255]).into();
    let mut huge = rs256.jwk();
    huge["n"] = BASE64URL_NOPAD.encode(&[0xff; 1_025]).into();
    for (name, jwk, expected) in [
        ("as it is", rs256.jwk(), None),
        ("without alg", with(&rs256, json!({"alg": null})), None),
        ("without use", with(&es256, json!({"use": null})), None),
        ("verify among key_ops", with(&es256, json!({"key_ops": ["sign", "verify"]})), None),
        ("unknown members", with(&es256, json!({"x5t": "abc", "x5u": "https://evil.example"})), None),
        ("PS256", with(&rs256, json!({"alg": "PS256"})), Some(LeftOut::Algorithm)),
        ("RSA for encryption", with(&rs256, json!({"alg": "RSA-OAEP"})), Some(LeftOut::Algorithm)),
        ("RSA as HS256", with(&rs256, json!({"alg": "HS256"})), Some(LeftOut::Algorithm)),
        ("RSA as ES256", with(&rs256, json!({"alg": "ES256"})), Some(LeftOut::Algorithm)),
        ("P-256 as RS256", with(&es256, json!({"alg": "RS256"})), Some(LeftOut::Algorithm)),
        ("P-384", with(&es256, json!({"crv": "P-384"})), Some(LeftOut::Algorithm)),
        ("secp256k1", with(&es256, json!({"crv": "secp256k1"})), Some(LeftOut::Algorithm)),
        ("Ed448", with(&ed25519, json!({"crv": "Ed448"})), Some(LeftOut::Algorithm)),
        ("X25519", with(&ed25519, json!({"crv": "X25519"})), Some(LeftOut::Algorithm)),
        ("no kind", with(&es256, json!({"kty": null})), Some(LeftOut::Unreadable)),
        ("use enc", with(&rs256, json!({"use": "enc"})), Some(LeftOut::Purpose)),
        ("key_ops encrypt", with(&rs256, json!({"key_ops": ["encrypt"]})), Some(LeftOut::Purpose)),
        ("key_ops empty", with(&rs256, json!({"key_ops": []})), Some(LeftOut::Purpose)),
        ("private", with(&es256, json!({"d": "AAAA"})), Some(LeftOut::Secret)),
        ("oct", json!({"kty": "oct", "k": "AAAA", "alg": "HS256"}), Some(LeftOut::Secret)),
        ("no name to speak of", with(&es256, json!({"kid": ""})), Some(LeftOut::Name)),
        ("a number as a name", with(&es256, json!({"kid": 1})), Some(LeftOut::Unreadable)),
        ("a long name", with(&es256, json!({"kid": "k".repeat(257)})), Some(LeftOut::Name)),
        ("2040 bits", small, Some(LeftOut::Numbers)),
        ("8200 bits", huge, Some(LeftOut::Numbers)),
        ("no modulus", with(&rs256, json!({"n": null})), Some(LeftOut::Unreadable)),
        ("exponent 1", with(&rs256, json!({"e": "AQ"})), Some(LeftOut::Numbers)),
        ("even exponent", with(&rs256, json!({"e": "AQAA"})), Some(LeftOut::Numbers)),
        ("no exponent", with(&rs256, json!({"e": ""})), Some(LeftOut::Numbers)),
        ("no point of the curve", with(&es256, json!({"x": weak.jwk()["y"]})), Some(LeftOut::Numbers)),
        ("the point at infinity", with(&es256, json!({"x": "", "y": ""})), Some(LeftOut::Numbers)),
        ("a short point", with(&ed25519, json!({"x": "AAAA"})), Some(LeftOut::Numbers)),
        ("not base64", with(&ed25519, json!({"x": "+/=="})), Some(LeftOut::Unreadable)),
        ("a text for a key", json!("key"), Some(LeftOut::Unreadable)),
    ] {
        assert_eq!(reason(&jwk), expected, "{name}");
    }
    let strong = ShopKey::rsa("strong", KeySize::Rsa3072);
    assert!(verify(&strong.token(&claims()), &set([&strong])).is_ok());
}

#[test]
fn of_keys_with_one_name_none_is_believed() {
    let (first, second, third) = (ShopKey::rs256("same"), ShopKey::es256("same"), ShopKey::ed25519("other"));
    let read = KeySet::read(jwks([&first, &second, &third]).as_bytes()).unwrap();
    assert_eq!(read.left_out, [(0, LeftOut::NameTaken), (1, LeftOut::NameTaken)]);
    for key in [&first, &second] {
        assert_eq!(verify(&key.token(&claims()), &read.keys), Err(Disbelief::KeyUnknown));
    }
    assert!(verify(&third.token(&claims()), &read.keys).is_ok());
}

#[test]
fn a_set_that_is_no_set_or_too_large_is_refused_whole() {
    let refused = |text: &str| KeySet::read(text.as_bytes()).err();
    let keys: Vec<_> = (0..=JWKS_KEYS_MAX).map(|number| ShopKey::ed25519(&number.to_string())).collect();
    assert_eq!(refused(&jwks(&keys)), Some(JwksError::TooMany(JWKS_KEYS_MAX + 1)));
    assert_eq!(refused(&jwks(&keys[1..])), None);
    let padded = format!("{}{}", jwks(&keys[1..]), " ".repeat(JWKS_BYTES_MAX));
    assert_eq!(refused(&padded), Some(JwksError::TooLarge));
    for text in ["", "[]", "null", "{}", "<html>", r#"{"keys":{}}"#, r#"{"keys":[1"#, &"[".repeat(100_000)] {
        assert!(matches!(refused(text), Some(JwksError::Unreadable(_))), "{text:.20}");
    }
    for text in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        assert!(matches!(refused(text), Some(JwksError::NoneUsable(_))), "{text}");
    }
}

#[test]
fn who_lacks_a_required_claim_is_not_eligible() {
    let key = ShopKey::es256("e");
    let all = set([&key]);
    let table = [
        ("vip=true", json!({"vip": true}), true),
        ("vip=true", json!({"vip": "true"}), true),
        ("vip=true", json!({"vip": false}), false),
        ("vip=true", json!({"vip": null}), false),
        ("vip=true", json!({}), false),
        ("vip=true", json!({"vip": {"true": true}}), false),
        ("vip=true", json!({"VIP": true}), false),
        ("vip=true", json!({"vip": "not true"}), false),
        ("scope=drop", json!({"scope": "openid drop email"}), true),
        ("scope=drop", json!({"scope": "openid dropped"}), false),
        ("scp=drop", json!({"scp": "drop"}), true),
        ("groups=gold", json!({"groups": ["silver", "gold"]}), true),
        ("groups=gold", json!({"groups": ["golden", ["gold"]]}), false),
        ("level=3", json!({"level": 3}), true),
        ("level=3", json!({"level": [1, 3]}), true),
        ("level=3", json!({"level": 33}), false),
        ("https://shop.example/club=a=b", json!({"https://shop.example/club": "a=b"}), true),
    ];
    for (rule, more, expected) in table {
        let required_claims = vec![RequiredClaim::parse(rule).unwrap()];
        let verifier = IdentityVerifier::new(IdentityConfig { required_claims, ..config() }).unwrap();
        let mut claims = claims();
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let eligible = |token: &str| verifier.verify(token, &all, NOW).unwrap().is_eligible;
        assert_eq!(eligible(&key.token(&claims)), expected, "{rule} {more}");
        let by_secret = with_signature(r#"{"alg":"HS256"}"#, &claims, hs256(SECRET));
        assert_eq!(eligible(&by_secret), expected, "HS256 {rule} {more}");
    }
    let both = ["vip=true", "scope=drop"].map(|rule| RequiredClaim::parse(rule).unwrap()).to_vec();
    let both = IdentityConfig { required_claims: both, guest_tokens: true, ..config() };
    let both = IdentityVerifier::new(both).unwrap();
    assert!(!both.verify("guest_anna", &all, NOW).unwrap().is_eligible, "nobody vouches for guests");
    let mut one = claims();
    one["vip"] = true.into();
    assert!(!both.verify(&key.token(&one), &all, NOW).unwrap().is_eligible, "all are required");
    for rule in ["", "vip", "=true", "vip=", &format!("a={}", "b".repeat(600))] {
        assert_eq!(RequiredClaim::parse(rule), None, "{rule}");
    }
    let many = vec![RequiredClaim::parse("a=b").unwrap(); REQUIRED_CLAIMS_MAX + 1];
    let refused = IdentityVerifier::new(IdentityConfig { required_claims: many, ..config() });
    assert_eq!(refused.err(), Some(IdentityConfigError::ClaimsTooMany));
}

proptest! {
    #[test]
    fn no_bytes_as_a_set_and_no_text_as_a_token_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        members in proptest::collection::vec(("(kty|crv|alg|use|key_ops|kid|n|e|x|y|d)", ".{0,40}"), 0..9),
        text in ".{0,200}",
        header in ".{0,80}",
    ) {
        let _ = KeySet::read(&bytes).map(|read| read.keys.count());
        let jwk: serde_json::Map<String, Value> = members.into_iter().map(|(name, value)| (name, value.into())).collect();
        let _ = KeySet::read(json!({"keys": [jwk]}).to_string().as_bytes());
        let empty = KeySet::default();
        prop_assert_eq!(verify(&text, &empty), INVALID);
        let key = BASE64URL_NOPAD.encode(header.as_bytes());
        prop_assert_eq!(verify(&format!("{key}.e30.AAAA"), &empty), INVALID);
    }
}
