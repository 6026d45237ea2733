//! Who sent a callback: the header `Stripe-Signature: t=<seconds>,v1=<hex>,..`, an HMAC-SHA-256 over `t.body` under a shared secret.
//!
//! The time is passed in. A delivery that comes hours late is signed anew when it is sent, so an old time means a replay.

use aws_lc_rs::hmac;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use crate::limits::{CALLBACK_BYTES_MAX, SIGNATURE_AGE_SECONDS_MAX, SIGNATURE_HEADER_BYTES_MAX};
use crate::secret::Secret;

/// The header that carries the signatures.
pub const SIGNATURE_HEADER: &str = "stripe-signature";

/// Why a callback is not believed. Definite; nothing of its body was read. A genuine sender tries again with a new signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// More than 256 KB.
    #[error("the callback's body has more than 256 KB; no event is as long, so nothing of it was read")]
    BodyTooLong,
    /// No header, or not of that form.
    #[error("the callback has no signature of the form t=..,v1=..; only the provider knows how to make one")]
    Malformed,
    /// Signed by nobody whom we know.
    #[error(
        "the callback was not signed with any of our secrets; compare payment.callback_secrets with the provider's"
    )]
    Forged,
    /// Signed rightly, more than five minutes ago or ahead.
    #[error("the callback was signed {0} seconds away from our clock; either it is a replay, or a clock is wrong")]
    Stale(u64),
}

/// Believes a body that was signed with one of the secrets within five minutes of `now_seconds` (Unix time).
///
/// Several secrets are believed while one is being replaced; for the same reason a header may carry several signatures.
pub fn verify(secrets: &[Secret], header: &str, body: &[u8], now_seconds: u64) -> Result<(), SignatureError> {
    if body.len() > CALLBACK_BYTES_MAX {
        return Err(SignatureError::BodyTooLong);
    }
    let (time, signatures) = read(header).ok_or(SignatureError::Malformed)?;
    let signed = signed_text(time, body);
    let is_genuine = secrets.iter().any(|secret| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        signatures.iter().any(|signature| hmac::verify(&key, &signed, signature).is_ok())
    });
    // The age of a forged one is nobody's business.
    if !is_genuine {
        return Err(SignatureError::Forged);
    }
    let seconds: u64 = time.parse().map_err(|_| SignatureError::Malformed)?;
    match seconds.abs_diff(now_seconds) {
        age if age > SIGNATURE_AGE_SECONDS_MAX => Err(SignatureError::Stale(age)),
        _ => Ok(()),
    }
}

/// The header's value for a body that leaves at `at_seconds` (Unix time).
pub fn sign(secret: &Secret, body: &[u8], at_seconds: u64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let time = at_seconds.to_string();
    let tag = hmac::sign(&key, &signed_text(&time, body));
    format!("t={time},v1={}", HEXLOWER.encode(tag.as_ref()))
}

fn signed_text(time: &str, body: &[u8]) -> Vec<u8> {
    [time.as_bytes(), b".", body].concat()
}

/// The time as it was signed, and the signatures of the version that we know. Others and what is no hex are passed over.
fn read(header: &str) -> Option<(&str, Vec<Vec<u8>>)> {
    if header.len() > SIGNATURE_HEADER_BYTES_MAX {
        return None;
    }
    let (mut time, mut signatures) = (None, Vec::new());
    for part in header.split(',') {
        match part.trim().split_once('=')? {
            ("t", _) if time.is_some() => return None,
            ("t", text) => time = text.bytes().all(|byte| byte.is_ascii_digit()).then_some(text),
            ("v1", text) => signatures.extend(HEXLOWER_PERMISSIVE.decode(text.as_bytes())),
            _ => {}
        }
    }
    time.filter(|text| !text.is_empty() && !signatures.is_empty()).map(|time| (time, signatures))
}

#[cfg(test)]
mod tests {
    use super::{SignatureError, sign, verify};
    use crate::secret::Secret;

    const NOW: u64 = 1_795_371_632;
    const BODY: &[u8] = br#"{"id":"evt_1"}"#;

    fn secrets(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(*text)).collect()
    }

    fn signature_of(secret: &str) -> String {
        sign(&Secret::new(secret), BODY, NOW)
    }

    /// Made with `printf %s '1795371632.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_1`.
    const BY_OTHER_HANDS: &str = "t=1795371632,v1=343771f408ebbd8b939a0d444b340ad8e60dc466bd0b4995e9df270060dcfbd7";

    #[test]
    fn the_same_signature_is_made_by_other_hands() {
        assert_eq!(signature_of("whsec_1"), BY_OTHER_HANDS);
    }

    #[test]
    fn headers_are_believed_or_not() {
        use SignatureError::{Forged, Malformed};
        let good = signature_of("whsec_1");
        let hex = good.split_once("v1=").unwrap().1;
        let forged = "0".repeat(64);
        let table = [
            ("as it was made", good.clone(), Ok(())),
            ("one of several", format!("t={NOW},v1={forged},v1={hex}"), Ok(())),
            ("beside another version", format!("t={NOW},v0={forged},v1={hex}"), Ok(())),
            ("with blanks and capitals", format!("v1={}, t={NOW}", hex.to_uppercase()), Ok(())),
            ("beside what is no hex", format!("t={NOW},v1=zz,v1={hex}"), Ok(())),
            ("none of ours", format!("t={NOW},v1={forged}"), Err(Forged)),
            ("cut", format!("t={NOW},v1={}", &hex[..62]), Err(Forged)),
            ("under another time", format!("t={},v1={hex}", NOW + 1), Err(Forged)),
            ("the same time in another spelling", format!("t=0{NOW},v1={hex}"), Err(Forged)),
            ("only another version", format!("t={NOW},v0={hex}"), Err(Malformed)),
            ("no time", format!("v1={hex}"), Err(Malformed)),
            ("no number", format!("t=+{NOW},v1={hex}"), Err(Malformed)),
            ("two times", format!("t=1,t={NOW},v1={hex}"), Err(Malformed)),
            ("empty", String::new(), Err(Malformed)),
            ("no pairs", "t".to_owned(), Err(Malformed)),
            ("too long", format!("{good},{}", "v0=0,".repeat(1_000)), Err(Malformed)),
        ];
        for (what, header, expected) in table {
            assert_eq!(verify(&secrets(&["whsec_1"]), &header, BODY, NOW), expected, "{what}");
        }
    }

    #[test]
    fn both_secrets_are_believed_while_one_is_replaced() {
        let both = secrets(&["whsec_2", "whsec_1"]);
        assert_eq!(verify(&both, &signature_of("whsec_1"), BODY, NOW), Ok(()));
        assert_eq!(verify(&both, &signature_of("whsec_2"), BODY, NOW), Ok(()));
        assert_eq!(verify(&both, &signature_of("whsec_3"), BODY, NOW), Err(SignatureError::Forged));
        assert_eq!(verify(&[], &signature_of("whsec_1"), BODY, NOW), Err(SignatureError::Forged));
    }

    #[test]
    fn a_changed_body_is_forged_in_every_byte() {
        for place in 0..BODY.len() {
            let mut body = BODY.to_vec();
            body[place] ^= 1;
            let verified = verify(&secrets(&["whsec_1"]), &signature_of("whsec_1"), &body, NOW);
            assert_eq!(verified, Err(SignatureError::Forged), "byte {place}");
        }
    }

    #[test]
    fn a_replay_is_stale_and_a_late_delivery_with_its_own_time_is_not() {
        let once = signature_of("whsec_1");
        let at = |now| verify(&secrets(&["whsec_1"]), &once, BODY, now);
        assert_eq!(at(NOW + 300), Ok(()));
        assert_eq!(at(NOW - 300), Ok(()));
        assert_eq!(at(NOW + 301), Err(SignatureError::Stale(301)));
        assert_eq!(at(NOW - 301), Err(SignatureError::Stale(301)));
        let hours_later = NOW + 20 * 60 * 60;
        let again = sign(&Secret::new("whsec_1"), BODY, hours_later);
        assert_eq!(verify(&secrets(&["whsec_1"]), &again, BODY, hours_later), Ok(()));
    }

    #[test]
    fn a_body_beyond_the_bound_is_not_even_hashed() {
        let body = vec![b' '; 256 * 1024 + 1];
        let header = sign(&Secret::new("whsec_1"), &body, NOW);
        assert_eq!(verify(&secrets(&["whsec_1"]), &header, &body, NOW), Err(SignatureError::BodyTooLong));
        assert_eq!(
            verify(&secrets(&["whsec_1"]), &sign(&Secret::new("whsec_1"), &body[1..], NOW), &body[1..], NOW),
            Ok(())
        );
    }
}
