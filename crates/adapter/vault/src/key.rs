//! The key in its file: `homeostat secrets key 1`, the key, and a check, each on
//! a line.

use crate::VaultError;
use data_encoding::HEXLOWER;
use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use ring::rand::{RandomlyConstructable, SystemRandom, generate};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Deref;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::Zeroizing;

const HEAD: &str = "homeostat secrets key 1";
const KEY_BYTES: usize = 32;
/// Hashes of keys for different uses must differ.
const CHECK_CONTEXT: &str = "homeostat 2026 secrets key check";
const ID_CONTEXT: &str = "homeostat 2026 secrets key id";

pub struct Key {
    key: LessSafeKey,
    id: String,
}

impl Key {
    fn new(bytes: &[u8; KEY_BYTES]) -> Option<Self> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?);
        let id = derived(ID_CONTEXT, bytes);
        Some(Self { key, id })
    }

    /// Tells keys apart and nothing else about them.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Deref for Key {
    type Target = LessSafeKey;

    fn deref(&self) -> &LessSafeKey {
        &self.key
    }
}

fn derived(context: &str, bytes: &[u8]) -> String {
    HEXLOWER.encode(&blake3::derive_key(context, bytes)[..8])
}

pub fn random<T: RandomlyConstructable>() -> Result<T, VaultError> {
    generate(&SystemRandom::new())
        .map(ring::rand::Random::expose)
        .map_err(|_| VaultError::Random)
}

pub fn read(path: &Path) -> Result<Key, VaultError> {
    let file = |source| VaultError::File {
        path: path.to_owned(),
        source,
    };
    let mode = std::fs::metadata(path).map_err(file)?.permissions().mode();
    if mode & 0o077 != 0 {
        let open = format!("its mode is {:o}: others may read it", mode & 0o777);
        return Err(file(io::Error::new(ErrorKind::PermissionDenied, open)));
    }
    let text = Zeroizing::new(std::fs::read(path).map_err(file)?);
    parse(&text).map_err(|why| VaultError::Key {
        path: path.to_owned(),
        why,
    })
}

fn parse(text: &[u8]) -> Result<Key, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not text")?;
    let mut lines = text.lines();
    if lines.next() != Some(HEAD) {
        return Err("it does not begin as such a key does");
    }
    let cut = "it is cut short";
    let line = lines.next().ok_or(cut)?;
    let decoded = HEXLOWER.decode(line.as_bytes()).map(Zeroizing::new);
    let decoded = decoded.map_err(|_| "the key is no hexadecimal number")?;
    let bytes: &[u8; KEY_BYTES] = decoded.as_slice().try_into().map_err(|_| cut)?;
    if lines.next().ok_or(cut)? != derived(CHECK_CONTEXT, bytes) {
        return Err("the key and its check do not fit");
    }
    Key::new(bytes).ok_or("no key can be made of it")
}

/// Keeps the text of another node's key beside this node's `own`.
pub fn keep(path: &Path, text: &str, own: &Key) -> Result<(), VaultError> {
    let refused = |why| VaultError::Key {
        path: path.to_owned(),
        why,
    };
    let given = parse(text.as_bytes()).map_err(refused)?;
    if given.id() == own.id() {
        return Ok(());
    }
    write(path, text.as_bytes()).map_err(|source| VaultError::File {
        path: path.to_owned(),
        source,
    })?;
    if read(path)?.id() != given.id() {
        return Err(refused("another cluster's key is kept here already"));
    }
    Ok(())
}

/// Durable when this returns; a file that came meanwhile is left as it is.
pub fn make(path: &Path) -> Result<(), VaultError> {
    let bytes: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(random()?);
    let key = Zeroizing::new(HEXLOWER.encode(&*bytes));
    let check = derived(CHECK_CONTEXT, &*bytes);
    let text = Zeroizing::new(format!("{HEAD}\n{}\n{check}\n", *key));
    write(path, text.as_bytes()).map_err(|source| VaultError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let beside = path.with_extension(format!("new{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(&beside)
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        // Unlike a renaming, a link never replaces what is there.
        .and_then(|()| std::fs::hard_link(&beside, path));
    let _ = std::fs::remove_file(&beside);
    match written {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(directory)?.sync_all(),
    }
}
