//! A segment of rows: `HROW`, version, three zero bytes, then frames of
//! `[u32 length][u32 crc32][record]`, integers big-endian.
//!
//! Holds: the reader yields every whole frame before the first broken one.

use crate::error::TelemetryError;
use std::fs;
use std::path::Path;
use wire::rows::{ACCESS_ROW_VERSION, AccessRow};

pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER: [u8; 8] = [b'H', b'R', b'O', b'W', VERSION, 0, 0, 0];
/// Names of segments still written to, and of whole ones.
pub(crate) const OPEN: &str = "open";
pub(crate) const CLOSED: &str = "rows";
const ROW_BYTES_MAX: usize = 64 << 10;

/// A row's frame; `None` for one too long to keep.
pub(crate) fn frame(row: &AccessRow) -> Option<Vec<u8>> {
    let record = wire::record::encode(ACCESS_ROW_VERSION, row).ok()?;
    if record.len() > ROW_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(record.len()).ok()?;
    let mut frame = Vec::with_capacity(8 + record.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&record).to_be_bytes());
    frame.extend_from_slice(&record);
    Some(frame)
}

/// The rows of one segment, as far as they are whole.
#[derive(Debug)]
pub struct Rows {
    bytes: Vec<u8>,
    at: usize,
    unreadable: u64,
}

impl Rows {
    /// Whole frames whose row this version cannot read, so far.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// Bytes not yet read; after the last row, the torn tail.
    pub fn bytes_left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    fn record(&mut self) -> Option<&[u8]> {
        let rest = self.bytes.get(self.at..)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let record = rest.get(..length).filter(|_| length <= ROW_BYTES_MAX)?;
        if crc32fast::hash(record) != u32::from_be_bytes(*checksum) {
            return None;
        }
        self.at += 8 + length;
        Some(record)
    }
}

impl Iterator for Rows {
    type Item = AccessRow;

    fn next(&mut self) -> Option<AccessRow> {
        loop {
            let record = self.record()?;
            if let Ok(row) = wire::record::decode(ACCESS_ROW_VERSION, record) {
                return Some(row);
            }
            self.unreadable += 1;
        }
    }
}

/// Opens a segment, open or closed; a torn tail ends the rows.
pub fn read_segment(path: &Path) -> Result<Rows, TelemetryError> {
    let bytes = fs::read(path).map_err(TelemetryError::io("read", path))?;
    let found = &bytes[..bytes.len().min(HEADER.len())];
    if !HEADER.starts_with(found) {
        return Err(TelemetryError::NotASegment {
            path: path.to_owned(),
            expected: VERSION,
        });
    }
    Ok(Rows {
        at: HEADER.len(),
        bytes,
        unreadable: 0,
    })
}
