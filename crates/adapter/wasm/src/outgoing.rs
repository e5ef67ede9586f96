//! Requests of a guest's own: to what it is bound to, and to nobody else.
//!
//! Decides whether a call is allowed: its authority and the start of its path
//! are named, and it is one of the few that a request may make.
//! Holds: a call goes to the address that was told, whatever names resolve to;
//! it is over when its guest is; its sizes and its time are bounded.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Of one request to the guest.
pub(crate) const CALLS_MAX: u32 = 64;
/// Of one call's body, there and back.
const CALL_BYTES_MAX: usize = 16 << 20;
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Until the head of the answer; the guest's own time bounds the rest.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// What one write of a guest's may hand over at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Whom a guest may call, by plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedCall {
    /// As the guest names it, with its port if that is not 80: the call's `Host`.
    pub authority: String,
    /// Where that is.
    pub address: SocketAddr,
    /// Each allows itself and what is below it: `/api` allows `/api/users`.
    pub paths: Vec<String>,
}

impl From<&wire::edge::AllowedCall> for AllowedCall {
    fn from(told: &wire::edge::AllowedCall) -> Self {
        Self {
            authority: told.authority.clone(),
            address: told.address,
            paths: told.paths.clone(),
        }
    }
}

impl AllowedCall {
    fn allows(&self, uri: &http::Uri) -> bool {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        authority.eq_ignore_ascii_case(&self.authority)
            && is_plain(uri.path())
            && self.paths.iter().any(|prefix| is_below(uri.path(), prefix))
    }
}

fn is_below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path that whoever reads it next cannot take for another one.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let decoded = lower.replace("%2e", ".");
    !decoded.split('/').any(|part| part == "." || part == "..")
        && !["%2f", "%5c", "%00", "\\", "//"]
            .iter()
            .any(|odd| lower.contains(odd))
}

/// One instance's way out.
pub(crate) struct Calls {
    allowed: Arc<[AllowedCall]>,
    made: u32,
}

impl Calls {
    pub(crate) fn new(allowed: Arc<[AllowedCall]>) -> Self {
        Self { allowed, made: 0 }
    }

    /// Another request may make as many again.
    pub(crate) fn begin(&mut self) {
        self.made = 0;
    }

    fn admit(&mut self, uri: &http::Uri) -> Result<SocketAddr, Error> {
        let is_http = uri.scheme() == Some(&http::uri::Scheme::HTTP);
        let allowed = self.allowed.iter().find(|allowed| allowed.allows(uri));
        let address = allowed.filter(|_| is_http).map(|allowed| allowed.address);
        let address = address.ok_or(Error::HttpRequestDenied)?;
        if self.made >= CALLS_MAX {
            return Err(Error::ConnectionLimitReached);
        }
        self.made += 1;
        Ok(address)
    }
}

type Over = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Over), Error>;

impl WasiHttpHooks for Calls {
    fn default_scheme(&mut self) -> Option<http::uri::Scheme> {
        Some(http::uri::Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Over,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        match self.admit(request.uri()) {
            Ok(address) => Box::new(send(address, request, options.unwrap_or_default())),
            Err(error) => Box::new(std::future::ready(Err(error))),
        }
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

async fn send(
    address: SocketAddr,
    mut request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Sent {
    let shorter = |asked: Option<Duration>, most: Duration| asked.map_or(most, |one| one.min(most));
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
    let request = request.map(|body| bounded(body, Error::HttpRequestBodySize));
    let connect = shorter(options.connect_timeout, CONNECT_MAX);
    let stream = timeout(connect, TcpStream::connect(address)).await;
    let stream = stream
        .map_err(|_| Error::ConnectionTimeout)?
        .map_err(Error::Connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ended with the last who holds it: while the head is awaited this call,
    // then the guest's answer.
    let connection = wasmtime_wasi::runtime::spawn(connection);
    let head = shorter(options.first_byte_timeout, HEAD_MAX);
    let answer = timeout(head, sender.send_request(request)).await;
    let answer = answer.map_err(|_| Error::HttpResponseTimeout)??;
    let answer = answer.map(|body| {
        let body = body.map_err(Error::from);
        bounded(body, Error::HttpResponseBodySize)
    });
    Ok((
        answer,
        Box::new(async move { Ok(connection.await?) }) as Over,
    ))
}

fn bounded<B>(body: B, too_long: fn(Option<u64>) -> Error) -> WasiBody
where
    B: http_body::Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let bounded = Limited::new(body.map_err(Known), CALL_BYTES_MAX);
    let bounded = bounded.map_err(move |error| match error.downcast::<Known>() {
        Ok(known) => known.0,
        Err(_) => too_long(Some(CALL_BYTES_MAX as u64)),
    });
    bounded.boxed_unsync()
}

/// A body's own error, told apart from the bound's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Known(Error);

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> Calls {
        Calls::new(Arc::new([AllowedCall {
            authority: "news.example:8080".to_owned(),
            address: ([127, 0, 0, 1], 9).into(),
            paths: vec!["/api".to_owned(), "/only/".to_owned()],
        }]))
    }

    fn admits(uri: &str) -> bool {
        let uri = uri.parse().expect("a uri");
        bound().admit(&uri).is_ok()
    }

    #[test]
    fn only_what_is_bound_may_be_called() {
        for good in [
            "http://news.example:8080/api",
            "http://NEWS.example:8080/api/users?x=../y",
            "http://news.example:8080/only",
            "http://news.example:8080/only/this",
        ] {
            assert!(admits(good), "{good}");
        }
        for bad in [
            "https://news.example:8080/api",
            "http://news.example/api",
            "http://other.example:8080/api",
            "http://news.example:8080@other.example/api",
            "http://news.example:8080/",
            "http://news.example:8080/apis",
            "http://news.example:8080/api/../admin",
            "http://news.example:8080/api/%2E%2e/admin",
            "http://news.example:8080/api/.%2e/admin",
            "http://news.example:8080/api%2fx",
            "http://news.example:8080/api//x",
            "http://news.example:8080/api/%5c..",
        ] {
            assert!(!admits(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_makes_so_many_calls_and_the_next_one_as_many_again() {
        let mut calls = bound();
        let uri = "http://news.example:8080/api".parse().expect("a uri");
        for _ in 0..CALLS_MAX {
            assert!(calls.admit(&uri).is_ok());
        }
        assert!(matches!(
            calls.admit(&uri),
            Err(Error::ConnectionLimitReached)
        ));
        calls.begin();
        assert!(calls.admit(&uri).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_path_leaves_its_prefix(path in "(/[.%2eEfF\\\\a-c]{0,6}){0,4}") {
            if let Ok(uri) = format!("http://news.example:8080/api{path}").parse::<http::Uri>()
                && bound().admit(&uri).is_ok()
            {
                let read = uri.path().to_ascii_lowercase().replace("%2e", ".");
                let climbs = read.split('/').any(|part| part == "..");
                proptest::prop_assert!(!climbs && !read.contains("%2f"), "{}", uri.path());
                proptest::prop_assert!(uri.path() == "/api" || uri.path().starts_with("/api/"));
            }
        }
    }
}
