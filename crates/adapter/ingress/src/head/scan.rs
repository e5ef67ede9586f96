//! Looks at the bytes of an HTTP/1 head before they are parsed, for what the
//! parser resolves silently and we refuse: `content-length` beside
//! `transfer-encoding`. It also keeps the head's start, for the access row of
//! one that cannot be parsed.
//!
//! Holds: a head counts as one however many reads it takes. One that came
//! together with what stands before it is not seen; there the parser lets
//! `transfer-encoding` win, drops the length and closes after the answer.

const KEPT_BYTES: usize = 192;
/// The longer of the names, with its colon.
const NAME_BYTES: usize = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    RequestLine,
    Fields,
    Ended,
}

#[derive(Debug)]
pub struct HeadScan {
    kept: [u8; KEPT_BYTES],
    kept_length: usize,
    /// The start of the current line.
    line: [u8; NAME_BYTES],
    line_length: usize,
    part: Part,
    length: bool,
    transfer: bool,
}

impl Default for HeadScan {
    fn default() -> Self {
        Self {
            kept: [0; KEPT_BYTES],
            kept_length: 0,
            line: [0; NAME_BYTES],
            line_length: 0,
            part: Part::RequestLine,
            length: false,
            transfer: false,
        }
    }
}

impl HeadScan {
    pub fn read(&mut self, mut bytes: &[u8]) {
        if self.part == Part::Ended {
            return;
        }
        let keep = bytes.len().min(KEPT_BYTES - self.kept_length);
        self.kept[self.kept_length..self.kept_length + keep].copy_from_slice(&bytes[..keep]);
        self.kept_length += keep;
        while self.part != Part::Ended {
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let take = part.len().min(NAME_BYTES - self.line_length);
            self.line[self.line_length..self.line_length + take].copy_from_slice(&part[..take]);
            self.line_length += take;
            let Some(end) = end else { return };
            self.line_ended();
            bytes = &bytes[end + 1..];
        }
    }

    fn line_ended(&mut self) {
        let line = &self.line[..self.line_length];
        let blank = matches!(line, [] | [b'\r']);
        if self.part == Part::Fields {
            match line.first() {
                Some(b'c' | b'C') => self.length |= is_field(line, b"content-length:"),
                Some(b't' | b'T') => self.transfer |= is_field(line, b"transfer-encoding:"),
                _ => {}
            }
        }
        self.part = match self.part {
            // Blank lines may stand before it.
            Part::RequestLine if blank => Part::RequestLine,
            Part::RequestLine => Part::Fields,
            Part::Fields if blank => Part::Ended,
            part => part,
        };
        self.line_length = 0;
    }

    /// Whether both framing fields were there; ready for the next head then.
    pub fn take_conflict(&mut self) -> bool {
        let conflict = self.length && self.transfer;
        self.kept_length = 0;
        self.line_length = 0;
        self.part = Part::RequestLine;
        self.length = false;
        self.transfer = false;
        conflict
    }

    /// Method and target of the head as far as they can be told.
    pub fn request_line(&self) -> (String, String) {
        let start = &self.kept[..self.kept_length];
        let line = start
            .split(|byte| matches!(byte, b'\r' | b'\n'))
            .find(|line| !line.is_empty())
            .unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let method = words.next().unwrap_or_default();
        if method.len() > 16 || !method.iter().all(u8::is_ascii_alphabetic) {
            return (String::new(), String::new());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(method), text(words.next().unwrap_or_default()))
    }

    pub fn has_begun(&self) -> bool {
        self.kept_length > 0
    }
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: &[u8] =
        b"\r\nPOST /p HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn conflicting_framing_is_seen_in_the_head_only() {
        let mut scan = HeadScan::default();
        scan.read(b"POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nTransfer-Encoding: chunked\r\n");
        assert!(!scan.take_conflict());
        scan.read(BOTH);
        assert_eq!(scan.request_line(), ("POST".to_owned(), "/p".to_owned()));
        assert!(scan.take_conflict());
        assert!(!scan.take_conflict());
    }

    proptest! {
        #[test]
        fn conflict_is_seen_however_the_head_is_cut(cuts in proptest::collection::vec(0..BOTH.len(), 0..6)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut scan = HeadScan::default();
            let mut from = 0;
            for cut in cuts.into_iter().chain([BOTH.len()]) {
                scan.read(&BOTH[from..cut]);
                from = cut;
            }
            prop_assert!(scan.take_conflict());
        }

        #[test]
        fn no_bytes_make_it_panic(pieces: Vec<Vec<u8>>) {
            let mut scan = HeadScan::default();
            for piece in pieces {
                scan.read(&piece);
                let _ = scan.request_line();
            }
        }
    }
}
