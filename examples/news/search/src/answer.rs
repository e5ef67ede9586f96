//! Answers requests: searches as HTML or JSON, and health.
//!
//! In: a request's head, the index once there is one. Out: a whole response.
//! Holds: whatever was asked, what goes into HTML is escaped; nothing panics.

use crate::index::{Found, Index};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use std::fmt::Write as _;

pub const QUERY_CHARS_MAX: usize = 256;
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Nothing that a page says can load or run anything.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The answer to `request`; without an index the service is still starting.
pub fn answer<B>(request: &Request<B>, index: Option<&Index>) -> Response<String> {
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/search" | "/healthz" if !get => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(header::ALLOW, allowed);
            response
        }
        "/healthz" if index.is_some() => plain(StatusCode::OK, "ready\n"),
        "/search" => index.map_or_else(starting, |index| search(request, index)),
        "/healthz" => starting(),
        _ => plain(StatusCode::NOT_FOUND, "only /search and /healthz\n"),
    }
}

fn starting() -> Response<String> {
    let mut response = plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the index is being built\n",
    );
    let later = HeaderValue::from_static("1");
    response.headers_mut().insert(header::RETRY_AFTER, later);
    response
}

fn search<B>(request: &Request<B>, index: &Index) -> Response<String> {
    let (mut query, mut json) = (String::new(), wants_json(request));
    for pair in request.uri().query().unwrap_or_default().split('&') {
        match pair.split_once('=') {
            Some(("q", value)) => query = decode(value),
            Some(("format", value)) => json = value == "json",
            _ => {}
        }
    }
    if query.chars().count() > QUERY_CHARS_MAX {
        let text = format!("a query may have {QUERY_CHARS_MAX} characters\n");
        return plain(StatusCode::BAD_REQUEST, &text);
    }
    let found = index.search(&query);
    if json {
        response(StatusCode::OK, JSON, as_json(&query, &found))
    } else {
        response(StatusCode::OK, HTML, as_html(&query, &found))
    }
}

/// Whether the client takes JSON and did not ask for HTML too, as browsers do.
fn wants_json<B>(request: &Request<B>) -> bool {
    let accepts = |name: &str| {
        let mut values = request.headers().get_all(header::ACCEPT).iter();
        values.any(|value| {
            value.to_str().is_ok_and(|text| {
                text.split([',', ';'])
                    .any(|part| part.trim().eq_ignore_ascii_case(name))
            })
        })
    };
    accepts(JSON) && !accepts("text/html")
}

fn as_json(query: &str, found: &Found) -> String {
    let results: Vec<_> = found
        .results
        .iter()
        .map(|hit| {
            json!({
                "path": hit.address,
                "title": hit.title,
                "excerpt": hit.excerpt,
                "score": (hit.score * 1e4).round() / 1e4,
            })
        })
        .collect();
    let mut text = json!({ "query": query, "total": found.total, "results": results }).to_string();
    text.push('\n');
    text
}

fn as_html(query: &str, found: &Found) -> String {
    let shown = escape(query);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n<title>Search: {shown}</title>\n\
         <style>:root {{ color-scheme: light dark }} body {{ max-width: 46rem; margin: 0 auto; \
         padding: 1rem; font: 1.05rem/1.6 Georgia, serif }} li {{ margin: .8rem 0 }} \
         p {{ margin: 0 }}</style>\n</head>\n<body>\n\
         <header><a href=\"/\">The Stationary News</a></header>\n<main>\n<h1>Search</h1>\n\
         <form action=\"/search\" role=\"search\"><input name=\"q\" type=\"search\" \
         aria-label=\"Words\" maxlength=\"{QUERY_CHARS_MAX}\" value=\"{shown}\"> \
         <button>Search</button></form>\n"
    );
    if !query.is_empty() {
        let _ = match found.total {
            0 => writeln!(out, "<p>Nothing has these words.</p>"),
            1 => writeln!(out, "<p>1 page</p>"),
            total => writeln!(out, "<p>{total} pages</p>"),
        };
    }
    out.push_str("<ol>\n");
    for hit in &found.results {
        let title = if hit.title.is_empty() {
            &hit.address
        } else {
            &hit.title
        };
        let _ = writeln!(
            out,
            "<li><a href=\"{}\">{}</a><p>{}</p></li>",
            escape(&hit.address),
            escape(title),
            escape(&hit.excerpt)
        );
    }
    out.push_str("</ol>\n</main>\n</body>\n</html>\n");
    out
}

fn plain(status: StatusCode, text: &str) -> Response<String> {
    response(status, TEXT, text.to_owned())
}

fn response(status: StatusCode, media_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(char),
        }
    }
    out
}

/// A form's value: `+` is a space, `%hh` a byte; bytes that are no text become
/// the replacement character, and control characters spaces.
fn decode(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after
            .first_chunk::<2>()
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
        let (decoded, left) = match (byte, hex) {
            (b'%', Some(byte)) => (byte, &after[2..]),
            (b'+', _) => (b' ', after),
            _ => (byte, after),
        };
        out.push(decoded);
        rest = left;
    }
    let text = String::from_utf8_lossy(&out);
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Hit;
    use crate::text::Page;
    use proptest::prelude::*;

    fn index() -> Index {
        let mut index = Index::default();
        let page = Page {
            title: "<b>Ferry</b> & \"tram\"".to_owned(),
            text: "the ferry <script>alert(1)</script> left".to_owned(),
        };
        index.add("/a%22b.html".to_owned(), page);
        index
    }

    fn get(target: &str) -> Request<()> {
        Request::get(target).body(()).expect("a request")
    }

    #[test]
    fn forms_are_decoded() {
        assert_eq!(decode("a+b%20c%C3%BC"), "a b cü");
        assert_eq!(decode("%"), "%");
        assert_eq!(decode("%4"), "%4");
        assert_eq!(decode("%+1%zz%é"), "% 1%zz%é");
        assert_eq!(decode("%ff%00x"), "\u{fffd} x");
    }

    #[test]
    fn what_pages_and_queries_say_is_escaped() {
        let target = "/search?q=ferry+%22%3E%3Cimg+src%3Dx%3E";
        let response = answer(&get(target), Some(&index()));
        let html = response.body();
        assert!(html.contains("value=\"ferry &quot;&gt;&lt;img src=x&gt;\""));
        assert!(html.contains("&lt;b&gt;Ferry&lt;/b&gt; &amp; &quot;tram&quot;"));
        assert!(
            !html.contains("<img") && !html.contains("<script"),
            "{html}"
        );
    }

    #[test]
    fn browsers_get_html_and_programs_json() {
        let ask = |accept: &str, target: &str| {
            let mut request = get(target);
            let accept = HeaderValue::from_str(accept).expect("a value");
            request.headers_mut().insert(header::ACCEPT, accept);
            let response = answer(&request, Some(&index()));
            response.headers()[header::CONTENT_TYPE].clone()
        };
        assert_eq!(ask("text/html,application/json;q=0.9", "/search?q=a"), HTML);
        assert_eq!(ask("*/*", "/search?q=a"), HTML);
        assert_eq!(ask("Application/JSON", "/search?q=a"), JSON);
        assert_eq!(ask("*/*", "/search?format=json&q=a"), JSON);
        assert_eq!(ask("application/json", "/search?format=html&q=a"), HTML);
    }

    #[test]
    fn other_addresses_and_methods_are_refused() {
        let index = index();
        assert_eq!(answer(&get("/"), Some(&index)).status(), 404);
        assert_eq!(answer(&get("/search/slow"), Some(&index)).status(), 404);
        let post = Request::post("/search?q=a").body(()).expect("a request");
        assert_eq!(answer(&post, Some(&index)).status(), 405);
    }

    #[test]
    fn before_the_index_is_built_nothing_is_ready() {
        assert_eq!(answer(&get("/healthz"), None).status(), 503);
        let early = answer(&get("/search?q=a"), None);
        assert_eq!(early.status(), 503);
        assert_eq!(early.headers()[header::RETRY_AFTER], "1");
        assert_eq!(answer(&get("/healthz"), Some(&index())).status(), 200);
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[!-~]{0,60}") {
            if let Ok(request) = Request::get(format!("/search?q={query}")).body(()) {
                prop_assert_eq!(answer(&request, Some(&index())).status(), 200);
            }
        }

        #[test]
        fn no_text_changes_the_markup(text in "\\PC{1,40}") {
            let page = |text: &str| {
                let hit = Hit {
                    address: text.to_owned(),
                    title: text.to_owned(),
                    excerpt: text.to_owned(),
                    score: 1.0,
                };
                as_html(text, &Found { total: 1, results: vec![hit] })
            };
            let marks = |html: &str| html.matches(['<', '>', '"', '\'']).count();
            prop_assert_eq!(marks(&page(&text)), marks(&page("plain")));
        }
    }
}
