//! Readers comment while what serves them is killed, and others see them come.
//!
//! Holds: a comment is sent again under its own key until it is acknowledged,
//! as the page's script does; none may be lost, and none may be there twice.

use crate::Told;
use crate::acts::replicas;
use crate::stage::{Stage, expect};
use black_box::{ask_with, kill, until};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PAGE: &str = "/comments?page=/world/story.html";
const READERS: usize = 4;
const COMMENTS_EACH: usize = 40;
const PATIENCE: Duration = Duration::from_mins(1);

pub fn comment(stage: &Stage) -> Told<String> {
    let address = stage.node.http;
    let readers: Vec<_> = (0..READERS)
        .map(|reader| std::thread::spawn(move || write_comments(address, reader)))
        .collect();
    let mut kills = 0;
    while !readers.iter().all(std::thread::JoinHandle::is_finished) {
        let Some((_, agent, edge)) = stage.node.find_pids() else {
            continue;
        };
        let worker = replicas(stage, "visitors").first().map(|(_, pid)| *pid);
        let worker = worker.and_then(|pid| u32::try_from(pid).ok());
        let victim = [Some(agent), Some(edge), worker][kills % 3];
        if let Some(victim) = victim {
            kill(victim);
        }
        kills += 1;
        until("all that was killed", || {
            let (_, agent, edge) = stage.node.find_pids()?;
            let back = ![Some(agent), Some(edge)].contains(&victim);
            let served = stage
                .node
                .get(PAGE)
                .is_ok_and(|answer| answer.status == 200);
            (back && served && !replicas(stage, "visitors").is_empty()).then_some(())
        });
    }
    let mut again = 0;
    for reader in readers {
        again += reader.join().map_err(|_| "a reader fell over")??;
    }
    let there = read_comments(stage)?;
    for reader in 0..READERS {
        for number in 0..COMMENTS_EACH {
            let id = id(reader, number);
            let count = there.get(&id).copied().unwrap_or(0);
            expect(count == 1, || {
                format!("comment {id} is there {count} times")
            })?;
        }
    }
    expect(kills >= 3, || format!("only {kills} were killed"))?;
    Ok(format!(
        "{} acknowledged, each there once; {kills} killed, {again} sent again",
        READERS * COMMENTS_EACH
    ))
}

fn id(reader: usize, number: usize) -> String {
    format!("reader-{reader}-{number}")
}

/// How many had to be sent again.
fn write_comments(address: SocketAddr, reader: usize) -> Told<usize> {
    let mut again = 0;
    for number in 0..COMMENTS_EACH {
        let id = id(reader, number);
        let key = [("idempotency-key", id.as_str())];
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = format!("What {id} thinks.");
            let sent = ask_with(address, "POST", "localhost", PAGE, &key, text.as_bytes());
            match sent {
                Ok(answer) if matches!(answer.status, 200 | 201) => break,
                Ok(answer) if answer.status < 500 => {
                    let said = String::from_utf8_lossy(&answer.body).into_owned();
                    return Err(format!("a comment was refused: {} {said}", answer.status));
                }
                _ if Instant::now() > deadline => {
                    return Err(format!("comment {id} was never acknowledged"));
                }
                _ => again += 1,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // A reader thinks; so that the kills fall among the comments.
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(again)
}

fn read_comments(stage: &Stage) -> Told<BTreeMap<String, usize>> {
    let answer = stage.get(PAGE)?;
    let all: Vec<Value> = serde_json::from_slice(&answer.body)
        .map_err(|why| format!("the comments cannot be read: {why}"))?;
    let mut there = BTreeMap::new();
    for comment in all {
        let id = comment["id"].as_str().unwrap_or_default().to_owned();
        *there.entry(id).or_insert(0) += 1;
    }
    Ok(there)
}

pub fn visit(stage: &Stage) -> Told<String> {
    let mut first = Events::open(stage.node.http)?;
    first.until_visitors(1)?;
    let second = Events::open(stage.node.http)?;
    first.until_visitors(2)?;
    drop(second);
    first.until_visitors(1)?;
    let counted = stage.get("/visitors")?;
    let counted: Value = serde_json::from_slice(&counted.body).map_err(|why| why.to_string())?;
    expect(counted["visitors"] == 1, || counted.to_string())?;
    Ok("one, two, and one again, told as it happened".to_owned())
}

/// An event stream that a browser would read.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(address: SocketAddr) -> Told<Self> {
        let open = || -> std::io::Result<Self> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(15)))?;
            let head = "GET /visitors/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
            stream.write_all(head.as_bytes())?;
            Ok(Self(BufReader::new(stream)))
        };
        open().map_err(|why| format!("no events: {why}"))
    }

    fn until_visitors(&mut self, count: u64) -> Told {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line);
            if read.map_err(|why| format!("waiting for {count} visitors: {why}"))? == 0 {
                return Err(format!("the events ended before {count} visitors"));
            }
            let Some(data) = line.strip_prefix("data:") else {
                continue;
            };
            let said: Value = serde_json::from_str(data.trim()).unwrap_or_default();
            if said["visitors"] == count {
                return Ok(());
            }
        }
    }
}
