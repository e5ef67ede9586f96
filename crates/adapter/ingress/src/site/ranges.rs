//! Reads `range: bytes=…` against a document's length (RFC 9110, 14).
//!
//! Out: the spans to send, in the order asked for. Holds: each span is within
//! the document and not empty; what cannot be read is ignored, as the RFC asks;
//! more than [`RANGES_MAX`] spans, or spans that overlap so that together they
//! exceed the document, get the whole document (they cost us, not the client).

use std::ops::Range;

pub const RANGES_MAX: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    Whole,
    One(Range<u64>),
    Many(Vec<Range<u64>>),
    /// 416: the syntax is right, but no span lies in the document.
    Unsatisfiable,
}

pub fn select(field: &str, length: u64) -> Selection {
    let Some(list) = field.trim().strip_prefix("bytes=") else {
        return Selection::Whole;
    };
    let mut spans = Vec::new();
    let mut asked = 0_usize;
    for item in list
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        asked += 1;
        if asked > RANGES_MAX {
            return Selection::Whole;
        }
        match span(item, length) {
            Err(Unreadable) => return Selection::Whole,
            Ok(Some(span)) => spans.push(span),
            Ok(None) => {}
        }
    }
    let total: u64 = spans.iter().map(|span| span.end - span.start).sum();
    match (asked, spans.len()) {
        (0, _) => Selection::Whole,
        (_, 0) => Selection::Unsatisfiable,
        (_, 1) => Selection::One(spans.swap_remove(0)),
        _ if total > length => Selection::Whole,
        _ => Selection::Many(spans),
    }
}

struct Unreadable;

/// `Ok(None)` for a span that lies outside.
fn span(item: &str, length: u64) -> Result<Option<Range<u64>>, Unreadable> {
    let (first, last) = item.split_once('-').ok_or(Unreadable)?;
    let number = |text: &str| -> Result<u64, Unreadable> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Unreadable);
        }
        // More digits than fit is a number beyond any document.
        Ok(text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        let start = length.saturating_sub(suffix);
        return Ok((start < length).then_some(start..length));
    }
    let start = number(first)?;
    let end = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    if end < start {
        return Err(Unreadable);
    }
    Ok((start < length).then(|| start..end.saturating_add(1).min(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_as_clients_write_them() {
        assert_eq!(select("bytes=0-0", 10), Selection::One(0..1));
        assert_eq!(select("bytes=5-", 10), Selection::One(5..10));
        assert_eq!(select("bytes=-3", 10), Selection::One(7..10));
        assert_eq!(select("bytes=-30", 10), Selection::One(0..10));
        assert_eq!(
            select("bytes=0-1, 8-99", 10),
            Selection::Many(vec![0..2, 8..10])
        );
        assert_eq!(select("bytes=10-", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=-0", 10), Selection::Unsatisfiable);
        assert_eq!(select("bytes=3-1", 10), Selection::Whole);
        assert_eq!(select("lines=0-1", 10), Selection::Whole);
        assert_eq!(select("bytes=0-9,0-9", 10), Selection::Whole);
        assert_eq!(
            select(&format!("bytes={}", "0-0,".repeat(17)), 10),
            Selection::Whole
        );
        assert_eq!(select("bytes=0-", 0), Selection::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn every_span_is_inside_and_not_empty(text in "bytes=[0-9, -]{0,40}", length in 0..1000_u64) {
            let spans = match select(&text, length) {
                Selection::One(span) => vec![span],
                Selection::Many(spans) => spans,
                _ => vec![],
            };
            for span in spans {
                prop_assert!(span.start < span.end && span.end <= length);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text: String, length: u64) {
            let _ = select(&text, length);
        }
    }
}
