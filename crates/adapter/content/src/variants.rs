//! Compressed forms of stored content, made ahead of requests.
//!
//! Holds: a variant exists only when it saves at least a tenth; it decodes to
//! the chunk of its name. Disposable: it can be made again at any time.

use crate::error::ContentError;
use crate::media::compressible;
use crate::{Content, Encoding, Precompressed};
use flate2::Compression;
use flate2::write::GzEncoder;
use kernel::Hash;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

const BYTES_MIN: u64 = 256;
const BYTES_MAX: u64 = 32 << 20;
/// Variants become visible in batches of this many files.
const BATCH_FILES: u64 = 64;
/// Close to the best in size, at a tenth of the best's time.
const BROTLI_QUALITY: u32 = 9;
const BROTLI_WINDOW_LOG2: u32 = 22;

impl Content {
    /// Makes the missing variants of a tree's files. Blocks for long; returns
    /// early, with what is done kept, once `stop` is set.
    pub fn precompress(
        &self,
        tree: Hash,
        stop: &AtomicBool,
    ) -> Result<Precompressed, ContentError> {
        let mut done = Precompressed::default();
        let mut stage = self.stage();
        for entry in self.tree(tree)?.entries.values() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if !compressible(&entry.media_type) || !(BYTES_MIN..=BYTES_MAX).contains(&entry.bytes) {
                continue;
            }
            let missing: Vec<_> = [Encoding::Gzip, Encoding::Brotli]
                .map(|encoding| (encoding, self.variant_path(entry.hash, encoding)))
                .into_iter()
                .filter(|(_, path)| !stage.holds(path) && !path.exists())
                .collect();
            if missing.is_empty() {
                continue;
            }
            let plain = self.read_verified(entry.hash)?;
            for (encoding, path) in missing {
                let packed = pack(&plain, encoding)
                    .map_err(ContentError::io("compress", &self.path(entry.hash)))?;
                if packed.len() as u64 * 10 > plain.len() as u64 * 9 {
                    done.not_worth += 1;
                    continue;
                }
                done.made += 1;
                done.bytes_before += plain.len() as u64;
                done.bytes_after += packed.len() as u64;
                stage.add_bytes(path, &packed)?;
                if done.made.is_multiple_of(BATCH_FILES) {
                    stage.flush()?;
                }
            }
        }
        stage.flush()?;
        Ok(done)
    }

    /// The file with that content in that encoding, if there is one.
    pub fn variant(&self, hash: Hash, encoding: Encoding) -> Option<PathBuf> {
        Some(self.variant_path(hash, encoding)).filter(|path| path.exists())
    }

    /// Removes them, to be made again; how many there were.
    pub fn forget_variants(&self, hash: Hash) -> Result<u64, ContentError> {
        let mut removed = 0;
        for encoding in [Encoding::Gzip, Encoding::Brotli] {
            let path = self.variant_path(hash, encoding);
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ContentError::io("remove", &path)(error)),
            }
        }
        Ok(removed)
    }

    fn variant_path(&self, hash: Hash, encoding: Encoding) -> PathBuf {
        let extension = match encoding {
            Encoding::Gzip => "gz",
            Encoding::Brotli => "br",
        };
        self.variants().join(format!("{hash}.{extension}"))
    }
}

fn pack(plain: &[u8], encoding: Encoding) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(plain)?;
            encoder.finish()
        }
        Encoding::Brotli => {
            let mut packed = Vec::new();
            let mut encoder = brotli::CompressorWriter::new(
                &mut packed,
                64 << 10,
                BROTLI_QUALITY,
                BROTLI_WINDOW_LOG2,
            );
            encoder.write_all(plain)?;
            encoder.flush()?;
            drop(encoder);
            Ok(packed)
        }
    }
}
