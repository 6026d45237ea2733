//! The section `[identity]`: whose tokens are believed, and where the shop's keys are.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use gate::{IdentityConfig, KeySet, RequiredClaim};
use keyring::{FetchTimes, KeyringOptions};

use crate::config::Settings;

/// A year: for how long anything here may be kept.
const SECONDS_MAX: u64 = 366 * 86_400;

impl Settings {
    /// Rules over the keys of this section that need no file and no network.
    pub(crate) fn check_claims_and_keys(&self) -> anyhow::Result<()> {
        let identity = &self.identity;
        ensure!(
            (1..=86_400).contains(&identity.jwks_refresh_seconds),
            "identity.jwks_refresh_seconds: 1 to 86400 (a day)"
        );
        ensure!(
            (identity.jwks_refresh_seconds..=SECONDS_MAX).contains(&identity.jwks_stale_seconds_max),
            "identity.jwks_stale_seconds_max: from identity.jwks_refresh_seconds to a year"
        );
        self.required_claims().map(drop)
    }

    /// What only a serving process needs, beyond the rules of every command.
    pub(crate) fn check_identity(&self) -> anyhow::Result<()> {
        if !self.has_keys() && !self.identity.dangerous_guest_tokens {
            bail!(
                "nobody could sign in: set identity.issuer, identity.audience and one of identity.hs256_secrets, identity.jwks_url \
                 and identity.jwks_file to what the shop signs its access tokens with, or, to try things out on this machine only, \
                 start with --set identity.dangerous_guest_tokens=true"
            );
        }
        Ok(())
    }

    fn has_keys(&self) -> bool {
        let identity = &self.identity;
        let has_file = !identity.jwks_file.as_os_str().is_empty();
        !identity.hs256_secrets.is_empty() || !identity.jwks_url.is_empty() || has_file
    }

    fn required_claims(&self) -> anyhow::Result<Vec<RequiredClaim>> {
        let parse = |text: &String| {
            let wrong = || format!("identity.required_claims: {text:?}; write it as NAME=VALUE, for example vip=true");
            RequiredClaim::parse(text).with_context(wrong)
        };
        self.identity.required_claims.iter().map(parse).collect()
    }

    pub(crate) fn identity_config(&self) -> anyhow::Result<IdentityConfig> {
        let named = |name: &str, otherwise: &str| if name.is_empty() { otherwise.to_owned() } else { name.to_owned() };
        // Names nobody signs with, where only guests are believed.
        let otherwise = if self.has_keys() { "" } else { "none" };
        let identity = &self.identity;
        Ok(IdentityConfig {
            issuer: named(&identity.issuer, otherwise),
            audience: named(&identity.audience, otherwise),
            secrets: identity.hs256_secrets.iter().map(|secret| secret.clone().into_bytes()).collect(),
            fixed_keys: self.fixed_keys()?,
            // Who serves no customers believes nobody, and needs no key for that.
            keys_are_published: self.fetches_keys() || !self.is_gate(),
            required_claims: self.required_claims()?,
            leeway_seconds: identity.leeway_seconds,
            guest_tokens: identity.dangerous_guest_tokens,
        })
    }

    /// Only who serves customers has a use for the shop's keys.
    fn fetches_keys(&self) -> bool {
        !self.identity.jwks_url.is_empty() && self.is_gate()
    }

    fn fixed_keys(&self) -> anyhow::Result<KeySet> {
        let path = &self.identity.jwks_file;
        if path.as_os_str().is_empty() || !self.is_gate() {
            return Ok(KeySet::default());
        }
        let of_file = || format!("identity.jwks_file: {}", path.display());
        let read = KeySet::read(&std::fs::read(path).with_context(of_file)?).with_context(of_file)?;
        for (place, reason) in read.left_out {
            tracing::warn!(file = %path.display(), place, %reason, "a key of the file is not believed");
        }
        Ok(read.keys)
    }

    /// Where the shop publishes its keys, if this process fetches them.
    pub(crate) fn keyring_options(&self) -> anyhow::Result<Option<KeyringOptions>> {
        if !self.fetches_keys() {
            return Ok(None);
        }
        let identity = &self.identity;
        let authority = &identity.jwks_tls_authority;
        let of_file = || format!("identity.jwks_tls_authority: {}", authority.display());
        let read = (!authority.as_os_str().is_empty()).then(|| std::fs::read(authority).with_context(of_file));
        Ok(Some(KeyringOptions {
            url: identity.jwks_url.clone(),
            refresh: Duration::from_secs(identity.jwks_refresh_seconds),
            stale_max: Duration::from_secs(identity.jwks_stale_seconds_max),
            times: FetchTimes::default(),
            authority: read.transpose()?,
            dangerous_plain_http: identity.dangerous_plain_http,
        }))
    }
}
