//! A service for the tests: says who answers, and misbehaves when told to.
//!
//! Environment: `VERSION` is in each answer; `FAIL_START` ends it at once; with
//! `GATE` it starts when it could take a file out of that directory; with
//! `REPEAT` it speaks no HTTP, but sends back what comes, once all has come;
//! `STATUS`, such as `500 Broken`, is its answer to all but `/`; so is an error
//! after `POST /lie`.
//! Paths: `/slow?MS` answers late, `/crash` ends the process, `/log?TEXT`
//! prints a line, `POST /count` counts in the file `COUNT_FILE`, one line a
//! request that was carried out; `/give?BYTES` answers so many, `/events?COUNT`
//! sends an event for each request to `/next`, `/socket` changes the protocol
//! and sends back what comes. `/environment?NAME` answers a variable's value,
//! `/call?HOST:PORT` what comes from there when it says something and ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How many events were asked for.
static NEXT: (Mutex<u64>, Condvar) = (Mutex::new(0), Condvar::new());
/// Only what a probe asks for is answered well.
static LIES: AtomicBool = AtomicBool::new(false);
const PIECE: &[u8] = &[b'x'; 64 << 10];

/// Waits for a file in a directory, and takes it: each lets one of us through.
fn pass(gate: &Path) {
    loop {
        for file in std::fs::read_dir(gate).expect("a directory").flatten() {
            if std::fs::remove_file(file.path()).is_ok() {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn main() {
    if std::env::var_os("FAIL_START").is_some() {
        let _ = writeln!(std::io::stderr(), "told to fail");
        std::process::exit(3);
    }
    if let Some(gate) = std::env::var_os("GATE") {
        pass(Path::new(&gate));
    }
    let port = std::env::var("PORT").expect("PORT");
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let listener = TcpListener::bind(format!("{host}:{port}")).expect("binds");
    let _ = writeln!(std::io::stdout(), "listening");
    let repeats = std::env::var_os("REPEAT").is_some();
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            if repeats {
                repeat(stream)
            } else {
                serve(stream)
            }
        });
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
        let mut length = 0_u64;
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
        let took = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
        if took < length {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        if let Some(done) = streamed(path, query, &mut reader, &mut writer) {
            done.ok()?;
            continue;
        }
        act(&method, path, query);
        let text = format!(
            "{{\"pid\":{},\"version\":\"{}\",\"took\":{took}}}\n",
            std::process::id(),
            std::env::var("VERSION").unwrap_or_default()
        );
        let lies = LIES.load(Ordering::Relaxed);
        let error = || lies.then(|| "500 Broken".to_owned());
        let status = std::env::var("STATUS").ok().or_else(error);
        let status = status.filter(|_| path != "/");
        let status = status.as_deref().unwrap_or("200 OK");
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        // At once: the kernel would hold small pieces back for each other.
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

/// Answers that are not one piece.
fn streamed(
    path: &str,
    query: &str,
    reader: &mut impl BufRead,
    writer: &mut impl Write,
) -> Option<std::io::Result<()>> {
    let number = query.parse().unwrap_or(0);
    match path.rsplit('/').next().unwrap_or_default() {
        "give" => Some(give(number, writer)),
        "events" => Some(events(number, writer)),
        "socket" => Some(echo(reader, writer)),
        "environment" => Some(say(&std::env::var(query).unwrap_or_default(), writer)),
        "call" => Some(say(&call(query), writer)),
        _ => None,
    }
}

/// Sends back what came, after its end.
fn repeat(mut stream: TcpStream) -> Option<()> {
    let mut came = Vec::new();
    stream.read_to_end(&mut came).ok()?;
    stream.write_all(&came).ok()
}

/// Half a megabyte there and back: more than waits anywhere on the way.
fn call(address: &str) -> String {
    let called = || {
        let mut stream = TcpStream::connect(address)?;
        let said = "x".repeat(512 << 10);
        stream.write_all(said.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard)?;
        let same = heard == said;
        Ok::<_, std::io::Error>(if same { "repeated" } else { "other" }.to_owned())
    };
    called().unwrap_or_else(|error| format!("failed: {:?}", error.kind()))
}

fn say(text: &str, writer: &mut impl Write) -> std::io::Result<()> {
    let length = text.len();
    write!(
        writer,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
    )
}

fn give(bytes: u64, writer: &mut impl Write) -> std::io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {bytes}\r\n\r\n"
    )?;
    let mut left = bytes;
    while left > 0 {
        let size = left.min(PIECE.len() as u64);
        let piece = usize::try_from(size).unwrap_or(PIECE.len());
        writer.write_all(&PIECE[..piece])?;
        left -= size;
    }
    Ok(())
}

/// Each event only once somebody asked for the next one.
fn events(count: u64, writer: &mut impl Write) -> std::io::Result<()> {
    writer.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
    )?;
    for number in 1..=count {
        let asked = NEXT.0.lock().expect("a count");
        drop(NEXT.1.wait_while(asked, |asked| *asked < number));
        let event = format!("data: {number}\n\n");
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        writer.write_all(chunk.as_bytes())?;
    }
    writer.write_all(b"0\r\n\r\n")
}

fn echo(reader: &mut impl BufRead, writer: &mut impl Write) -> std::io::Result<()> {
    writer.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )?;
    loop {
        let came = reader.fill_buf()?.to_vec();
        if came.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        writer.write_all(&came)?;
        reader.consume(came.len());
    }
}

fn act(method: &str, path: &str, query: &str) {
    match (method, path.rsplit('/').next().unwrap_or_default()) {
        (_, "slow") => std::thread::sleep(Duration::from_millis(query.parse().unwrap_or(0))),
        (_, "crash") => std::process::exit(7),
        (_, "log") => {
            let _ = writeln!(std::io::stdout(), "{query}");
        }
        (_, "next") => {
            *NEXT.0.lock().expect("a count") += 1;
            NEXT.1.notify_all();
        }
        ("POST", "lie") => LIES.store(true, Ordering::Relaxed),
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
