//! The vault in a file, readable by its owner only, and the service that serves a vault to many.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, mpsc};

use crate::place::customer;
use crate::support::Folder;
use domain::SaleOrdinal;
use domain::clock::SystemClock;
use ledger::{CustomerError, NewCustomer, StoreError, Vault, VaultError, VaultService, VaultStore as _};

fn open(path: &Path) -> Result<Vault, VaultError> {
    Vault::open(path, Arc::new(SystemClock::new()))
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_passes_at_once_share_transactions_and_get_their_own_keys() {
    let folder = Folder::new("service");
    let path = folder.path("vault.sqlite");
    let service = Arc::new(VaultService::start(Box::new(open(&path).unwrap())).unwrap());
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
    let mut vault = open(&path).unwrap();
    for (number, _) in keys {
        assert!(vault.customer_of(SaleOrdinal(1), customer(1, number).pseudonym).unwrap().is_some());
    }
}

#[tokio::test]
async fn one_impossible_customer_refuses_nobody_else() {
    let folder = Folder::new("impossible");
    let mut vault = open(&folder.path("vault.sqlite")).unwrap();
    vault.ensure_customers(&[customer(1, 0)]).unwrap();
    let service = Arc::new(VaultService::start(Box::new(vault)).unwrap());
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
    let service = Arc::new(VaultService::start(Box::new(open(&folder.path("vault.sqlite")).unwrap())).unwrap());
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
