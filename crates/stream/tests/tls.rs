//! The connection to a NATS server that speaks TLS only: whom it trusts, and what it says where it does not.

use std::path::PathBuf;

use services::nats::{SYNCED, Servers, program, single, tls};
use services::process::Life;
use services::tls::Authority;
use stream::{ConnectError, Login, Store, StoreOptions};

struct Server {
    servers: Servers,
    folder: PathBuf,
}

impl Server {
    fn start(name: &str, identity: Option<&Authority>) -> Self {
        let folder = std::env::temp_dir().join(format!("doorbuster-nats-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let more = identity.map_or_else(String::new, |authority| tls(&authority.sign(&folder).unwrap()));
        let servers = single(Life::Ours, &folder, &program(), (SYNCED, &more)).unwrap();
        Self { servers, folder }
    }

    fn options(&self, authority: Option<&Authority>) -> StoreOptions {
        let login = self.servers.login.clone();
        StoreOptions {
            servers: vec![self.servers.addresses[0].to_string()],
            login: Login { user: login.user, password: login.password },
            tls_authority: authority.map(|authority| authority.write(self.folder.join("authority.pem")).unwrap()),
            name: "sales".to_owned(),
            vault: "ours".to_owned(),
            replicas: 1,
            monitors: vec![self.servers.monitors[0].to_string()],
            dangerous_unsynced: false,
            jitter_seed: 1,
        }
    }

    async fn refuses(&self, options: &StoreOptions) -> String {
        match Store::connect(options).await.map(drop) {
            Err(ConnectError::Unreachable(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.servers.processes.clear();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

#[tokio::test]
async fn with_an_authority_only_servers_that_it_signed_are_spoken_to() {
    let (authority, stranger) = (Authority::new().unwrap(), Authority::new().unwrap());
    let server = Server::start("tls", Some(&authority));
    Store::connect(&server.options(Some(&authority))).await.unwrap();
    let wrong = server.refuses(&server.options(Some(&stranger))).await;
    assert!(wrong.contains("certificate"), "{wrong}");
    let plain = server.refuses(&server.options(None)).await;
    assert!(plain.contains("TLS"), "{plain}");
    let missing = server.folder.join("missing.pem");
    let options = StoreOptions { tls_authority: Some(missing.clone()), ..server.options(None) };
    let named = server.refuses(&options).await;
    assert!(named.contains(&missing.display().to_string()), "{named}");
}

#[tokio::test]
async fn an_authority_does_not_go_back_to_plain_tcp() {
    let authority = Authority::new().unwrap();
    let server = Server::start("plain", None);
    Store::connect(&server.options(None)).await.unwrap();
    let refused = server.refuses(&server.options(Some(&authority))).await;
    assert!(refused.contains("TLS"), "{refused}");
}
