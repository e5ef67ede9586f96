//! Caching as browsers and shared caches use it: validators, preconditions,
//! ranges and encodings, each combination over a real socket.

use crate::support::World;
use std::collections::BTreeMap;
use wire::edge::{RouteEntry, Target};

const PLAIN: &str = "\"01010101010101010101010101010101\"";
const GZIP: &str = "\"01010101010101010101010101010101-gz\"";
/// Of the documents: Sun, 09 Sep 2001 01:46:40 GMT.
const SAME: &str = "Sun, 09 Sep 2001 01:46:40 GMT";
const EARLIER: &str = "Sun, 09 Sep 2001 01:46:39 GMT";
const LATER: &str = "Sun, 09 Sep 2001 01:46:41 GMT";

struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

async fn ask(world: &World, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let fields = fields.concat();
    let text = world
        .raw(&format!(
            "{method} {path} HTTP/1.1\r\nhost: site.test\r\nconnection: close\r\n{fields}\r\n"
        ))
        .await;
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().expect("a line")[9..12]
        .parse()
        .expect("a status");
    let fields = lines
        .map(|line| line.split_once(": ").expect("a field"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Answer {
        status,
        fields,
        body: body.to_owned(),
    }
}

#[tokio::test]
async fn preconditions_are_taken_in_the_order_of_the_rfc() {
    let world = World::plain().await;
    let weak = format!("W/{PLAIN}");
    let list = format!("\"x\", {PLAIN}");
    for (fields, status) in [
        (&[("if-none-match", PLAIN)][..], 304),
        (&[("if-none-match", &weak)], 304),
        (&[("if-none-match", &list)], 304),
        (&[("if-none-match", "*")], 304),
        (&[("if-none-match", "\"x\""), ("if-none-match", PLAIN)], 304),
        (&[("if-none-match", "\"x\"")], 200),
        (&[("if-none-match", GZIP)], 200),
        (&[("if-none-match", GZIP), ("accept-encoding", "gzip")], 304),
        (
            &[("if-none-match", PLAIN), ("accept-encoding", "gzip")],
            200,
        ),
        (&[("if-modified-since", SAME)], 304),
        (&[("if-modified-since", LATER)], 304),
        (&[("if-modified-since", EARLIER)], 200),
        (&[("if-modified-since", "yesterday")], 200),
        (
            &[("if-none-match", "\"x\""), ("if-modified-since", LATER)],
            200,
        ),
        (
            &[("if-none-match", PLAIN), ("if-modified-since", EARLIER)],
            304,
        ),
        (&[("if-match", PLAIN)], 200),
        (&[("if-match", "*")], 200),
        (&[("if-match", &weak)], 412),
        (&[("if-match", "\"x\"")], 412),
        (&[("if-unmodified-since", SAME)], 200),
        (&[("if-unmodified-since", EARLIER)], 412),
        (
            &[("if-match", PLAIN), ("if-unmodified-since", EARLIER)],
            200,
        ),
        (&[("if-match", "\"x\""), ("if-none-match", PLAIN)], 412),
        (&[("if-none-match", PLAIN), ("range", "bytes=0-1")], 304),
        (&[("if-match", "\"x\""), ("range", "bytes=0-1")], 412),
    ] {
        for method in ["GET", "HEAD"] {
            let expected = match (method, status) {
                (_, 200) if fields.iter().any(|(name, _)| *name == "range") => 206,
                (_, status) => status,
            };
            let answer = ask(&world, method, "/", fields).await;
            assert_eq!(answer.status, expected, "{method} {fields:?}");
            if expected == 304 {
                assert_eq!(answer.body, "");
                for (name, value) in [
                    ("vary", "accept-encoding"),
                    ("cache-control", "public, max-age=60"),
                    ("last-modified", SAME),
                ] {
                    assert_eq!(answer.field(name), value, "{method} {fields:?}");
                }
                assert!(answer.field("etag").starts_with("\"0101"));
                assert_eq!(answer.field("content-encoding"), "");
            }
        }
    }
}

#[tokio::test]
async fn ranges_are_of_the_encoding_sent_and_only_while_it_is_unchanged() {
    let world = World::plain().await;
    let range = ("range", "bytes=1-2");
    for (fields, status, body) in [
        (&[range][..], 206, "12"),
        (&[range, ("accept-encoding", "gzip")], 206, "zi"),
        (&[range, ("if-range", PLAIN)], 206, "12"),
        (&[range, ("if-range", GZIP)], 200, "0123456789"),
        (
            &[range, ("if-range", GZIP), ("accept-encoding", "gzip")],
            206,
            "zi",
        ),
        (&[range, ("if-range", SAME)], 206, "12"),
        (&[range, ("if-range", LATER)], 200, "0123456789"),
        (&[range, ("if-range", "W/\"x\"")], 200, "0123456789"),
        (&[("range", "bytes=-3")], 206, "789"),
        (&[("range", "bytes=8-1000")], 206, "89"),
        (&[("range", "bytes=0-9,0-9")], 200, "0123456789"),
        (&[("range", "bytes=x")], 200, "0123456789"),
        (&[("range", "lines=1-2")], 200, "0123456789"),
        (
            &[("if-range", "\"x\""), ("range", "bytes=99-")],
            200,
            "0123456789",
        ),
    ] {
        let answer = ask(&world, "GET", "/", fields).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, body),
            "{fields:?}"
        );
        assert_eq!(answer.field("content-length"), body.len().to_string());
        assert_eq!(answer.field("accept-ranges"), "bytes");
    }
    let outside = ask(&world, "GET", "/", &[("range", "bytes=10-")]).await;
    assert_eq!((outside.status, outside.body.as_str()), (416, ""));
    assert_eq!(outside.field("content-range"), "bytes */10");
    assert_eq!(outside.field("cache-control"), "no-store");
    let head = ask(&world, "HEAD", "/", &[range]).await;
    assert_eq!((head.status, head.field("content-length")), (200, "10"));
}

#[tokio::test]
async fn parts_of_a_large_document_are_its_bytes() {
    let world = World::plain().await;
    let path = "/assets/large.bin";
    let field = [("range", "bytes=0-1,500000-500003,-2")];
    let answer = ask(&world, "GET", path, &field).await;
    assert_eq!(answer.status, 206);
    assert_eq!(answer.body.matches("content-range: bytes ").count(), 3);
    assert!(answer.body.contains("bytes 500000-500003/1000003\r\n\r\n"));
    assert_eq!(
        answer.field("content-length"),
        answer_length(&world, path, &field).await
    );
    assert_eq!(
        answer.field("cache-control"),
        "public, max-age=31536000, immutable"
    );
}

/// Counted in bytes: the document is no text.
async fn answer_length(world: &World, path: &str, fields: &[(&str, &str)]) -> String {
    ask(world, "GET", path, fields).await;
    let rows = world.rows.rows.lock().expect("lock");
    rows.last().expect("a row").bytes.to_string()
}

#[tokio::test]
async fn encoding_is_the_best_that_the_client_takes() {
    let world = World::plain().await;
    for (fields, encoding) in [
        (&[("accept-encoding", "gzip")][..], "gzip"),
        (&[("accept-encoding", "br, gzip;q=0.1")], "gzip"),
        (&[("accept-encoding", "GZIP")], "gzip"),
        (&[("accept-encoding", "*")], "gzip"),
        (
            &[("accept-encoding", "br"), ("accept-encoding", "gzip")],
            "gzip",
        ),
        (&[("accept-encoding", "gzip;q=0")], ""),
        (&[("accept-encoding", "gzip;Q=0")], ""),
        (&[("accept-encoding", "*, gzip; q=0.000")], ""),
        (&[("accept-encoding", "identity")], ""),
        (&[("accept-encoding", "")], ""),
        (&[], ""),
    ] {
        let answer = ask(&world, "GET", "/", fields).await;
        assert_eq!(answer.field("content-encoding"), encoding, "{fields:?}");
        let (body, etag) = match encoding {
            "gzip" => ("gzip!", GZIP),
            _ => ("0123456789", PLAIN),
        };
        assert_eq!((answer.body.as_str(), answer.field("etag")), (body, etag));
        assert_eq!(answer.field("vary"), "accept-encoding", "{fields:?}");
        let head = ask(&world, "HEAD", "/", fields).await;
        for name in ["content-length", "content-encoding", "etag", "content-type"] {
            assert_eq!(head.field(name), answer.field(name), "{fields:?}");
        }
        assert_eq!(head.body, "");
    }
}

#[tokio::test]
async fn missing_page_is_no_document() {
    let world = World::plain().await;
    let fields = [("range", "bytes=0-1"), ("if-none-match", "*")];
    let answer = ask(&world, "GET", "/gone", &fields).await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "lost\n"));
    assert_eq!(answer.field("cache-control"), "no-cache");
    assert_eq!(
        (answer.field("etag"), answer.field("accept-ranges")),
        ("", "")
    );
    let head = ask(&world, "HEAD", "/gone", &[]).await;
    assert_eq!((head.status, head.field("content-length")), (404, "5"));
    // The page itself is a document like any other.
    assert_eq!(ask(&world, "GET", "/404.html", &[]).await.status, 200);
}

#[tokio::test]
async fn site_below_a_path_has_its_root_there() {
    let mut world = World::plain().await;
    world.snapshot.version += 1;
    world.snapshot.routes.push(RouteEntry {
        host: "*".to_owned(),
        path: "/docs".to_owned(),
        target: Target::Site(crate::support::name("site")),
    });
    world.ingress.set_snapshot(&world.snapshot).expect("taken");
    for (path, status, location) in [
        ("/docs", "301", "location: /docs/\r\n"),
        ("/docs?a", "301", "location: /docs/?a\r\n"),
        ("/docs/", "200", ""),
        ("/docs/index.html", "200", ""),
        ("/docs/dir", "301", "location: /docs/dir/\r\n"),
        ("/docs/dir/", "200", ""),
        ("/docsx", "404", ""),
        ("/docs/../docs/", "400", ""),
    ] {
        let answer = world.get("other.test", path, "").await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {answer}"
        );
        assert!(answer.contains(location), "{path}: {answer}");
    }
}
