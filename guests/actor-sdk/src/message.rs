//! Messages, version 1, as `docs/actors.md` lays them out.

use crate::Change;

const VERSION: u8 = 1;

/// A request, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_slice())
    }
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    channel: Option<String>,
}

impl Response {
    pub fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            channel: None,
        }
    }

    pub fn text(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::new(200)
            .header("content-type", "text/plain; charset=utf-8")
            .body(text)
    }

    pub fn json(text: impl Into<String>) -> Self {
        let text: String = text.into();
        Self::new(200)
            .header("content-type", "application/json")
            .body(text)
    }

    /// The events of `channel` (1 to 128 bytes) as they are published, until
    /// the client leaves.
    pub fn events(channel: impl Into<String>) -> Self {
        Self {
            channel: Some(channel.into()),
            ..Self::new(200)
        }
    }

    /// Lengths and connections are the host's to say.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn into_reply(self) -> Reply {
        match self.channel {
            None => Reply::Answer(self),
            Some(channel) => Reply::Subscribe(channel, self.headers),
        }
    }
}

/// An answer as it goes to the host.
pub enum Reply {
    Answer(Response),
    Subscribe(String, Vec<(String, Vec<u8>)>),
}

impl Reply {
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        match self {
            Self::Answer(answer) => {
                out.push(0);
                out.extend(answer.status.to_le_bytes());
                put_headers(out, &answer.headers);
                put(out, &answer.body);
            }
            Self::Subscribe(channel, headers) => {
                out.push(1);
                put(out, channel.as_bytes());
                put_headers(out, headers);
            }
        }
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_headers(out: &mut Vec<u8>, headers: &[(String, Vec<u8>)]) {
    out.extend((headers.len() as u32).to_le_bytes());
    for (name, value) in headers {
        put(out, name.as_bytes());
        put(out, value);
    }
}

pub(crate) enum Call {
    Request(Request),
    Joined(Change),
    Left(Change),
}

impl Call {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        if rest.array::<1>()? != [VERSION] {
            return None;
        }
        match rest.array::<1>()? {
            [0] => Some(Self::Request(Request {
                method: rest.text()?,
                target: rest.text()?,
                headers: rest.headers()?,
                body: rest.bytes()?.to_vec(),
            })),
            [1] => Some(Self::Joined(rest.change()?)),
            [2] => Some(Self::Left(rest.change()?)),
            _ => None,
        }
    }
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<String> {
        Some(String::from_utf8_lossy(self.bytes()?).into_owned())
    }

    fn headers(&mut self) -> Option<Vec<(String, Vec<u8>)>> {
        let count = self.u32()?;
        (0..count)
            .map(|_| Some((self.text()?, self.bytes()?.to_vec())))
            .collect()
    }

    fn change(&mut self) -> Option<Change> {
        Some(Change {
            channel: self.text()?,
            subscriber: self.array().map(u64::from_le_bytes)?,
            subscribers: self.u32()?,
        })
    }
}
