//! The line a person pastes on a machine that is to join.
//!
//! Layout: `hsjoin1_` and, in base64 for addresses, `[u64 id][16 bytes secret]
//! [32 bytes hash of the root][u8 length][zone][u8 count][addresses][u32 crc32
//! of all before it]`, an address being `4` or `6`, the address and its port.
//! Holds: a token with a slip in it is refused before any machine is called.
//! Never: shows its secret but in the line itself.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Hash, ZonePath};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub const PREFIX: &str = "hsjoin1_";
pub const ADDRESSES_MAX: usize = 16;
/// A longer line is refused unread.
pub const TEXT_BYTES_MAX: usize = 1_400;

/// Names a token in the store and in logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenId(pub u64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub id: TokenId,
    pub secret: [u8; 16],
    /// Hash of the root certificate: who answers must be of this cluster.
    pub root: Hash,
    pub zone: ZonePath,
    /// Where members listen; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    #[error("a join token begins with `{PREFIX}`")]
    Prefix,
    #[error("a join token has at most {TEXT_BYTES_MAX} characters, this line {0}")]
    TooLong(usize),
    #[error("`{0}` cannot stand in a join token")]
    Character(char),
    #[error("the join token is incomplete or has a slip in it")]
    Checksum,
    #[error("the join token cannot be read")]
    Content,
}

impl TokenError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Prefix | Self::TooLong(_) | Self::Character(_) | Self::Checksum => {
                Some("copy the whole line that `homeostat token create` printed")
            }
            Self::Content => None,
        }
    }
}

impl fmt::Display for JoinToken {
    /// The line with its secret: for the person who asked for the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&self.id.0.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&self.root.0);
        let zone = self.zone.to_string();
        // A zone is 512 bytes at most: its length takes two bytes when over 254.
        match u8::try_from(zone.len()) {
            Ok(length) if length < u8::MAX => bytes.push(length),
            _ => {
                bytes.push(u8::MAX);
                let length = u16::try_from(zone.len()).unwrap_or(u16::MAX);
                bytes.extend_from_slice(&length.to_be_bytes());
            }
        }
        bytes.extend_from_slice(zone.as_bytes());
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        bytes.push(u8::try_from(addresses.len()).unwrap_or(0));
        for address in addresses {
            match address.ip() {
                IpAddr::V4(ip) => {
                    bytes.push(4);
                    bytes.extend_from_slice(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    bytes.push(6);
                    bytes.extend_from_slice(&ip.octets());
                }
            }
            bytes.extend_from_slice(&address.port().to_be_bytes());
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, {}, …)", self.id, self.zone)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Reads the line; blanks around it do not matter.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TEXT_BYTES_MAX {
            return Err(TokenError::TooLong(text.len()));
        }
        let coded = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if let Some(wrong) = coded.chars().find(|c| !allowed(c)) {
            return Err(TokenError::Character(wrong));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(coded)
            .map_err(|_| TokenError::Checksum)?;
        let (content, checksum) = bytes.split_last_chunk::<4>().ok_or(TokenError::Checksum)?;
        if crc32fast::hash(content) != u32::from_be_bytes(*checksum) {
            return Err(TokenError::Checksum);
        }
        read(content).ok_or(TokenError::Content)
    }
}

/// Cuts an array off the front.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn read(mut rest: &[u8]) -> Option<JoinToken> {
    let rest = &mut rest;
    let id = TokenId(u64::from_be_bytes(take(rest)?));
    let secret = take(rest)?;
    let root = Hash(take(rest)?);
    let [short] = take(rest)?;
    let length = match short {
        u8::MAX => match u16::from_be_bytes(take(rest)?) {
            long if long >= u16::from(u8::MAX) => long,
            _ => return None,
        },
        _ => u16::from(short),
    };
    let (zone, tail) = rest.split_at_checked(usize::from(length))?;
    *rest = tail;
    let text = std::str::from_utf8(zone).ok()?;
    let zone: ZonePath = text.parse().ok()?;
    let [count] = take(rest)?;
    if usize::from(count) > ADDRESSES_MAX {
        return None;
    }
    let mut addresses = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let ip = match take(rest)? {
            [4] => IpAddr::from(Ipv4Addr::from(take::<4>(rest)?)),
            [6] => IpAddr::from(Ipv6Addr::from(take::<16>(rest)?)),
            _ => return None,
        };
        addresses.push(SocketAddr::new(ip, u16::from_be_bytes(take(rest)?)));
    }
    rest.is_empty().then_some(JoinToken {
        id,
        secret,
        root,
        zone,
        addresses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId(0x0102_0304_0506_0708),
            secret: [9; 16],
            root: Hash([0xab; 32]),
            zone: "/eu/1".parse().expect("a zone"),
            addresses: vec![
                "192.0.2.7:7400".parse().expect("an address"),
                "[2001:db8::1]:7400".parse().expect("an address"),
            ],
        }
    }

    #[test]
    fn golden_line_of_version_1() {
        insta::assert_snapshot!(token(), @"hsjoin1_AQIDBAUGBwgJCQkJCQkJCQkJCQkJCQkJq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6sFL2V1LzECBMAAAgcc6AYgAQ24AAAAAAAAAAAAAAABHOi72ZrD");
        assert_eq!(token().to_string().parse(), Ok(token()));
    }

    #[test]
    fn a_slip_is_named() {
        let line = token().to_string();
        assert_eq!(format!("  {line}\n").parse(), Ok(token()));
        assert_eq!("".parse::<JoinToken>(), Err(TokenError::Prefix));
        assert_eq!(
            line[..line.len() - 3].parse::<JoinToken>(),
            Err(TokenError::Checksum)
        );
        assert_eq!(
            line.replacen("AQ", "AR", 1).parse::<JoinToken>(),
            Err(TokenError::Checksum)
        );
        assert_eq!(
            format!("{line} x").parse::<JoinToken>(),
            Err(TokenError::Character(' '))
        );
        assert!(!format!("{:?}", token()).contains("9, 9"));
    }

    #[test]
    fn the_longest_zone_and_all_addresses_fit() {
        let name = "a".repeat(63);
        let mut long = token();
        long.zone = format!("/{}", [name.as_str(); 8].join("/"))
            .parse()
            .expect("a zone");
        long.addresses = vec!["[2001:db8::1]:1".parse().expect("an address"); ADDRESSES_MAX];
        let line = long.to_string();
        assert!(line.len() <= TEXT_BYTES_MAX, "{}", line.len());
        assert_eq!(line.parse(), Ok(long));
    }

    proptest! {
        #[test]
        fn tokens_read_back(
            id: u64,
            secret: [u8; 16],
            root: [u8; 32],
            zone in "(/[a-z0-9]{1,9}){1,8}",
            addresses: Vec<(std::net::Ipv6Addr, u16)>,
        ) {
            let mut token = JoinToken {
                id: TokenId(id),
                secret,
                root: Hash(root),
                zone: zone.parse().expect("a zone"),
                addresses: addresses.into_iter().map(SocketAddr::from).collect(),
            };
            token.addresses.truncate(ADDRESSES_MAX);
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn hostile_text_never_panics(text in prop_oneof![any::<String>(), "hsjoin1_[A-Za-z0-9_-]{0,200}"]) {
            let _ = text.parse::<JoinToken>();
        }

        #[test]
        fn hostile_content_behind_a_good_checksum_is_the_one_text_or_refused(
            mut bytes: Vec<u8>,
        ) {
            let checksum = crc32fast::hash(&bytes);
            bytes.extend_from_slice(&checksum.to_be_bytes());
            let line = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
            if let Ok(token) = line.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), line);
            }
        }

        #[test]
        fn any_changed_character_is_noticed(at in 0_usize..120, to in "[A-Za-z0-9_-]") {
            let line = token().to_string();
            prop_assume!(at < line.len() && line[at..=at] != to);
            let changed = format!("{}{to}{}", &line[..at], &line[at + 1..]);
            prop_assert!(changed.parse::<JoinToken>().is_err());
        }
    }
}
