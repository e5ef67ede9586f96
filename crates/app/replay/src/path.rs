//! Makes paths that can be asked for out of those that people and servers wrote.
//!
//! In: bytes, trusted in nothing. Out: a path and query, or what is wrong.

use http::uri::PathAndQuery;

const TARGET_BYTES_MAX: usize = 8 * 1024;

/// Undoes a server's escapes: `\"`, `\\`, `\xhh`.
pub fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after
            .strip_prefix(b"x")
            .and_then(<[u8]>::first_chunk::<2>)
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
        let (plain, left) = match (byte, hex, after.first()) {
            (b'\\', Some(byte), _) => (byte, &after[3..]),
            (b'\\', None, Some(&guarded)) => (guarded, &after[1..]),
            _ => (byte, after),
        };
        out.push(plain);
        rest = left;
    }
    out
}

/// Makes a path and query out of what a list or a log calls one.
///
/// Absolute addresses lose scheme and host, fragments are cut off, bytes that
/// no request may carry are percent-encoded.
///
/// # Errors
/// What is wrong with it.
pub fn target(text: &[u8]) -> Result<PathAndQuery, &'static str> {
    let mut text = text;
    for scheme in [&b"http://"[..], b"https://"] {
        if let Some(rest) = text.strip_prefix(scheme) {
            let slash = rest.iter().position(|byte| *byte == b'/');
            text = slash.map_or(&b"/"[..], |slash| &rest[slash..]);
        }
    }
    let end = text.iter().position(|byte| *byte == b'#');
    let text = &text[..end.unwrap_or(text.len())];
    if text.first() != Some(&b'/') {
        return Err("the path does not begin with `/`");
    }
    if text.len() > TARGET_BYTES_MAX {
        return Err("the path is longer than 8 KiB");
    }
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte) {
            out.push(byte);
        } else {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            out.extend([
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
    PathAndQuery::try_from(out).map_err(|_| "the path cannot be asked for")
}
