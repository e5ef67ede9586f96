//! What agents say they have learned, each at the moment its line is read.
//!
//! In: the log files of our agents, the output of Serf's. Out: who heard what
//! of whom, and when.
//! Holds: both are observed by lines that the agent writes at the moment
//! itself; files are read every few milliseconds, pipes as they come.

use bench_common::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A file that has grown is noticed so soon.
const LOOK: Duration = Duration::from_millis(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Dead,
    Alive,
    Changed,
}

#[derive(Clone, Debug)]
pub struct Heard {
    pub at: Instant,
    pub by: usize,
    pub what: What,
    /// As the agents call it.
    pub of: String,
}

/// What of whom, if a line tells of either.
pub type Parse = fn(&str) -> Option<(What, String)>;

/// `… reach node=… was=Suspect is=Dead by=…`, `… attributes node=…`.
pub fn ours(line: &str) -> Option<(What, String)> {
    let of = |rest: &str| Some(word_after(rest, "node=")?.to_owned());
    if let Some((_, rest)) = line.split_once(": reach ") {
        return match word_after(rest, " is=")? {
            "Dead" => Some((What::Dead, of(rest)?)),
            "Alive" => Some((What::Alive, of(rest)?)),
            _ => None,
        };
    }
    let (_, rest) = line.split_once(": attributes ")?;
    Some((What::Changed, of(rest)?))
}

/// `… serf: EventMemberFailed: NAME ADDRESS`.
pub fn serf(line: &str) -> Option<(What, String)> {
    let (_, rest) = line.split_once("serf: EventMember")?;
    let (what, name) = rest.split_once(": ")?;
    let name = name.split_whitespace().next()?.to_owned();
    match what {
        "Failed" => Some((What::Dead, name)),
        "Join" => Some((What::Alive, name)),
        "Update" => Some((What::Changed, name)),
        _ => None,
    }
}

fn word_after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark)?.1.split_whitespace().next()
}

pub struct Ear {
    parse: Parse,
    heard: Receiver<Heard>,
    tell: Sender<Heard>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Ear {
    /// Of processes whose output is given to [`Ear::listen`].
    pub fn new(parse: Parse) -> Self {
        let (tell, heard) = channel();
        Self {
            parse,
            heard,
            tell,
            over: Arc::default(),
            reader: None,
        }
    }

    /// Of files that grow, from their present ends.
    pub fn on_files(parse: Parse, files: &[PathBuf]) -> Result<Self, Failure> {
        let mut ear = Self::new(parse);
        let mut tails = Vec::new();
        for path in files {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::End(0))?;
            tails.push((file, Vec::new()));
        }
        let (tell, over) = (ear.tell.clone(), Arc::clone(&ear.over));
        ear.reader = Some(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for (by, (file, rest)) in tails.iter_mut().enumerate() {
                    read_on(file, rest, by, parse, &tell);
                }
                std::thread::sleep(LOOK);
            }
        }));
        Ok(ear)
    }

    /// Until it ends.
    pub fn listen(&self, by: usize, output: impl Read + Send + 'static) {
        let (tell, parse) = (self.tell.clone(), self.parse);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                say(&tell, by, parse, &line);
            }
        });
    }

    /// What was heard before is of no interest any more.
    pub fn forget(&self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// When each of these had heard it for the first time.
    ///
    /// # Errors
    /// Some had not after so long: says which.
    pub fn all(
        &self,
        (what, of): (What, &str),
        by: &BTreeSet<usize>,
        within: Duration,
    ) -> Result<BTreeMap<usize, Instant>, Failure> {
        let deadline = Instant::now() + within;
        let mut found = BTreeMap::new();
        while found.len() < by.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(one) = self.heard.recv_timeout(left) else {
                let silent = by.iter().filter(|one| !found.contains_key(*one));
                let silent: Vec<usize> = silent.copied().collect();
                let within = within.as_secs();
                return Err(
                    format!("{silent:?} did not hear {what:?} of {of} in {within} s").into(),
                );
            };
            if one.what == what && one.of == of && by.contains(&one.by) {
                found.entry(one.by).or_insert(one.at);
            }
        }
        Ok(found)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn read_on(file: &mut File, rest: &mut Vec<u8>, by: usize, parse: Parse, tell: &Sender<Heard>) {
    if file.read_to_end(rest).is_err() {
        return;
    }
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = rest.drain(..=end).collect();
        say(tell, by, parse, &String::from_utf8_lossy(&line));
    }
}

fn say(tell: &Sender<Heard>, by: usize, parse: Parse, line: &str) {
    if let Some((what, of)) = parse(line) {
        let at = Instant::now();
        let _ = tell.send(Heard { at, by, what, of });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_are_read() {
        let line = "2026-11-25T23:11:55.123456Z  INFO agent::cluster::gossip: reach node=0000000000000003 was=Suspect is=Dead by=0000000000000001";
        assert_eq!(
            ours(line),
            Some((What::Dead, "0000000000000003".to_owned()))
        );
        let line =
            "2026-11-25T23:11:55Z DEBUG agent::cluster::rows: attributes node=0000000000000002";
        assert_eq!(
            ours(line),
            Some((What::Changed, "0000000000000002".to_owned()))
        );
        let line = "    2026/11/25 23:19:43 [INFO] serf: EventMemberFailed: n2 127.0.0.12";
        assert_eq!(serf(line), Some((What::Dead, "n2".to_owned())));
        let line = "    2026/11/25 23:19:44 [INFO] agent: Received event: member-failed";
        assert_eq!(serf(line), None);
    }

    #[test]
    fn what_all_have_heard_has_a_moment_for_each_and_the_silent_are_named() {
        let ear = Ear::new(serf);
        ear.listen(0, "serf: EventMemberFailed: x 1\n".as_bytes());
        ear.listen(1, "serf: EventMemberFailed: x 1\n".as_bytes());
        let both = BTreeSet::from([0, 1]);
        let found = ear.all((What::Dead, "x"), &both, Duration::from_secs(10));
        assert_eq!(found.expect("both").len(), 2);
        let why = ear.all((What::Dead, "x"), &both, Duration::ZERO);
        assert!(why.expect_err("nobody").to_string().contains("[0, 1]"));
    }
}
