//! Access tokens from outside: one table of what is believed, one of what is refused and how.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use domain::Refusal;
use gate::identity::{GUEST_ISSUER, SECRET_BYTES_MIN, TOKEN_BYTES_MAX};
use gate::sign::sign_hs256;
use gate::{Disbelief, Identity, IdentityConfig, IdentityConfigError, IdentityVerifier, KeySet};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRET: &[u8] = b"a secret of the shop, 32 bytes at least";
const OLD_SECRET: &[u8] = b"the secret before it, 32 bytes at least";
const NOW_SECONDS: u64 = 1_800_000_000;
const NOW: u64 = NOW_SECONDS * 1_000;

fn config() -> IdentityConfig {
    IdentityConfig {
        issuer: "https://shop.example".to_owned(),
        audience: "doorbuster".to_owned(),
        secrets: vec![SECRET.to_vec(), OLD_SECRET.to_vec()],
        fixed_keys: KeySet::default(),
        keys_are_published: false,
        required_claims: Vec::new(),
        leeway_seconds: 5,
        guest_tokens: false,
    }
}

/// Without any public key: a key that is unknown is none of ours.
struct Verifier(IdentityVerifier);

impl Verifier {
    fn new(config: IdentityConfig) -> Result<Self, IdentityConfigError> {
        IdentityVerifier::new(config).map(Self)
    }

    fn verify(&self, token: &str, now: u64) -> Result<Identity, Refusal> {
        self.0.verify(token, &KeySet::default(), now).map_err(|disbelief| match disbelief {
            Disbelief::Refused(refusal) => refusal,
            Disbelief::KeyUnknown => panic!("nobody publishes keys: {token}"),
        })
    }
}

fn verifier() -> Verifier {
    Verifier::new(config()).unwrap()
}

fn hs256(secret: &[u8], signed: &str) -> String {
    BASE64URL_NOPAD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref())
}

/// Any header and payload, rightly signed.
fn signed(secret: &[u8], header: &str, payload: &str) -> String {
    let signed =
        format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(payload.as_bytes()));
    let signature = hs256(secret, &signed);
    format!("{signed}.{signature}")
}

fn claims() -> Value {
    json!({"iss": "https://shop.example", "aud": "doorbuster", "sub": "anna", "exp": NOW_SECONDS + 60})
}

/// The good token, one claim replaced, or removed by `null`.
fn with_claim(name: &str, value: Value) -> String {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    signed(SECRET, r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string())
}

fn with_header(header: &str) -> String {
    signed(SECRET, header, &claims().to_string())
}

#[test]
fn good_tokens_are_believed() {
    let anna = Identity {
        issuer: "https://shop.example".to_owned(),
        subject: "anna".to_owned(),
        expires_at_milliseconds: Some(NOW + 65_000),
        is_eligible: true,
    };
    let good = [
        ("plain", sign_hs256(SECRET, "https://shop.example", "doorbuster", "anna", NOW_SECONDS + 60)),
        ("old secret", sign_hs256(OLD_SECRET, "https://shop.example", "doorbuster", "anna", NOW_SECONDS + 60)),
        ("no typ", with_header(r#"{"alg":"HS256"}"#)),
        ("kid", with_header(r#"{"alg":"HS256","kid":"2026"}"#)),
        ("audiences", with_claim("aud", json!(["other", "doorbuster"]))),
        ("fraction", with_claim("exp", json!(NOW_SECONDS as f64 + 60.5))),
        ("nbf now", with_claim("nbf", json!(NOW_SECONDS))),
        ("nbf within leeway", with_claim("nbf", json!(NOW_SECONDS + 5))),
        ("other claims", with_claim("roles", json!({"deep": [1, 2, {"er": null}]}))),
    ];
    for (name, token) in good {
        assert_eq!(verifier().verify(&token, NOW), Ok(anna.clone()), "{name}");
    }
    let longest = "x".repeat(256);
    assert_eq!(verifier().verify(&with_claim("sub", json!(longest)), NOW).unwrap().subject, longest);
}

#[test]
fn bad_claims_are_refused() {
    let invalid = [
        ("no exp", with_claim("exp", Value::Null)),
        ("no iss", with_claim("iss", Value::Null)),
        ("no aud", with_claim("aud", Value::Null)),
        ("no sub", with_claim("sub", Value::Null)),
        ("array sub", with_claim("sub", json!(["anna"]))),
        ("object sub", with_claim("sub", json!({"anna": 1}))),
        ("number sub", with_claim("sub", json!(17))),
        ("empty sub", with_claim("sub", json!(""))),
        ("long sub", with_claim("sub", json!("x".repeat(257)))),
        ("control sub", with_claim("sub", json!("anna\n"))),
        ("nul sub", with_claim("sub", json!("an\u{0}na"))),
        ("c1 sub", with_claim("sub", json!("an\u{85}na"))),
        ("foreign iss", with_claim("iss", json!("https://other.example"))),
        ("iss as prefix", with_claim("iss", json!("https://shop.example.evil"))),
        ("array iss", with_claim("iss", json!(["https://shop.example"]))),
        ("guest iss", with_claim("iss", json!(GUEST_ISSUER))),
        ("foreign aud", with_claim("aud", json!("other"))),
        ("foreign auds", with_claim("aud", json!(["other", "doorbuster2"]))),
        ("no auds", with_claim("aud", json!([]))),
        ("mixed auds", with_claim("aud", json!(["doorbuster", 1]))),
        ("nested auds", with_claim("aud", json!([["doorbuster"]]))),
        ("text exp", with_claim("exp", json!("1900000000"))),
        ("negative exp", with_claim("exp", json!(-1))),
        ("greatest exp", with_claim("exp", json!(u64::MAX))),
        ("huge exp", with_claim("exp", json!(1e300))),
        ("least exp", with_claim("exp", json!(i64::MIN))),
        ("nbf beyond leeway", with_claim("nbf", json!(NOW_SECONDS + 6))),
        ("greatest nbf", with_claim("nbf", json!(u64::MAX))),
        ("text nbf", with_claim("nbf", json!("0"))),
    ];
    for (name, token) in invalid {
        assert_eq!(verifier().verify(&token, NOW), Err(Refusal::TokenInvalid), "{name}");
    }
    for payload in ["", "[]", "null", "\"anna\"", "{", &"[".repeat(2_000), "{\"sub\":\"anna\",\"sub\":\"bert\"}"] {
        let token = signed(SECRET, r#"{"alg":"HS256"}"#, payload);
        assert_eq!(verifier().verify(&token, NOW), Err(Refusal::TokenInvalid), "{payload}");
    }
    let twice = claims().to_string().replace("\"sub\":\"anna\"", "\"sub\":\"anna\",\"sub\":\"bert\"");
    assert!(twice.contains("bert"));
    let token = signed(SECRET, r#"{"alg":"HS256"}"#, &twice);
    assert_eq!(verifier().verify(&token, NOW), Err(Refusal::TokenInvalid), "two subjects");
}

#[test]
fn headers_that_choose_algorithm_or_key_are_refused() {
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None","typ":"JWT"}"#,
        r#"{"alg":"nOnE"}"#,
        r#"{"alg":""}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"hs256"}"#,
        r#"{"alg":"HS384"}"#,
        r#"{"alg":"HS512"}"#,
        r#"{"alg":"RS256"}"#,
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"HS256","crit":"exp"}"#,
        r#"{"alg":"HS256","jku":"https://evil.example/keys"}"#,
        r#"{"alg":"HS256","x5u":"https://evil.example/cert"}"#,
        r#"{"alg":"HS256","x5c":["AAAA"]}"#,
        r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A256GCM"}"#,
        "[]",
        "",
        "null",
    ] {
        assert_eq!(verifier().verify(&with_header(header), NOW), Err(Refusal::TokenInvalid), "{header}");
    }
}

#[test]
fn forged_and_malformed_tokens_are_refused() {
    let good = with_claim("sub", json!("anna"));
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let none = format!("{}.{}.", BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#), signed_part.split('.').nth(1).unwrap());
    let stranger = sign_hs256(&[7; 32], "https://shop.example", "doorbuster", "anna", NOW_SECONDS + 60);
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        none,
        stranger,
        signed_part.to_owned(),
        format!("{signed_part}."),
        format!("{good}="),
        format!("{good}.{signature}"),
        format!(" {good}"),
        format!("{good}\n"),
        good.replace('.', ".."),
        signature.to_owned(),
        "é.é.é".to_owned(),
        "guest_anna".to_owned(),
    ] {
        assert_eq!(verifier().verify(&token, NOW), Err(Refusal::TokenInvalid), "{token}");
    }
    let bytes = BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let token = format!("{signed_part}.{}", BASE64URL_NOPAD.encode(&changed));
        assert_eq!(verifier().verify(&token, NOW), Err(Refusal::TokenInvalid), "bit {bit} of the signature");
    }
}

#[test]
fn huge_tokens_are_refused_unread_and_large_ones_read() {
    let with_padding = |bytes| with_claim("padding", json!("x".repeat(bytes)));
    let largest = (1..).map(|bytes| with_padding(4_096 - bytes)).find(|token| token.len() <= TOKEN_BYTES_MAX).unwrap();
    assert!(largest.len() > TOKEN_BYTES_MAX - 4);
    assert!(verifier().verify(&largest, NOW).is_ok());
    assert_eq!(verifier().verify(&with_padding(3_000), NOW), Err(Refusal::TokenInvalid));
    assert_eq!(verifier().verify(&"a.".repeat(1_000_000), NOW), Err(Refusal::TokenInvalid));
}

#[test]
fn a_token_expires_when_its_leeway_is_over_and_only_if_it_was_good() {
    let expiring = |seconds| with_claim("exp", json!(seconds));
    assert!(verifier().verify(&expiring(NOW_SECONDS - 4), NOW).is_ok());
    assert!(verifier().verify(&expiring(NOW_SECONDS - 5), NOW - 1).is_ok());
    assert_eq!(verifier().verify(&expiring(NOW_SECONDS - 5), NOW), Err(Refusal::TokenExpired));
    assert_eq!(verifier().verify(&expiring(0), NOW), Err(Refusal::TokenExpired));
    assert_eq!(verifier().verify(&expiring(NOW_SECONDS), u64::MAX), Err(Refusal::TokenExpired));
    let strict = Verifier::new(IdentityConfig { leeway_seconds: 0, ..config() }).unwrap();
    assert_eq!(strict.verify(&expiring(NOW_SECONDS), NOW), Err(Refusal::TokenExpired));
    assert!(strict.verify(&expiring(NOW_SECONDS), NOW - 1).is_ok());
    let forged = sign_hs256(&[7; 32], "https://shop.example", "doorbuster", "anna", 1);
    assert_eq!(verifier().verify(&forged, NOW), Err(Refusal::TokenInvalid), "a forged one is not told of expiry");
}

#[test]
fn guests_are_believed_only_where_they_are_allowed() {
    let open = Verifier::new(IdentityConfig { guest_tokens: true, secrets: Vec::new(), ..config() }).unwrap();
    let guest = open.verify("guest_Shopper-17_x", NOW).unwrap();
    let expected = Identity {
        issuer: "guest".to_owned(),
        subject: "Shopper-17_x".to_owned(),
        expires_at_milliseconds: None,
        is_eligible: true,
    };
    assert_eq!(guest, expected);
    assert!(open.verify(&format!("guest_{}", "x".repeat(64)), NOW).is_ok());
    for token in ["guest_", "guest_a b", "guest_a.b", "guest_ä", "Guest_a", "guest-a", "guest_a\n"] {
        assert_eq!(open.verify(token, NOW), Err(Refusal::TokenInvalid), "{token:?}");
    }
    assert_eq!(open.verify(&format!("guest_{}", "x".repeat(65)), NOW), Err(Refusal::TokenInvalid));
    assert_eq!(verifier().verify("guest_Shopper-17_x", NOW), Err(Refusal::TokenInvalid));
}

#[test]
fn a_configuration_that_would_believe_too_much_is_refused() {
    let refused = |config| Verifier::new(config).err();
    let empty = String::new;
    let short = vec![vec![7; SECRET_BYTES_MIN - 1]];
    assert_eq!(refused(IdentityConfig { issuer: empty(), ..config() }), Some(IdentityConfigError::NameMissing));
    assert_eq!(refused(IdentityConfig { audience: empty(), ..config() }), Some(IdentityConfigError::NameMissing));
    assert_eq!(
        refused(IdentityConfig { issuer: GUEST_ISSUER.to_owned(), ..config() }),
        Some(IdentityConfigError::IssuerReserved)
    );
    assert_eq!(refused(IdentityConfig { secrets: vec![], ..config() }), Some(IdentityConfigError::KeyMissing));
    assert_eq!(refused(IdentityConfig { secrets: short, ..config() }), Some(IdentityConfigError::SecretShort));
    assert_eq!(refused(IdentityConfig { leeway_seconds: 301, ..config() }), Some(IdentityConfigError::LeewayLong));
    assert_eq!(refused(config()), None);
}

proptest! {
    #[test]
    fn no_text_is_believed(text in ".{0,200}", parts in "[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,80}\\.[A-Za-z0-9_-]{0,43}") {
        let verifier = verifier();
        prop_assert_eq!(verifier.verify(&text, NOW), Err(Refusal::TokenInvalid));
        prop_assert_eq!(verifier.verify(&parts, NOW), Err(Refusal::TokenInvalid));
    }

    #[test]
    fn any_subject_of_the_shop_comes_back(subject in "[^\\p{Cc}]{1,60}") {
        let token = sign_hs256(SECRET, "https://shop.example", "doorbuster", &subject, NOW_SECONDS + 60);
        prop_assert_eq!(verifier().verify(&token, NOW).unwrap().subject, subject);
    }
}
