//! HTTP/1.1 as bytes on a socket: tests decide what is sent, down to the last byte, and on which connection.
//!
//! It blocks, retries nothing and judges nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

/// An answer that takes longer than this is no answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// A request about to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// Any method.
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// GET.
    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// POST.
    pub fn post(path: &str) -> Self {
        Self::new("POST", path)
    }

    /// Sets a header; an earlier one of the name is replaced.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a header away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Sets a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string().as_bytes())
    }

    /// Sets a body that says that it is JSON, whatever it is.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self = self.header("content-type", "application/json");
        self.body = body.to_vec();
        self
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: doorbuster.test\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").bytes());
        }
        if !self.body.is_empty() {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }

    /// Sends it over a connection of its own; an error means that the outcome is unknown, unless nobody listened.
    pub fn try_send(&self, to: SocketAddr) -> io::Result<Reply> {
        Connection::open(to)?.ask(self)
    }

    /// Sends it over a connection of its own.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub fn send(&self, to: SocketAddr) -> Reply {
        self.try_send(to).unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.path))
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A text field of the JSON body; empty when it is not there.
    pub fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_default().to_owned()
    }

    /// What it says: the status of a purchase, or the code of a refusal.
    pub fn code(&self) -> String {
        let json = self.json();
        let field = if self.status < 300 { "status" } else { "code" };
        json[field].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts the status and what it says; gives itself back.
    #[track_caller]
    pub fn is(self, status: u16, code: &str) -> Self {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// One connection.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&to, ANSWER_TIME_MAX)?)
    }

    fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Connects from that address of this machine.
    pub fn open_from(from: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&to.into(), ANSWER_TIME_MAX)?;
        Self::of(socket.into())
    }

    /// Sends a request and reads the whole answer; the connection can be used again.
    pub fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.send(&request.bytes())?;
        self.receive(request.method == "HEAD")
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Ends this side's half of the connection; answers still arrive.
    pub fn say_no_more(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// Reads one answer; that to a HEAD request has no body.
    pub fn receive(&mut self, to_head: bool) -> io::Result<Reply> {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more()?;
        };
        let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, head.clone()))?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length =
            headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
        let whole = end + if to_head { 0 } else { length.unwrap_or(0) };
        while self.unread.len() < whole {
            self.read_more()?;
        }
        let rest = self.unread.split_off(whole);
        let body = std::mem::replace(&mut self.unread, rest).split_off(end);
        Ok(Reply { status, headers, body })
    }

    /// Waits until the other side has closed the connection; an answer before that is read over.
    pub fn read_to_end(&mut self) -> io::Result<()> {
        loop {
            match self.read_more() {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Err(error),
                // A reset ends a connection as well as a polite goodbye.
                Err(_) => return Ok(()),
            }
        }
    }

    fn read_more(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        let read = self.stream.read(&mut bytes)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend(&bytes[..read]);
        Ok(())
    }
}
