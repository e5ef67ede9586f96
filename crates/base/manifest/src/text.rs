//! The small texts in a manifest: paths, hosts, variables, spans, shares.
//!
//! Holds: each function answers with the checked value, or with what is wrong
//! and what would be right; the caller knows the place.

use crate::{HostPattern, PathPrefix};
use kernel::{format_duration, parse_duration};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What is wrong with a text, and the mend.
#[derive(Debug)]
pub struct Wrong {
    pub code: &'static str,
    pub message: String,
    pub help: Option<String>,
}

pub fn wrong(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Wrong {
    Wrong {
        code,
        message: message.into(),
        help: Some(help.into()),
    }
}

const PATH_BYTES_MAX: usize = 1024;
const HOST_BYTES_MAX: usize = 253;

/// A path inside the project's directory.
pub fn relative_path(text: &str) -> Result<String, Wrong> {
    let (message, help) = if text.is_empty() {
        (
            "the path is empty",
            "name a directory or file below the manifest's directory",
        )
    } else if text.starts_with('/') {
        (
            "the path is absolute",
            "write it relative to the manifest's directory",
        )
    } else if text.split('/').any(|part| part == "..") {
        ("the path leaves its directory", "leave out `..`")
    } else if text.contains(char::is_control) {
        ("the path has a control character in it", "leave it out")
    } else if text.len() > PATH_BYTES_MAX {
        ("the path is longer than 1024 bytes", "use a shorter one")
    } else {
        return Ok(text.to_owned());
    };
    Err(wrong("path", message, help))
}

/// A file name, for a document looked up in each directory.
pub fn file_name(text: &str) -> Result<String, Wrong> {
    if text.contains('/') || text == "." {
        let help = "write only the file's name, such as `index.html`";
        return Err(wrong("path", "a file name is needed, not a path", help));
    }
    relative_path(text)
}

/// An absolute path of a URL, without query.
pub fn url_path(text: &str) -> Result<String, Wrong> {
    let (message, help) = if !text.starts_with('/') {
        (
            "the path does not start with `/`",
            format!("write `/{}`", crate::mistake::short(text)),
        )
    } else if text.split('/').any(|part| part == ".." || part == ".") {
        ("the path has a `.` or `..` part", "leave it out".to_owned())
    } else if text.contains("//") {
        (
            "the path has an empty part",
            "write one `/` between two parts".to_owned(),
        )
    } else if text.contains(['?', '#', '*', '\\']) {
        (
            "the path has a `?`, `#`, `*` or `\\` in it",
            "a prefix covers all below it".to_owned(),
        )
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        let help = "write other characters as `%` and two hex digits".to_owned();
        (
            "the path has a space or a character outside ASCII in it",
            help,
        )
    } else if text.len() > PATH_BYTES_MAX {
        (
            "the path is longer than 1024 bytes",
            "use a shorter one".to_owned(),
        )
    } else {
        return Ok(text.to_owned());
    };
    Err(wrong("path", message, help))
}

/// A route's prefix; `/search/` and `/search` cover the same and become one.
pub fn path_prefix(text: &str) -> Result<PathPrefix, Wrong> {
    let path = url_path(text)?;
    let trimmed = path.trim_end_matches('/');
    Ok(PathPrefix(
        if trimmed.is_empty() { "/" } else { trimmed }.to_owned(),
    ))
}

pub fn host_pattern(text: &str) -> Result<HostPattern, Wrong> {
    let lower = text.to_lowercase();
    let suffix = if text == "*" {
        "any"
    } else {
        text.strip_prefix("*.").unwrap_or(text)
    };
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let help = if text.contains("://") {
        "leave out the scheme".to_owned()
    } else if text.contains(':') {
        "leave out the port".to_owned()
    } else if text.contains('/') {
        "write the path in `path`".to_owned()
    } else if text != lower {
        format!("write `{}`", crate::mistake::short(&lower))
    } else if text.len() > HOST_BYTES_MAX || !suffix.split('.').all(label) {
        "write `news.example`, `*.news.example`, or `*` for any host".to_owned()
    } else {
        return Ok(HostPattern(text.to_owned()));
    };
    let message = format!("`{}` is not a host name", crate::mistake::short(text));
    Err(wrong("host", message, help))
}

/// The name of an environment variable that a person may set.
pub fn variable(text: &str) -> Result<String, Wrong> {
    if matches!(text, "HOST" | "PORT") {
        let message = format!("`{text}` is set by the node");
        let help = "choose another name; the service listens where `HOST` and `PORT` say";
        return Err(wrong("environment", message, help));
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let digit_first = text.starts_with(|first: char| first.is_ascii_digit());
    if text.is_empty() || text.len() > 256 || digit_first || !text.bytes().all(inner) {
        let message = format!("`{}` cannot name a variable", crate::mistake::short(text));
        let help = "use letters, digits and `_`, with no digit first";
        return Err(wrong("environment", message, help));
    }
    Ok(text.to_owned())
}

/// A text that is handed to a process.
pub fn argument(text: &str) -> Result<String, Wrong> {
    const BYTES_MAX: usize = 128 << 10;
    if text.contains('\0') || text.len() > BYTES_MAX {
        let message = "no process can be given this text";
        return Err(wrong(
            "argument",
            message,
            "at most 128 KiB, and no NUL in it",
        ));
    }
    Ok(text.to_owned())
}

pub fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let (min, max) = (
        format_duration(*range.start()),
        format_duration(*range.end()),
    );
    let help = || format!("write a duration from `{min}` to `{max}`");
    match parse_duration(text) {
        Ok(span) if range.contains(&span) => Ok(span),
        Ok(_) => {
            let message = format!("`{}` is out of range", crate::mistake::short(text));
            Err(wrong("range", message, help()))
        }
        Err(_) => {
            let message = format!("`{}` is not a duration", crate::mistake::short(text));
            let help = "write a number with `ms`, `s`, `m`, `h` or `d`, such as `250ms`";
            Err(wrong("duration", message, help))
        }
    }
}

/// `99.9%` as 0.999.
pub fn share(text: &str) -> Result<f64, Wrong> {
    let number = text.strip_suffix('%').map(str::trim_end);
    let plain = number.filter(|number| number.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    let parsed = plain.and_then(|number| format!("{number}e-2").parse::<f64>().ok());
    match parsed.map(decimal) {
        Some(share) if share > 0.0 && share < 1.0 => Ok(share),
        Some(_) => {
            let message = format!("`{}` is out of range", crate::mistake::short(text));
            Err(wrong(
                "range",
                message,
                "write a share of more than 0% and of less than 100%",
            ))
        }
        None => {
            let message = format!("`{}` is not a percentage", crate::mistake::short(text));
            Err(wrong(
                "percentage",
                message,
                "write a number and `%`, such as `99.9%`",
            ))
        }
    }
}

/// The nearest number of at most nine decimals, fewer for large ones. With so
/// few digits every JSON reader gives back the same bits, and what was stored
/// equals what was written.
pub fn decimal(number: f64) -> f64 {
    let text = if number < 1000.0 {
        format!("{number:.9}")
    } else {
        format!("{number:.5}")
    };
    text.parse().unwrap_or(number)
}
