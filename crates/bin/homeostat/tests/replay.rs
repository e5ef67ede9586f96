//! `homeostat replay` as scripts meet it: data on standard output, the outcome
//! in the exit code.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};

/// Answers every request with `status` until the test ends.
fn server(status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut answers = stream.try_clone().expect("a second handle");
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if line.is_empty() && answers.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

fn replay(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_homeostat"))
        .arg("--data-dir")
        .arg(home.join("d"))
        .arg("replay")
        .args(arguments)
        .output()
        .expect("a run")
}

fn log(home: &Path) -> String {
    let path = home.join("access.log");
    let line = "h - - [17/May/2015:10:05:03 +0000] \"GET /a HTTP/1.1\" 200 1 \"-\" \"-\"\n";
    std::fs::write(&path, line.repeat(5)).expect("a log");
    path.to_str().expect("text").to_owned()
}

#[test]
fn a_load_that_is_answered_is_data_on_standard_output_and_code_zero() {
    let home = tempfile::tempdir().expect("a directory");
    let to = format!("http://{}", server("200 OK"));
    let ended = replay(home.path(), &[&log(home.path()), "--to", &to, "-o", "json"]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(ended.stderr.is_empty(), "{ended:?}");
    let report: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("JSON");
    assert_eq!(report["answered"], 5);
    assert_eq!(report["statuses"]["2xx"], 5);
    let ended = replay(home.path(), &["--to", &to, "--limit", "7"]);
    let table = String::from_utf8(ended.stdout).expect("text");
    assert!(
        table.starts_with(&format!("sent      7 of 7 to {to} in ")),
        "{table}"
    );
}

#[test]
fn failed_requests_and_mistakes_have_their_exit_codes() {
    let home = tempfile::tempdir().expect("a directory");
    let to = format!("http://{}", server("503 Busy"));
    let busy = replay(home.path(), &[&log(home.path()), "--to", &to, "-o", "json"]);
    assert_eq!(busy.status.code(), Some(1), "{busy:?}");
    let report: serde_json::Value = serde_json::from_slice(&busy.stdout).expect("JSON");
    assert_eq!(report["failures"]["server_error"], 5);
    let usage = replay(home.path(), &["--to", "here"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    let said = String::from_utf8(usage.stderr).expect("text");
    assert!(
        said.contains("error: `here` is no target") && said.contains("help"),
        "{said}"
    );
    let gone = replay(home.path(), &["gone.log", "--to", &to]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
    assert!(gone.stdout.is_empty());
}
