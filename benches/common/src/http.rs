//! A small HTTP/1.1 client for checks and for the time until a first answer.
//!
//! Never: is used where throughput is measured.

use crate::Failure;
use crate::ask::Ask;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub struct Connection {
    stream: TcpStream,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream })
    }

    pub fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.ask(&Ask::new(path, 0))
    }

    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        self.stream.write_all(&ask.request())?;
        let mut came = Vec::new();
        let mut buffer = vec![0; 32 << 10];
        loop {
            match self.stream.read(&mut buffer)? {
                0 => return Err("the connection ended within the answer".into()),
                count => came.extend_from_slice(&buffer[..count]),
            }
            if let Some(head) = Head::parse(&came)
                && let Some(body) = head.body(&came)?
            {
                return Ok(Answer {
                    status: head.status,
                    body: body.concat(),
                });
            }
        }
    }
}

/// How an answer says where it ends; one that ends with its connection is not
/// understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunks,
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head itself.
    pub end: usize,
    pub status: u16,
    pub framing: Framing,
}

impl Head {
    /// Reads it from the front of what came; none while it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let status = str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        let framing = bytes[..end].split(|byte| *byte == b'\n').find_map(|line| {
            if let Some(value) = value(line, b"content-length:") {
                return value.parse().ok().map(Framing::Length);
            }
            let coding = value(line, b"transfer-encoding:")?;
            coding
                .eq_ignore_ascii_case("chunked")
                .then_some(Framing::Chunks)
        })?;
        Some(Self {
            end,
            status,
            framing,
        })
    }

    /// The pieces of the body of an answer that begins with this head; none
    /// while it is not whole.
    pub fn body<'a>(&self, bytes: &'a [u8]) -> Result<Option<Vec<&'a [u8]>>, Failure> {
        let rest = &bytes[self.end..];
        match self.framing {
            Framing::Length(length) => Ok(rest.get(..length).map(|body| vec![body])),
            Framing::Chunks => chunks(rest),
        }
    }
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let (found, value) = line.split_at_checked(name.len())?;
    let is_named = found.eq_ignore_ascii_case(name);
    is_named.then(|| str::from_utf8(value).ok().map(str::trim))?
}

/// Without trailers, which no server here sends.
fn chunks(mut rest: &[u8]) -> Result<Option<Vec<&[u8]>>, Failure> {
    let mut pieces = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let size = usize::from_str_radix(str::from_utf8(&rest[..end])?, 16)?;
        rest = &rest[end + 2..];
        let Some((piece, after)) = rest.split_at_checked(size) else {
            return Ok(None);
        };
        match after.split_at_checked(2) {
            None => return Ok(None),
            Some((b"\r\n", after)) => rest = after,
            Some(_) => return Err("a chunk does not end where it said".into()),
        }
        if size == 0 {
            return Ok(Some(pieces));
        }
        pieces.push(piece);
    }
}

/// One whole good answer on a connection of its own.
pub fn answers(address: SocketAddr, path: &str) -> bool {
    let answer = Connection::open(address).and_then(|mut connection| connection.get(path));
    answer.is_ok_and(|answer| answer.status == 200 && !answer.body.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let text = b"HTTP/1.1 206 Partial\r\nServer: x\r\nContent-Length: 12\r\n\r\nbody";
        let head = Head::parse(text).expect("whole");
        assert_eq!((head.status, head.framing), (206, Framing::Length(12)));
        assert_eq!(&text[head.end..], b"body");
        assert_eq!(Head::parse(&text[..40]), None);
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }

    #[test]
    fn a_body_is_whole_with_its_last_byte_however_it_is_framed() {
        let plain = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".as_slice();
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        for text in [plain, chunked] {
            let head = Head::parse(text).expect("whole");
            let body = head.body(text).expect("well formed").expect("whole");
            assert_eq!(body.concat(), b"hello");
            for end in head.end..text.len() {
                assert_eq!(head.body(&text[..end]).expect("well formed"), None);
            }
        }
    }

    #[test]
    fn a_malformed_chunk_is_an_error_and_no_endless_wait() {
        for body in ["x\r\nhello", "2\r\nhello\r\n"] {
            let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
            let head = Head::parse(text.as_bytes()).expect("whole");
            assert!(head.body(text.as_bytes()).is_err(), "{body}");
        }
    }
}
