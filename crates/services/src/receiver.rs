//! A shop's end of webhooks, and of what it publishes, well or as bad as a test wants it: it notes every call and answers as it is told.
//! Plain HTTP on a loopback port, one thread per connection.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// One call as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// Method and path.
    pub target: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Which connection brought it, counted from 0.
    pub connection: usize,
}

impl Received {
    /// A header's value; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// How a call is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// With that status and a short body.
    Status(u16),
    /// 200 with that content, as JSON.
    Content(String),
    /// 301 to there.
    Redirect(String),
    /// Not at all: the connection stays open.
    Silence,
    /// 200 and a body without end.
    Endless,
    /// A head without end.
    EndlessHead,
}

type Decide = dyn Fn(&Received) -> Answer + Send + Sync;

struct Shared {
    decide: Box<Decide>,
    calls: Mutex<Vec<Received>>,
    open: Mutex<Vec<TcpStream>>,
    connections: AtomicUsize,
    stop: AtomicBool,
}

/// A receiver; dropped, its port refuses connections.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Receiver {
    /// Listens on a free port and answers every call as `decide` says, which may wait as long as it likes.
    pub fn start(decide: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> io::Result<Self> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), decide)
    }

    /// The same on a given port.
    pub fn start_at(
        address: SocketAddr,
        decide: impl Fn(&Received) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            decide: Box::new(decide),
            calls: Mutex::default(),
            open: Mutex::default(),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let thread = thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, shared, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that leads to it.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// All calls so far, in the order in which they came.
    pub fn calls(&self) -> Vec<Received> {
        lock(&self.shared.calls).clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the accepting thread; refused, it has ended already.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for stream in lock(&self.shared.open).drain(..) {
            // Closed by the other side is closed too.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(copy) = stream.try_clone() else { return };
        lock(&shared.open).push(copy);
        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(shared);
        // How a connection ends is for the other side to notice.
        thread::spawn(move || drop(serve(stream, number, &shared)));
    }
}

fn serve(mut stream: TcpStream, number: usize, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some(call) = read_call(&mut reader, number)? {
        lock(&shared.calls).push(call.clone());
        match (shared.decide)(&call) {
            Answer::Status(status) => {
                let body = if status == 204 { "" } else { "as told" };
                write!(stream, "HTTP/1.1 {status} As told\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
            }
            Answer::Content(content) => {
                let length = content.len();
                write!(stream, "HTTP/1.1 200 As told\r\ncontent-type: application/json\r\n")?;
                write!(stream, "content-length: {length}\r\n\r\n{content}")?;
            }
            Answer::Redirect(to) => {
                write!(stream, "HTTP/1.1 301 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")?;
            }
            Answer::Silence => {}
            Answer::Endless => {
                write!(stream, "HTTP/1.1 200 Fine\r\ntransfer-encoding: chunked\r\n\r\n")?;
                loop {
                    write!(stream, "400\r\n{}\r\n", "x".repeat(0x400))?;
                }
            }
            Answer::EndlessHead => {
                write!(stream, "HTTP/1.1 200 Fine\r\n")?;
                loop {
                    write!(stream, "x-more: {}\r\n", "x".repeat(0x400))?;
                }
            }
        }
    }
    Ok(())
}

/// The next call of a connection; `None` when the other side has closed it.
fn read_call(reader: &mut BufReader<TcpStream>, connection: usize) -> io::Result<Option<Received>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let target = line.rsplit_once(' ').map_or_else(String::new, |(target, _)| target.to_owned());
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut call = Received { target, headers, body: Vec::new(), connection };
    let length = call.header("content-length").parse().unwrap_or(0);
    call.body.resize(length, 0);
    reader.read_exact(&mut call.body)?;
    Ok(Some(call))
}
