//! Decides whether a request's head may be served at all, and for which host.
//!
//! In: a head. Out: its authority in lower case, or the status that refuses it.
//! Holds: what two readers could take for two different requests is refused
//! (RFC 9112, 11.2): doubled or contradicting hosts, codings other than
//! `chunked`, paths that climb. Refused are also `TRACE` and `CONNECT`.

use http::header;
use http::{Method, Request, StatusCode, Version};
use std::borrow::Cow;

/// What hyper allows over HTTP/1.
const FIELDS_MAX: usize = 100;

/// * `head_bytes_max`: of HTTP/2; a head of HTTP/1 was bounded before it was
///   parsed.
pub fn authority<B>(
    request: &Request<B>,
    head_bytes_max: usize,
) -> Result<Cow<'_, str>, StatusCode> {
    let headers = request.headers();
    if request.version() == Version::HTTP_2
        && (headers.len() > FIELDS_MAX || head_bytes(request) > head_bytes_max)
    {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let codings = headers.get_all(header::TRANSFER_ENCODING);
    let mut codings = codings.iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let host = host(request).ok_or(StatusCode::BAD_REQUEST)?;
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let uri = request.uri();
    let scheme = uri.scheme_str().unwrap_or("http");
    let asterisk = uri.path() == "*" && request.method() == Method::OPTIONS;
    let path = uri.path().starts_with('/') && !is_hostile(uri.path());
    if !(path || asterisk) || !matches!(scheme, "http" | "https") {
        return Err(StatusCode::BAD_REQUEST);
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(host.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(host))
}

/// As HTTP/2 counts (RFC 9113, 6.5.2).
fn head_bytes<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + 32);
    let target = request.uri().path_and_query();
    fields.sum::<usize>() + target.map_or(0, |target| target.as_str().len() + 32)
}

/// `None` when missing (HTTP/1.0 may), repeated, contradicting or malformed.
/// The target's own authority wins over the field (RFC 9112, 3.2.2).
fn host<B>(request: &Request<B>) -> Option<&str> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return None;
    }
    let field = match field {
        Some(value) => Some(value.to_str().ok()?),
        None => None,
    };
    let target = request.uri().authority().map(http::uri::Authority::as_str);
    let h2 = request.version() == Version::HTTP_2;
    let host = match (target, field) {
        (Some(target), Some(field)) if h2 && !target.eq_ignore_ascii_case(field) => return None,
        (Some(target), _) if h2 || field.is_some() => target,
        (None, Some(field)) => field,
        (_, None) if request.version() == Version::HTTP_10 => return Some(""),
        _ => return None,
    };
    is_host(host).then_some(host)
}

/// Whether the field is there, once, and empty.
pub fn names_no_host<B>(request: &Request<B>) -> bool {
    let mut fields = request.headers().get_all(header::HOST).iter();
    fields.next().is_some_and(header::HeaderValue::is_empty) && fields.next().is_none()
}

/// A name or address, with a port or without.
fn is_host(text: &str) -> bool {
    let (host, rest) = if let Some(literal) = text.strip_prefix('[') {
        let Some((address, rest)) = literal.split_once(']') else {
            return false;
        };
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return false;
        }
        ("v6", rest)
    } else {
        text.split_at(text.find(':').unwrap_or(text.len()))
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let port = match rest.strip_prefix(':') {
        None => rest.is_empty(),
        Some(port) => port.is_empty() || is_port(port),
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    port && host.len() <= 253
        && host.bytes().all(valid)
        && labels.split('.').all(|label| !label.is_empty())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// For looking up routes: `news.example.` is `news.example`.
pub fn without_port(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether a path holds what readers take differently: `.` and `..` as
/// components, also encoded; a backslash; a control byte, also encoded NUL.
fn is_hostile(path: &str) -> bool {
    if path
        .bytes()
        .any(|byte| byte == b'\\' || byte <= b' ' || byte == 0x7f)
    {
        return true;
    }
    let encoded = path.contains('%');
    if encoded && path.contains("%00") {
        return true;
    }
    if !encoded && !path.contains("/.") {
        return false;
    }
    path.split('/').any(|part| {
        let dots = part.replace("%2e", ".").replace("%2E", ".");
        matches!(dots.as_str(), "." | "..")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses() {
        for good in [
            "news.example",
            "news.example.",
            "a_b.c-d:8080",
            "127.0.0.1:1",
            "[::1]:80",
            "[::1]",
            "h:",
        ] {
            assert!(is_host(good), "{good}");
        }
        for bad in [
            "", ".", "a..b", "a:b:c", "a:99999", "a:+1", "[::1", "[x]", "a/b", "u@h", "a b",
            "[::1]x", "ä", "a,b", "a\"b",
        ] {
            assert!(!is_host(bad), "{bad}");
        }
        assert_eq!(without_port("news.example.:80"), "news.example");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }

    #[test]
    fn paths_that_readers_take_differently_are_hostile() {
        for good in ["/", "/a.b/..c", "/.well-known/x", "/a//b", "/%2f", "/..."] {
            assert!(!is_hostile(good), "{good}");
        }
        for bad in [
            "/..",
            "/a/../b",
            "/%2e%2E/b",
            "/a/.%2e",
            "/./a",
            "/a\\b",
            "/%00",
            "/a%00b",
        ] {
            assert!(is_hostile(bad), "{bad}");
        }
    }
}
