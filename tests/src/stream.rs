//! A stream of events as a browser reads it: chunks put together, comments left out.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::Request;

/// A stream that says nothing for longer than this, not even a comment, is none.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about.
    pub name: String,
    /// The chain's place.
    pub id: u64,
    /// Its data.
    pub data: Value,
}

/// An open stream.
pub struct Events {
    reader: BufReader<TcpStream>,
    text: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// What it said about trying again.
    pub retry_milliseconds: u64,
}

impl Events {
    /// Opens the stream at this path.
    ///
    /// # Panics
    /// When it is refused.
    pub fn open(to: SocketAddr, path: &str) -> Self {
        Self::begin(TcpStream::connect(to).expect("the server listens"), path)
    }

    /// The same with hardly any room on the way for what is not read.
    ///
    /// # Panics
    /// When it is refused.
    pub fn open_narrow(to: SocketAddr, path: &str) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket can be made");
        socket.set_recv_buffer_size(1_024).expect("its room can be set");
        // The other side's room follows from the size of a segment.
        socket.set_tcp_mss(536).expect("a segment's size can be set");
        socket.connect(&to.into()).expect("the server listens");
        Self::begin(socket.into(), path)
    }

    fn begin(mut stream: TcpStream, path: &str) -> Self {
        stream.set_read_timeout(Some(SILENCE_MAX)).expect("a socket takes a time-out");
        stream.write_all(&Request::get(path).bytes()).expect("the server reads");
        let mut events =
            Self { reader: BufReader::new(stream), text: String::new(), headers: Vec::new(), retry_milliseconds: 0 };
        let status = events.line().expect("an answer");
        assert!(status.starts_with("HTTP/1.1 200 "), "{path}: {status}");
        while let Some((name, value)) = events.line().expect("headers").split_once(':') {
            events.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        events
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The next event; `None` when the stream has ended in good order.
    ///
    /// # Panics
    /// When it breaks off or says nothing for too long.
    pub fn next_event(&mut self) -> Option<Event> {
        self.try_next().expect("a stream ends in good order")
    }

    /// The same; an error when it breaks off.
    pub fn try_next(&mut self) -> io::Result<Option<Event>> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = self.read(&block) {
                    return Ok(Some(event));
                }
            }
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| io::Error::new(ErrorKind::InvalidData, size))?;
            let mut chunk = vec![0; size];
            self.reader.read_exact(&mut chunk)?;
            self.line()?;
            if size == 0 {
                return Ok(None);
            }
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
    }

    /// Reads to the end, and gives the events on the way.
    pub fn rest(mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.next_event()).collect()
    }

    fn read(&mut self, block: &str) -> Option<Event> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if let Some(retry) = field("retry") {
            self.retry_milliseconds = retry.parse().expect("a number of milliseconds");
        }
        let data = serde_json::from_str(field("data")?).expect("data is JSON");
        let id = field("id").and_then(|id| id.parse().ok()).expect("an id is a place of the chain");
        Some(Event { name: field("event").expect("an event has a name").to_owned(), id, data })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
