//! The vault in PostgreSQL where it is not like a file: many processes at once, a server that dies, a server that must be refused.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::place::{InPostgres, Place as _, customer};
use crate::support::wait_until;
use domain::Role;
use ledger::{
    CustomerError, NewCustomer, PostgresOptions, PostgresVault, StoreError, VaultError, VaultService, VaultStore as _,
};

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doorbuster'";

const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doorbuster' AND wait_event_type = 'Lock'";

const BOTH_WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";

/// Runs `work` in so many threads that begin together; what each gave, in order.
fn at_once<T: Send>(threads: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let (barrier, work) = (&barrier, &work);
        let spawn = |number| {
            scope.spawn(move || {
                barrier.wait();
                work(number)
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn store_error(result: Result<PostgresVault, VaultError>) -> StoreError {
    match result {
        Err(VaultError::Store(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn vaults_that_open_at_once_agree_on_keys_sales_and_one_token() {
    let place = InPostgres::new();
    let names = ["summer", "winter", "spring"];
    let seen = at_once(4, |number| {
        let mut vault = InPostgres::open_with(&place.options()).unwrap();
        let made_token = vault.first_admin_token(&place.path(&format!("token-{number}"))).unwrap();
        for turn in 0..names.len() {
            vault.register_sale(names[(number + turn) % names.len()]).unwrap();
        }
        (vault.deployment_keys().unwrap(), vault.sales().unwrap(), made_token)
    });
    assert!(seen.iter().all(|(keys, ..)| *keys == seen[0].0));
    let ordinals = |sales: &[ledger::SaleSecrets]| sales.iter().map(|sale| sale.ordinal.0).collect::<Vec<_>>();
    assert!(seen.iter().all(|(_, sales, _)| *sales == seen[0].1 && ordinals(sales) == [1, 2, 3]));
    let makers: Vec<usize> = (0..4).filter(|number| seen[*number].2).collect();
    let files: Vec<usize> = (0..4).filter(|number| place.path(&format!("token-{number}")).exists()).collect();
    assert!(makers.len() == 1 && makers == files, "made by {makers:?}, written by {files:?}");
    let token = std::fs::read_to_string(place.path(&format!("token-{}", makers[0]))).unwrap();
    assert!(place.open().admin_tokens().unwrap().admit(token.trim(), 0).is_some());
}

#[test]
fn eight_gates_with_the_same_customers_agree_on_every_key() {
    let place = InPostgres::new();
    drop(place.open());
    const SHOPPERS: u32 = 300;
    let seen = at_once(8, |gate| {
        let mut vault = InPostgres::open_with(&place.options()).unwrap();
        let mut random = fastrand::Rng::with_seed(gate as u64);
        let mut keys = HashMap::new();
        for round in 0..20 {
            let mut batch: Vec<NewCustomer> =
                (0..60).map(|_| customer(1 + round % 3, random.u32(0..SHOPPERS))).collect();
            random.shuffle(&mut batch);
            for (customer, key) in batch.iter().zip(vault.ensure_customers(&batch).unwrap()) {
                let before = keys.insert(customer.subject.clone(), key);
                assert!(before.is_none_or(|before| before == key), "{} has one key", customer.subject);
            }
        }
        keys
    });
    let mut all = HashMap::new();
    for (subject, key) in seen.into_iter().flatten() {
        let before = all.insert(subject.clone(), key);
        assert!(before.is_none_or(|before| before == key), "{subject} has one key at every gate");
    }
    let superuser = place.superuser();
    assert_eq!(superuser.ask("SELECT count(*) FROM vault.customers"), all.len().to_string());
    // A session hands its counters in at its end.
    wait_until("the gates' sessions have ended", || superuser.ask(SESSIONS) == "0");
    let deadlocks = superuser.ask("SELECT deadlocks FROM pg_stat_database WHERE datname = 'doorbuster'");
    assert_eq!(deadlocks, "0", "each waits for the others in one order");
}

#[test]
fn what_a_call_returned_survives_a_killed_server_and_the_next_calls_go_on() {
    let mut place = InPostgres::new();
    let mut vault = place.open();
    let keys = vault.deployment_keys().unwrap();
    let sale = vault.register_sale("one").unwrap();
    let batch: Vec<NewCustomer> = (0..2_048).map(|number| customer(1, number)).collect();
    let secrets = vault.ensure_customers(&batch).unwrap();
    let token = place.path("token");
    assert!(vault.first_admin_token(&token).unwrap());

    let stopped = place.kill();
    let refused = vault.ensure_customers(&[customer(1, 5_000)]).unwrap_err();
    let VaultError::Store(reason @ StoreError::Unreachable(_)) = &refused else { panic!("{refused}") };
    assert!(reason.may_pass());
    place.start_again(&stopped);

    assert!(vault.ensure_customers(&batch).unwrap() == secrets);
    assert!(vault.deployment_keys().unwrap() == keys);
    assert!(vault.register_sale("one").unwrap() == sale);
    let token = std::fs::read_to_string(token).unwrap();
    assert!(vault.admin_tokens().unwrap().admit(token.trim(), 0).is_some());
    assert_eq!(vault.ensure_customers(&[customer(1, 5_000)]).unwrap().len(), 1);

    // A vault that asked nothing in between loses its connection without knowing it.
    let stopped = place.kill();
    place.start_again(&stopped);
    assert!(vault.ensure_customers(&batch).unwrap() == secrets);
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_the_work_is_made_up_for() {
    let place = InPostgres::new();
    let mut vault = place.open();
    let superuser = place.superuser();
    superuser.execute(
        "BEGIN; INSERT INTO vault.customers (issuer, subject, secret) VALUES ('https://shop.example', 'shopper-2', '')",
    );
    thread::scope(|scope| {
        let waiting = scope.spawn(|| vault.ensure_customers(&[customer(1, 1), customer(1, 2)]).unwrap());
        wait_until("the vault waits", || superuser.ask(WAITING) == "1");
        superuser.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'doorbuster' AND wait_event_type = 'Lock'",
        );
        superuser.execute("ROLLBACK");
        assert_eq!(waiting.join().unwrap().len(), 2);
    });
    assert_eq!(superuser.ask("SELECT count(*) FROM vault.map"), "2");
}

#[test]
fn the_victim_of_a_deadlock_tries_again() {
    let place = InPostgres::new();
    let mut vault = place.open();
    let insert = |subject: &str| {
        format!(
            "INSERT INTO vault.customers (issuer, subject, secret) VALUES ('https://shop.example', '{subject}', '')"
        )
    };
    let (gate, rival, onlooker) = (place.superuser(), place.superuser(), place.superuser());
    gate.execute(&format!("BEGIN; {}", insert("shopper-2")));
    // The rival looks for deadlocks so late that it is always the vault that finds them.
    rival.execute(&format!("SET deadlock_timeout = '1min'; BEGIN; {}", insert("shopper-3")));
    thread::scope(|scope| {
        let customers = [customer(1, 3), customer(1, 2), customer(1, 1)];
        let waiting = scope.spawn(move || vault.ensure_customers(&customers).unwrap());
        wait_until("the vault waits", || onlooker.ask(WAITING) == "1");
        let rival = scope.spawn(|| {
            // Would find the row there, and fail, if the vault's transaction had not been undone.
            rival.execute(&insert("shopper-1"));
            rival.execute("ROLLBACK");
        });
        wait_until("the rival waits for the vault", || onlooker.ask(BOTH_WAITING) == "2");
        // Only now the vault goes on, and comes to wait for who waits for it.
        gate.execute("ROLLBACK");
        rival.join().unwrap();
        assert_eq!(waiting.join().unwrap().len(), 3);
    });
}

#[test]
fn a_call_whose_commit_got_no_answer_gives_what_it_wrote() {
    let place = InPostgres::new();
    let (listener, lose) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(AtomicBool::new(false)));
    let through = PostgresOptions { address: listener.local_addr().unwrap().to_string(), ..place.options() };
    let (server, losing) = (place.address, Arc::clone(&lose));
    thread::spawn(move || {
        for client in listener.incoming() {
            let losing = Arc::clone(&losing);
            thread::spawn(move || pass_on(client.unwrap(), TcpStream::connect(server).unwrap(), &losing));
        }
    });
    let mut vault = InPostgres::open_with(&through).unwrap();
    let lost = || {
        assert!(!lose.swap(true, Ordering::SeqCst), "the answer before this one was lost");
    };

    lost();
    assert_eq!(vault.rotate_pass_key().unwrap(), 1);
    assert_eq!(vault.deployment_keys().unwrap().pass_keys.len(), 2);
    lost();
    let sale = vault.register_sale("one").unwrap();
    assert!(vault.sales().unwrap() == [sale]);
    lost();
    let keys = vault.ensure_customers(&[customer(1, 1), customer(1, 2)]).unwrap();
    assert!(vault.ensure_customers(&[customer(1, 1), customer(1, 2)]).unwrap() == keys);
    lost();
    assert!(vault.erase_customer(&customer(1, 1).issuer, &customer(1, 1).subject).unwrap());
    assert!(vault.customer_of(customer(1, 1).sale, customer(1, 1).pseudonym).unwrap().is_none());
    lost();
    let file = place.path("token");
    assert!(vault.first_admin_token(&file).unwrap());
    let token = std::fs::read_to_string(file).unwrap();
    assert!(vault.admin_tokens().unwrap().admit(token.trim(), 0).is_some());
    lost();
    let made = vault.create_admin_token("till", Role::Cashier, u64::MAX >> 1).unwrap();
    assert_eq!(vault.admin_tokens().unwrap().list().len(), 2);
    lost();
    assert!(vault.revoke_admin_token(&made.kept.id()).unwrap() == made.kept);
    assert_eq!(vault.admin_tokens().unwrap().list().len(), 1);
    lost();
}

/// Passes a connection on; when told, ends it after the next commit has been answered and before the answer is out.
fn pass_on(mut client: TcpStream, mut server: TcpStream, lose: &AtomicBool) {
    let commits = Arc::new(AtomicBool::new(false));
    let (mut asked, mut to_server, seen) =
        (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&commits));
    thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(length @ 1..) = asked.read(&mut bytes) {
            seen.store(bytes[..length].windows(6).any(|word| word == b"COMMIT"), Ordering::SeqCst);
            if to_server.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        drop(to_server.shutdown(Shutdown::Both));
    });
    let mut bytes = [0; 65_536];
    while let Ok(length @ 1..) = server.read(&mut bytes) {
        if commits.load(Ordering::SeqCst) && lose.swap(false, Ordering::SeqCst) {
            break;
        }
        if client.write_all(&bytes[..length]).is_err() {
            break;
        }
    }
    drop(client.shutdown(Shutdown::Both));
}

#[test]
fn a_refused_batch_leaves_no_lock_behind() {
    let place = InPostgres::new();
    let (mut first, mut second) = (place.open(), place.open());
    first.ensure_customers(&[customer(1, 1)]).unwrap();
    let thief = NewCustomer { pseudonym: customer(1, 1).pseudonym, ..customer(1, 2) };
    first.ensure_customers(&[thief]).unwrap_err();
    let missing = place.path("missing/token");
    first.first_admin_token(&missing).unwrap_err();
    assert_eq!(second.ensure_customers(&[customer(1, 2)]).unwrap().len(), 1);
    assert!(second.first_admin_token(&place.path("token")).unwrap());
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doorbuster' AND state <> 'idle'";
    assert_eq!(place.superuser().ask(open), "0");
}

#[test]
fn a_server_that_may_lose_commits_is_refused() {
    let place = InPostgres::new();
    let mut vault = place.open();
    let superuser = place.superuser();
    for weak in ["off", "local", "remote_write"] {
        superuser.execute(&format!("ALTER ROLE doorbuster SET synchronous_commit = {weak}"));
        let refused = store_error(InPostgres::open_with(&place.options()));
        assert_eq!(refused, StoreError::NotDurable(format!("synchronous_commit is {weak} and has to be on")));
        assert!(!refused.may_pass());
    }
    superuser.execute("ALTER ROLE doorbuster SET synchronous_commit = remote_apply");
    place.open();
    superuser.execute("ALTER ROLE doorbuster RESET synchronous_commit");
    // What it was checked for is the session's own setting, which a changed configuration leaves alone.
    superuser.execute("CREATE TABLE vault.seen (setting TEXT); GRANT ALL ON vault.seen TO doorbuster");
    superuser.execute(
        "CREATE FUNCTION vault.see() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO vault.seen SELECT setting || ' by ' || source FROM pg_settings \
         WHERE name = 'synchronous_commit'; RETURN NEW; END $$",
    );
    superuser.execute("CREATE TRIGGER see BEFORE INSERT ON vault.sales FOR EACH ROW EXECUTE FUNCTION vault.see()");
    vault.register_sale("one").unwrap();
    assert_eq!(superuser.ask("SELECT setting FROM vault.seen"), "on by session");
}

#[test]
fn a_newer_a_damaged_and_a_vanished_vault_are_refused() {
    let place = InPostgres::new();
    let mut vault = place.open();
    vault.ensure_customers(&[customer(1, 1)]).unwrap();
    place.execute("UPDATE schema_version SET version = 9");
    assert_eq!(store_error(InPostgres::open_with(&place.options())), StoreError::Newer { found: 9, known: 1 });
    place.execute("UPDATE schema_version SET version = 1; UPDATE customers SET secret = 'short'");
    let damaged = vault.ensure_customers(&[customer(1, 1)]).unwrap_err();
    assert_eq!(damaged, VaultError::Store(StoreError::Damaged("5 bytes where 32 belong".to_owned())));
    // A database that was emptied is no reason to begin anew under a running gate.
    place.execute("DROP SCHEMA vault CASCADE");
    cut_all(&place);
    let gone = vault.deployment_keys().err();
    assert_eq!(gone, Some(VaultError::Store(StoreError::Damaged("the vault is gone from the database".to_owned()))));
}

/// Ends every connection of the engine's.
fn cut_all(place: &InPostgres) {
    let superuser = place.superuser();
    superuser
        .ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'doorbuster'");
    wait_until("all are cut", || {
        superuser.ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'doorbuster'") == "0"
    });
}

#[test]
fn the_vault_of_one_cluster_is_not_opened_for_another() {
    let place = InPostgres::new();
    drop(place.open());
    let other = PostgresOptions { cluster: "autumn".to_owned(), ..place.options() };
    match InPostgres::open_with(&other).map(drop) {
        Err(VaultError::OtherCluster { found, ours }) => assert_eq!((&*found, &*ours), ("main", "autumn")),
        told => panic!("{told:?}"),
    }
    drop(place.open());
}

#[test]
fn a_schema_that_the_operator_made_is_used() {
    let place = InPostgres::new();
    place.superuser().execute(
        "CREATE SCHEMA vault AUTHORIZATION doorbuster; ALTER DATABASE doorbuster OWNER TO CURRENT_USER; \
         REVOKE CREATE ON DATABASE doorbuster FROM PUBLIC, doorbuster",
    );
    let keys = place.open().deployment_keys().unwrap();
    assert!(place.open().deployment_keys().unwrap() == keys);
}

#[test]
fn no_error_and_no_debug_form_shows_the_password() {
    let place = InPostgres::new();
    let right = place.options();
    assert!(!format!("{right:?}").contains(&right.password));
    let wrong = |change: &dyn Fn(&mut PostgresOptions)| {
        let mut options = right.clone();
        change(&mut options);
        let error = store_error(InPostgres::open_with(&options));
        for shown in [format!("{error}"), format!("{error:?}"), format!("{options:?}")] {
            assert!(!shown.contains(&options.password), "{shown}");
        }
        error
    };
    let password = wrong(&|options| options.password = "not-the-password".to_owned());
    assert!(matches!(password, StoreError::Unwritable(_)), "{password}");
    let database = wrong(&|options| options.database = "nowhere".to_owned());
    assert!(matches!(database, StoreError::Unwritable(_)), "{database}");
    let [port] = services::process::free_ports(1).unwrap()[..] else { panic!("one port") };
    let nobody = wrong(&|options| options.address = format!("127.0.0.1:{port}"));
    assert!(matches!(nobody, StoreError::Unreachable(_)), "{nobody}");
    for unreadable in ["127.0.0.1", "127.0.0.1:x", ""] {
        let address = wrong(&|options| options.address = unreadable.to_owned());
        assert_eq!(address, StoreError::Unwritable(format!("{unreadable} is not host:port")));
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let options = PostgresOptions {
        address: silent.local_addr().unwrap().to_string(),
        database: "doorbuster".to_owned(),
        cluster: "main".to_owned(),
        user: "doorbuster".to_owned(),
        password: "unused".to_owned(),
        tls_authority: None,
    };
    let refused = store_error(InPostgres::open_with(&options));
    assert_eq!(refused, StoreError::Unreachable("no connection after 5 s".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_serve_many_passes_from_one_vault() {
    let place = InPostgres::new();
    let gates: Vec<_> = (0..2).map(|_| Arc::new(VaultService::start(place.open()).unwrap())).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        for gate in &gates {
            let gate = Arc::clone(gate);
            tasks.spawn(async move { (number, gate.ensure_customer(customer(1, number)).await.unwrap()) });
        }
    }
    let mut keys = HashMap::new();
    while let Some(answered) = tasks.join_next().await {
        let (number, key) = answered.unwrap();
        assert!(keys.insert(number, key).is_none_or(|before| before == key), "shopper {number} has one key");
    }
    assert_eq!(keys.len(), 2_000);
    place.open().ensure_customers(&[customer(1, 3_000)]).unwrap();
    let thief = NewCustomer { pseudonym: customer(1, 3_000).pseudonym, ..customer(1, 3_001) };
    let refused = gates[0].ensure_customer(thief).await.unwrap_err();
    assert!(matches!(refused, CustomerError::Vault(VaultError::PseudonymTaken(_))), "{refused}");
    // Within a task of another runtime, to its end there.
    assert_eq!(gates[1].with(|vault| vault.sales().map(|sales| sales.len())), Ok(0));
    drop(gates);
}
