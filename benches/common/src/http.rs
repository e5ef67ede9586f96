//! A small HTTP/1.1 client for checks and for the time until a first answer.
//!
//! Never: is used where throughput is measured.

use crate::Failure;
use crate::ask::Ask;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(10);

pub struct Connection {
    reader: BufReader<TcpStream>,
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
        Ok(Self {
            reader: BufReader::new(stream),
        })
    }

    pub fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.ask(&Ask::new(path, 0))
    }

    pub fn ask(&mut self, ask: &Ask) -> Result<Answer, Failure> {
        self.reader.get_mut().write_all(&ask.request())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.reader.read_until(b'\n', &mut head)? == 0 {
                return Err("the connection ended within the head".into());
            }
        }
        let parsed = Head::parse(&head).ok_or("the answer's head is not understood")?;
        let mut body = vec![0; parsed.length];
        self.reader.read_exact(&mut body)?;
        Ok(Answer {
            status: parsed.status,
            body,
        })
    }
}

/// What the head of an answer says; its body must have a stated length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head itself.
    pub end: usize,
    pub status: u16,
    pub length: usize,
}

impl Head {
    /// Reads it from the front of what came; none while it is not whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let status = str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
        let length = bytes[..end].split(|byte| *byte == b'\n').find_map(|line| {
            let (name, value) = line.split_at_checked("content-length:".len())?;
            if !name.eq_ignore_ascii_case(b"content-length:") {
                return None;
            }
            str::from_utf8(value).ok()?.trim().parse().ok()
        })?;
        Some(Self {
            end,
            status,
            length,
        })
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
        assert_eq!((head.status, head.length), (206, 12));
        assert_eq!(&text[head.end..], b"body");
        assert_eq!(Head::parse(&text[..40]), None);
        assert_eq!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
