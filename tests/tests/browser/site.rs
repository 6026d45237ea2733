//! A web site of a test: pages from memory over plain HTTP, one request a connection, with a count of every byte.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// A path, further header lines, the body.
pub(crate) type File = (&'static str, &'static str, &'static str);

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) path: String,
    /// Bytes of the request.
    pub(crate) read: u64,
    /// Bytes of the answer.
    pub(crate) written: u64,
}

/// It listens until the test's process ends.
pub(crate) struct Site {
    address: SocketAddr,
    served: Arc<Mutex<Vec<Served>>>,
}

impl Site {
    /// Serves these files, and 404 for all others. A file is HTML unless its headers say otherwise.
    pub(crate) fn start(files: &'static [File]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                // A browser opens connections that it may never use, so nobody waits for another.
                std::thread::spawn(move || serve(stream, files, &notes));
            }
        });
        Self { address, served }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked for this path.
    pub(crate) fn served(&self, path: &str) -> Vec<Served> {
        let served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        served.iter().filter(|served| served.path == path).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, files: &[File], notes: &Mutex<Vec<Served>>) {
    let mut request = Vec::new();
    let mut bytes = [0; 4_096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes) {
            Ok(read @ 1..) => request.extend(&bytes[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&request);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = match files.iter().find(|(name, ..)| *name == path) {
        Some((_, headers, body)) => {
            let kind = if headers.contains("content-type") { "" } else { "content-type: text/html; charset=utf-8\r\n" };
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{kind}{headers}\r\n{body}")
        }
        None => "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    };
    // Noted first: whoever sees the answer may look at once.
    let served = Served { path, read: request.len() as u64, written: answer.len() as u64 };
    notes.lock().unwrap_or_else(PoisonError::into_inner).push(served);
    // A browser that has gone meanwhile is no trouble.
    let _ = stream.write_all(answer.as_bytes());
}
