//! Loads against a real server on loopback, which also fails in each way that
//! servers do.

use replay::{Generated, ReplayError, ReplayOptions, ReplayReport, Search, Source, replay};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

impl Seen {
    fn lines(&self) -> Vec<String> {
        let heads = self.heads.lock().expect("lock");
        let line = |head: &String| head.lines().next().unwrap_or_default().to_owned();
        heads.iter().map(line).collect()
    }
}

async fn server() -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(Seen::default());
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counts.connections.fetch_add(1, SeqCst);
            tokio::spawn(converse(stream, Arc::clone(&counts)));
        }
    });
    (address, seen)
}

/// Answers each request as its path says, until one says to stop.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Seen>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match stream.read_line(&mut head).await {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let number = {
            let mut heads = seen.heads.lock().expect("lock");
            heads.push(head.clone());
            heads.len()
        };
        let body = if head.starts_with("HEAD") {
            ""
        } else {
            "12345"
        };
        let (answer, stays) = match &*path {
            "/cut" => (
                "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n12345".to_owned(),
                false,
            ),
            "/reset" => (String::new(), false),
            "/garbage" => ("what?\r\n\r\n".to_owned(), false),
            "/stall" => {
                // Until the client gives up.
                let _ = stream.fill_buf().await;
                return;
            }
            "/busy" => (
                "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned(),
                true,
            ),
            "/changing" => (
                format!("HTTP/1.1 200 OK\r\netag: \"a\"\r\ncontent-length: 6\r\n\r\n{number:06}"),
                true,
            ),
            "/last" => (
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\n{body}"),
                false,
            ),
            _ => (
                format!("HTTP/1.1 200 OK\r\netag: \"b\"\r\ncontent-length: 5\r\n\r\n{body}"),
                true,
            ),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || !stays {
            return;
        }
    }
}

fn file(home: &Path, name: &str, text: &str) -> PathBuf {
    let path = home.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

fn log(home: &Path, requests: &[&str]) -> PathBuf {
    let lines: Vec<_> = requests
        .iter()
        .map(|request| {
            format!("h - - [17/May/2015:10:05:03 +0000] \"{request} HTTP/1.1\" 200 1 \"-\" \"-\"\n")
        })
        .collect();
    file(home, "access.log", &lines.concat())
}

/// One at a time, as fast as answered.
fn options(log: PathBuf, target: SocketAddr) -> ReplayOptions {
    let mut options = ReplayOptions::new(Source::Log(log), format!("http://{target}"));
    options.speed = 0.0;
    options.concurrency = 1;
    options
}

async fn run(options: ReplayOptions) -> ReplayReport {
    replay(options, |_| ControlFlow::Continue(()))
        .await
        .expect("a report")
}

#[tokio::test]
async fn a_recorded_load_arrives_as_recorded_over_one_connection() {
    let (address, seen) = server().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = log(
        home.path(),
        &["GET /a?b=1", "HEAD /c", "POST /d", "GET /a?b=1"],
    );
    let mut options = options(path, address);
    options.host = Some("news.localhost".to_owned());
    let report = run(options).await;
    assert_eq!((report.sent, report.answered, report.failed), (3, 3, 0));
    assert_eq!((report.statuses["2xx"], report.body_bytes), (3, 10));
    assert_eq!(report.latency.count, 3);
    assert_eq!(report.log.expect("a log").methods["POST"], 1);
    let expected = [
        "GET /a?b=1 HTTP/1.1",
        "HEAD /c HTTP/1.1",
        "GET /a?b=1 HTTP/1.1",
    ];
    assert_eq!(seen.lines(), expected);
    assert_eq!(seen.connections.load(SeqCst), 1);
    let heads = seen.heads.lock().expect("lock");
    assert!(
        heads
            .iter()
            .all(|head| head.contains("host: news.localhost\r\n"))
    );
}

#[tokio::test]
async fn each_failure_is_counted_by_its_kind_and_the_load_goes_on() {
    let (address, _) = server().await;
    let home = tempfile::tempdir().expect("a directory");
    let requests = [
        "GET /cut",
        "GET /reset",
        "GET /garbage",
        "GET /stall",
        "GET /busy",
        "GET /changing",
        "GET /changing",
        "GET /last",
        "GET /fine",
    ];
    let mut options = options(log(home.path(), &requests), address);
    options.timeout = Duration::from_millis(300);
    let report = run(options).await;
    let failures = &report.failures;
    assert_eq!(
        (failures.incomplete, failures.reset),
        (1, 1),
        "{failures:?}"
    );
    assert_eq!(
        (failures.protocol, failures.timeout),
        (1, 1),
        "{failures:?}"
    );
    assert_eq!(
        (failures.server_error, failures.mismatch),
        (1, 1),
        "{failures:?}"
    );
    assert_eq!((report.sent, report.answered, report.failed), (9, 5, 6));
    assert_eq!(report.first_failures.len(), 6);
    assert!(report.latency.max >= 300.0, "{:?}", report.latency);
    let cut = &report.first_failures[0];
    assert!(
        cut.path == "/cut" && cut.why.contains("within the answer"),
        "{cut:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failure_of_each_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let home = tempfile::tempdir().expect("a directory");
    let report = run(options(log(home.path(), &["GET /", "GET /a"]), address)).await;
    assert_eq!((report.failures.connect, report.failed), (2, 2));
    assert_eq!((report.answered, report.latency.count), (0, 0));
    assert!(report.first_failures[0].why.contains("refused"));
}

#[tokio::test]
async fn recorded_paths_become_the_targets_and_some_become_searches() {
    let (address, seen) = server().await;
    let home = tempfile::tempdir().expect("a directory");
    let path = log(
        home.path(),
        &["GET /x", "GET /y", "GET /x", "GET /find?q=x"],
    );
    let mut options = options(path, address);
    let list = "/ferry/\t0.5\n/tram.html\t0.3\n/robots.txt\t0.2\n";
    options.popularity = Some(file(home.path(), "popularity.tsv", list));
    options.search = Some(Search {
        path: "/search".to_owned(),
        share: 0.0,
    });
    let report = run(options).await;
    assert_eq!(report.failed, 0);
    assert_eq!(report.mapping.expect("a mapping").searches, 1);
    let lines = seen.lines();
    let expected = [
        "GET /ferry/ HTTP/1.1",
        "GET /tram.html HTTP/1.1",
        "GET /ferry/ HTTP/1.1",
    ];
    assert_eq!(lines[..3], expected);
    assert!(lines[3].starts_with("GET /search?q="), "{}", lines[3]);
}

#[tokio::test]
async fn a_generated_load_keeps_its_pace_and_leaves_no_request_out() {
    let (address, seen) = server().await;
    let home = tempfile::tempdir().expect("a directory");
    let source = Source::Generated(Generated {
        per_second: 1_000.0,
    });
    let mut options = ReplayOptions::new(source, format!("http://{address}"));
    options.popularity = Some(file(home.path(), "list", "/a\n/b\n/c\n"));
    options.limit = Some(300);
    options.concurrency = 16;
    options.speed = 2.0;
    let mut told = 0;
    let report = replay(options, |progress| {
        told += 1;
        assert!(progress.ended <= progress.sent && progress.sent <= 300);
        ControlFlow::Continue(())
    })
    .await
    .expect("a report");
    assert_eq!((report.sent, report.answered, report.failed), (300, 300, 0));
    assert!(told > 0 && report.lag.count == 300);
    assert!(report.held.in_flight_most <= 16);
    assert!(seen.connections.load(SeqCst) <= 16);
    let lines = seen.lines();
    let often = |path: &str| lines.iter().filter(|line| line.contains(path)).count();
    assert!(often("/a ") > often("/b ") && often("/b ") > often("/c ") && often("/c ") > 0);
}

#[tokio::test]
async fn an_https_target_must_have_the_authority_that_is_trusted() {
    let home = tempfile::tempdir().expect("a directory");
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["news.localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names)
        .and_then(|params| params.self_signed(&key))
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private.into())
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                tokio::spawn(converse(stream, Arc::default()));
            }
        }
    });
    let mut good = options(log(home.path(), &["GET /a", "GET /b"]), address);
    good.target = format!("https://{address}");
    good.host = Some("news.localhost:8443".to_owned());
    let mut blind = good.clone();
    good.authority = Some(file(home.path(), "ca.pem", &certificate.pem()));
    let mut other = good.clone();
    other.host = Some("elsewhere.localhost".to_owned());

    assert_eq!(run(good).await.answered, 2);
    let distrusted = run(other).await;
    assert_eq!(distrusted.failures.connect, 2);
    blind.authority = None;
    let refused = replay(blind, |_| ControlFlow::Continue(())).await;
    assert!(matches!(refused, Err(ReplayError::Target { .. })));
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_before_anything_is_sent() {
    let home = tempfile::tempdir().expect("a directory");
    let good = options(
        log(home.path(), &["GET /"]),
        SocketAddr::from(([127, 0, 0, 1], 1)),
    );
    let refused = async |change: fn(&mut ReplayOptions)| {
        let mut options = good.clone();
        change(&mut options);
        let result = replay(options, |_| ControlFlow::Continue(())).await;
        result.expect_err("refused").to_string()
    };
    assert!(
        refused(|options| options.speed = f64::NAN)
            .await
            .contains("speed")
    );
    assert!(
        refused(|options| options.concurrency = 0)
            .await
            .contains("in flight")
    );
    assert!(
        refused(|options| options.target = "here".to_owned())
            .await
            .contains("http://")
    );
    assert!(
        refused(|options| options.target = "http://h/p".to_owned())
            .await
            .contains("paths")
    );
    assert!(
        refused(|options| options.source = Source::Log("gone".into()))
            .await
            .contains("`gone`")
    );
    let rate = |options: &mut ReplayOptions| {
        options.source = Source::Generated(Generated { per_second: 0.0 });
    };
    assert!(refused(rate).await.contains("rate"));
}
