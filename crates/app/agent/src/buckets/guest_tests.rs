//! A guest by `wasi:keyvalue`, over the socket, to the file and back.

use super::tests::Place;
use http_body_util::{BodyExt, Full};
use std::sync::Arc;
use wasm::{CompiledCache, Host, Limits, Service, ServiceSpec};

async fn ask(service: &Service, query: &str) -> String {
    let body = Full::new(bytes::Bytes::new());
    let request = http::Request::get(format!("/kv?{query}")).header("host", "localhost");
    let request = request.body(body).expect("a request");
    let answer = service.handle(request).await.expect("answers");
    let bytes = answer.into_body().collect().await.expect("whole");
    String::from_utf8_lossy(&bytes.to_bytes()).into_owned()
}

#[tokio::test]
async fn a_guest_keeps_what_it_sets_in_the_bucket_of_its_binding_alone() {
    let place = Place::new();
    let serving = place.serve().await;
    let host = Host::new().expect("an engine");
    let cache = CompiledCache::open(&place.layout.root.join("compiled")).expect("a cache");
    let spec = ServiceSpec {
        name: "probe".to_owned(),
        limits: Limits::default(),
        environment: Vec::new(),
        output: Arc::new(|_, _| {}),
        calls: Arc::default(),
        buckets: Some(serving.access(&place.client())),
    };
    let service = Service::new(&host, &cache, guests::PROBE, spec).expect("a service");
    assert_eq!(ask(&service, "get,log,a").await, "nothing");
    assert_eq!(ask(&service, "set,log,a,one").await, "()");
    serving.end().await;
    let serving = place.serve().await;
    for (query, said) in [
        ("get,log,a", "one"),
        ("exists,log,a", "true"),
        ("increment,log,n,5", "5"),
        ("increment,log,n,2", "7"),
        ("get,log,n", "7"),
        ("delete,log,a", "()"),
        ("exists,log,a", "false"),
        ("many,log,k,2500", "2"),
        // Over three pages: of 2500 one was deleted, and `n` is there.
        ("keys,log", "2500"),
        ("get,comments,n", "refused: Error::NoSuchStore"),
        (
            "cursor,log",
            "refused: Error::Other(\"no page has the cursor 77\")",
        ),
        ("get,log,", "refused: Error::Other(\"a key is empty\")"),
    ] {
        assert_eq!(ask(&service, query).await, said, "{query}");
    }
    serving.end().await;
}
