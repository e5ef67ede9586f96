//! What edges say to each other beside the requests that they forward.
//!
//! One stream carries one request, as HTTP/1.1. Whoever takes the stream says a
//! [`Greeting`] first; the request's head carries [`FORWARDED`], the answer's
//! [`ANSWERED`].
//!
//! A stream of another kind carries a service's connection. Its head is a
//! [`Link`]; a welcome is followed by one byte, [`LINKED`] once a replica took the
//! connection, and by what the replica says.
//!
//! Layout of a greeting: `[u8 version][u8 word]`. All fields are
//! `KEY=VALUE` parted by `; `; unknown keys are passed over, so that a later
//! version may add some.
//! Holds: no text makes a parser panic; a field's size has a bound.

use kernel::{NodeId, ReplicaId};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

pub const VERSION: u8 = 1;
/// Fields whose names begin so are between edges only: those of clients and
/// replicas are removed.
pub const PREFIX: &str = "homeostat-";
pub const FORWARDED: &str = "homeostat-forwarded";
pub const ANSWERED: &str = "homeostat-answered";
pub const GREETING_BYTES: usize = 2;
/// More than any way has.
const VIA_MAX: usize = 16;

/// Said at once, before the request is read: whoever hears it knows that the
/// node lives, and when it is not [`Greeting::Welcome`], that nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Welcome,
    /// It is about to end; another one comes in its place.
    Leaving,
    Full,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    #[error("peer version {found}, this edge speaks {VERSION}")]
    Version { found: u8 },
    #[error("{0} is no greeting")]
    Greeting(u8),
    #[error("`{0}` is missing or cannot be read")]
    Field(&'static str),
}

impl Greeting {
    pub fn encode(self) -> [u8; GREETING_BYTES] {
        let word = match self {
            Self::Welcome => 0,
            Self::Leaving => 1,
            Self::Full => 2,
        };
        [VERSION, word]
    }

    pub fn decode(bytes: [u8; GREETING_BYTES]) -> Result<Self, PeerError> {
        match bytes {
            [VERSION, 0] => Ok(Self::Welcome),
            [VERSION, 1] => Ok(Self::Leaving),
            [VERSION, 2] => Ok(Self::Full),
            [VERSION, word] => Err(PeerError::Greeting(word)),
            [found, _] => Err(PeerError::Version { found }),
        }
    }
}

/// What the edge that asks knows of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Edges on its way so far, the client's first, the sender last.
    pub via: Vec<NodeId>,
    /// Of the request's deadline; sent as whole milliseconds.
    pub left: Duration,
    /// Wanted; another of its service does as well.
    pub replica: ReplicaId,
    pub client: IpAddr,
    /// Whether the client came over TLS.
    pub tls: bool,
    /// The same on the whole way.
    pub request: u64,
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("via=")?;
        for (at, node) in self.via.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{node}")?;
        }
        let left = self.left.as_millis();
        let (replica, client, tls) = (&self.replica, self.client, u8::from(self.tls));
        write!(
            f,
            "; left_ms={left}; replica={replica}; client={client}; tls={tls}; "
        )?;
        write!(f, "request={:016x}", self.request)
    }
}

impl FromStr for Forwarded {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let via = value(text, "via")?.split(',').map(node);
        let via: Option<Vec<NodeId>> = via.take(VIA_MAX + 1).collect();
        let via = via.filter(|via| via.len() <= VIA_MAX);
        Ok(Self {
            via: via.ok_or(PeerError::Field("via"))?,
            left: Duration::from_millis(parsed::<u32>(text, "left_ms")?.into()),
            replica: parsed(text, "replica")?,
            client: parsed(text, "client")?,
            tls: match value(text, "tls")? {
                "0" => false,
                "1" => true,
                _ => return Err(PeerError::Field("tls")),
            },
            request: hex(value(text, "request")?).ok_or(PeerError::Field("request"))?,
        })
    }
}

/// After the greeting: a replica has the connection. Any other byte: none took it.
pub const LINKED: u8 = 1;
pub const NOT_LINKED: u8 = 0;

/// A connection that is wanted to a service's replica on the edge's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Wanted; another of its service does as well.
    pub replica: ReplicaId,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica={}", self.replica)
    }
}

impl FromStr for Link {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        let replica = parsed(text, "replica")?;
        Ok(Self { replica })
    }
}

/// What the edge that was asked says of its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Where it comes from: that edge may have asked another one in turn.
    By {
        node: NodeId,
        replica: Option<ReplicaId>,
    },
    /// No replica saw the request: it may go elsewhere.
    Refused,
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By { node, replica } => {
                write!(f, "node={node}")?;
                let Some(replica) = replica else {
                    return Ok(());
                };
                write!(f, "; replica={replica}")
            }
            Self::Refused => f.write_str("refused=1"),
        }
    }
}

impl FromStr for Answered {
    type Err = PeerError;

    fn from_str(text: &str) -> Result<Self, PeerError> {
        if value(text, "refused").is_ok() {
            return Ok(Self::Refused);
        }
        let answering = node(value(text, "node")?).ok_or(PeerError::Field("node"))?;
        let replica = match value(text, "replica") {
            Ok(_) => Some(parsed(text, "replica")?),
            Err(_) => None,
        };
        Ok(Self::By {
            node: answering,
            replica,
        })
    }
}

fn value<'a>(text: &'a str, key: &'static str) -> Result<&'a str, PeerError> {
    text.split("; ")
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(name, value)| (name == key).then_some(value))
        .ok_or(PeerError::Field(key))
}

fn parsed<T: FromStr>(text: &str, key: &'static str) -> Result<T, PeerError> {
    value(text, key)?.parse().map_err(|_| PeerError::Field(key))
}

fn node(text: &str) -> Option<NodeId> {
    hex(text).map(NodeId)
}

/// Exactly as it is written: one number has one text.
fn hex(text: &str) -> Option<u64> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 16 || !text.bytes().all(plain) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forwarded() -> Forwarded {
        Forwarded {
            via: vec![NodeId(1), NodeId(0xabc)],
            left: Duration::from_millis(4988),
            replica: "news.app-g12-0".parse().expect("a replica"),
            client: IpAddr::from([192, 0, 2, 7]),
            tls: true,
            request: 0x1234_5678_9abc_def0,
        }
    }

    #[test]
    fn golden_fields_of_version_1() {
        let text = forwarded().to_string();
        insta::assert_snapshot!(text, @"via=0000000000000001,0000000000000abc; left_ms=4988; replica=news.app-g12-0; client=192.0.2.7; tls=1; request=123456789abcdef0");
        assert_eq!(text.parse(), Ok(forwarded()));
        let by = Answered::By {
            node: NodeId(2),
            replica: "news.app-g12-1".parse().ok(),
        };
        insta::assert_snapshot!(by, @"node=0000000000000002; replica=news.app-g12-1");
        insta::assert_snapshot!(Answered::Refused, @"refused=1");
        for answered in [by, Answered::Refused] {
            assert_eq!(answered.to_string().parse(), Ok(answered));
        }
    }

    #[test]
    fn golden_head_of_a_link() {
        let replica = "news.db-g12-0".parse().expect("a replica");
        let link = Link { replica };
        insta::assert_snapshot!(link, @"replica=news.db-g12-0");
        assert_eq!(format!("colour=red; {link}").parse(), Ok(link));
        assert_eq!("replica=".parse::<Link>(), Err(PeerError::Field("replica")));
    }

    #[test]
    fn golden_greetings_of_version_1() {
        let all = [Greeting::Welcome, Greeting::Leaving, Greeting::Full];
        assert_eq!(all.map(Greeting::encode), [[1, 0], [1, 1], [1, 2]]);
        for greeting in all {
            assert_eq!(Greeting::decode(greeting.encode()), Ok(greeting));
        }
        let error = Greeting::decode([2, 0]).expect_err("another version");
        assert_eq!(error.to_string(), "peer version 2, this edge speaks 1");
        assert_eq!(Greeting::decode([1, 9]), Err(PeerError::Greeting(9)));
    }

    #[test]
    fn key_of_a_later_version_is_passed_over() {
        let text = format!("colour=red; {}; more", forwarded());
        assert_eq!(text.parse(), Ok(forwarded()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let good = forwarded().to_string();
        for (from, to, field) in [
            ("via=", "vie=", "via"),
            ("0000000000000001,", "1,", "via"),
            ("0000000000000001,", "+000000000000001,", "via"),
            ("4988", "-1", "left_ms"),
            ("192.0.2.7", "x", "client"),
            ("tls=1", "tls=2", "tls"),
            ("1234", "123", "request"),
        ] {
            let error = good.replace(from, to).parse::<Forwarded>();
            assert_eq!(error, Err(PeerError::Field(field)), "{from} {to}");
        }
        let long = format!("via={},", "0000000000000001,".repeat(VIA_MAX));
        let error = good.replace("via=", &long).parse::<Forwarded>();
        assert_eq!(error, Err(PeerError::Field("via")));
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text: String) {
            let _ = text.parse::<Forwarded>();
            let _ = text.parse::<Answered>();
            let _ = text.parse::<Link>();
        }
    }
}
