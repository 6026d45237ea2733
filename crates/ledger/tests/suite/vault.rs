//! What the vault promises: durable before it returns, idempotent, readable by its owner only.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, mpsc};

use crate::support::Folder;
use domain::clock::SystemClock;
use domain::{Pseudonym, SaleOrdinal};
use ledger::{CustomerError, NewCustomer, StoreError, Vault, VaultError, VaultService};

fn open(path: &Path) -> Result<Vault, VaultError> {
    Vault::open(path, Arc::new(SystemClock::new()))
}

fn customer(sale: u32, number: u32) -> NewCustomer {
    let mut pseudonym = [sale as u8; 16];
    pseudonym[..4].copy_from_slice(&number.to_be_bytes());
    NewCustomer {
        sale: SaleOrdinal(sale),
        pseudonym: Pseudonym(pseudonym),
        issuer: "https://shop.example".to_owned(),
        subject: format!("shopper-{number}"),
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn deployment_keys_are_made_once_and_differ() {
    let folder = Folder::new("keys");
    let path = folder.path("vault.sqlite");
    let keys = open(&path).unwrap().deployment_keys().unwrap();
    assert!(keys == open(&path).unwrap().deployment_keys().unwrap());
    let mut all = vec![keys.id_key, keys.identity_hash_key, keys.pass_keys[0].secret];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 3);
    assert_eq!(keys.pass_keys.len(), 1);
    assert!(keys.pass_keys[0].active);
}

#[test]
fn a_rotated_pass_key_stays_valid_and_one_is_active() {
    let folder = Folder::new("rotate");
    let path = folder.path("vault.sqlite");
    let mut vault = open(&path).unwrap();
    let first = vault.deployment_keys().unwrap().pass_keys[0].secret;
    assert_eq!(vault.rotate_pass_key().unwrap(), 1);
    drop(vault);
    let keys = open(&path).unwrap().deployment_keys().unwrap().pass_keys;
    let ids: Vec<_> = keys.iter().map(|key| (key.id, key.active)).collect();
    assert_eq!(ids, [(0, false), (1, true)]);
    assert!(keys[0].secret == first && keys[1].secret != first);
}

#[test]
fn the_file_is_for_its_owner_only() {
    let folder = Folder::new("mode");
    let path = folder.path("vault.sqlite");
    let mut vault = open(&path).unwrap();
    vault.register_sale("one").unwrap();
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&folder.path("vault.sqlite-wal")), 0o600);
    drop(vault);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(mode(&path), 0o600, "a restored file is closed again");
}

#[test]
fn a_sale_is_registered_once_and_its_secrets_last() {
    let folder = Folder::new("sales");
    let path = folder.path("vault.sqlite");
    let mut vault = open(&path).unwrap();
    let one = vault.register_sale("one").unwrap();
    let two = vault.register_sale("two").unwrap();
    assert_eq!((one.ordinal, two.ordinal), (SaleOrdinal(1), SaleOrdinal(2)));
    assert!(one.sale != two.sale && one.slot_secret != two.slot_secret && one.pseudonym_key != one.signing_seed);
    drop(vault);
    let mut vault = open(&path).unwrap();
    assert!(vault.register_sale("one").unwrap() == one);
    assert!(vault.sales().unwrap() == [one, two]);
    assert_eq!(vault.register_sale("three").unwrap().ordinal, SaleOrdinal(3));
}

#[test]
fn customers_are_ensured_once_for_all_sales() {
    let folder = Folder::new("customers");
    let path = folder.path("vault.sqlite");
    let mut vault = open(&path).unwrap();
    let batch = [customer(1, 1), customer(1, 2), customer(1, 1)];
    let keys = vault.ensure_customers(&batch).unwrap();
    assert!(keys[0] == keys[2] && keys[0] != keys[1]);
    drop(vault);
    let mut vault = open(&path).unwrap();
    assert_eq!(vault.ensure_customers(&[customer(2, 2), customer(1, 1)]).unwrap(), [keys[1], keys[0]]);
    let shopper = Some(("https://shop.example".to_owned(), "shopper-2".to_owned()));
    assert_eq!(vault.customer_of(SaleOrdinal(1), customer(1, 2).pseudonym).unwrap(), shopper);
    assert_eq!(vault.customer_of(SaleOrdinal(2), customer(2, 2).pseudonym).unwrap(), shopper);
    assert_eq!(vault.customer_of(SaleOrdinal(2), customer(1, 2).pseudonym).unwrap(), None);
}

#[test]
fn a_pseudonym_never_changes_its_customer_and_the_batch_is_all_or_nothing() {
    let folder = Folder::new("pseudonyms");
    let mut vault = open(&folder.path("vault.sqlite")).unwrap();
    vault.ensure_customers(&[customer(1, 1)]).unwrap();
    let thief = NewCustomer { pseudonym: customer(1, 1).pseudonym, ..customer(1, 2) };
    let refused = vault.ensure_customers(&[customer(1, 3), thief]).unwrap_err();
    assert_eq!(refused, VaultError::PseudonymTaken(SaleOrdinal(1)));
    assert_eq!(vault.customer_of(SaleOrdinal(1), customer(1, 3).pseudonym).unwrap(), None);
}

#[test]
fn the_first_admin_token_is_written_once_with_mode_0600() {
    let folder = Folder::new("token");
    let (path, file) = (folder.path("vault.sqlite"), folder.path("admin-token"));
    let mut vault = open(&path).unwrap();
    std::fs::write(&file, "left by a crash before its hash was stored").unwrap();
    assert!(vault.first_admin_token(&file).unwrap());
    assert_eq!(mode(&file), 0o600);
    let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(token.starts_with("da_") && token.len() == 46, "{token}");
    assert!(vault.admin_token_is_valid(&token, 0).unwrap());
    for wrong in ["", "da_", &token[..45], &format!("{token}x")] {
        assert!(!vault.admin_token_is_valid(wrong, 0).unwrap());
    }
    std::fs::remove_file(&file).unwrap();
    drop(vault);
    let mut vault = open(&path).unwrap();
    assert!(!vault.first_admin_token(&file).unwrap(), "a token exists");
    assert!(!file.exists());
    assert!(vault.admin_tokens().unwrap().admit(&token, u64::MAX));
}

#[test]
fn an_expired_admin_token_is_refused() {
    let folder = Folder::new("expired");
    let (path, file) = (folder.path("vault.sqlite"), folder.path("admin-token"));
    let mut vault = open(&path).unwrap();
    vault.first_admin_token(&file).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE admin_tokens SET expires_at = 1000", []).unwrap();
    let token = std::fs::read_to_string(&file).unwrap();
    assert!(vault.admin_token_is_valid(token.trim(), 999).unwrap());
    assert!(!vault.admin_token_is_valid(token.trim(), 1_000).unwrap());
}

#[test]
fn a_token_file_that_cannot_be_written_leaves_no_token_behind() {
    let folder = Folder::new("unwritten");
    let mut vault = open(&folder.path("vault.sqlite")).unwrap();
    let refused = vault.first_admin_token(&folder.path("missing/admin-token")).unwrap_err();
    assert!(matches!(refused, VaultError::File(_)), "{refused}");
    assert!(vault.first_admin_token(&folder.path("admin-token")).unwrap());
}

#[test]
fn a_newer_a_damaged_and_an_unreachable_vault_are_refused() {
    let folder = Folder::new("refused");
    let path = folder.path("vault.sqlite");
    drop(open(&path).unwrap());
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert_eq!(open(&path).err(), Some(VaultError::Store(StoreError::Newer { found: 9, known: 1 })));
    std::fs::write(&path, vec![b'x'; 8_192]).unwrap();
    assert!(matches!(open(&path).err(), Some(VaultError::Store(StoreError::Damaged(_)))));
    let missing = open(&folder.path("missing/vault.sqlite")).err();
    assert!(matches!(missing, Some(VaultError::File(_))), "{missing:?}");
}

#[test]
fn a_vault_that_lost_a_key_is_refused() {
    let folder = Folder::new("incomplete");
    let path = folder.path("vault.sqlite");
    drop(open(&path).unwrap());
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute("DELETE FROM deployment_keys WHERE purpose = 'identity_hash'", [])
        .unwrap();
    assert_eq!(open(&path).err(), Some(VaultError::KeysIncomplete));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_passes_at_once_share_transactions_and_get_their_own_keys() {
    let folder = Folder::new("service");
    let path = folder.path("vault.sqlite");
    let service = Arc::new(VaultService::start(open(&path).unwrap()).unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        let service = Arc::clone(&service);
        tasks.spawn(async move { (number, service.ensure_customer(customer(1, number)).await.unwrap()) });
    }
    let mut keys: Vec<_> = tasks.join_all().await;
    for (number, key) in &keys {
        assert_eq!(service.ensure_customer(customer(1, *number)).await.unwrap(), *key);
    }
    Arc::into_inner(service).unwrap().shutdown();
    keys.sort_unstable_by_key(|(_, key)| *key);
    keys.dedup_by_key(|(_, key)| *key);
    assert_eq!(keys.len(), 2_000);
    let vault = open(&path).unwrap();
    for (number, _) in keys {
        assert!(vault.customer_of(SaleOrdinal(1), customer(1, number).pseudonym).unwrap().is_some());
    }
}

#[tokio::test]
async fn one_impossible_customer_refuses_nobody_else() {
    let folder = Folder::new("impossible");
    let mut vault = open(&folder.path("vault.sqlite")).unwrap();
    vault.ensure_customers(&[customer(1, 0)]).unwrap();
    let service = Arc::new(VaultService::start(vault).unwrap());
    let (release, thread) = hold(&service);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..10 {
        let service = Arc::clone(&service);
        let subject = if number == 0 { "somebody else".to_owned() } else { customer(1, number).subject };
        tasks.spawn(async move {
            (number, service.ensure_customer(NewCustomer { subject, ..customer(1, number) }).await.is_ok())
        });
    }
    // Lets every task reach the inbox, so that they share a batch.
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    thread.join().unwrap();
    for (number, granted) in tasks.join_all().await {
        assert_eq!(granted, number != 0, "customer {number}");
    }
}

#[tokio::test]
async fn a_full_inbox_refuses_at_once() {
    let folder = Folder::new("overload");
    let service = Arc::new(VaultService::start(open(&folder.path("vault.sqlite")).unwrap()).unwrap());
    let (release, thread) = hold(&service);
    let mut tasks = tokio::task::JoinSet::new();
    // More than the inbox and the batch that the service has already taken from it hold together.
    for number in 0..20_000 {
        let service = Arc::clone(&service);
        tasks.spawn(async move { service.ensure_customer(customer(1, number)).await.err() });
    }
    let first = tasks.join_next().await.unwrap().unwrap();
    assert_eq!(first, Some(CustomerError::Overloaded), "refused while the vault does nothing");
    release.send(()).unwrap();
    thread.join().unwrap();
    let rest = tasks.join_all().await;
    assert!(rest.iter().filter(|error| error.is_none()).count() >= 8_192, "whoever got in is served");
    assert!(rest.iter().flatten().all(|error| *error == CustomerError::Overloaded));
}

/// Keeps the vault busy until told; returns once it is.
fn hold(service: &Arc<VaultService>) -> (mpsc::SyncSender<()>, std::thread::JoinHandle<()>) {
    let (release, released) = mpsc::sync_channel(1);
    let (held, holding) = mpsc::sync_channel(1);
    let service = Arc::clone(service);
    let thread = std::thread::spawn(move || {
        service.with(|_| {
            held.send(()).unwrap();
            released.recv().unwrap();
        });
    });
    holding.recv().unwrap();
    (release, thread)
}
