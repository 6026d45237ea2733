//! Signing in the form of the Standard Webhooks specification: `v1,` and base64 of HMAC-SHA-256 over id, time and body.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use data_encoding::BASE64;

const PREFIX: &str = "whsec_";
/// The specification asks for 24 to 64.
const SECRET_BYTES: usize = 32;

/// What an endpoint's calls are signed with. It has no `Debug`, so that no log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new one; fails where the system has no randomness.
    pub fn draw() -> Result<Self, Unspecified> {
        let mut bytes = vec![0; SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The secret that a receiver is given.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64.encode(context.sign().as_ref()))
    }
}

/// The value of `webhook-signature`: one signature per secret, separated by spaces. The time is in Unix seconds.
pub fn signatures(secrets: &[&Secret], id: &str, timestamp: u64, body: &[u8]) -> String {
    secrets.iter().map(|secret| secret.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret(BASE64.decode(text.strip_prefix(PREFIX).unwrap().as_bytes()).unwrap())
    }

    #[test]
    fn the_vector_of_the_specification_is_signed_as_it_says() {
        let secret = secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let signed = signatures(&[&secret], id, 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for (id, timestamp, body) in [
            ("msg_p5jXN8AQM9LWM0D4loKWxJel", 1_614_265_330, &body[..]),
            (id, 1_614_265_331, &body[..]),
            (id, 1_614_265_330, &body[1..]),
        ] {
            assert_ne!(signatures(&[&secret], id, timestamp, body), signed);
        }
    }

    #[test]
    fn while_a_secret_rotates_both_sign() {
        let [old, new] = [Secret::draw().unwrap(), Secret::draw().unwrap()];
        let both = signatures(&[&new, &old], "evt_1", 7, b"{}");
        let each = [&new, &old].map(|secret| signatures(&[secret], "evt_1", 7, b"{}"));
        assert_eq!(both, each.join(" "));
        assert_ne!(each[0], each[1]);
        assert!(old.text().starts_with("whsec_") && secret(&old.text()) == old);
    }
}
