//! Reads access logs in the common and the combined format, whoever wrote them.
//!
//! In: bytes, trusted in nothing. Out: entries, and for each line that is none
//! the column and the cause. Holds: no input panics; a line takes at most
//! [`LINE_BYTES_MAX`] of memory; what follows the status and the size (referer,
//! agent, a server's own additions) is not looked at.

use crate::path;
use http::Method;
use http::uri::PathAndQuery;
use std::io::{self, BufRead};

pub const LINE_BYTES_MAX: usize = 64 * 1024;
const TIME_FORMAT: &str = "%d/%b/%Y:%H:%M:%S %z";
/// `17/May/2015:10:05:03 +0000`
const TIME_BYTES: usize = 26;

/// One request as a server recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Seconds since 1970.
    pub unix: i64,
    pub method: Method,
    /// Path and query, fit for a request; bytes that are not are percent-encoded.
    pub target: PathAndQuery,
    pub status: u16,
    /// Of the body; `None` where the log has `-`.
    pub bytes: Option<u64>,
}

/// Why a line is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct LineError {
    /// In bytes, from 1.
    pub column: usize,
    pub what: &'static str,
}

/// A line of a log, its end taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1.
    pub number: u64,
    pub entry: Result<Entry, LineError>,
}

/// The lines of a log, one at a time. Empty lines are passed over.
pub struct Lines<R> {
    input: R,
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            number: 0,
            line: Vec::new(),
        }
    }

    /// Reads up to the next line's end; `false` at the log's end.
    ///
    /// Bytes beyond [`LINE_BYTES_MAX`] are read and not kept.
    fn read(&mut self) -> io::Result<Option<bool>> {
        self.line.clear();
        let (mut any, mut overlong) = (false, false);
        loop {
            let piece = match self.input.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if piece.is_empty() {
                return Ok(any.then_some(overlong));
            }
            any = true;
            let end = piece.iter().position(|byte| *byte == b'\n');
            let wanted = &piece[..end.unwrap_or(piece.len())];
            let room = LINE_BYTES_MAX - self.line.len();
            overlong |= wanted.len() > room;
            self.line
                .extend_from_slice(&wanted[..wanted.len().min(room)]);
            let taken = end.map_or(piece.len(), |end| end + 1);
            self.input.consume(taken);
            if end.is_some() {
                return Ok(Some(overlong));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let overlong = match self.read() {
                Ok(read) => read?,
                Err(error) => return Some(Err(error)),
            };
            self.number += 1;
            let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
            if line.is_empty() {
                continue;
            }
            let entry = if overlong {
                wrong(LINE_BYTES_MAX, "the line is longer than 64 KiB")
            } else {
                parse(line)
            };
            return Some(Ok(Line {
                number: self.number,
                entry,
            }));
        }
    }
}

/// Reads one line without its end.
///
/// # Errors
/// [`LineError`] with the place of what was not understood.
pub fn parse(line: &[u8]) -> Result<Entry, LineError> {
    let (unix, time_end) = time(line)?;
    let mut cursor = Cursor { line, at: time_end };
    cursor.expect(b" \"", "no quote opens the request")?;
    let request_at = cursor.at;
    let request = cursor.quoted()?;
    cursor.expect(b" ", "no space after the request")?;
    let status_at = cursor.at;
    let status = number(cursor.field())
        .and_then(|status| u16::try_from(status).ok())
        .filter(|status| (100..1000).contains(status));
    let Some(status) = status else {
        return wrong(status_at, "the status is no number of three digits");
    };
    cursor.expect(b" ", "no size after the status")?;
    let bytes_at = cursor.at;
    let bytes = match cursor.field() {
        b"-" => None,
        field => match number(field) {
            Some(bytes) => Some(bytes),
            None => return wrong(bytes_at, "the size is neither a number nor `-`"),
        },
    };
    let (method, target) = request_line(request, request_at)?;
    Ok(Entry {
        unix,
        method,
        target,
        status,
        bytes,
    })
}

fn wrong<T>(at: usize, what: &'static str) -> Result<T, LineError> {
    Err(LineError {
        column: at + 1,
        what,
    })
}

/// The time, and where the line goes on after its `]`.
///
/// A user's name may hold spaces and brackets, so the first bracket that holds
/// a time is the one.
fn time(line: &[u8]) -> Result<(i64, usize), LineError> {
    let mut first = None;
    for at in 1..line.len() {
        if line[at] != b'[' || line[at - 1] != b' ' {
            continue;
        }
        first.get_or_insert(at);
        let end = at + 1 + TIME_BYTES;
        let Some(text) = line.get(at + 1..end) else {
            break;
        };
        if line.get(end) == Some(&b']')
            && let Some(unix) = timestamp(text)
        {
            return Ok((unix, end + 1));
        }
    }
    match first {
        Some(at) => wrong(at, "the time is not like [17/May/2015:10:05:03 +0000]"),
        None => wrong(0, "no time in brackets"),
    }
}

fn timestamp(text: &[u8]) -> Option<i64> {
    let parsed = jiff::fmt::strtime::parse(TIME_FORMAT, text).ok()?;
    Some(parsed.to_timestamp().ok()?.as_second())
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn expect(&mut self, mark: &[u8], what: &'static str) -> Result<(), LineError> {
        match self.line.get(self.at..) {
            Some(rest) if rest.starts_with(mark) => {
                self.at += mark.len();
                Ok(())
            }
            _ => wrong(self.at, what),
        }
    }

    /// Up to the closing quote, which is taken; `\` guards what follows it.
    fn quoted(&mut self) -> Result<&'a [u8], LineError> {
        let start = self.at;
        while let Some(&byte) = self.line.get(self.at) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.line[start..self.at - 1]);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        wrong(start - 1, "no quote closes the request")
    }

    /// Up to the next space or the line's end.
    fn field(&mut self) -> &'a [u8] {
        let rest = self.line.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b' ');
        let field = &rest[..end.unwrap_or(rest.len())];
        self.at += field.len();
        field
    }
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok()
}

/// Method and target of `GET /path HTTP/1.1`; the version may be missing, as
/// HTTP/0.9 has none.
fn request_line(request: &[u8], at: usize) -> Result<(Method, PathAndQuery), LineError> {
    let Some(space) = request.iter().position(|byte| *byte == b' ') else {
        return wrong(at, "the request has no method and path");
    };
    let (method, rest) = (&request[..space], &request[space + 1..]);
    let method = match Method::from_bytes(method) {
        Ok(method) if !rest.is_empty() => method,
        _ => return wrong(at, "the request has no method and path"),
    };
    let version = rest
        .windows(6)
        .rposition(|part| part == b" HTTP/")
        .unwrap_or(rest.len());
    let target_at = at + space + 1;
    match path::target(&path::unescape(&rest[..version])) {
        Ok(target) => Ok((method, target)),
        Err(what) => wrong(target_at, what),
    }
}

/// The log that some tests read, where there is one.
#[cfg(test)]
#[expect(clippy::print_stderr, reason = "what a run leaves out must be seen")]
pub fn recorded() -> Option<Lines<impl BufRead>> {
    let Some(data) = std::env::var_os("HOMEOSTAT_DATA") else {
        eprintln!("skipped: HOMEOSTAT_DATA does not say where the recorded log is");
        return None;
    };
    let path = std::path::Path::new(&data).join("elastic_apache_logs.log");
    let file = std::fs::File::open(path).expect("the recorded log");
    Some(Lines::new(io::BufReader::new(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COMBINED: &str = r#"83.149.9.216 - - [17/May/2015:10:05:03 +0000] "GET /a/b.png?x=1 HTTP/1.1" 200 203023 "http://there/" "Mozilla/5.0""#;

    fn with_request(request: &str) -> Result<Entry, LineError> {
        let line = format!("::1 - - [17/May/2015:10:05:03 +0000] \"{request}\" 200 1");
        parse(line.as_bytes())
    }

    fn path(request: &str) -> String {
        with_request(request).expect("an entry").target.to_string()
    }

    #[test]
    fn a_combined_line_is_an_entry() {
        let entry = parse(COMBINED.as_bytes()).expect("an entry");
        let expected = Entry {
            unix: 1_431_857_103,
            method: Method::GET,
            target: PathAndQuery::from_static("/a/b.png?x=1"),
            status: 200,
            bytes: Some(203_023),
        };
        assert_eq!(entry, expected);
    }

    #[test]
    fn a_common_line_is_an_entry_in_its_own_time_zone() {
        let line = br#"h - jo [smith] [17/May/2015:12:05:03 +0200] "HEAD / HTTP/1.0" 304 -"#;
        let entry = parse(line).expect("an entry");
        assert_eq!((entry.unix, entry.bytes), (1_431_857_103, None));
        assert_eq!(entry.method, Method::HEAD);
    }

    #[test]
    fn what_follows_the_size_does_not_matter() {
        let cut = &COMBINED[..COMBINED.len() - 1];
        assert!(parse(cut.as_bytes()).is_ok());
        assert!(parse(format!("{COMBINED} 0.003 \"upstream\"").as_bytes()).is_ok());
        assert!(parse(format!("shop.example:443 {COMBINED}").as_bytes()).is_ok());
    }

    #[test]
    fn odd_targets_become_such_as_can_be_asked_for() {
        assert_eq!(path("GET /a b HTTP/1.1"), "/a%20b");
        assert_eq!(path("GET /a#b HTTP/1.1"), "/a");
        assert_eq!(path("GET /a"), "/a");
        assert_eq!(path(r#"GET /\"\\\xc3\xbc\x HTTP/1.1"#), "/%22%5C%C3%BCx");
        assert_eq!(path("GET /ü<>|^ HTTP/1.1"), "/%C3%BC%3C%3E%7C%5E");
        assert_eq!(path("GET http://here/a?b HTTP/1.1"), "/a?b");
        assert_eq!(path("GET https://here HTTP/1.1"), "/");
    }

    #[test]
    fn mistakes_have_a_column_and_a_cause() {
        let mistake = |line: &str| parse(line.as_bytes()).expect_err("no entry").to_string();
        let at = "[17/May/2015:10:05:03 +0000]";
        assert_eq!(mistake("nonsense"), "column 1: no time in brackets");
        assert!(
            mistake("h - - [17/Mai/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1")
                .starts_with("column 7: the time")
        );
        assert_eq!(
            mistake(&format!("h - - {at}")),
            "column 35: no quote opens the request"
        );
        assert_eq!(
            mistake(&format!("h - - {at} \"GET /")),
            "column 36: no quote closes the request"
        );
        assert_eq!(
            mistake(&format!("h - - {at} \"-\" 400 0")),
            "column 37: the request has no method and path"
        );
        assert_eq!(
            mistake(&format!("h - - {at} \"OPTIONS * HTTP/1.1\" 200 0")),
            "column 45: the path does not begin with `/`"
        );
        assert_eq!(
            mistake(&format!("h - - {at} \"GET / HTTP/1.1\" 20 0")),
            "column 53: the status is no number of three digits"
        );
        assert_eq!(
            mistake(&format!("h - - {at} \"GET / HTTP/1.1\" 200")),
            "column 56: no size after the status"
        );
        assert_eq!(
            mistake(&format!("h - - {at} \"GET / HTTP/1.1\" 200 x")),
            "column 57: the size is neither a number nor `-`"
        );
        assert!(with_request(r"\x16\x03\x01").is_err());
    }

    #[test]
    fn lines_are_numbered_and_overlong_ones_do_not_end_the_log() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let text = format!("{COMBINED}\r\n\n{long}\n{COMBINED}");
        let lines: Vec<_> = Lines::new(text.as_bytes())
            .map(|line| line.expect("readable"))
            .collect();
        let seen: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.entry.is_ok()))
            .collect();
        assert_eq!(seen, [(1, true), (3, false), (4, true)]);
        assert!(
            lines[1]
                .entry
                .as_ref()
                .is_err_and(|error| error.what.contains("64 KiB"))
        );
    }

    #[test]
    fn the_recorded_log_is_understood() {
        let Some(log) = recorded() else {
            return;
        };
        let (mut entries, mut bytes) = (0, 0);
        let mut targets = std::collections::BTreeSet::new();
        for line in log {
            let entry = line.expect("readable").entry.expect("an entry");
            entries += 1;
            bytes += entry.bytes.unwrap_or(0);
            targets.insert(entry.target.to_string());
        }
        assert_eq!((entries, targets.len()), (10_000, 1_498));
        assert!((2_700_000_000..2_800_000_000).contains(&bytes), "{bytes}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_errors_lie_within_the_line(
            line in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Err(error) = parse(&line) {
                prop_assert!((1..=line.len() + 1).contains(&error.column));
            }
        }

        #[test]
        fn no_damage_to_a_good_line_panics(
            at in 0..COMBINED.len(), len in 0..20_usize, bytes in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut line = COMBINED.as_bytes().to_vec();
            let end = (at + len).min(line.len());
            line.splice(at..end, bytes);
            match parse(&line) {
                Ok(entry) => prop_assert!(entry.target.as_str().starts_with('/')),
                Err(error) => prop_assert!((1..=line.len() + 1).contains(&error.column)),
            }
        }

        #[test]
        fn any_split_of_the_input_gives_the_same_lines(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300), size in 1..40_usize,
        ) {
            let whole: Vec<_> = Lines::new(&bytes[..]).map(|line| line.expect("readable")).collect();
            let split = io::BufReader::with_capacity(size, &bytes[..]);
            let split: Vec<_> = Lines::new(split).map(|line| line.expect("readable")).collect();
            prop_assert_eq!(whole, split);
        }
    }
}
