//! The admin API's client: HTTP with JSON over the node's Unix socket, or over
//! TLS to its admin port.
//!
//! In: a socket's path, or an address and the authority to trust. Out: typed answers, or [`ClientError`] with the API's
//! own error inside. Never: prints, retries what may have been done.

mod door;

use bytes::{Buf, Bytes};
use door::{Door, Port};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use wire::api::ApiError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    #[error("no node answers on {node}")]
    NotRunning {
        node: String,
        source: std::io::Error,
    },
    #[error("the node on {node} cannot be spoken to")]
    Unreachable {
        node: String,
        source: std::io::Error,
    },
    #[error("cannot use `{node}` as a node's address: {why}")]
    Address { node: String, why: String },
    #[error("the authority cannot be used: {0}")]
    Authority(String),
    #[error("{}", .0.message)]
    Api(ApiError),
    #[error("the connection to the node broke")]
    Broken(#[source] hyper::Error),
    #[error("the node's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the node answered {0} without saying why")]
    Status(StatusCode),
    #[error("the token is not one: it has letters that no token has")]
    Token,
    #[error("not a valid request")]
    Request(#[source] http::Error),
}

/// A word of a person's as one segment of a path: what is not plain is escaped
/// as RFC 3986, section 2.1 says.
pub fn segment(word: &str) -> String {
    let mut escaped = String::new();
    for byte in word.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

#[derive(Clone, Debug)]
pub struct Client {
    door: Door,
    token: Option<HeaderValue>,
}

impl Client {
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            door: Door::Socket(socket.into()),
            token: None,
        }
    }

    /// Over TLS, to `https://HOST:PORT`; only certificates of this authority
    /// (PEM) are accepted.
    ///
    /// # Errors
    /// When one of the two is not what it should be.
    pub fn over_tls(node: &str, authority_pem: &[u8]) -> Result<Self, ClientError> {
        Ok(Self {
            door: Door::Port(Arc::new(Port::new(node, authority_pem)?)),
            token: None,
        })
    }

    /// Whether it asks the node of this machine, by its socket.
    pub fn is_local(&self) -> bool {
        matches!(self.door, Door::Socket(_))
    }

    /// Asks with a token's rights instead of the socket's owner's.
    ///
    /// # Errors
    /// When no header can hold the token.
    pub fn with_token(mut self, token: &str) -> Result<Self, ClientError> {
        let text = format!("Bearer {token}");
        let mut value = HeaderValue::from_str(&text).map_err(|_| ClientError::Token)?;
        value.set_sensitive(true);
        self.token = Some(value);
        Ok(self)
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.send(Method::GET, path, Bytes::new()).await?;
        read_all(body).await
    }

    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(ClientError::Unreadable)?;
        read_all(self.send(Method::POST, path, bytes.into()).await?).await
    }

    /// Posts nothing, and takes the answer as it is.
    pub async fn post_for_bytes(&self, path: &str) -> Result<Bytes, ClientError> {
        collect(self.send(Method::POST, path, Bytes::new()).await?).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        read_all(self.send(Method::DELETE, path, Bytes::new()).await?).await
    }

    /// Posts, and reads the answer as JSON lines while they come.
    pub async fn post_lines<B: Serialize>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Lines, ClientError> {
        let bytes = serde_json::to_vec(body).map_err(ClientError::Unreadable)?;
        Ok(Lines::new(
            self.send(Method::POST, path, bytes.into()).await?,
        ))
    }

    pub async fn get_lines(&self, path: &str) -> Result<Lines, ClientError> {
        Ok(Lines::new(
            self.send(Method::GET, path, Bytes::new()).await?,
        ))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Incoming, ClientError> {
        let stream = self.door.open().await.map_err(|source| {
            let node = self.door.named();
            if self.is_local() {
                ClientError::NotRunning { node, source }
            } else {
                ClientError::Unreachable { node, source }
            }
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ClientError::Broken)?;
        tokio::spawn(connection);
        let mut request = Request::builder();
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, token);
        }
        let request = request
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.door.host())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(ClientError::Request)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(ClientError::Broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let bytes = collect(response.into_body()).await?;
        Err(serde_json::from_slice(&bytes).map_or(ClientError::Status(status), ClientError::Api))
    }
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    let collected = body.collect().await.map_err(ClientError::Broken)?;
    Ok(collected.to_bytes())
}

async fn read_all<T: DeserializeOwned>(body: Incoming) -> Result<T, ClientError> {
    serde_json::from_slice(&collect(body).await?).map_err(ClientError::Unreadable)
}

/// A stream of JSON lines.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(body: Incoming) -> Self {
        Self {
            body,
            buffer: Vec::new(),
        }
    }

    /// The next line, or `None` at the stream's end.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(ClientError::Unreadable);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.map_err(ClientError::Broken)?;
                    if let Ok(mut data) = frame.into_data() {
                        while data.has_remaining() {
                            let length = data.chunk().len();
                            self.buffer.extend_from_slice(data.chunk());
                            data.advance(length);
                        }
                    }
                }
            }
        }
    }
}
