//! What nodes tell each other of zones: signed rows, beats that confirm them,
//! notices of the programs that compute them, and packets that carry all that.
//!
//! In: bytes from a peer whose identity the transport has proven. Out: rows and
//! parts of packets.
//! Holds: what is read is whole, within its limits, and has one spelling only.
//! Never: says who may speak, nor whether a signature is good.

mod notice;
mod packet;
pub mod question;
mod row;
mod seen;
#[cfg(test)]
mod tests;

pub use notice::{
    LIFETIME_MS_MAX, Notice, NoticeKey, Run, Says, SignedNotice, TEXT_BYTES_MAX, WHY_BYTES_MAX,
};
pub use packet::{Beat, Entry, Packet, Part, Writer, decode};
pub use row::{Contact, Coverage, Head, Row, SignedRow, Stamp, StampError, ZoneKey, head};
pub use seen::Seen;

use crate::compact;

pub const VERSION: u8 = 1;
/// Of packets: gossip about reach, whose versions count from 1, goes by
/// datagrams of the same kind.
pub const PACKET_VERSION: u8 = 0x41;
/// What a QUIC datagram always carries; what is longer goes by stream.
pub const PACKET_BYTES_MAX: usize = 1_100;
/// Of one packet that goes by stream.
pub const STREAM_BYTES_MAX: usize = 16 << 10;
pub const ATTRIBUTES_BYTES_MAX: usize = crate::attributes::ROW_BYTES_MAX;
/// Of a row with its signature.
pub const ROW_BYTES_MAX: usize = ATTRIBUTES_BYTES_MAX + 1_024;
/// Of a notice with its signature.
pub const NOTICE_BYTES_MAX: usize = TEXT_BYTES_MAX + 2_048;
pub const CONTACTS_MAX: usize = 4;
/// Beats that one signature covers.
pub const BEATS_MAX: u16 = 1_024;
pub const ACKS_MAX: usize = 64;
/// So that one packet holds them.
pub const ENTRIES_MAX: usize = 32;
pub const WANTED_MAX: usize = 100;
/// Of one zone; so that one packet names them.
pub const NOTICES_MAX: usize = 96;
/// No run of a cluster comes near; so nobody can end the line of epochs.
pub const EPOCH_MAX: u64 = 1 << 48;

/// The hash of whatever [`Row`] and beats refer to, cut to 128 bits.
pub type Digest = [u8; 16];
pub type Signature = [u8; SIGNATURE_BYTES];
const SIGNATURE_BYTES: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    #[error("{what} of {bytes} bytes is over the limit of {max}")]
    TooLong {
        what: &'static str,
        bytes: usize,
        max: usize,
    },
    #[error("tree version {found}, this program speaks {VERSION}")]
    Version { found: u8 },
    #[error("a packet of the tree ends in the middle")]
    Cut,
    #[error("a packet of the tree has {found} for {what}")]
    Wrong { what: &'static str, found: u64 },
    #[error("a row names no zone that can have one")]
    Zone,
}

/// Whether a datagram is for the tree, in whatever version.
pub fn is_packet(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| *first >= 0x40)
}

impl From<compact::CompactError> for TreeError {
    fn from(why: compact::CompactError) -> Self {
        match why {
            compact::CompactError::Cut => Self::Cut,
            compact::CompactError::Spelling { found } => Self::Wrong {
                what: "a number's spelling",
                found,
            },
        }
    }
}

/// What is signed, and the signature behind it.
fn parts(bytes: &[u8]) -> (&[u8], Signature) {
    bytes
        .split_last_chunk()
        .map_or((&[], [0; SIGNATURE_BYTES]), |(signed, signature)| {
            (signed, *signature)
        })
}

fn count(reader: &mut compact::Reader, what: &'static str, max: usize) -> Result<usize, TreeError> {
    let found = reader.number()?;
    let count = usize::try_from(found).ok().filter(|count| *count <= max);
    count.ok_or(TreeError::Wrong { what, found })
}
