//! Sends one request and tells what came of it, over kept HTTP/1.1 connections.
//!
//! In: a method and a path. Out: an [`Outcome`]. Holds: the connection used
//! last is used next, so a light load keeps few; a request is sent again only
//! if the server cannot have seen it; a body counts once all of it has come.

use crate::target::Target;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use kernel::error_chain;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Documents whose bodies are compared from one answer to the next.
const REMEMBERED_MAX: usize = 100_000;
const AGENT: &str = concat!("homeostat-replay/", env!("CARGO_PKG_VERSION"));

#[derive(Clone, Debug)]
pub struct Job {
    pub method: Method,
    pub path: PathAndQuery,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole answer came.
    Answered {
        status: u16,
        bytes: u64,
        /// The same path and `ETag` had other bytes before.
        mismatch: bool,
    },
    Failed {
        failure: Failure,
        detail: String,
        /// Of the body, before it failed.
        bytes: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection was made.
    Connect,
    /// The connection ended before the answer's head.
    Reset,
    Timeout,
    /// The connection ended within the answer's body.
    Incomplete,
    /// What came is no HTTP.
    Protocol,
}

type Sender = SendRequest<Empty<Bytes>>;

pub struct Client {
    target: Target,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
    /// Length and hash of the body by a hash of path and `ETag`.
    bodies: Mutex<HashMap<u64, u64>>,
}

/// A failure with what is known about it.
struct Broken(Failure, String);

impl Client {
    pub fn new(target: Target, timeout: Duration) -> Arc<Self> {
        Arc::new(Self {
            target,
            timeout,
            idle: Mutex::default(),
            bodies: Mutex::default(),
        })
    }

    pub async fn send(&self, job: Job) -> Outcome {
        let mut bytes = 0;
        let exchange = tokio::time::timeout(self.timeout, self.exchange(&job, &mut bytes));
        let (failure, detail) = match exchange.await {
            Ok(Ok((status, mismatch))) => {
                return Outcome::Answered {
                    status,
                    bytes,
                    mismatch,
                };
            }
            Ok(Err(Broken(failure, detail))) => (failure, detail),
            Err(_) => {
                let waited = self.timeout.as_secs_f64();
                let detail = format!("no whole answer within {waited} s");
                (Failure::Timeout, detail)
            }
        };
        Outcome::Failed {
            failure,
            detail,
            bytes,
        }
    }

    async fn exchange(&self, job: &Job, bytes: &mut u64) -> Result<(u16, bool), Broken> {
        let (mut sender, response) = self.head(job).await?;
        let status = response.status().as_u16();
        let key = remembered_as(&job.path, response.headers());
        let mut body = response.into_body();
        let mut hasher = DefaultHasher::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Broken(Failure::Incomplete, error_chain(&error)))?;
            if let Some(data) = frame.data_ref() {
                *bytes += data.len() as u64;
                hasher.write(data);
            }
        }
        // Ready means that the server keeps the connection.
        if sender.ready().await.is_ok() {
            lock(&self.idle).push(sender);
        }
        let whole = status == 200 && job.method == Method::GET;
        let mismatch = match key {
            Some(key) if whole => self.differs(key, hasher.finish()),
            _ => false,
        };
        Ok((status, mismatch))
    }

    /// Sends over a kept connection or a new one, up to the answer's head.
    async fn head(&self, job: &Job) -> Result<(Sender, Response<Incoming>), Broken> {
        loop {
            let kept = self.take();
            let fresh = kept.is_none();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let mut failed = match sender.try_send_request(self.request(job)).await {
                Ok(response) => return Ok((sender, response)),
                Err(failed) => failed,
            };
            // hyper hands a request back when none of it was written.
            let unseen = failed.take_message().is_some();
            if !unseen || fresh {
                let error = failed.into_error();
                let failure = if error.is_parse() {
                    Failure::Protocol
                } else {
                    Failure::Reset
                };
                return Err(Broken(failure, error_chain(&error)));
            }
        }
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = lock(&self.idle);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Sender, Broken> {
        let failed = |error: std::io::Error| Broken(Failure::Connect, error.to_string());
        let stream = TcpStream::connect(&*self.target.addresses)
            .await
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        match &self.target.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let secured = connector.connect(name.clone(), stream).await;
                handshake(secured.map_err(failed)?).await
            }
        }
    }

    fn request(&self, job: &Job) -> Request<Empty<Bytes>> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = job.method.clone();
        *request.uri_mut() = Uri::from(job.path.clone());
        let fields = request.headers_mut();
        fields.insert(header::HOST, self.target.host.clone());
        fields.insert(header::USER_AGENT, HeaderValue::from_static(AGENT));
        fields.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let encodings = HeaderValue::from_static("gzip, br");
        fields.insert(header::ACCEPT_ENCODING, encodings);
        request
    }

    fn differs(&self, key: u64, body: u64) -> bool {
        let mut bodies = lock(&self.bodies);
        if let Some(before) = bodies.get(&key) {
            return *before != body;
        }
        if bodies.len() < REMEMBERED_MAX {
            bodies.insert(key, body);
        }
        false
    }
}

async fn handshake<S>(stream: S) -> Result<Sender, Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) =
        made.map_err(|error| Broken(Failure::Connect, error_chain(&error)))?;
    // Its failures reach whoever waits for an answer on it.
    tokio::spawn(connection);
    Ok(sender)
}

/// What a body is remembered by: only a strong `ETag` promises the same bytes.
fn remembered_as(path: &PathAndQuery, fields: &HeaderMap) -> Option<u64> {
    let tag = fields.get(header::ETAG)?.as_bytes();
    if !tag.starts_with(b"\"") {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(path.as_str().as_bytes());
    hasher.write_u8(b' ');
    hasher.write(tag);
    Some(hasher.finish())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
