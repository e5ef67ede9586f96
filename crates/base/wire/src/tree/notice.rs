//! What is said of a program: run it, run it no more, it is in quarantine.
//!
//! Layout: `[version][name][zone][of version][issuer][lifetime][kind]…
//! [signature]`.
//! Holds: the signature covers every byte before it; of one program, version
//! and kind there is one notice.

use super::{
    NOTICE_BYTES_MAX, SIGNATURE_BYTES, Signature, TreeError, VERSION, ZoneKey, count, parts,
};
use crate::attributes::{AttributeName, NAME_BYTES_MAX};
use crate::compact::{Reader, put, put_piece};
use kernel::{NodeId, UnixMillis, ZonePath, fnv1a};
use std::sync::Arc;

/// Of a program's text, and of a reason.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
pub const WHY_BYTES_MAX: usize = 256;
/// Four hundred days.
pub const LIFETIME_MS_MAX: u64 = 400 * 24 * 3_600 * 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub program: AttributeName,
    /// It runs for this zone and all below it.
    pub zone: ZonePath,
    /// Of two versions the larger prevails.
    pub version: u64,
    pub issuer: NodeId,
    /// From when it was signed, by the clocks it has passed. A removal's is as
    /// long as that of what it removes.
    pub lifetime_ms: u64,
    pub says: Says,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    Run(Run),
    /// Neither this version nor one before it.
    Remove,
    /// This version fails in its canary zone.
    Quarantine {
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub text: String,
    /// By the issuer's wall clock; programs draw lots by it.
    pub issued_at: UnixMillis,
    /// Steps of a number smaller than so many thousandths are not told.
    pub threshold: u16,
    /// Where a zone's row is full, that of the larger stays.
    pub priority: u8,
    /// At first it runs at this zone and below alone …
    pub canary: ZonePath,
    /// … for so long.
    pub canary_ms: u64,
}

/// Names a notice among those of its zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeKey(pub u64);

/// A notice as it was received or issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedNotice {
    pub notice: Notice,
    pub key: NoticeKey,
    bytes: Arc<[u8]>,
}

impl Notice {
    pub fn key(&self) -> NoticeKey {
        let name = self.program.as_str().bytes();
        let name = name.chain([0, self.kind()]);
        let version = self.version.to_be_bytes();
        let zone = ZoneKey::of(&self.zone).0.to_be_bytes();
        NoticeKey(fnv1a(name.chain(version).chain(zone)))
    }

    fn kind(&self) -> u8 {
        match self.says {
            Says::Run(_) => 0,
            Says::Remove => 1,
            Says::Quarantine { .. } => 2,
        }
    }

    /// What is signed.
    ///
    /// # Errors
    /// Something is over its limit.
    pub fn encode(&self) -> Result<Vec<u8>, TreeError> {
        let within = |what, bytes, max| match bytes {
            bytes if bytes > max => Err(TreeError::TooLong { what, bytes, max }),
            _ => Ok(()),
        };
        if self.lifetime_ms > LIFETIME_MS_MAX {
            let (what, found) = ("a program's lifetime", self.lifetime_ms);
            return Err(TreeError::Wrong { what, found });
        }
        let mut bytes = vec![VERSION];
        put_piece(&mut bytes, self.program.as_str().as_bytes());
        put_piece(&mut bytes, self.zone.to_string().as_bytes());
        put(&mut bytes, self.version);
        bytes.extend_from_slice(&self.issuer.0.to_be_bytes());
        put(&mut bytes, self.lifetime_ms);
        bytes.push(self.kind());
        match &self.says {
            Says::Run(run) => {
                within("a program's text", run.text.len(), TEXT_BYTES_MAX)?;
                put_piece(&mut bytes, run.text.as_bytes());
                put(&mut bytes, run.issued_at.0);
                put(&mut bytes, run.threshold.into());
                bytes.push(run.priority);
                put_piece(&mut bytes, run.canary.to_string().as_bytes());
                put(&mut bytes, run.canary_ms);
            }
            Says::Remove => {}
            Says::Quarantine { why } => {
                within("a reason", why.len(), WHY_BYTES_MAX)?;
                put_piece(&mut bytes, why.as_bytes());
            }
        }
        Ok(bytes)
    }
}

impl SignedNotice {
    /// `encoded` is what [`Notice::encode`] gave.
    pub fn new(notice: Notice, mut encoded: Vec<u8>, signature: &Signature) -> Self {
        encoded.extend_from_slice(signature);
        let key = notice.key();
        let bytes = encoded.into();
        Self { notice, key, bytes }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        if bytes.len() > NOTICE_BYTES_MAX {
            return Err(TreeError::TooLong {
                what: "a notice",
                bytes: bytes.len(),
                max: NOTICE_BYTES_MAX,
            });
        }
        let mut reader = Reader::new(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(TreeError::Version { found: version });
        }
        let notice = read(&mut reader)?;
        if reader.left() != SIGNATURE_BYTES {
            return Err(TreeError::Cut);
        }
        let key = notice.key();
        let bytes = bytes.into();
        Ok(Self { notice, key, bytes })
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

fn read(reader: &mut Reader) -> Result<Notice, TreeError> {
    let wrong = |what, found| TreeError::Wrong { what, found };
    let program = text(reader, "a length of a program's name", NAME_BYTES_MAX)?;
    let program = program
        .parse()
        .map_err(|_| wrong("a program's name", program.len() as u64))?;
    let zone = zone(reader)?;
    let version = reader.number()?;
    let issuer = NodeId(reader.eight()?);
    let lifetime_ms = reader.number()?;
    if lifetime_ms > LIFETIME_MS_MAX {
        return Err(wrong("a program's lifetime", lifetime_ms));
    }
    let says = match reader.byte()? {
        0 => Says::Run(run(reader)?),
        1 => Says::Remove,
        2 => Says::Quarantine {
            why: text(reader, "a length of a reason", WHY_BYTES_MAX)?.to_owned(),
        },
        other => return Err(wrong("a kind of notice", other.into())),
    };
    Ok(Notice {
        program,
        zone,
        version,
        issuer,
        lifetime_ms,
        says,
    })
}

fn run(reader: &mut Reader) -> Result<Run, TreeError> {
    let text = text(reader, "a length of a program", TEXT_BYTES_MAX)?.to_owned();
    let issued_at = UnixMillis(reader.number()?);
    let threshold = count(reader, "a threshold", usize::from(u16::MAX))?;
    Ok(Run {
        text,
        issued_at,
        threshold: u16::try_from(threshold).unwrap_or(u16::MAX),
        priority: reader.byte()?,
        canary: zone(reader)?,
        canary_ms: reader.number()?,
    })
}

/// As [`ZonePath`] is written, so that it has one spelling.
fn zone(reader: &mut Reader) -> Result<ZonePath, TreeError> {
    let text = text(reader, "a length of a zone's name", 8 * 64)?;
    text.parse().map_err(|_| TreeError::Zone)
}

fn text<'a>(reader: &mut Reader<'a>, what: &'static str, max: usize) -> Result<&'a str, TreeError> {
    let length = count(reader, what, max)?;
    let wrong = |_| TreeError::Wrong {
        what: "a text",
        found: length as u64,
    };
    std::str::from_utf8(reader.take(length)?).map_err(wrong)
}
