//! Documents as clients get them: encodings, large ones, damaged ones, TLS.

mod support;

use content::Encoding;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use support::{Node, add_site, body, empty, play, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::edge::CertificateView;

#[test]
fn role() {
    play();
}

fn damage(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    // Another file in its place: what is stored is read-only.
    std::fs::remove_file(path).expect("removes");
    std::fs::write(path, bytes).expect("writes");
}

#[tokio::test]
async fn compressed_forms_are_served_once_they_were_made_and_never_damaged() {
    let node = Node::new();
    let text = "all the same words ".repeat(1000);
    let tree = node.ingest(&[("index.html", text.as_bytes())]);
    let content = node.content();
    let stop = AtomicBool::new(false);
    assert_eq!(content.precompress(tree, &stop).expect("packs").made, 2);
    let hash = content.tree(tree).expect("tree").entries["index.html"].hash;
    damage(&content.variant(hash, Encoding::Brotli).expect("made"));
    let mut snapshot = empty(1);
    add_site(&mut snapshot, "site", "*", tree);
    node.save_snapshot(&snapshot);
    let _supervisor = node.supervise().await;
    let _edge = node.ready_edge().await;
    let ask = |accept: &str| {
        let fields = format!("accept-encoding: {accept}\r\n");
        request(node.http, "any.test", "/", &fields).expect("answers")
    };
    for _ in 0..2 {
        let packed = ask("br, gzip");
        assert!(packed.contains("content-encoding: gzip"), "{packed}");
        assert!(packed.len() < text.len() / 4);
        assert_eq!(body(&ask("br")), text);
    }
}

#[tokio::test]
async fn large_documents_come_whole_and_small_damaged_ones_not_at_all() {
    let node = Node::new();
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|at| b'a' + (at % 23) as u8)
        .collect();
    let tree = node.ingest(&[("large.txt", &large), ("small.txt", b"small words")]);
    let content = node.content();
    let entries = content.tree(tree).expect("tree").entries;
    damage(&content.path(entries["small.txt"].hash));
    let mut snapshot = empty(1);
    add_site(&mut snapshot, "site", "*", tree);
    node.save_snapshot(&snapshot);
    let _supervisor = node.supervise().await;
    let _edge = node.ready_edge().await;
    for _ in 0..2 {
        assert_eq!(body(&node.get("/large.txt")).as_bytes(), large);
        assert!(node.get("/small.txt").starts_with("HTTP/1.1 500"));
    }
    assert!(node.log().contains("damaged"));
}

#[tokio::test]
async fn tls_uses_the_certificates_of_the_saved_snapshot() {
    let node = Node::new();
    let names = vec!["news.test".to_owned()];
    let made = rcgen::generate_simple_self_signed(names.clone()).expect("certificate");
    let mut snapshot = node.page(1, "page");
    snapshot.certificates.push(CertificateView {
        hosts: names,
        chain_pem: made.cert.pem(),
        key_pem: made.signing_key.serialize_pem(),
    });
    node.save_snapshot(&snapshot);
    let _supervisor = node.supervise().await;
    let _edge = node.ready_edge().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = tokio::net::TcpStream::connect(node.https)
        .await
        .expect("connects");
    let name = "news.test".try_into().expect("name");
    let mut stream = connector.connect(name, stream).await.expect("handshake");
    let text = b"GET / HTTP/1.1\r\nhost: news.test\r\nconnection: close\r\n\r\n";
    stream.write_all(text).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    assert_eq!(body(&answer), "page");
}
