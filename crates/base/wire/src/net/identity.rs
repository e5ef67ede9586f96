//! Who a node is, as its certificate says it.
//!
//! As text `homeostat://CLUSTER/agent/NODE/eu/1`: the cluster as 32 hex digits,
//! the node as 16, then the zone's names; the root zone adds nothing.
//! Holds: one identity has one text; whatever differs from it is refused.

use kernel::{Hash, NodeId, ZonePath};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "homeostat://";
/// The longest text: eight names of 63 characters and what stands before them.
pub const URI_BYTES_MAX: usize = SCHEME.len() + 32 + 1 + 5 + 1 + 16 + ZonePath::DEPTH_MAX * 64;

/// The cluster: the first half of its root certificate's hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    pub fn of_root(root: Hash) -> Self {
        let (half, _) = root.0.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        Self(*half)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let digits = lower_hex(text, 32).ok_or(IdentityError::Cluster)?;
        u128::from_str_radix(digits, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| IdentityError::Cluster)
    }
}

/// What the holder may do: an edge carries requests and chunks to and from
/// other edges, and never stands in for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Agent,
    Edge,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Edge => "edge",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    pub cluster: ClusterId,
    pub kind: Kind,
    pub node: NodeId,
    pub zone: ZonePath,
    /// BLAKE3 of the holder's public key, 32 bytes of Ed25519.
    pub key: Hash,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    #[error("an identity begins with `{SCHEME}`")]
    Scheme,
    #[error("an identity has at most {URI_BYTES_MAX} characters, this one {0}")]
    TooLong(usize),
    #[error("an identity's cluster is 32 lower-case hex digits")]
    Cluster,
    #[error("an identity is of an `agent` or of an `edge`")]
    Kind,
    #[error("an identity's node is 16 lower-case hex digits")]
    Node,
    #[error("an identity's zone cannot be read")]
    Zone,
}

impl Identity {
    pub fn to_uri(&self) -> String {
        let Self {
            cluster,
            kind,
            node,
            zone,
            ..
        } = self;
        let zone = zone.to_string();
        let zone = zone.strip_suffix('/').unwrap_or(&zone);
        format!("{SCHEME}{cluster}/{kind}/{node}{zone}")
    }

    /// Reads the text of a certificate whose key has the hash `key`.
    pub fn parse_uri(text: &str, key: Hash) -> Result<Self, IdentityError> {
        if text.len() > URI_BYTES_MAX {
            return Err(IdentityError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdentityError::Scheme)?;
        let (cluster, rest) = rest.split_once('/').ok_or(IdentityError::Cluster)?;
        let cluster = cluster.parse()?;
        let (kind, rest) = rest.split_once('/').ok_or(IdentityError::Kind)?;
        let kind = match kind {
            "agent" => Kind::Agent,
            "edge" => Kind::Edge,
            _ => return Err(IdentityError::Kind),
        };
        let (node, zone) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let digits = lower_hex(node, 16).ok_or(IdentityError::Node)?;
        let node = u64::from_str_radix(digits, 16).map_err(|_| IdentityError::Node)?;
        let zone = match zone {
            "" => ZonePath::root(),
            // The root zone has no text of its own here.
            "/" => return Err(IdentityError::Zone),
            path => path.parse().map_err(|_| IdentityError::Zone)?,
        };
        Ok(Self {
            cluster,
            kind,
            node: NodeId(node),
            zone,
            key,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.node)
    }
}

fn lower_hex(text: &str, digits: usize) -> Option<&str> {
    let fits = text.len() == digits
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    fits.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> Hash {
        Hash([7; 32])
    }

    #[test]
    fn golden_text_of_an_identity() {
        let identity = Identity {
            cluster: ClusterId([0xc1; 16]),
            kind: Kind::Edge,
            node: NodeId(0x2a),
            zone: "/eu/1".parse().expect("a zone"),
            key: key(),
        };
        let text = "homeostat://c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1/edge/000000000000002a/eu/1";
        assert_eq!(identity.to_uri(), text);
        assert_eq!(Identity::parse_uri(text, key()), Ok(identity));
    }

    #[test]
    fn what_is_not_the_one_text_is_refused() {
        let good = "homeostat://c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1/agent/000000000000002a";
        assert!(Identity::parse_uri(good, key()).is_ok());
        for wrong in [
            good.replace("homeostat", "Homeostat"),
            good.replace("c1c1/", "C1C1/"),
            good.replace("c1c1/", "c1/"),
            good.replace("agent", "Agent"),
            good.replace("agent", "edge "),
            good.replace("2a", "2A"),
            good.replace("00002a", "2a"),
            good.replace("000000000000002a", "+00000000000002a"),
            format!("{good}/"),
            format!("{good}//eu"),
            format!("{good}/eu/"),
            format!("{good}/EU"),
            format!("{good}/eu?x"),
            format!("{good}/eu\0"),
            format!("{good}/eu/../us"),
            format!("{good}/a/b/c/d/e/f/g/h/i"),
            format!(" {good}"),
            String::new(),
        ] {
            assert!(Identity::parse_uri(&wrong, key()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn identities_read_back(
            cluster: [u8; 16],
            edge: bool,
            node: u64,
            zone in "(/[a-z0-9]([a-z0-9-]{0,5}[a-z0-9])?){0,8}",
        ) {
            let zone = if zone.is_empty() { "/".to_owned() } else { zone };
            let identity = Identity {
                cluster: ClusterId(cluster),
                kind: if edge { Kind::Edge } else { Kind::Agent },
                node: NodeId(node),
                zone: zone.parse().expect("a zone"),
                key: key(),
            };
            prop_assert_eq!(Identity::parse_uri(&identity.to_uri(), key()), Ok(identity));
        }

        #[test]
        fn hostile_text_never_panics_and_what_is_read_writes_the_same(
            text in prop_oneof![
                any::<String>(),
                "(homeostat://)?[0-9a-f]{30,34}/(agent|edge|x)/[0-9a-f]{14,18}[/a-z0-9.-]{0,20}",
            ],
        ) {
            if let Ok(identity) = Identity::parse_uri(&text, key()) {
                prop_assert_eq!(identity.to_uri(), text);
            }
        }
    }
}
