//! A zone's row: who says it, of what, and by whose signature.
//!
//! Layout: `[version][zone][stamp][flags][contacts][coverage][issued][inputs]
//! [anchor][beats][attributes][signature]`; numbers are LEB128, ids and hashes fixed.
//! Holds: the signature covers every byte before it.

use super::{
    ATTRIBUTES_BYTES_MAX, BEATS_MAX, CONTACTS_MAX, Digest, EPOCH_MAX, ROW_BYTES_MAX,
    SIGNATURE_BYTES, Signature, TreeError, VERSION, count, parts,
};
use crate::compact::{Reader, put, put_piece};
use kernel::{NodeId, UnixMillis, ZonePath, fnv1a};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

const ENDED: u8 = 1;

/// A zone's short name. Whoever receives one compares whole names once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneKey(pub u64);

impl ZoneKey {
    pub fn of(zone: &ZonePath) -> Self {
        Self::of_text(&zone.to_string())
    }

    fn of_text(text: &str) -> Self {
        Self(fnv1a(text.bytes()))
    }
}

/// Of two rows of a zone, that with the larger one prevails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// One more with each node that takes over.
    pub epoch: u64,
    /// Counts that node's rows.
    pub number: u32,
    pub issuer: NodeId,
}

/// As people pass it on: `epoch.number.issuer`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.number, self.issuer.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stamp is written `epoch.number.issuer`, three numbers; of the root `child@stamp,…`")]
pub struct StampError;

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        let mut parts = text.splitn(3, '.');
        let mut number = || {
            let part = parts.next().ok_or(StampError)?;
            part.parse::<u64>().map_err(|_| StampError)
        };
        Ok(Self {
            epoch: number()?,
            number: number()?.try_into().map_err(|_| StampError)?,
            issuer: NodeId(number()?),
        })
    }
}

/// A node that speaks for a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Contact {
    pub node: NodeId,
    pub address: SocketAddr,
}

/// How much of a zone is in its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Nodes that belong.
    pub expected: u64,
    /// Nodes whose rows are in it.
    pub reporting: u64,
    /// How old the oldest input was when the row was issued.
    pub oldest_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Never the root.
    pub zone: ZonePath,
    pub stamp: Stamp,
    /// The zone has been ended on purpose.
    pub ended: bool,
    /// Its representatives, who leads first.
    pub contacts: Vec<Contact>,
    pub coverage: Coverage,
    /// By its issuer's wall clock: `NOW()` of its programs and nothing else.
    pub issued_at: UnixMillis,
    /// Over what it was computed from, and by which programs.
    pub inputs: Digest,
    /// Where the chain of beats ends.
    pub anchor: Digest,
    /// How long that chain is.
    pub beats: u16,
    pub attributes: Vec<u8>,
}

/// A row as it was received or issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRow {
    pub row: Row,
    pub key: ZoneKey,
    bytes: Arc<[u8]>,
}

/// What is read of a row before anything else is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    pub zone: &'a str,
    pub key: ZoneKey,
    pub stamp: Stamp,
}

impl Row {
    /// What is signed.
    ///
    /// # Errors
    /// Something is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, TreeError> {
        let over = |what, bytes, max| TreeError::TooLong { what, bytes, max };
        if self.zone.depth() == 0 {
            return Err(TreeError::Zone);
        }
        let attributes = self.attributes.len();
        if attributes > ATTRIBUTES_BYTES_MAX {
            let what = "a zone's attributes";
            return Err(over(what, attributes, ATTRIBUTES_BYTES_MAX));
        }
        let wrong = |what, found| Err(TreeError::Wrong { what, found });
        if self.contacts.len() > CONTACTS_MAX {
            return wrong("a count of contacts", self.contacts.len() as u64);
        }
        if self.beats > BEATS_MAX {
            return wrong("a count of beats", self.beats.into());
        }
        if self.stamp.epoch > EPOCH_MAX {
            return wrong("an epoch", self.stamp.epoch);
        }
        let mut bytes = Vec::with_capacity(200 + attributes + SIGNATURE_BYTES);
        bytes.push(VERSION);
        put_piece(&mut bytes, self.zone.to_string().as_bytes());
        put_stamp(&mut bytes, self.stamp);
        bytes.push(u8::from(self.ended));
        put(&mut bytes, self.contacts.len() as u64);
        for contact in &self.contacts {
            put_contact(&mut bytes, contact);
        }
        put(&mut bytes, self.coverage.expected);
        put(&mut bytes, self.coverage.reporting);
        put(&mut bytes, self.coverage.oldest_ms);
        put(&mut bytes, self.issued_at.0);
        bytes.extend_from_slice(&self.inputs);
        bytes.extend_from_slice(&self.anchor);
        put(&mut bytes, self.beats.into());
        put_piece(&mut bytes, &self.attributes);
        match bytes.len() + SIGNATURE_BYTES {
            bytes if bytes > ROW_BYTES_MAX => Err(over("a zone's row", bytes, ROW_BYTES_MAX)),
            _ => Ok(bytes),
        }
    }
}

impl SignedRow {
    /// `encoded` is what [`Row::encode`] gave.
    pub fn new(row: Row, mut encoded: Vec<u8>, signature: &Signature) -> Self {
        encoded.extend_from_slice(signature);
        let key = ZoneKey::of(&row.zone);
        let bytes = encoded.into();
        Self { row, key, bytes }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let mut reader = Reader::new(bytes);
        let head = read_head(&mut reader, bytes.len())?;
        let zone: ZonePath = head.zone.parse().map_err(|_| TreeError::Zone)?;
        let flags = reader.byte()?;
        if flags > ENDED {
            let found = flags.into();
            return Err(TreeError::Wrong {
                what: "a row's flags",
                found,
            });
        }
        let contacts = count(&mut reader, "a count of contacts", CONTACTS_MAX)?;
        let contacts = (0..contacts).map(|_| read_contact(&mut reader));
        let contacts = contacts.collect::<Result<_, _>>()?;
        let coverage = Coverage {
            expected: reader.number()?,
            reporting: reader.number()?,
            oldest_ms: reader.number()?,
        };
        let issued_at = UnixMillis(reader.number()?);
        let (inputs, anchor) = (reader.array()?, reader.array()?);
        let beats = count(&mut reader, "a count of beats", BEATS_MAX.into())?;
        let length = count(&mut reader, "a length of attributes", ATTRIBUTES_BYTES_MAX)?;
        let attributes = reader.take(length)?.to_vec();
        if reader.left() != SIGNATURE_BYTES {
            return Err(TreeError::Cut);
        }
        let row = Row {
            zone,
            stamp: head.stamp,
            ended: flags == ENDED,
            contacts,
            coverage,
            issued_at,
            inputs,
            anchor,
            beats: u16::try_from(beats).unwrap_or(BEATS_MAX),
            attributes,
        };
        Ok(Self {
            row,
            key: head.key,
            bytes: bytes.into(),
        })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn signed(&self) -> &[u8] {
        parts(&self.bytes).0
    }

    pub fn signature(&self) -> Signature {
        parts(&self.bytes).1
    }
}

/// The zone and the stamp, without the rest.
pub fn head(bytes: &[u8]) -> Result<Head<'_>, TreeError> {
    read_head(&mut Reader::new(bytes), bytes.len())
}

fn read_head<'a>(reader: &mut Reader<'a>, bytes: usize) -> Result<Head<'a>, TreeError> {
    if bytes > ROW_BYTES_MAX {
        return Err(TreeError::TooLong {
            what: "a zone's row",
            bytes,
            max: ROW_BYTES_MAX,
        });
    }
    let version = reader.byte()?;
    if version != VERSION {
        return Err(TreeError::Version { found: version });
    }
    // Eight names of 63 letters, and what parts them.
    let length = count(reader, "a length of a zone's name", 8 * 64)?;
    let zone = std::str::from_utf8(reader.take(length)?).map_err(|_| TreeError::Zone)?;
    if zone.len() < 2 {
        return Err(TreeError::Zone);
    }
    let stamp = read_stamp(reader)?;
    Ok(Head {
        zone,
        key: ZoneKey::of_text(zone),
        stamp,
    })
}

pub(super) fn put_stamp(bytes: &mut Vec<u8>, stamp: Stamp) {
    put(bytes, stamp.epoch);
    put(bytes, stamp.number.into());
    bytes.extend_from_slice(&stamp.issuer.0.to_be_bytes());
}

pub(super) fn read_stamp(reader: &mut Reader) -> Result<Stamp, TreeError> {
    let (epoch, number) = (reader.number()?, reader.number()?);
    if epoch > EPOCH_MAX {
        return Err(TreeError::Wrong {
            what: "an epoch",
            found: epoch,
        });
    }
    Ok(Stamp {
        epoch,
        number: u32::try_from(number).map_err(|_| TreeError::Wrong {
            what: "a number of a row",
            found: number,
        })?,
        issuer: NodeId(reader.eight()?),
    })
}

fn put_contact(bytes: &mut Vec<u8>, contact: &Contact) {
    bytes.extend_from_slice(&contact.node.0.to_be_bytes());
    match contact.address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&contact.address.port().to_be_bytes());
}

fn read_contact(reader: &mut Reader) -> Result<Contact, TreeError> {
    let node = NodeId(reader.eight()?);
    let ip: IpAddr = match reader.byte()? {
        4 => reader.array::<4>()?.into(),
        6 => reader.array::<16>()?.into(),
        other => {
            return Err(TreeError::Wrong {
                what: "a kind of address",
                found: other.into(),
            });
        }
    };
    let port = u16::from_be_bytes(reader.array()?);
    let address = SocketAddr::new(ip, port);
    Ok(Contact { node, address })
}
