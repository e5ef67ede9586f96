//! Numbers and pieces of the hand-written formats.
//!
//! Holds: what is read has one spelling only.

/// LEB128, in its shortest spelling.
pub fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
}

/// A length, then so many bytes.
pub fn put_piece(bytes: &mut Vec<u8>, piece: &[u8]) {
    put(bytes, piece.len() as u64);
    bytes.extend_from_slice(piece);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompactError {
    Cut,
    Spelling { found: u64 },
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn left(&self) -> usize {
        self.0.len()
    }

    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    pub fn byte(&mut self) -> Result<u8, CompactError> {
        let (first, rest) = self.0.split_first().ok_or(CompactError::Cut)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn number(&mut self) -> Result<u64, CompactError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            let overflows = shift == 63 && part > 1;
            let padded = shift > 0 && byte == 0;
            if overflows || padded {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CompactError::Spelling { found: value })
    }

    /// Big-endian.
    pub fn eight(&mut self) -> Result<u64, CompactError> {
        self.array().map(u64::from_be_bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CompactError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(CompactError::Cut)?;
        self.0 = rest;
        Ok(*first)
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], CompactError> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(CompactError::Cut)?;
        self.0 = rest;
        Ok(first)
    }
}
