//! A service for the tests: says who answers, and misbehaves when told to.
//!
//! Environment: `VERSION` is in each answer; `FAIL_START` ends it at once.
//! Paths: `/slow?MS` answers late, `/crash` ends the process, `/log?TEXT`
//! prints a line, `POST /count` counts in the file `COUNT_FILE`, one line a
//! request that was carried out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn main() {
    if std::env::var_os("FAIL_START").is_some() {
        let _ = writeln!(std::io::stderr(), "told to fail");
        std::process::exit(3);
    }
    let port = std::env::var("PORT").expect("PORT");
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let listener = TcpListener::bind(format!("{host}:{port}")).expect("binds");
    let _ = writeln!(std::io::stdout(), "listening");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(stream: TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let header = header.trim().to_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        act(&method, path, query);
        let text = format!(
            "{{\"pid\":{},\"version\":\"{}\"}}\n",
            std::process::id(),
            std::env::var("VERSION").unwrap_or_default()
        );
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        // At once: the kernel would hold small pieces back for each other.
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

fn act(method: &str, path: &str, query: &str) {
    match (method, path.rsplit('/').next().unwrap_or_default()) {
        (_, "slow") => std::thread::sleep(Duration::from_millis(query.parse().unwrap_or(0))),
        (_, "crash") => std::process::exit(7),
        (_, "log") => {
            let _ = writeln!(std::io::stdout(), "{query}");
        }
        ("POST", "count") => {
            let path = std::env::var_os("COUNT_FILE").expect("COUNT_FILE");
            let mut file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(path)
                .expect("opens");
            file.write_all(format!("{query}\n").as_bytes())
                .expect("writes");
        }
        _ => {}
    }
}
