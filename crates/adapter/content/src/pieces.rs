//! A file's pieces, each of which is checked by itself.
//!
//! In: a file's hash, and the chaining values of its pieces from whomever. Out:
//! whether a piece is right. Lies as `pieces/ab/cdef…`, beside files of more
//! than one piece; it can be made again from its file at any time.
//! Holds: the values merge into the file's own hash, so that nobody need be
//! believed; what is right is the only input that has its place in that file.

use crate::Content;
use crate::error::ContentError;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use kernel::Hash;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use wire::exchange::{Description, PIECE_BYTES_MIN, piece_bytes, pieces};

/// Of the lists kept in memory.
const CACHE_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Pieces {
    pub hash: Hash,
    description: Description,
}

/// Hashes a file and its pieces in one pass.
pub(crate) struct PieceHasher {
    piece: u64,
    chain: Vec<ChainingValue>,
    hasher: blake3::Hasher,
    /// In the piece at hand, and in all.
    filled: u64,
    length: u64,
}

/// The lists last used.
#[derive(Debug, Default)]
pub(crate) struct PiecesCache {
    lists: BTreeMap<Hash, (u64, Arc<Pieces>)>,
    bytes: usize,
    uses: u64,
}

impl Pieces {
    /// `None` when the description is not of the file with that hash. Its
    /// length is proven only once the last piece was found right.
    pub fn new(hash: Hash, description: Description) -> Option<Self> {
        let right = description.chain.is_empty() || root(&description.chain) == hash;
        right.then_some(Self { hash, description })
    }

    pub fn length(&self) -> u64 {
        self.description.length
    }

    pub fn description(&self) -> &Description {
        &self.description
    }

    pub fn count(&self) -> u32 {
        u32::try_from(pieces(self.length())).unwrap_or(u32::MAX)
    }

    /// Where a piece begins, and how long it is.
    pub fn range(&self, index: u32) -> Option<(u64, usize)> {
        if index >= self.count() {
            return None;
        }
        let piece = piece_bytes(self.length());
        let offset = piece * u64::from(index);
        let length = piece.min(self.length().saturating_sub(offset));
        Some((offset, usize::try_from(length).ok()?))
    }

    pub fn is_right(&self, index: u32, bytes: &[u8]) -> bool {
        let Some((offset, length)) = self.range(index) else {
            return false;
        };
        if length != bytes.len() {
            return false;
        }
        let mut hasher = blake3::Hasher::new();
        let chain = &self.description.chain;
        let Some(expected) = usize::try_from(index).ok().and_then(|at| chain.get(at)) else {
            return hasher.update(bytes).finalize().as_bytes() == &self.hash.0;
        };
        hasher.set_input_offset(offset).update(bytes);
        hasher.finalize_non_root() == *expected
    }

    /// Reads a piece into the end of `into`; whether it is right.
    pub fn read(&self, file: &File, index: u32, into: &mut Vec<u8>) -> io::Result<bool> {
        let Some((offset, length)) = self.range(index) else {
            return Ok(false);
        };
        let start = into.len();
        into.resize(start + length, 0);
        match file.read_exact_at(&mut into[start..], offset) {
            Ok(()) => Ok(self.is_right(index, &into[start..])),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn cost(&self) -> usize {
        self.description.chain.len() * 32 + 128
    }
}

impl PieceHasher {
    /// For a file that is expected to have that length.
    pub fn new(length: u64) -> Self {
        Self {
            piece: piece_bytes(length),
            chain: Vec::new(),
            hasher: blake3::Hasher::new(),
            filled: 0,
            length: 0,
        }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == self.piece {
                self.chain.push(self.hasher.finalize_non_root());
                self.hasher = blake3::Hasher::new();
                self.hasher.set_input_offset(self.length);
                self.filled = 0;
            }
            let room = usize::try_from(self.piece - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.hasher.update(now);
            self.filled += now.len() as u64;
            self.length += now.len() as u64;
            bytes = later;
        }
    }

    /// The file's hash, and its pieces if it had the length that was expected.
    pub fn finish(mut self) -> (Hash, Option<Pieces>) {
        let hash = if self.chain.is_empty() {
            Hash(*self.hasher.finalize().as_bytes())
        } else {
            self.chain.push(self.hasher.finalize_non_root());
            root(&self.chain)
        };
        let description = Description {
            length: self.length,
            chain: self.chain,
        };
        let regular = piece_bytes(self.length) == self.piece;
        (hash, regular.then_some(Pieces { hash, description }))
    }
}

impl PiecesCache {
    fn get(&mut self, hash: Hash) -> Option<Arc<Pieces>> {
        self.uses += 1;
        let (used, pieces) = self.lists.get_mut(&hash)?;
        *used = self.uses;
        Some(Arc::clone(pieces))
    }

    fn put(&mut self, pieces: &Arc<Pieces>) {
        self.uses += 1;
        self.bytes += pieces.cost();
        let entry = (self.uses, Arc::clone(pieces));
        if let Some((_, old)) = self.lists.insert(pieces.hash, entry) {
            self.bytes -= old.cost();
        }
        while self.bytes > CACHE_BYTES_MAX && self.lists.len() > 1 {
            let oldest = self.lists.iter().min_by_key(|(_, (used, _))| *used);
            let Some(hash) = oldest.map(|(hash, _)| *hash) else {
                return;
            };
            self.forget(hash);
        }
    }

    pub fn forget(&mut self, hash: Hash) {
        if let Some((_, old)) = self.lists.remove(&hash) {
            self.bytes -= old.cost();
        }
    }
}

impl Content {
    /// What a file here is made of. Blocks; reads the whole file where no list
    /// lies beside it.
    pub(crate) fn pieces_of(&self, hash: Hash, file: &File) -> Result<Arc<Pieces>, ContentError> {
        let path = self.path(hash);
        let found = file.metadata().map_err(ContentError::io("read", &path))?;
        if found.len() <= PIECE_BYTES_MIN {
            return Ok(Arc::new(Pieces {
                hash,
                description: Description {
                    length: found.len(),
                    chain: Vec::new(),
                },
            }));
        }
        if let Some(pieces) = self.lists().get(hash) {
            return Ok(pieces);
        }
        let pieces = match self.listed(hash) {
            Some(pieces) => pieces,
            None => self.list_anew(hash, file, found.len())?,
        };
        let pieces = Arc::new(pieces);
        self.lists().put(&pieces);
        Ok(pieces)
    }

    /// The same for whoever must not write here.
    pub(crate) fn pieces_to_read(
        &self,
        hash: Hash,
        file: &File,
        length: u64,
    ) -> Result<Arc<Pieces>, ContentError> {
        if length <= PIECE_BYTES_MIN {
            return self.pieces_of(hash, file);
        }
        if let Some(pieces) = self.lists().get(hash) {
            return Ok(pieces);
        }
        let pieces = match self.listed(hash) {
            Some(pieces) => pieces,
            None => self.read_through(hash, file, length)?,
        };
        let pieces = Arc::new(pieces);
        self.lists().put(&pieces);
        Ok(pieces)
    }

    /// The list on disk, if it is one of that file.
    pub(crate) fn listed(&self, hash: Hash) -> Option<Pieces> {
        let bytes = fs::read(self.pieces_path(hash)).ok()?;
        let description = Description::decode(&bytes).ok()?;
        Pieces::new(hash, description).filter(|pieces| pieces.count() > 1)
    }

    fn list_anew(&self, hash: Hash, file: &File, length: u64) -> Result<Pieces, ContentError> {
        let pieces = self.read_through(hash, file, length)?;
        self.keep_list(&pieces)?;
        Ok(pieces)
    }

    /// The list of a file that is right.
    pub(crate) fn read_through(
        &self,
        hash: Hash,
        mut file: &File,
        length: u64,
    ) -> Result<Pieces, ContentError> {
        let path = self.path(hash);
        let mut hasher = PieceHasher::new(length);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(read) => read,
                // What the disk cannot read is lost here.
                Err(error) if is_bad_spot(&error) => {
                    return Err(ContentError::Damaged { hash, path });
                }
                Err(error) => return Err(ContentError::io("read", &path)(error)),
            };
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        match hasher.finish() {
            (found, Some(pieces)) if found == hash => Ok(pieces),
            _ => Err(ContentError::Damaged { hash, path }),
        }
    }

    /// Puts a list beside its file. It is not synced: a torn one is made anew.
    pub(crate) fn keep_list(&self, pieces: &Pieces) -> Result<(), ContentError> {
        if pieces.count() <= 1 {
            return Ok(());
        }
        let path = self.pieces_path(pieces.hash);
        if path.exists() && self.listed(pieces.hash).is_some() {
            return Ok(());
        }
        let record = pieces.description.record();
        let bytes = record.map_err(|source| ContentError::Exchange { source })?;
        let mut stage = self.stage();
        stage.add_bytes(path, &bytes)?;
        stage.flush()
    }

    pub(crate) fn pieces_path(&self, hash: Hash) -> PathBuf {
        let text = hash.to_string();
        self.pieces().join(&text[..2]).join(&text[2..])
    }
}

/// Whether the disk itself says that it cannot read this.
pub(crate) fn is_bad_spot(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Of at least two pieces.
fn root(chain: &[ChainingValue]) -> Hash {
    let (left, right) = chain.split_at(left_of(chain.len()));
    Hash(*merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes())
}

fn subtree(chain: &[ChainingValue]) -> ChainingValue {
    if let [only] = chain {
        return *only;
    }
    let (left, right) = chain.split_at(left_of(chain.len()));
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// The largest power of two below `count`, which is at least two.
fn left_of(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PIECE: usize = 256 << 10;

    fn bytes_of(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut noise = blake3::Hasher::new().update(&[seed]).finalize_xof();
        noise.fill(&mut bytes);
        bytes
    }

    fn pieces_of(bytes: &[u8], cut: usize) -> Pieces {
        let mut hasher = PieceHasher::new(bytes.len() as u64);
        bytes.chunks(cut).for_each(|part| hasher.update(part));
        let (hash, pieces) = hasher.finish();
        assert_eq!(hash.0, *blake3::hash(bytes).as_bytes());
        pieces.expect("the expected length")
    }

    #[test]
    fn edges_of_pieces_hash_like_the_whole() {
        let lengths = [
            0,
            1,
            PIECE - 1,
            PIECE,
            PIECE + 1,
            2 * PIECE,
            2 * PIECE + 1,
            3 * PIECE,
            5 * PIECE + 77,
            8 * PIECE,
            9 * PIECE,
        ];
        for length in lengths {
            let bytes = bytes_of(length, 1);
            let pieces = pieces_of(&bytes, 1 << 16);
            assert_eq!(pieces.count() as usize, length.div_ceil(PIECE).max(1));
            let parts = (0..pieces.count()).map(|at| pieces.range(at).expect("there"));
            for (at, (offset, length)) in (0..).zip(parts) {
                let start = usize::try_from(offset).expect("small");
                assert!(pieces.is_right(at, &bytes[start..start + length]));
            }
            let again = Pieces::new(pieces.hash, pieces.description().clone());
            assert!(again.is_some(), "{length}");
        }
    }

    #[test]
    fn a_false_length_is_found_out_by_the_last_piece() {
        let bytes = bytes_of(4 * PIECE, 2);
        let honest = pieces_of(&bytes, PIECE);
        // The root's two children: they merge, and no bytes go with them.
        let chain = &honest.description().chain;
        let forged = Description {
            length: 2 * PIECE as u64,
            chain: vec![subtree(&chain[..2]), subtree(&chain[2..])],
        };
        let pieces = Pieces::new(honest.hash, forged).expect("it merges");
        for part in bytes.chunks(PIECE) {
            assert!(!pieces.is_right(1, part));
        }
        let mut longer = honest.description().clone();
        longer.length -= 1;
        let pieces = Pieces::new(honest.hash, longer).expect("it merges");
        assert!(!pieces.is_right(3, &bytes[3 * PIECE..4 * PIECE - 1]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_changed_piece_is_wrong_and_the_others_stay_right(
            length in 1..4 * PIECE, at: prop::sample::Index, cut in 1..PIECE * 2,
        ) {
            let mut bytes = bytes_of(length, 3);
            let pieces = pieces_of(&bytes, cut);
            let at = at.index(length);
            bytes[at] ^= 1;
            for (index, part) in (0..).zip(bytes.chunks(PIECE)) {
                prop_assert_eq!(pieces.is_right(index, part), at / PIECE != index as usize);
            }
        }

        #[test]
        fn a_changed_description_is_refused(length in PIECE + 1..6 * PIECE, at: prop::sample::Index) {
            let pieces = pieces_of(&bytes_of(length, 4), PIECE);
            let mut description = pieces.description().clone();
            let at = at.index(description.chain.len());
            description.chain[at][0] ^= 1;
            prop_assert!(Pieces::new(pieces.hash, description).is_none());
        }
    }
}
