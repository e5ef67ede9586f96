//! Decides what the preconditions of a request come to (RFC 9110, 13.2.2).
//!
//! In: the conditional fields, the document's entity tag and date. Out: an
//! [`Outcome`]. Holds: the order of the RFC; a date is looked at only where
//! there is no entity tag; a field that cannot be read is as if absent.

use http::{HeaderMap, HeaderValue, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Proceed,
    NotModified,
    Failed,
}

/// What a request is compared with; `etag` is strong, with its quotes.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    pub etag: &'a str,
    pub modified_unix: u64,
}

pub fn evaluate(headers: &HeaderMap, current: Validators<'_>) -> Outcome {
    if let Some(passes) = list_matches(headers, &header::IF_MATCH, current.etag, false) {
        if !passes {
            return Outcome::Failed;
        }
    } else if let Some(since) = date(headers.get(header::IF_UNMODIFIED_SINCE))
        && current.modified_unix > since
    {
        return Outcome::Failed;
    }
    if let Some(found) = list_matches(headers, &header::IF_NONE_MATCH, current.etag, true) {
        // Only GET and HEAD get here, for which a match means 304.
        return if found {
            Outcome::NotModified
        } else {
            Outcome::Proceed
        };
    }
    match date(headers.get(header::IF_MODIFIED_SINCE)) {
        Some(since) if current.modified_unix <= since => Outcome::NotModified,
        _ => Outcome::Proceed,
    }
}

/// Whether `range` may be honoured: `if-range` is absent or names exactly what
/// we would send.
pub fn range_applies(headers: &HeaderMap, current: Validators<'_>) -> bool {
    let Some(value) = headers.get(header::IF_RANGE) else {
        return true;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    if text.starts_with('"') {
        return text == current.etag;
    }
    // A date must match exactly; a weak tag never does.
    date(Some(value)) == Some(current.modified_unix)
}

/// `None` when the field is absent.
fn list_matches(
    headers: &HeaderMap,
    name: &http::HeaderName,
    etag: &str,
    weak: bool,
) -> Option<bool> {
    let mut present = false;
    for value in headers.get_all(name) {
        present = true;
        let Ok(text) = value.to_str() else { continue };
        if text.trim() == "*" || tags(text).any(|(tag, is_weak)| tag == etag && (weak || !is_weak))
        {
            return Some(true);
        }
    }
    present.then_some(false)
}

/// The entity tags of a list with their quotes, and whether each is weak. A
/// comma may stand inside a tag, so quotes delimit.
fn tags(mut text: &str) -> impl Iterator<Item = (&str, bool)> {
    std::iter::from_fn(move || {
        let start = text.find('"')?;
        let weak = text[..start].ends_with("W/");
        let end = start + 1 + text[start + 1..].find('"')?;
        let tag = &text[start..=end];
        text = &text[end + 1..];
        Some((tag, weak))
    })
}

fn date(value: Option<&HeaderValue>) -> Option<u64> {
    let time = httpdate::parse_http_date(value?.to_str().ok()?).ok()?;
    time.duration_since(UNIX_EPOCH)
        .ok()
        .map(|span| span.as_secs())
}

/// A date as `last-modified` shows it; beyond the year 9999 there is no form.
pub fn http_date(unix: u64) -> Option<HeaderValue> {
    if unix > 253_402_300_799 {
        return None;
    }
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(unix);
    HeaderValue::from_str(&httpdate::fmt_http_date(time)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Validators<'static> = Validators {
        etag: "\"a,b\"",
        modified_unix: 1_000_000_000,
    };

    fn outcome(fields: &[(&'static str, &str)]) -> Outcome {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("valid"));
        }
        evaluate(&headers, NOW)
    }

    #[test]
    fn entity_tags_win_over_dates() {
        let later = "Tue, 01 Jan 2030 00:00:00 GMT";
        let earlier = "Mon, 01 Jan 1990 00:00:00 GMT";
        assert_eq!(outcome(&[]), Outcome::Proceed);
        assert_eq!(
            outcome(&[("if-none-match", "\"x\", W/\"a,b\"")]),
            Outcome::NotModified
        );
        assert_eq!(
            outcome(&[("if-none-match", "\"x\""), ("if-modified-since", later)]),
            Outcome::Proceed
        );
        assert_eq!(
            outcome(&[("if-modified-since", later)]),
            Outcome::NotModified
        );
        assert_eq!(outcome(&[("if-modified-since", earlier)]), Outcome::Proceed);
        assert_eq!(outcome(&[("if-match", "W/\"a,b\"")]), Outcome::Failed);
        assert_eq!(
            outcome(&[("if-match", "*"), ("if-unmodified-since", earlier)]),
            Outcome::Proceed
        );
        assert_eq!(
            outcome(&[("if-unmodified-since", earlier)]),
            Outcome::Failed
        );
        assert_eq!(
            outcome(&[("if-match", "\"x\""), ("if-none-match", "\"a,b\"")]),
            Outcome::Failed
        );
    }

    proptest! {
        #[test]
        fn no_field_makes_it_panic(text in "\\PC*") {
            for name in ["if-match", "if-none-match", "if-range", "if-modified-since"] {
                let mut headers = HeaderMap::new();
                if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                    headers.insert(name, value);
                }
                let _ = evaluate(&headers, NOW);
                let _ = range_applies(&headers, NOW);
            }
        }

        #[test]
        fn own_tag_is_found_in_any_list(before in proptest::collection::vec("[a-z]{0,5}", 0..5)) {
            let mut list: Vec<String> = before.iter().map(|tag| format!("\"{tag}\"")).collect();
            list.push(NOW.etag.to_owned());
            prop_assert_eq!(outcome(&[("if-none-match", &list.join(", "))]), Outcome::NotModified);
        }
    }
}
