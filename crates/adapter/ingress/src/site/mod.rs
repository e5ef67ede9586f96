//! Serves the documents of a site from its tree.
//!
//! In: the head of a GET or HEAD and the path below the site's route. Out: an
//! answer whose body is ready or streams from a file.
//! Holds: only paths that stand in the tree are served, so nothing climbs out of
//! it; each encoding has a strong entity tag of its own; what can be made once
//! per snapshot is not made per request.

mod conditional;
mod negotiate;
mod ranges;

use crate::body::{Answer, Piece};
use crate::{Document, Documents, Encoding, Source};
use bytes::Bytes;
use conditional::{Outcome, Validators};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};
use kernel::{Hash, ScopedName};
use ranges::Selection;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use wire::content::{Tree, TreeEntry};
use wire::edge::SiteView;

pub struct SiteState {
    pub name: ScopedName,
    pub view: SiteView,
    documents: BTreeMap<String, Prepared>,
}

/// A document with the fields that do not depend on the request.
struct Prepared {
    hash: Hash,
    modified_unix: u64,
    media_type: HeaderValue,
    last_modified: Option<HeaderValue>,
    cache_control: HeaderValue,
    /// In the order of [`Encoding`].
    etags: [HeaderValue; 3],
}

impl SiteState {
    pub fn new(name: ScopedName, view: SiteView, tree: &Tree) -> Self {
        let usual = match view.max_age.as_secs() {
            0 => HeaderValue::from_static("no-cache"),
            seconds => HeaderValue::from_str(&format!("public, max-age={seconds}"))
                .unwrap_or(HeaderValue::from_static("no-cache")),
        };
        let mut media_types = BTreeMap::new();
        let documents = tree
            .entries
            .iter()
            .map(|(path, entry)| {
                let cache_control = if view.immutable.iter().any(|prefix| covers(prefix, path)) {
                    HeaderValue::from_static("public, max-age=31536000, immutable")
                } else {
                    usual.clone()
                };
                let media_type = media_types
                    .entry(entry.media_type.as_str())
                    .or_insert_with(|| {
                        HeaderValue::from_str(&entry.media_type)
                            .unwrap_or(HeaderValue::from_static("application/octet-stream"))
                    })
                    .clone();
                (
                    path.clone(),
                    Prepared::new(entry, media_type, cache_control),
                )
            })
            .collect();
        Self {
            name,
            view,
            documents,
        }
    }

    fn index_of(&self, directory: &str) -> Option<&Prepared> {
        self.documents
            .get(&format!("{directory}{}", self.view.index))
    }
}

impl Prepared {
    fn new(entry: &TreeEntry, media_type: HeaderValue, cache_control: HeaderValue) -> Self {
        let hash = entry.hash.to_string();
        let etag = |suffix: &str| {
            HeaderValue::from_str(&format!("\"{}{suffix}\"", &hash[..32]))
                .unwrap_or(HeaderValue::from_static("\"\""))
        };
        Self {
            hash: entry.hash,
            modified_unix: entry.modified_unix,
            media_type,
            last_modified: conditional::http_date(entry.modified_unix),
            cache_control,
            etags: [etag(""), etag("-gz"), etag("-br")],
        }
    }
}

fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_matches('/');
    prefix.is_empty()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub struct Asked<'a> {
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// Below the route: empty or starts with `/`.
    pub below: &'a str,
    /// The whole path, and the query with its `?`, for redirects.
    pub path: &'a str,
    pub query: Option<&'a str>,
}

pub fn serve(site: &SiteState, documents: &dyn Documents, asked: &Asked<'_>) -> Response<Answer> {
    if asked.method != Method::GET && asked.method != Method::HEAD {
        let mut response = crate::server::plain(StatusCode::METHOD_NOT_ALLOWED);
        response
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let Some(path) = decoded(asked.below) else {
        return crate::server::plain(StatusCode::BAD_REQUEST);
    };
    let found = match path.strip_prefix('/') {
        None => None,
        Some(path) if path.is_empty() || path.ends_with('/') => site.index_of(path),
        Some(path) => site.documents.get(path),
    };
    if let Some(prepared) = found {
        return send(prepared, documents, asked);
    }
    if !path.ends_with('/') {
        let directory = format!("{}/", path.trim_start_matches('/'));
        let directory = if path.is_empty() { "" } else { &directory };
        if site.index_of(directory).is_some() {
            return redirect(asked);
        }
    }
    not_found(site, documents, asked)
}

fn redirect(asked: &Asked<'_>) -> Response<Answer> {
    let query = asked
        .query
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let mut response = crate::server::plain(StatusCode::MOVED_PERMANENTLY);
    match HeaderValue::from_str(&format!("{}/{query}", asked.path)) {
        Ok(location) => {
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Err(_) => crate::server::plain(StatusCode::BAD_REQUEST),
    }
}

fn not_found(site: &SiteState, documents: &dyn Documents, asked: &Asked<'_>) -> Response<Answer> {
    let page = site
        .view
        .not_found
        .as_ref()
        .and_then(|path| site.documents.get(path.trim_start_matches('/')))
        .and_then(|page| Some((page, open(page, documents, asked.headers)?)));
    let Some((page, (encoding, document))) = page else {
        return crate::server::plain(StatusCode::NOT_FOUND);
    };
    let length = document.bytes;
    let mut response = Response::new(body(document.source, 0..length));
    *response.status_mut() = StatusCode::NOT_FOUND;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, page.media_type.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    insert_encoding(headers, encoding);
    without_body_for_head(asked.method, response)
}

fn open(
    prepared: &Prepared,
    documents: &dyn Documents,
    headers: &HeaderMap,
) -> Option<(Encoding, Document)> {
    let fields = headers.get_all(header::ACCEPT_ENCODING);
    negotiate::preference(fields.iter().filter_map(|value| value.to_str().ok()))
        .into_iter()
        .flatten()
        .find_map(|encoding| Some((encoding, documents.open(prepared.hash, encoding)?)))
}

fn send(prepared: &Prepared, documents: &dyn Documents, asked: &Asked<'_>) -> Response<Answer> {
    let Some((encoding, document)) = open(prepared, documents, asked.headers) else {
        tracing::error!(hash = %prepared.hash, "a document of the tree cannot be opened");
        return crate::server::plain(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let etag = &prepared.etags[encoding as usize];
    let current = Validators {
        etag: etag.to_str().unwrap_or_default(),
        modified_unix: prepared.modified_unix,
    };
    let mut response = match conditional::evaluate(asked.headers, current) {
        Outcome::Failed => return crate::server::plain(StatusCode::PRECONDITION_FAILED),
        Outcome::NotModified => {
            let mut response = Response::new(Answer::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        Outcome::Proceed => {
            let selection = match asked.headers.get(header::RANGE) {
                Some(range)
                    if asked.method == Method::GET
                        && conditional::range_applies(asked.headers, current) =>
                {
                    ranges::select(range.to_str().unwrap_or_default(), document.bytes)
                }
                _ => Selection::Whole,
            };
            selected(prepared, encoding, document, selection)
        }
    };
    let status = response.status();
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag.clone());
    if let Some(date) = &prepared.last_modified {
        headers.insert(header::LAST_MODIFIED, date.clone());
    }
    let cache_control = if status == StatusCode::RANGE_NOT_SATISFIABLE {
        HeaderValue::from_static("no-store")
    } else {
        prepared.cache_control.clone()
    };
    headers.insert(header::CACHE_CONTROL, cache_control);
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    without_body_for_head(asked.method, response)
}

/// The 200, 206 or 416 for a selection, with the fields about its content.
fn selected(
    prepared: &Prepared,
    encoding: Encoding,
    document: Document,
    selection: Selection,
) -> Response<Answer> {
    let length = document.bytes;
    let (status, answer, extra) = match selection {
        Selection::Whole => (StatusCode::OK, body(document.source, 0..length), None),
        Selection::One(span) => {
            let field = content_range(&span, length);
            (
                StatusCode::PARTIAL_CONTENT,
                body(document.source, span),
                Some(field),
            )
        }
        Selection::Many(spans) => return multipart(prepared, encoding, document, spans),
        Selection::Unsatisfiable => {
            let field = format!("bytes */{length}");
            (
                StatusCode::RANGE_NOT_SATISFIABLE,
                Answer::empty(),
                Some(field),
            )
        }
    };
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Some(value) = extra.and_then(|field| HeaderValue::from_str(&field).ok()) {
        headers.insert(header::CONTENT_RANGE, value);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if status != StatusCode::RANGE_NOT_SATISFIABLE {
        headers.insert(header::CONTENT_TYPE, prepared.media_type.clone());
        insert_encoding(headers, encoding);
    }
    response
}

fn multipart(
    prepared: &Prepared,
    encoding: Encoding,
    document: Document,
    spans: Vec<Range<u64>>,
) -> Response<Answer> {
    let length = document.bytes;
    // Content that names its own hash cannot also hold this line.
    let boundary = format!("{}-{length:x}", prepared.hash.short());
    let media_type = prepared
        .media_type
        .to_str()
        .unwrap_or("application/octet-stream");
    let source = document.source;
    let mut pieces = std::collections::VecDeque::new();
    for span in spans {
        let range = content_range(&span, length);
        pieces.push_back(Piece::Memory(Bytes::from(format!(
            "\r\n--{boundary}\r\ncontent-type: {media_type}\r\ncontent-range: {range}\r\n\r\n"
        ))));
        pieces.push_back(piece(&source, span));
    }
    pieces.push_back(Piece::Memory(Bytes::from(format!(
        "\r\n--{boundary}--\r\n"
    ))));
    let mut response = Response::new(Answer::pieces(pieces));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    let kind = format!("multipart/byteranges; boundary={boundary}");
    if let Ok(value) = HeaderValue::from_str(&kind) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert_encoding(headers, encoding);
    response
}

fn content_range(span: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", span.start, span.end - 1)
}

fn insert_encoding(headers: &mut HeaderMap, encoding: Encoding) {
    let name = match encoding {
        Encoding::Identity => return,
        Encoding::Gzip => "gzip",
        Encoding::Brotli => "br",
    };
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
}

fn piece(source: &Source, span: Range<u64>) -> Piece {
    match source {
        Source::Memory(bytes) => Piece::Memory(slice(bytes, span)),
        Source::Stored(document) => Piece::Stored {
            document: Arc::clone(document),
            span,
        },
    }
}

fn body(source: Source, span: Range<u64>) -> Answer {
    match source {
        Source::Memory(bytes) => Answer::memory(slice(&bytes, span)),
        Source::Stored(_) => Answer::pieces([piece(&source, span)].into()),
    }
}

/// Clamped, should a [`Document`] state more bytes than it has.
fn slice(bytes: &Bytes, span: Range<u64>) -> Bytes {
    let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(clamp(span.start)..clamp(span.end))
}

fn without_body_for_head(method: &Method, mut response: Response<Answer>) -> Response<Answer> {
    if method == Method::HEAD {
        let length = http_body::Body::size_hint(response.body())
            .exact()
            .unwrap_or(0);
        if response.status() != StatusCode::NOT_MODIFIED {
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = Answer::empty();
    }
    response
}

/// Percent-decoded; `None` for what is no path of ours: not UTF-8, a NUL or
/// backslash, an encoded slash, a `.`, `..` or empty component.
fn decoded(path: &str) -> Option<Cow<'_, str>> {
    let decoded = if path.contains('%') {
        Cow::Owned(percent_decoded(path)?)
    } else {
        path.into()
    };
    let inner = decoded.strip_prefix('/').unwrap_or(&decoded);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let wrong = |part: &str| matches!(part, "." | "..") || part.contains(['\0', '\\']);
    let hollow = decoded.contains("//");
    (!hollow && !inner.split('/').any(wrong)).then_some(decoded)
}

fn percent_decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            match u8::from_str_radix(digits, 16).ok()? {
                b'/' => return None,
                decoded => bytes.push(decoded),
            }
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_climb_are_refused() {
        assert_eq!(decoded("/a%20b").as_deref(), Some("/a b"));
        assert_eq!(decoded("/caf%C3%A9/").as_deref(), Some("/café/"));
        for wrong in [
            "/../x",
            "/%2e%2e/x",
            "/a/./b",
            "//a",
            "/a%2fb",
            "/%00",
            "/%",
            "/%zz",
            "/%ff",
            "/a\\b",
            "/..",
        ] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic_or_climb(path: String) {
            if let Some(path) = decoded(&path) {
                prop_assert!(!path.split('/').any(|part| part == ".."));
            }
        }
    }
}
