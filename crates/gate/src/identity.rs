//! Believes or refuses an access token: the shop's JWTs, signed with a secret that it shares with us or with a key that it publishes, and
//! guests where they are allowed.
//!
//! Every key has one algorithm, fixed by us; a token's header may name a key and says nothing else that is believed, least of all a place
//! to fetch one. The library checks the signature only: claims and times are checked here, against a time that is passed in.

use data_encoding::BASE64URL_NOPAD;
use domain::{Refusal, limits};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::eligible::{REQUIRED_CLAIMS_MAX, RequiredClaim};
use crate::jwks::{KEY_ID_BYTES_MAX, KeySet, PublicKey};
use crate::sign::sign_hs256;

/// Bytes of an access token.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a subject, the shop's name of a customer.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Bytes of the shortest secret: RFC 7518, section 3.2, asks for as many as the hash has.
pub const SECRET_BYTES_MIN: usize = 32;
/// Seconds by which the shop's clock may differ from ours.
pub const LEEWAY_SECONDS_MAX: u64 = 300;
/// The issuer of guests; no shop may call itself so.
pub const GUEST_ISSUER: &str = "guest";

const GUEST_PREFIX: &str = "guest_";
const GUEST_CHARACTERS_MAX: usize = 64;

/// Who somebody is, as the shop or the guest token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The configured issuer, or `guest`.
    pub issuer: String,
    /// The issuer's name of the customer: 1 to 256 bytes without control characters.
    pub subject: String,
    /// From when the token is not believed any more, leeway included, in milliseconds since the Unix epoch; `None`: never.
    pub expires_at_milliseconds: Option<u64>,
    /// Whether the token has every claim that the deployment asks of whoever may buy.
    pub is_eligible: bool,
}

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// It is not a good one.
    Refused(Refusal),
    /// It claims to be for us, and the key that it was signed with is not among ours: it may be good under a newer set of the shop's keys.
    KeyUnknown,
}

impl From<Refusal> for Disbelief {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Whose tokens are believed.
#[derive(Clone)]
pub struct IdentityConfig {
    /// `iss` of every token.
    pub issuer: String,
    /// What `aud` has to be or to contain.
    pub audience: String,
    /// HS256 secrets, at least 32 bytes each; several while the shop rotates them.
    pub secrets: Vec<Vec<u8>>,
    /// Public keys of the shop that do not change while this runs.
    pub fixed_keys: KeySet,
    /// Whether the shop publishes further keys, which come with each call of [`IdentityVerifier::verify`].
    pub keys_are_published: bool,
    /// What a token has to say for its bearer to be eligible; all of it.
    pub required_claims: Vec<RequiredClaim>,
    /// How far the shop's clock may differ from ours, in seconds.
    pub leeway_seconds: u64,
    /// Whether `guest_...` is believed without any proof; for a loopback demo only.
    pub guest_tokens: bool,
}

/// Why a configuration is refused at start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityConfigError {
    /// A name is missing.
    #[error("identity.issuer and identity.audience must not be empty")]
    NameMissing,
    /// The shop's issuer would be taken for guests.
    #[error("identity.issuer: {GUEST_ISSUER:?} is kept for guests; use another")]
    IssuerReserved,
    /// There is no way to sign in.
    #[error("identity.hs256_secrets, identity.jwks_url or identity.jwks_file: at least one of them is needed")]
    KeyMissing,
    /// A secret could be guessed.
    #[error("identity.hs256_secrets: a secret has at least {SECRET_BYTES_MIN} bytes (RFC 7518, section 3.2)")]
    SecretShort,
    /// More rules than anybody needs.
    #[error("identity.required_claims: {REQUIRED_CLAIMS_MAX} at most")]
    ClaimsTooMany,
    /// The leeway is no leeway.
    #[error("identity.leeway_seconds: {LEEWAY_SECONDS_MAX} at most")]
    LeewayLong,
    /// The library in this build does not sign and verify as it should.
    #[error("the self-test failed: a token that was just made is refused, or a changed one believed")]
    SelfTest,
}

/// Verifies access tokens; built once at start.
pub struct IdentityVerifier {
    config: IdentityConfig,
    secrets: Vec<DecodingKey>,
}

#[derive(serde::Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: NumericDate,
    nbf: Option<NumericDate>,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn contains(&self, audience: &str) -> bool {
        match self {
            Self::One(only) => only == audience,
            Self::Several(all) => all.iter().any(|one| one == audience),
        }
    }
}

/// RFC 7519 allows fractions of a second; they are cut off.
#[derive(serde::Deserialize)]
struct NumericDate(f64);

impl NumericDate {
    /// Milliseconds since the Unix epoch; `None` before 1970 and beyond what the engine counts.
    fn milliseconds(&self) -> Option<u64> {
        let milliseconds = self.0.floor() * 1_000.0;
        (0.0..=limits::INTEGER_MAX as f64).contains(&milliseconds).then_some(milliseconds as u64)
    }
}

impl IdentityVerifier {
    /// Checks the configuration and proves on one token that the library works.
    pub fn new(config: IdentityConfig) -> Result<Self, IdentityConfigError> {
        if config.issuer.is_empty() || config.audience.is_empty() {
            return Err(IdentityConfigError::NameMissing);
        }
        if config.issuer == GUEST_ISSUER {
            return Err(IdentityConfigError::IssuerReserved);
        }
        let has_keys = !config.secrets.is_empty() || !config.fixed_keys.is_empty() || config.keys_are_published;
        if !has_keys && !config.guest_tokens {
            return Err(IdentityConfigError::KeyMissing);
        }
        if config.required_claims.len() > REQUIRED_CLAIMS_MAX {
            return Err(IdentityConfigError::ClaimsTooMany);
        }
        if config.secrets.iter().any(|secret| secret.len() < SECRET_BYTES_MIN) {
            return Err(IdentityConfigError::SecretShort);
        }
        if config.leeway_seconds > LEEWAY_SECONDS_MAX {
            return Err(IdentityConfigError::LeewayLong);
        }
        let secrets = config.secrets.iter().map(|secret| DecodingKey::from_secret(secret)).collect();
        let verifier = Self { config, secrets };
        verifier.test_itself()?;
        Ok(verifier)
    }

    /// Who the bearer of `token` is at `now_milliseconds` (Unix epoch), by our secrets, our fixed keys and those that the shop has
    /// `published`. Refuses with `TokenInvalid` or `TokenExpired`.
    pub fn verify(&self, token: &str, published: &KeySet, now_milliseconds: u64) -> Result<Identity, Disbelief> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TokenInvalid.into());
        }
        if let Some(name) = token.strip_prefix(GUEST_PREFIX) {
            return Ok(self.guest(name)?);
        }
        let header = decode_header(token).map_err(|_| Refusal::TokenInvalid)?;
        if !header_is_plain(&header) {
            return Err(Refusal::TokenInvalid.into());
        }
        let claims = match header.alg {
            Algorithm::HS256 => self.claims_by_secret(token),
            Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA => {
                let key = self.key_of(token, &header, published)?;
                claims_by(token, &key.decoding, key.algorithm)
            }
            _ => None,
        };
        let mut identity = self.identity(claims.ok_or(Refusal::TokenInvalid)?, now_milliseconds)?;
        identity.is_eligible = self.is_eligible(token);
        Ok(identity)
    }

    /// The key that the header names, if its algorithm is the header's; without a name, the only key of that algorithm.
    fn key_of<'a>(&'a self, token: &str, header: &Header, published: &'a KeySet) -> Result<&'a PublicKey, Disbelief> {
        let fixed = &self.config.fixed_keys;
        let found = match &header.kid {
            Some(id) if id.is_empty() || id.len() > KEY_ID_BYTES_MAX => return Err(Refusal::TokenInvalid.into()),
            Some(id) => fixed.named(id).or_else(|| published.named(id)),
            None => {
                let mut fitting = fixed.of(header.alg).chain(published.of(header.alg));
                let first = fitting.next();
                if fitting.any(|other| first.is_some_and(|first| !first.is_same(other))) {
                    return Err(Refusal::TokenInvalid.into());
                }
                first
            }
        };
        match found {
            Some(key) if key.algorithm == header.alg => Ok(key),
            Some(_) => Err(Refusal::TokenInvalid.into()),
            // Nobody has proven anything, but what names another shop is not worth asking ours for its keys.
            None if self.config.keys_are_published && self.may_be_for_us(token) => Err(Disbelief::KeyUnknown),
            None => Err(Refusal::TokenInvalid.into()),
        }
    }

    fn may_be_for_us(&self, token: &str) -> bool {
        payload::<Claims>(token).is_some_and(|claims| self.names_us(&claims))
    }

    fn names_us(&self, claims: &Claims) -> bool {
        claims.iss == self.config.issuer && claims.aud.contains(&self.config.audience)
    }

    /// Of a token that has been verified.
    fn is_eligible(&self, token: &str) -> bool {
        let required = &self.config.required_claims;
        if required.is_empty() {
            return true;
        }
        payload::<Map<String, Value>>(token).is_some_and(|claims| required.iter().all(|one| one.is_met(&claims)))
    }

    fn guest(&self, name: &str) -> Result<Identity, Refusal> {
        let allowed = self.config.guest_tokens
            && (1..=GUEST_CHARACTERS_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !allowed {
            return Err(Refusal::TokenInvalid);
        }
        // Nobody vouches for a guest, so a guest has no claims.
        let is_eligible = self.config.required_claims.is_empty();
        Ok(Identity {
            issuer: GUEST_ISSUER.to_owned(),
            subject: name.to_owned(),
            expires_at_milliseconds: None,
            is_eligible,
        })
    }

    /// The claims, if one of our secrets signed them. Secrets have no names, so `kid` says nothing here.
    fn claims_by_secret(&self, token: &str) -> Option<Claims> {
        self.secrets.iter().find_map(|secret| claims_by(token, secret, Algorithm::HS256))
    }

    fn identity(&self, claims: Claims, now_milliseconds: u64) -> Result<Identity, Refusal> {
        let leeway = self.config.leeway_seconds * 1_000;
        let subject_is_valid =
            (1..=SUBJECT_BYTES_MAX).contains(&claims.sub.len()) && !claims.sub.chars().any(char::is_control);
        if !self.names_us(&claims) || !subject_is_valid {
            return Err(Refusal::TokenInvalid);
        }
        if let Some(not_before) = claims.nbf {
            let not_before = not_before.milliseconds().ok_or(Refusal::TokenInvalid)?;
            if not_before > now_milliseconds.saturating_add(leeway) {
                return Err(Refusal::TokenInvalid);
            }
        }
        let expires_at = claims.exp.milliseconds().ok_or(Refusal::TokenInvalid)?.saturating_add(leeway);
        if now_milliseconds >= expires_at {
            return Err(Refusal::TokenExpired);
        }
        let expires_at_milliseconds = Some(expires_at);
        Ok(Identity { issuer: claims.iss, subject: claims.sub, expires_at_milliseconds, is_eligible: false })
    }

    /// A wrong set of library features compiles and fails at first use; better here than at the first customer.
    fn test_itself(&self) -> Result<(), IdentityConfigError> {
        for secret in &self.config.secrets {
            let token = sign_hs256(secret, &self.config.issuer, &self.config.audience, "self-test", 1);
            let good = self.verify(&token, &KeySet::default(), 0);
            // The first character of the signature: all its bits count, unlike the last one's.
            let at = token.rfind('.').ok_or(IdentityConfigError::SelfTest)? + 1;
            let other = if token[at..].starts_with('A') { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            let refused = self.verify(&changed, &KeySet::default(), 0);
            if good.is_err() || refused != Err(Refusal::TokenInvalid.into()) {
                return Err(IdentityConfigError::SelfTest);
            }
        }
        if known_signature_is_believed() { Ok(()) } else { Err(IdentityConfigError::SelfTest) }
    }
}

/// The example of RFC 8037, appendix A.4: the same library verifies every algorithm, so one stands for all.
fn known_signature_is_believed() -> bool {
    const MESSAGE: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const SIGNATURE: &str = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    DecodingKey::from_ed_components("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").is_ok_and(|key| {
        let verified =
            |signature: &str| jsonwebtoken::crypto::verify(signature, MESSAGE.as_bytes(), &key, Algorithm::EdDSA);
        verified(SIGNATURE).unwrap_or(false) && !verified(&SIGNATURE.replace("hgyY", "hgyZ")).unwrap_or(false)
    })
}

/// The claims, if that key signed them with that algorithm.
fn claims_by(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Option<Claims> {
    decode(token, key, &signature_only(algorithm)).ok().map(|data| data.claims)
}

/// The payload as it stands there; nothing says who wrote it.
fn payload<T: DeserializeOwned>(token: &str) -> Option<T> {
    let bytes = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Signature and algorithm; the claims are ours to check, since the library would read the clock.
fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Nothing that has to be understood (`crit`), that brings or names a key of its own, or that says that the payload is not plain.
fn header_is_plain(header: &Header) -> bool {
    header.crit.is_none()
        && header.jku.is_none()
        && header.jwk.is_none()
        && header.x5u.is_none()
        && header.x5c.is_none()
        && header.enc.is_none()
        && header.zip.is_none()
}
