//! What goes from node to node: acknowledgements, and parts that each say one
//! thing.
//!
//! Layout: `[version][seq][acks][parts…]`; parts fill the packet to its end. An
//! age is in milliseconds: how long ago the issuer said it, by the clocks that
//! it has passed.

use super::row::{put_stamp, read_stamp};
use super::{
    ACKS_MAX, Digest, ENTRIES_MAX, NOTICE_BYTES_MAX, NOTICES_MAX, NoticeKey, PACKET_BYTES_MAX,
    PACKET_VERSION, ROW_BYTES_MAX, STREAM_BYTES_MAX, Stamp, TreeError, WANTED_MAX, ZoneKey, count,
};
use crate::compact::{Reader, put, put_piece};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// To be acknowledged, unless it is 0.
    pub seq: u32,
    /// What the sender has received.
    pub acks: Vec<u32>,
    pub parts: Vec<Part<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A signed row. Read its [`super::head`] first.
    Row {
        /// It was asked for, so nobody has told it on.
        asked: bool,
        age_ms: u64,
        bytes: &'a [u8],
    },
    Beat(Beat),
    /// Of all that the sender holds of the children of `zone`.
    Hash {
        zone: ZoneKey,
        hash: u64,
    },
    /// All children of `zone` from `low` to `high` that the sender holds.
    Stamps {
        zone: ZoneKey,
        low: ZoneKey,
        high: ZoneKey,
        entries: Vec<Entry>,
    },
    Want(Vec<ZoneKey>),
    /// A signed notice; `age_ms` since it was signed.
    Notice {
        age_ms: u64,
        bytes: &'a [u8],
    },
    /// Of all notices that the sender holds for `zone` itself.
    NoticesHash {
        zone: ZoneKey,
        hash: u64,
    },
    /// These are they.
    Notices {
        zone: ZoneKey,
        keys: Vec<NoticeKey>,
    },
    WantNotices {
        zone: ZoneKey,
        keys: Vec<NoticeKey>,
    },
}

/// The row with this epoch and number still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    pub zone: ZoneKey,
    pub epoch: u64,
    pub number: u32,
    /// How many times `proof` is hashed to give the row's anchor.
    pub beat: u16,
    pub proof: Digest,
    pub age_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub zone: ZoneKey,
    pub stamp: Stamp,
    /// The last beat known of it.
    pub beat: u16,
}

/// A packet being filled.
#[derive(Clone, Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    bare: usize,
}

impl Writer {
    /// Acknowledgements over their limit are cut.
    pub fn new(seq: u32, acks: &[u32]) -> Self {
        let acks = acks.get(..ACKS_MAX).unwrap_or(acks);
        let mut bytes = Vec::with_capacity(128);
        bytes.push(PACKET_VERSION);
        put(&mut bytes, seq.into());
        put(&mut bytes, acks.len() as u64);
        for ack in acks {
            put(&mut bytes, (*ack).into());
        }
        let bare = bytes.len();
        Self { bytes, bare }
    }

    /// Adds a part if there is room in a datagram; the first one goes in
    /// whatever its length. Lists over their limits are cut.
    pub fn push(&mut self, part: &Part) -> bool {
        let before = self.bytes.len();
        put_part(&mut self.bytes, part);
        let fits = self.bytes.len() <= PACKET_BYTES_MAX || before == self.bare;
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }

    pub fn is_bare(&self) -> bool {
        self.bytes.len() == self.bare
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn put_part(bytes: &mut Vec<u8>, part: &Part) {
    let put_key = |bytes: &mut Vec<u8>, key: ZoneKey| {
        bytes.extend_from_slice(&key.0.to_be_bytes());
    };
    match part {
        Part::Row {
            asked,
            age_ms,
            bytes: row,
        } => {
            bytes.push(u8::from(*asked));
            put(bytes, *age_ms);
            put_piece(bytes, row);
        }
        Part::Beat(beat) => {
            bytes.push(2);
            put_key(bytes, beat.zone);
            put(bytes, beat.epoch);
            put(bytes, beat.number.into());
            put(bytes, beat.beat.into());
            bytes.extend_from_slice(&beat.proof);
            put(bytes, beat.age_ms);
        }
        Part::Hash { zone, hash } => {
            bytes.push(3);
            put_key(bytes, *zone);
            bytes.extend_from_slice(&hash.to_be_bytes());
        }
        Part::Stamps {
            zone,
            low,
            high,
            entries,
        } => {
            let entries = entries.get(..ENTRIES_MAX).unwrap_or(entries);
            bytes.push(4);
            put_key(bytes, *zone);
            put_key(bytes, *low);
            put_key(bytes, *high);
            put(bytes, entries.len() as u64);
            for entry in entries {
                put_key(bytes, entry.zone);
                put_stamp(bytes, entry.stamp);
                put(bytes, entry.beat.into());
            }
        }
        Part::Want(zones) => {
            let zones = zones.get(..WANTED_MAX).unwrap_or(zones);
            bytes.push(5);
            put(bytes, zones.len() as u64);
            for zone in zones {
                put_key(bytes, *zone);
            }
        }
        Part::Notice {
            age_ms,
            bytes: notice,
        } => {
            bytes.push(6);
            put(bytes, *age_ms);
            put_piece(bytes, notice);
        }
        Part::NoticesHash { zone, hash } => {
            bytes.push(7);
            put_key(bytes, *zone);
            bytes.extend_from_slice(&hash.to_be_bytes());
        }
        Part::Notices { zone, keys } => put_notices(bytes, 8, *zone, keys),
        Part::WantNotices { zone, keys } => put_notices(bytes, 9, *zone, keys),
    }
}

fn put_notices(bytes: &mut Vec<u8>, kind: u8, zone: ZoneKey, keys: &[NoticeKey]) {
    let keys = keys.get(..NOTICES_MAX).unwrap_or(keys);
    bytes.push(kind);
    bytes.extend_from_slice(&zone.0.to_be_bytes());
    put(bytes, keys.len() as u64);
    for key in keys {
        bytes.extend_from_slice(&key.0.to_be_bytes());
    }
}

pub fn decode(bytes: &[u8]) -> Result<Packet<'_>, TreeError> {
    if bytes.len() > STREAM_BYTES_MAX {
        return Err(TreeError::TooLong {
            what: "a packet of the tree",
            bytes: bytes.len(),
            max: STREAM_BYTES_MAX,
        });
    }
    let mut reader = Reader::new(bytes);
    let version = reader.byte()?;
    if version != PACKET_VERSION {
        return Err(TreeError::Version { found: version });
    }
    let seq = small(&mut reader, "a number of a packet")?;
    let acks = count(&mut reader, "a count of acknowledgements", ACKS_MAX)?;
    let acks = (0..acks).map(|_| small(&mut reader, "a number of a packet"));
    let acks = acks.collect::<Result<_, _>>()?;
    let mut parts = Vec::new();
    while !reader.is_empty() {
        parts.push(read_part(&mut reader)?);
    }
    Ok(Packet { seq, acks, parts })
}

fn read_part<'a>(reader: &mut Reader<'a>) -> Result<Part<'a>, TreeError> {
    let kind = reader.byte()?;
    Ok(match kind {
        0 | 1 => {
            let age_ms = reader.number()?;
            let length = count(reader, "a length of a row", ROW_BYTES_MAX)?;
            Part::Row {
                asked: kind == 1,
                age_ms,
                bytes: reader.take(length)?,
            }
        }
        2 => Part::Beat(read_beat(reader)?),
        3 => Part::Hash {
            zone: key(reader)?,
            hash: reader.eight()?,
        },
        4 => {
            let (zone, low, high) = (key(reader)?, key(reader)?, key(reader)?);
            let count = count(reader, "a count of stamps", ENTRIES_MAX)?;
            let entries = (0..count).map(|_| {
                Ok(Entry {
                    zone: key(reader)?,
                    stamp: read_stamp(reader)?,
                    beat: beat(reader)?,
                })
            });
            let entries = entries.collect::<Result<_, TreeError>>()?;
            Part::Stamps {
                zone,
                low,
                high,
                entries,
            }
        }
        5 => {
            let count = count(reader, "a count of wanted zones", WANTED_MAX)?;
            Part::Want((0..count).map(|_| key(reader)).collect::<Result<_, _>>()?)
        }
        6 => {
            let age_ms = reader.number()?;
            let length = count(reader, "a length of a notice", NOTICE_BYTES_MAX)?;
            let bytes = reader.take(length)?;
            Part::Notice { age_ms, bytes }
        }
        7 => Part::NoticesHash {
            zone: key(reader)?,
            hash: reader.eight()?,
        },
        8 | 9 => {
            let zone = key(reader)?;
            let count = count(reader, "a count of notices", NOTICES_MAX)?;
            let keys = (0..count).map(|_| Ok(NoticeKey(reader.eight()?)));
            let keys = keys.collect::<Result<_, TreeError>>()?;
            match kind {
                8 => Part::Notices { zone, keys },
                _ => Part::WantNotices { zone, keys },
            }
        }
        other => {
            return Err(TreeError::Wrong {
                what: "a kind of part",
                found: other.into(),
            });
        }
    })
}

fn read_beat(reader: &mut Reader) -> Result<Beat, TreeError> {
    Ok(Beat {
        zone: key(reader)?,
        epoch: reader.number()?,
        number: small(reader, "a number of a row")?,
        beat: beat(reader)?,
        proof: reader.array()?,
        age_ms: reader.number()?,
    })
}

fn key(reader: &mut Reader) -> Result<ZoneKey, TreeError> {
    Ok(ZoneKey(reader.eight()?))
}

fn beat(reader: &mut Reader) -> Result<u16, TreeError> {
    let found = reader.number()?;
    u16::try_from(found).map_err(|_| TreeError::Wrong {
        what: "a beat",
        found,
    })
}

fn small(reader: &mut Reader, what: &'static str) -> Result<u32, TreeError> {
    let found = reader.number()?;
    u32::try_from(found).map_err(|_| TreeError::Wrong { what, found })
}
