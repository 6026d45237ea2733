//! Who asks: the access token, and the pass that stands for it on the hot path.

use domain::{Pseudonym, Refusal};
use engine::{Engine, Sale};
use gate::identity::Identity;
use gate::pass::OpenPass;
use http::{HeaderMap, HeaderName, header};

use crate::purchase::Head;
use crate::session;

/// The access token of a request: the bearer's, or the session's where there is no `Authorization`.
pub(crate) fn token(headers: &HeaderMap) -> Result<&str, Refusal> {
    // One that comes twice counts as absent, and a cookie is no way around that.
    let authorization = headers.contains_key(header::AUTHORIZATION);
    let cookie = if authorization { None } else { session::cookie(headers) };
    token_of(once(headers, header::AUTHORIZATION), cookie)
}

/// The bearer token of a request of the operator.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    bearer_in(once(headers, header::AUTHORIZATION))
}

/// A header's text. One that is not visible ASCII counts as absent, and so does one that comes twice: a proxy on the way may have read
/// the other.
pub(crate) fn once(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok();
    if values.next().is_some() { None } else { first }
}

fn bearer_in(authorization: Option<&str>) -> Result<&str, Refusal> {
    let (scheme, token) = authorization.and_then(|value| value.split_once(' ')).ok_or(Refusal::TokenInvalid)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Refusal::TokenInvalid) }
}

/// The access token of a purchase.
pub(crate) fn token_in<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    // An `Authorization` that cannot be read is no way to the cookie either.
    let cookie = head.caller.cookie.filter(|_| !head.caller.has_token);
    token_of(head.authorization, cookie)
}

fn token_of<'a>(authorization: Option<&'a str>, cookie: Option<&'a [u8]>) -> Result<&'a str, Refusal> {
    match (authorization, cookie) {
        (None, Some(cookie)) => session::token_in(cookie).ok_or(Refusal::TokenInvalid),
        (authorization, _) => bearer_in(authorization),
    }
}

/// The customer by access token.
pub(crate) fn identity(engine: &Engine, headers: &HeaderMap) -> Result<Identity, Refusal> {
    engine.identities.verify(token(headers)?, engine.now())
}

/// The customer's pseudonym in a sale.
pub(crate) fn pseudonym(sale: &Sale, identity: &Identity) -> Pseudonym {
    sale.pseudonym(&identity.issuer, &identity.subject)
}

/// Believes pass and token together: a pass alone buys nothing, and the token it was taken with is known again by its hash.
/// Another token of the same customer, a renewed one say, is verified once and serves as well.
pub(crate) fn pass(engine: &Engine, sale: &Sale, head: &Head<'_>, now: u64) -> Result<OpenPass, Refusal> {
    let token = token_in(head)?;
    let presented = head.pass.ok_or(Refusal::PassInvalid);
    let opened = presented.and_then(|text| engine.passes.now().open(text).map_err(|error| error.refusal()));
    let known = opened.as_ref().is_ok_and(|open| open.pass.matches_token(token));
    if !known {
        // The token is judged first: whoever is nobody learns nothing about a pass. Of what can be judged later only, the rest is told now.
        let identity = match engine.identities.verify(token, now) {
            Err(Refusal::IdentityUnavailable) => Err(opened.clone().err().unwrap_or(Refusal::IdentityUnavailable)),
            judged => judged,
        }?;
        let open = opened?;
        let hash = engine.identity_key.identity_hash(sale.id, &identity.issuer, &identity.subject);
        let own = aws_lc_rs::constant_time::verify_slices_are_equal(&hash, &open.pass.identity_hash).is_ok();
        if !own || open.pass.sale != sale.ordinal {
            return Err(Refusal::PassForeign);
        }
        return if identity.is_eligible { Ok(open) } else { Err(Refusal::NotEligible) };
    }
    let open = opened?;
    if open.pass.token_expires_at_milliseconds.is_some_and(|end| end <= now) {
        return Err(Refusal::TokenExpired);
    }
    if open.pass.sale == sale.ordinal { Ok(open) } else { Err(Refusal::PassForeign) }
}
