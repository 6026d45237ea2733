//! The vault in a PostgreSQL that takes only who speaks TLS: whom it trusts, and what it says where it does not.

use std::sync::Arc;

use domain::clock::SystemClock;
use ledger::{PostgresOptions, PostgresVault, StoreError, VaultError, VaultStore as _};
use services::postgres::with_identity;
use services::process::Life;
use services::tls::Authority;

use crate::support::Folder;

fn refused(options: &PostgresOptions) -> StoreError {
    match PostgresVault::open(options, Arc::new(SystemClock::new())) {
        Err(VaultError::Store(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn with_an_authority_only_servers_that_it_signed_are_spoken_to() {
    let folder = Folder::new("tls");
    let [authority, stranger] = [(); 2].map(|()| Authority::new().unwrap());
    let identity = authority.sign(&folder.path("identity")).unwrap();
    let (_tls, tls_address, login) = with_identity(Life::Ours, &folder.path("tls"), Some(&identity)).unwrap();
    let options = PostgresOptions {
        address: tls_address.to_string(),
        database: "doorbuster".to_owned(),
        cluster: "main".to_owned(),
        user: login.user,
        password: login.password,
        tls_authority: Some(authority.pem().into_bytes()),
    };
    let mut vault = PostgresVault::open(&options, Arc::new(SystemClock::new())).unwrap();
    assert_eq!(vault.rotate_pass_key().unwrap(), 1);
    let with = |authority: Option<String>| PostgresOptions {
        tls_authority: authority.map(String::into_bytes),
        ..options.clone()
    };

    let wrong = refused(&with(Some(stranger.pem())));
    assert!(matches!(&wrong, StoreError::Unreachable(told) if told.contains("certificate")), "{wrong}");
    let plain = refused(&with(None));
    assert!(matches!(&plain, StoreError::Unwritable(told) if told.contains("no encryption")), "{plain}");
    for unusable in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        let error = refused(&with(Some(unusable.to_owned())));
        assert!(matches!(&error, StoreError::Unwritable(told) if told.contains("authority")), "{error}");
    }

    // No way back to plain TCP: the password would travel in the clear.
    let (_plain, plain_address, login) = with_identity(Life::Ours, &folder.path("plain"), None).unwrap();
    let to_plain = PostgresOptions { address: plain_address.to_string(), password: login.password, ..options };
    let error = refused(&to_plain);
    assert!(matches!(&error, StoreError::Unreachable(told) if told.contains("TLS")), "{error}");
}
