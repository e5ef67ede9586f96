//! HTTP for an actor: the host speaks it, the actor sees messages.
//!
//! Holds: what an actor answers with cannot break out of its own answer: names,
//! values and statuses are checked, framing is the host's alone.

use super::channels::Events;
use super::error::ActorError;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use wire::actor::{Headers, Request};

/// Of one request's body.
pub const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Of one connection, not of what is said on it.
const CONNECTION: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn request(request: http::Request<Bytes>) -> Result<Request, ActorError> {
    let (head, body) = request.into_parts();
    if body.len() > REQUEST_BYTES_MAX {
        return Err(ActorError::Request {
            bytes: body.len(),
            max: REQUEST_BYTES_MAX,
        });
    }
    let target = head.uri.path_and_query();
    let headers = head.headers.iter();
    let headers = headers
        .filter(|(name, _)| !CONNECTION.contains(&name.as_str()))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
    Ok(Request {
        method: head.method.as_str().to_owned(),
        target: target.map_or("/", |target| target.as_str()).to_owned(),
        headers: headers.collect(),
        body: body.into(),
    })
}

pub(super) fn answer(
    status: u16,
    headers: &Headers,
    body: Vec<u8>,
) -> Result<Response<ActorBody>, ActorError> {
    let right = StatusCode::from_u16(status).ok();
    let right = right.filter(|status| (200..600).contains(&status.as_u16()));
    let status = right.ok_or_else(|| ActorError::Http(format!("the status {status}")))?;
    let mut answer = Response::new(ActorBody::Whole(Some(body.into())));
    *answer.status_mut() = status;
    put(headers, answer.headers_mut())?;
    Ok(answer)
}

/// Checks the headers before anybody joins.
pub(super) fn stream_headers(headers: &Headers) -> Result<HeaderMap, ActorError> {
    let mut all = HeaderMap::new();
    put(headers, &mut all)?;
    all.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    all.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(all)
}

pub(super) fn stream(headers: HeaderMap, events: Events) -> Response<ActorBody> {
    let mut answer = Response::new(ActorBody::Events(events));
    *answer.headers_mut() = headers;
    answer
}

fn put(headers: &Headers, to: &mut HeaderMap) -> Result<(), ActorError> {
    for (name, value) in headers {
        let wrong = || ActorError::Http(format!("the header `{}`", name.escape_debug()));
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        if CONNECTION.contains(&name.as_str()) {
            return Err(wrong());
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| wrong())?;
        to.append(name, value);
    }
    Ok(())
}

/// What an actor's client gets: one piece, or events as they come.
pub enum ActorBody {
    Whole(Option<Bytes>),
    Events(Events),
}

impl Body for ActorBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Events(events) => events.poll_next(context),
        };
        polled.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let bytes = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(bytes).unwrap_or(u64::MAX))
            }
            Self::Events(_) => SizeHint::default(),
        }
    }
}
