//! The engine behind a plain HTTP/1.1 server.
//!
//! In: an address, a component's file, how many requests an instance answers.
//! Out: its answers; requests for the host `hog` reach a service of their own.

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;
use wasm::{CompiledCache, Host, Limits, Service, ServiceSpec};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<bytes::Bytes, wasmtime_wasi_http::Error>;

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().ok_or("usage: ADDRESS COMPONENT REUSE");
    let (address, component, reuse) = (word()?, std::fs::read(word()?)?, word()?.parse()?);
    let directory = tempfile::tempdir()?;
    let host = Host::new()?;
    let cache = CompiledCache::open(directory.path())?;
    let service = |name: &str| {
        let spec = ServiceSpec {
            name: name.to_owned(),
            limits: Limits {
                reuse,
                ..Limits::default()
            },
            environment: Vec::new(),
            output: Arc::new(|_, _| {}),
            calls: Arc::default(),
        };
        Service::new(&host, &cache, &component, spec)
    };
    let (usual, hog) = (service("usual")?, service("hog")?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (usual, hog) = (usual.clone(), hog.clone());
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let is_hog = request
                    .headers()
                    .get(http::header::HOST)
                    .is_some_and(|host| host == "hog");
                let service = if is_hog { hog.clone() } else { usual.clone() };
                async move { Ok::<_, Infallible>(answered(&service, request).await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    })
}

async fn answered(
    service: &Service,
    request: http::Request<hyper::body::Incoming>,
) -> http::Response<Body> {
    if let Ok(answer) = service.handle(request).await {
        return answer.map(wasm::AnswerBody::boxed_unsync);
    }
    let body = Empty::new().map_err(|never| match never {});
    let mut answer = http::Response::new(body.boxed_unsync());
    *answer.status_mut() = http::StatusCode::BAD_GATEWAY;
    answer
}
