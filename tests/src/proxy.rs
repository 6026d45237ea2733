//! A way to a server that can be cut: while it is, connections stay open and nothing passes, as on a network that lost its route.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often a waiting connection looks whether the way is cut.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One way to one server. It ends with the test's process.
pub struct Proxy {
    /// Where it is entered.
    pub address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    /// Opens a way to `server`.
    pub fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let cut = Arc::new(AtomicBool::new(false));
        let of_listener = Arc::clone(&cut);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let cut = Arc::clone(&of_listener);
                std::thread::spawn(move || join(client, server, &cut));
            }
        });
        Self { address, cut }
    }

    /// Lets nothing pass any more, or again.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }
}

fn join(client: TcpStream, server: SocketAddr, cut: &Arc<AtomicBool>) {
    while cut.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_EVERY);
    }
    let Ok(server) = TcpStream::connect(server) else { return };
    let (Ok(to_client), Ok(to_server)) = (client.try_clone(), server.try_clone()) else { return };
    let other = Arc::clone(cut);
    let back = std::thread::spawn(move || carry(server, to_client, &other));
    carry(client, to_server, cut);
    drop(back.join());
}

/// Carries bytes until one side ends.
fn carry(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    drop(from.set_nodelay(true));
    drop(from.set_read_timeout(Some(LOOK_EVERY)));
    loop {
        if cut.load(Ordering::Relaxed) {
            std::thread::sleep(LOOK_EVERY);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                while cut.load(Ordering::Relaxed) {
                    std::thread::sleep(LOOK_EVERY);
                }
                if to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    drop(to.shutdown(std::net::Shutdown::Both));
    drop(from.shutdown(std::net::Shutdown::Both));
}
