//! Makes HS256 access tokens as a shop would. The engine only verifies; the crowd, the bench and the tests stand in for a shop.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};

#[derive(serde::Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    exp: u64,
}

/// An access token for `subject`, good until `expires_at_seconds` since the Unix epoch.
pub fn sign_hs256(secret: &[u8], issuer: &str, audience: &str, subject: &str, expires_at_seconds: u64) -> String {
    let claims = Claims { iss: issuer, aud: audience, sub: subject, exp: expires_at_seconds };
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret))
        .expect("HS256 signs any claims under any secret")
}
