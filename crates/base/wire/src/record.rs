//! Small binary records on disk: `[u8 version][postcard]`.

use serde::Serialize;
use serde::de::DeserializeOwned;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    #[error("record version {found}, version {expected} expected")]
    Version { found: u8, expected: u8 },
    #[error("an empty record")]
    Empty,
    #[error("a record cannot be read")]
    Body(#[source] postcard::Error),
}

/// What most records need, so that they are written without growing.
const USUAL_BYTES: usize = 256;

pub fn encode<R: Serialize>(version: u8, record: &R) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.push(version);
    postcard::to_extend(record, bytes).map_err(RecordError::Body)
}

pub fn decode<R: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<R, RecordError> {
    let (&found, body) = bytes.split_first().ok_or(RecordError::Empty)?;
    if found != version {
        return Err(RecordError::Version {
            found,
            expected: version,
        });
    }
    postcard::from_bytes(body).map_err(RecordError::Body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn another_version_is_named() {
        let bytes = encode(2, &7_u32).expect("encodes");
        let error = decode::<u32>(1, &bytes).expect_err("refused");
        assert_eq!(error.to_string(), "record version 2, version 1 expected");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode::<(String, Vec<u64>)>(1, &bytes);
        }
    }
}
