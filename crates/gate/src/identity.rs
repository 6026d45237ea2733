//! Believes or refuses an access token: the shop's HS256 JWTs, and guests where they are allowed.
//!
//! The algorithm is fixed by us, never by the token; nothing in a token's header can name a key or a place to fetch one. The
//! library checks the signature only: claims and times are checked here, against a time that is passed in.

use domain::{Refusal, limits};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};

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
    /// How far the shop's clock may differ from ours, in seconds.
    pub leeway_seconds: u64,
    /// Whether `guest_...` is believed without any proof; for a loopback demo only.
    pub guest_tokens: bool,
}

/// Why a configuration is refused at start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityConfigError {
    /// A name is missing.
    #[error("issuer and audience must not be empty")]
    NameMissing,
    /// The shop's issuer would be taken for guests.
    #[error("the issuer {GUEST_ISSUER:?} is kept for guests; use another")]
    IssuerReserved,
    /// There is no way to sign in.
    #[error("at least one HS256 secret is needed")]
    SecretMissing,
    /// A secret could be guessed.
    #[error("an HS256 secret has at least {SECRET_BYTES_MIN} bytes (RFC 7518, section 3.2)")]
    SecretShort,
    /// The leeway is no leeway.
    #[error("leeway_seconds is at most {LEEWAY_SECONDS_MAX}")]
    LeewayLong,
    /// The library in this build does not sign and verify as it should.
    #[error("the self-test failed: a token that was just made is refused, or a changed one believed")]
    SelfTest,
}

/// Verifies access tokens; built once at start.
pub struct IdentityVerifier {
    config: IdentityConfig,
    keys: Vec<DecodingKey>,
    signature_only: Validation,
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
        if config.secrets.is_empty() && !config.guest_tokens {
            return Err(IdentityConfigError::SecretMissing);
        }
        if config.secrets.iter().any(|secret| secret.len() < SECRET_BYTES_MIN) {
            return Err(IdentityConfigError::SecretShort);
        }
        if config.leeway_seconds > LEEWAY_SECONDS_MAX {
            return Err(IdentityConfigError::LeewayLong);
        }
        let keys = config.secrets.iter().map(|secret| DecodingKey::from_secret(secret)).collect();
        let verifier = Self { config, keys, signature_only: signature_only() };
        verifier.test_itself()?;
        Ok(verifier)
    }

    /// Who the bearer of `token` is at `now_milliseconds` (Unix epoch). Refuses with `TokenInvalid` or `TokenExpired`.
    pub fn verify(&self, token: &str, now_milliseconds: u64) -> Result<Identity, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TokenInvalid);
        }
        if let Some(name) = token.strip_prefix(GUEST_PREFIX) {
            return self.guest(name);
        }
        let header = decode_header(token).map_err(|_| Refusal::TokenInvalid)?;
        if !header_is_plain(&header) {
            return Err(Refusal::TokenInvalid);
        }
        let claims = self.claims_of_signed(token).ok_or(Refusal::TokenInvalid)?;
        self.identity(claims, now_milliseconds)
    }

    fn guest(&self, name: &str) -> Result<Identity, Refusal> {
        let allowed = self.config.guest_tokens
            && (1..=GUEST_CHARACTERS_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !allowed {
            return Err(Refusal::TokenInvalid);
        }
        Ok(Identity { issuer: GUEST_ISSUER.to_owned(), subject: name.to_owned(), expires_at_milliseconds: None })
    }

    /// The claims, if one of our secrets signed them.
    fn claims_of_signed(&self, token: &str) -> Option<Claims> {
        self.keys.iter().find_map(|key| decode(token, key, &self.signature_only).ok()).map(|data| data.claims)
    }

    fn identity(&self, claims: Claims, now_milliseconds: u64) -> Result<Identity, Refusal> {
        let leeway = self.config.leeway_seconds * 1_000;
        let subject_is_valid =
            (1..=SUBJECT_BYTES_MAX).contains(&claims.sub.len()) && !claims.sub.chars().any(char::is_control);
        if claims.iss != self.config.issuer || !claims.aud.contains(&self.config.audience) || !subject_is_valid {
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
        Ok(Identity { issuer: claims.iss, subject: claims.sub, expires_at_milliseconds: Some(expires_at) })
    }

    /// A wrong set of library features compiles and fails at first use; better here than at the first customer.
    fn test_itself(&self) -> Result<(), IdentityConfigError> {
        for secret in &self.config.secrets {
            let token = sign_hs256(secret, &self.config.issuer, &self.config.audience, "self-test", 1);
            let good = self.verify(&token, 0);
            // The first character of the signature: all its bits count, unlike the last one's.
            let at = token.rfind('.').ok_or(IdentityConfigError::SelfTest)? + 1;
            let other = if token[at..].starts_with('A') { "B" } else { "A" };
            let changed = format!("{}{other}{}", &token[..at], &token[at + 1..]);
            if good.is_err() || self.verify(&changed, 0) != Err(Refusal::TokenInvalid) {
                return Err(IdentityConfigError::SelfTest);
            }
        }
        Ok(())
    }
}

/// Signature and algorithm; the claims are ours to check, since the library would read the clock.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Nothing that has to be understood (`crit`), that names a key, or that says that the payload is not plain.
fn header_is_plain(header: &Header) -> bool {
    header.alg == Algorithm::HS256
        && header.crit.is_none()
        && header.jku.is_none()
        && header.jwk.is_none()
        && header.x5u.is_none()
        && header.x5c.is_none()
        && header.enc.is_none()
        && header.zip.is_none()
}
