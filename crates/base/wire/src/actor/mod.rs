//! What host and actor say to each other, version 1: `docs/actors.md` has the
//! layout byte by byte, for actors in any language.
//!
//! In: a [`Call`]. Out: its bytes; and a [`Reply`] from an actor's bytes.
//! Holds: integers are little-endian; a byte string is a `u32` length and so
//! many bytes; nothing follows the last field.
//! Never: believes a length before the bytes are there.

pub mod checkpoint;

pub const VERSION: u8 = 1;
pub const CHANNEL_BYTES_MAX: usize = 128;
pub const HEADERS_MAX: usize = 100;

/// What an actor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Request(Request),
    /// A client's stream of a channel's events has begun.
    Joined(Change),
    /// It has ended.
    Left(Change),
}

pub type Headers = Vec<(String, Vec<u8>)>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Headers,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub channel: String,
    /// Never used twice.
    pub subscriber: u64,
    /// How many the channel has, after this change.
    pub subscribers: u32,
}

/// What an actor says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Answer {
        status: u16,
        headers: Headers,
        body: Vec<u8>,
    },
    /// The client gets the channel's events from now on.
    Subscribe { channel: String, headers: Headers },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    #[error("version {found}, this program speaks {VERSION}")]
    Version { found: u8 },
    #[error("kind {0} is not known")]
    Kind(u8),
    #[error("it ends within its {0}")]
    Short(&'static str),
    #[error("{0} bytes follow its last field")]
    Long(usize),
    #[error("{0} headers, {HEADERS_MAX} at most")]
    Headers(u32),
    #[error("its {0} is not UTF-8")]
    Text(&'static str),
    #[error("a channel's name of {0} bytes, 1 to {CHANNEL_BYTES_MAX} are right")]
    Channel(usize),
}

impl Call {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Request(request) => {
                out.push(0);
                put(&mut out, request.method.as_bytes());
                put(&mut out, request.target.as_bytes());
                put_headers(&mut out, &request.headers);
                put(&mut out, &request.body);
            }
            Self::Joined(change) => change.encode(1, &mut out),
            Self::Left(change) => change.encode(2, &mut out),
        }
        out
    }
}

impl Change {
    fn encode(&self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        put(out, self.channel.as_bytes());
        out.extend(self.subscriber.to_le_bytes());
        out.extend(self.subscribers.to_le_bytes());
    }
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(length(bytes.len()));
    out.extend_from_slice(bytes);
}

fn put_headers(out: &mut Vec<u8>, headers: &Headers) {
    out.extend(length(headers.len()));
    for (name, value) in headers {
        put(out, name.as_bytes());
        put(out, value);
    }
}

impl Reply {
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplyError> {
        let mut rest = Rest(bytes);
        let version = rest.byte("version")?;
        if version != VERSION {
            return Err(ReplyError::Version { found: version });
        }
        let reply = match rest.byte("kind")? {
            0 => Self::Answer {
                status: rest.u16("status")?,
                headers: rest.headers()?,
                body: rest.bytes("body")?.to_vec(),
            },
            1 => {
                let channel = channel(rest.bytes("channel")?)?;
                let headers = rest.headers()?;
                Self::Subscribe { channel, headers }
            }
            kind => return Err(ReplyError::Kind(kind)),
        };
        match rest.0.len() {
            0 => Ok(reply),
            more => Err(ReplyError::Long(more)),
        }
    }
}

/// A channel's name, checked.
pub fn channel(bytes: &[u8]) -> Result<String, ReplyError> {
    if bytes.is_empty() || bytes.len() > CHANNEL_BYTES_MAX {
        return Err(ReplyError::Channel(bytes.len()));
    }
    text(bytes, "channel")
}

fn text(bytes: &[u8], field: &'static str) -> Result<String, ReplyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ReplyError::Text(field))?;
    Ok(text.to_owned())
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], ReplyError> {
        let (taken, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or(ReplyError::Short(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], ReplyError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(ReplyError::Short(field))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self, field: &'static str) -> Result<u8, ReplyError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, ReplyError> {
        self.array(field).map(u16::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, ReplyError> {
        self.array(field).map(u32::from_le_bytes)
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], ReplyError> {
        let bytes = self.u32(field)?;
        self.take(usize::try_from(bytes).unwrap_or(usize::MAX), field)
    }

    fn headers(&mut self) -> Result<Headers, ReplyError> {
        let count = self.u32("headers")?;
        if usize::try_from(count).unwrap_or(usize::MAX) > HEADERS_MAX {
            return Err(ReplyError::Headers(count));
        }
        (0..count)
            .map(|_| {
                let name = text(self.bytes("header's name")?, "header's name")?;
                Ok((name, self.bytes("header's value")?.to_vec()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_calls_of_version_1() {
        let request = Call::Request(Request {
            method: "GET".to_owned(),
            target: "/a".to_owned(),
            headers: vec![("host".to_owned(), b"b".to_vec())],
            body: b"c".to_vec(),
        });
        let bytes =
            b"\x01\x00\x03\0\0\0GET\x02\0\0\0/a\x01\0\0\0\x04\0\0\0host\x01\0\0\0b\x01\0\0\0c";
        assert_eq!(request.encode(), bytes);
        let left = Call::Left(Change {
            channel: "live".to_owned(),
            subscriber: 258,
            subscribers: 3,
        });
        let bytes = b"\x01\x02\x04\0\0\0live\x02\x01\0\0\0\0\0\0\x03\0\0\0";
        assert_eq!(left.encode(), bytes);
    }

    #[test]
    fn golden_replies_of_version_1() {
        let answer = b"\x01\x00\xc9\0\x01\0\0\0\x01\0\0\0a\x01\0\0\0b\x02\0\0\0ok";
        let read = Reply::decode(answer).expect("reads");
        let expected = Reply::Answer {
            status: 201,
            headers: vec![("a".to_owned(), b"b".to_vec())],
            body: b"ok".to_vec(),
        };
        assert_eq!(read, expected);
        let subscribe = Reply::decode(b"\x01\x01\x04\0\0\0live\0\0\0\0").expect("reads");
        let expected = Reply::Subscribe {
            channel: "live".to_owned(),
            headers: Vec::new(),
        };
        assert_eq!(subscribe, expected);
        // Cut anywhere or longer than it is, a reply is refused.
        for end in 0..answer.len() {
            let error = Reply::decode(&answer[..end]).expect_err("refused");
            assert!(matches!(error, ReplyError::Short(_)), "{end}: {error}");
        }
        let longer = [&answer[..], b"x"].concat();
        assert_eq!(Reply::decode(&longer), Err(ReplyError::Long(1)));
    }

    #[test]
    fn what_is_wrong_with_a_reply_is_named() {
        let says = |bytes: &[u8]| Reply::decode(bytes).expect_err("refused").to_string();
        assert_eq!(says(b"\x02"), "version 2, this program speaks 1");
        assert_eq!(says(b"\x01\x09"), "kind 9 is not known");
        assert_eq!(says(b"\x01\x00\xc8"), "it ends within its status");
        assert_eq!(
            says(b"\x01\x00\xc8\0\xff\xff\xff\xff"),
            "4294967295 headers, 100 at most"
        );
        assert_eq!(
            says(b"\x01\x01\0\0\0\0\0\0\0\0"),
            "a channel's name of 0 bytes, 1 to 128 are right"
        );
    }

    proptest! {
        #[test]
        fn hostile_replies_never_panic(bytes: Vec<u8>) {
            let _ = Reply::decode(&bytes);
            let _ = Reply::decode(&[&[VERSION, 0][..], &bytes].concat());
            let _ = Reply::decode(&[&[VERSION, 1][..], &bytes].concat());
        }
    }
}
