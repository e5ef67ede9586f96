//! The built service as its clients meet it: real process, real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

struct Service {
    child: Child,
    address: String,
    log: BufReader<ChildStderr>,
}

impl Service {
    /// Starts it and waits until it says that it is ready.
    fn ready(site: &Path) -> Self {
        let mut service = Self::start(command(site));
        service.log_line("ready: ");
        service
    }

    fn start(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let log = BufReader::new(child.stderr.take().expect("a log"));
        let mut service = Self {
            child,
            address: String::new(),
            log,
        };
        service.address = service.log_line("listening on ");
        service
    }

    /// The rest of the next log line with this beginning.
    fn log_line(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("a log");
            assert!(read > 0, "the log ended before `{beginning}`");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim().to_owned();
            }
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        stream
    }

    /// Sends `request` and reads to the end of the connection.
    fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The service may refuse, and close, before it has read everything.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn get(&self, target: &str, fields: &str) -> String {
        let request =
            format!("GET {target} HTTP/1.1\r\nhost: news\r\nconnection: close\r\n{fields}\r\n");
        self.exchange(request.as_bytes())
    }

    fn terminate(&self) {
        let id = i32::try_from(self.child.id()).expect("an id");
        let pid = rustix::process::Pid::from_raw(id).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the service did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(site: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_news-search"));
    command
        .env("HOST", "127.0.0.1")
        .env("PORT", "0")
        .env("NEWS_SITE", site)
        .env("VERSION", "7")
        .env_remove("FAIL_START");
    command
}

fn site() -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a directory");
    let city = home.path().join("city");
    std::fs::create_dir(&city).expect("a directory");
    let page = |title: &str, text: &str| {
        format!("<!doctype html><title>{title}</title><nav>City</nav><article>{text}</article>")
    };
    for (path, title, text) in [
        ("index.html", "The News", "All of today"),
        (
            "city/ferry.html",
            "The ferry",
            "It left &lt;early&gt; from the quay",
        ),
        (
            "city/tram.html",
            "The tram",
            "It missed the ferry and waited",
        ),
        ("404.html", "Nothing", "ferry"),
    ] {
        std::fs::write(home.path().join(path), page(title, text)).expect("a page");
    }
    home
}

fn json(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn pages_are_found_the_best_first_with_the_version() {
    let site = site();
    let service = Service::ready(site.path());
    let answer = service.get("/search?q=Ferry", "accept: application/json\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("\r\nversion: 7\r\n"), "{answer}");
    let found = json(&answer);
    assert_eq!(found["total"], 2);
    assert_eq!(found["results"][0]["path"], "/city/ferry.html");
    assert_eq!(found["results"][1]["title"], "The tram");

    let html = service.get("/search?q=quay", "accept: text/html\r\n");
    assert!(html.contains("content-type: text/html"), "{html}");
    assert!(html.contains("<a href=\"/city/ferry.html\">The ferry</a>"));
    assert!(html.contains("left &lt;early&gt; from"), "{html}");
    let health = service.get("/healthz", "");
    assert!(health.starts_with("HTTP/1.1 200 ") && health.contains("\r\nversion: 7\r\n"));
    assert!(
        service
            .get("/search/slow?ms=1", "")
            .starts_with("HTTP/1.1 404 ")
    );
}

#[test]
fn one_connection_carries_many_requests() {
    let site = site();
    let service = Service::ready(site.path());
    let mut stream = service.connect();
    for _ in 0..3 {
        let head = b"HEAD /search?q=ferry HTTP/1.1\r\nhost: news\r\n\r\n";
        stream.write_all(head).expect("a request");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            seen.push(byte[0]);
        }
        assert!(seen.starts_with(b"HTTP/1.1 200 "));
    }
}

#[test]
fn hostile_requests_are_refused_and_harm_nobody() {
    let site = site();
    let service = Service::ready(site.path());
    let status = |answer: &str| answer.split(' ').nth(1).map(str::to_owned);
    let long = service.get(&format!("/search?q={}", "a".repeat(300)), "");
    assert_eq!(status(&long).as_deref(), Some("400"), "{long}");
    let wide = format!("x-wide: {}\r\n", "a".repeat(40_000));
    assert_eq!(
        status(&service.get("/search", &wide)).as_deref(),
        Some("431")
    );
    let many = "x: y\r\n".repeat(200);
    assert_eq!(
        status(&service.get("/search", &many)).as_deref(),
        Some("431")
    );
    let post =
        b"POST /search HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc";
    assert_eq!(status(&service.exchange(post)).as_deref(), Some("405"));
    assert_eq!(
        status(&service.exchange(b"\x16\x03\x01 nonsense\r\n\r\n")).as_deref(),
        Some("400")
    );
    for query in ["%", "%zz", "%ff%fe%00", "&&&q", "q", "=", "%3Cscript%3E"] {
        let answer = service.get(&format!("/search?q={query}"), "");
        assert_eq!(status(&answer).as_deref(), Some("200"), "{query}");
        assert!(!answer.contains("<script"), "{answer}");
    }
    assert_eq!(
        json(&service.get("/search?q=ferry&format=json", ""))["total"],
        2
    );
}

#[test]
fn a_signal_ends_it_with_zero_after_the_requests_in_hand() {
    let site = site();
    let mut service = Service::ready(site.path());
    let mut idle = service.connect();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("a request");
    let mut first = [0];
    idle.read_exact(&mut first).expect("an answer");
    let mut begun = service.connect();
    begun
        .write_all(b"GET /search?q=ferry&format=json HTTP/1.1\r\nhost: a\r\n")
        .expect("half a request");
    // Answered on a later connection, so the half request was taken before.
    let _ = service.get("/healthz", "");
    service.terminate();
    service.log_line("stopping");
    begun.write_all(b"\r\n").expect("the other half");
    let mut answer = String::new();
    begun.read_to_string(&mut answer).expect("an answer");
    assert_eq!(json(&answer)["total"], 2);
    assert_eq!(service.log_line("stopped, "), "0 connections cut");
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn what_keeps_it_from_starting_is_said_with_code_one() {
    let site = site();
    let says = |change: &dyn Fn(&mut Command)| {
        let mut command = command(site.path());
        change(&mut command);
        let output = command.output().expect("a run");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    let told = says(&|command| {
        command.env("FAIL_START", "1");
    });
    assert_eq!(told, "error: told not to start by FAIL_START=1\n");
    let nowhere = says(&|command| {
        command.env("NEWS_SITE", site.path().join("nowhere"));
    });
    assert!(nowhere.contains("error: cannot read `"), "{nowhere}");
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = other.local_addr().expect("an address").port();
    let taken = says(&|command| {
        command.env("PORT", port.to_string());
    });
    assert!(
        taken.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{taken}"
    );
}
