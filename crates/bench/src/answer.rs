//! HTTP answers as far as a client that only counts them needs to read them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// One whole answer at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of line and headers, the empty line included.
    pub(crate) head: usize,
    /// Bytes of all of it.
    pub(crate) length: usize,
}

/// Reads the answer that begins at `bytes`; `None` while some of it is missing or when it is none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let mut rest = bytes;
    let mut body = None;
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.len() <= 1 {
            break;
        }
        // "content-length: " has 16 bytes; few lines begin with a c of that length.
        if line.len() > 16 && line[0] | 0x20 == b'c' && line[..15].eq_ignore_ascii_case(b"content-length:") {
            body = std::str::from_utf8(&line[15..]).ok()?.trim().parse::<usize>().ok();
        }
    }
    let head = bytes.len() - rest.len();
    let length = head + body?;
    (bytes.len() >= length).then_some(Answer { status, head, length })
}

/// Sends one request and gives the whole answer with its bytes.
pub(crate) fn fetch(address: SocketAddr, request: &[u8]) -> anyhow::Result<(Answer, Vec<u8>)> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("no server at {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        if let Some(answer) = parse(&bytes) {
            bytes.truncate(answer.length);
            return Ok((answer, bytes));
        }
        match stream.read(&mut piece)? {
            0 => bail!("the server closed the connection: {}", String::from_utf8_lossy(&bytes)),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, parse};

    #[test]
    fn an_answer_is_read_only_when_all_of_it_is_there() {
        let bytes = b"HTTP/1.1 409 Conflict\r\nContent-Type: text/plain\r\ncontent-length: 3\r\n\r\nabcHTTP";
        let head = bytes.len() - 7;
        assert_eq!(parse(bytes), Some(Answer { status: 409, head, length: head + 3 }));
        for end in 0..head + 3 {
            assert_eq!(parse(&bytes[..end]), None, "{end} bytes");
        }
    }
}
