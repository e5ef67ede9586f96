//! HTTP/2 clients with a hand on each frame.

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

pub struct Client {
    pub sender: SendRequest<Bytes>,
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

pub async fn client<S>(stream: S, builder: &Builder) -> Client
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = builder.handshake(stream).await.expect("handshake");
    Client {
        sender,
        connection: tokio::spawn(connection),
    }
}

pub fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).expect("request")
}

impl Client {
    pub async fn send(&mut self, request: Request<()>, body: &[u8]) -> Response<Vec<u8>> {
        let ready = self.sender.clone().ready().await.expect("ready");
        self.sender = ready;
        let sent = self.sender.send_request(request, body.is_empty());
        let (response, mut stream) = sent.expect("sent");
        if !body.is_empty() {
            let data = Bytes::copy_from_slice(body);
            stream.send_data(data, true).expect("sent");
        }
        let (parts, mut body) = response.await.expect("answer").into_parts();
        let mut whole = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.expect("body");
            let _ = body.flow_control().release_capacity(data.len());
            whole.extend_from_slice(&data);
        }
        Response::from_parts(parts, whole)
    }
}
