//! Readers' comments, kept in the bucket that is bound as `comments`.
//!
//! In: `POST /comments?page=PATH` with the text, `GET /comments?page=PATH`.
//! Out: the comment, or the page's comments, oldest first, as JSON.
//! Holds: an answer of 201 means that the comment is on disk; one sent again
//! with the same `idempotency-key` is there once.

mod keep;

use keep::{Comment, Failed};
use std::io::{Read, Write};
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

wasip2::http::proxy::export!(Comments);

struct Comments;

const TEXT_BYTES_MAX: usize = 4 << 10;
const PAGE_BYTES_MAX: usize = 256;
const ID_BYTES_MAX: usize = 64;

impl wasip2::exports::http::incoming_handler::Guest for Comments {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let (status, body) = match respond(&request) {
            Ok(answer) => answer,
            Err(refused) => refused,
        };
        let fields = Fields::new();
        let kind = if status < 400 {
            "application/json"
        } else {
            "text/plain; charset=utf-8"
        };
        let _ = fields.set("content-type", &[kind.as_bytes().to_vec()]);
        let _ = fields.set("cache-control", &[b"no-store".to_vec()]);
        let response = OutgoingResponse::new(fields);
        let _ = response.set_status_code(status);
        let Ok(out) = response.body() else { return };
        ResponseOutparam::set(answer, Ok(response));
        if let Ok(mut stream) = out.write() {
            let _ = stream.write_all(&body).and_then(|()| Write::flush(&mut stream));
        }
        let _ = OutgoingBody::finish(out, None);
    }
}

type Answer = (u16, Vec<u8>);

fn respond(request: &IncomingRequest) -> Result<Answer, Answer> {
    let target = request.path_with_query().unwrap_or_default();
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let page = page(query)?;
    match request.method() {
        Method::Get | Method::Head => {
            let comments = keep::of(&page).map_err(failed)?;
            Ok((200, json(&comments)))
        }
        Method::Post => {
            let text = text(request)?;
            let id = id(request)?;
            let (comment, new) = keep::put(&page, id, text).map_err(failed)?;
            Ok((if new { 201 } else { 200 }, json(&comment)))
        }
        _ => Err(refuse(405, "comments are read with GET and written with POST")),
    }
}

fn refuse(status: u16, why: &str) -> Answer {
    (status, format!("{why}\n").into_bytes())
}

fn failed(failed: Failed) -> Answer {
    match failed {
        Failed::Full(why) => refuse(507, &why),
        Failed::Bucket(why) => refuse(503, &format!("the comments cannot be reached: {why}")),
    }
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text
}

/// Of the news' own paths: letters, digits, and `/ . - _`.
fn page(query: &str) -> Result<String, Answer> {
    let page = query.split('&').find_map(|pair| pair.strip_prefix("page="));
    let page = page.unwrap_or_default().replace("%2F", "/");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte);
    if page.starts_with('/') && page.len() <= PAGE_BYTES_MAX && page.bytes().all(plain) {
        return Ok(page);
    }
    Err(refuse(400, "say which page: ?page=/PATH"))
}

fn text(request: &IncomingRequest) -> Result<String, Answer> {
    let mut bytes = Vec::new();
    if let Ok(body) = request.consume()
        && let Ok(stream) = body.stream()
    {
        let limit = TEXT_BYTES_MAX as u64 + 1;
        if stream.take(limit).read_to_end(&mut bytes).is_err() {
            return Err(refuse(400, "the comment did not come whole"));
        }
    }
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(refuse(413, "a comment has at most 4096 bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse(400, "the comment is not UTF-8"))?;
    if text.trim().is_empty() {
        return Err(refuse(400, "the comment is empty"));
    }
    Ok(text)
}

/// The client's own name for the comment, or one of ours.
fn id(request: &IncomingRequest) -> Result<String, Answer> {
    let given = request.headers().get("idempotency-key");
    let Some(given) = given.first() else {
        return Ok(format!("{:016x}", wasip2::random::random::get_random_u64()));
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    if (1..=ID_BYTES_MAX).contains(&given.len()) && given.iter().all(plain) {
        return Ok(String::from_utf8_lossy(given).into_owned());
    }
    Err(refuse(400, "an idempotency-key is 1 to 64 letters, digits and `-`"))
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let now = wasip2::clocks::wall_clock::now();
    now.seconds * 1_000 + u64::from(now.nanoseconds) / 1_000_000
}

impl Comment {
    fn new(id: String, text: String) -> Self {
        Self {
            id,
            at_unix_ms: now(),
            text,
        }
    }
}
