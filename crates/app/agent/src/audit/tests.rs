//! The log written, cut, changed and looked through.

use super::{Audit, Entry, Outcome, Told, Verdict, verify};
use kernel::NodeId;
use std::path::PathBuf;
use store::EmbeddedStore;

struct Bench {
    home: tempfile::TempDir,
    store: EmbeddedStore,
}

fn told(object: &str) -> Told {
    Told {
        who: "owner".to_owned(),
        act: "apply".to_owned(),
        object: object.to_owned(),
        outcome: Outcome::Done,
        change: 0,
        why: None,
    }
}

impl Bench {
    async fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let options = store::Options {
            path: home.path().join("control.redb"),
            node: NodeId(1),
            group: store::Group::Alone,
        };
        let store = EmbeddedStore::open(options).await.expect("opens");
        Self { home, store }
    }

    fn directory(&self) -> PathBuf {
        self.home.path().join("audit")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("log-00000000000000000001.jsonl")
    }

    async fn open(&self) -> Audit {
        let opened = Audit::open(self.directory(), &self.store).await;
        opened.expect("opens")
    }

    async fn with_lines(count: u64) -> Self {
        let bench = Self::new().await;
        let audit = bench.open().await;
        for number in 1..=count {
            let object = format!("project/p{number}");
            let line = audit.append(&bench.store, told(&object)).await;
            assert_eq!(line.expect("writes"), number);
        }
        bench
    }

    async fn verify(&self) -> Verdict {
        let audit = self.open().await;
        audit.verify(&self.store).await.expect("looks")
    }

    async fn newest(&self) -> Entry {
        let audit = self.open().await;
        let mut all = audit.newest(1).await.expect("reads");
        all.pop().expect("a line")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).expect("reads")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.file(), text).expect("writes");
    }
}

#[tokio::test]
async fn a_log_goes_on_after_a_restart_and_is_whole() {
    let bench = Bench::with_lines(3).await;
    let audit = bench.open().await;
    let more = audit.append(&bench.store, told("node")).await;
    assert_eq!(more.expect("writes"), 4);
    let verdict = audit.verify(&bench.store).await.expect("looks");
    assert_eq!((verdict.lines, verdict.fault), (4, None));
    let alone = verify(&bench.file(), None);
    assert_eq!((alone.lines, alone.fault, alone.compared), (4, None, false));
    let newest = audit.newest(2).await.expect("reads");
    let objects: Vec<&str> = newest.iter().map(|entry| &*entry.object).collect();
    assert_eq!(objects, ["project/p3", "node"]);
}

#[tokio::test]
async fn every_changed_byte_is_seen_in_its_line() {
    let bench = Bench::with_lines(3).await;
    let whole = bench.text();
    let head = super::read_head(&bench.store).await.expect("reads");
    for at in 0..whole.len() {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] = if bytes[at] == b'3' { b'4' } else { b'3' };
        std::fs::write(bench.file(), &bytes).expect("writes");
        let verdict = verify(&bench.directory(), head.as_ref());
        let line = whole[..at].matches('\n').count() + 1;
        let fault = verdict.fault.unwrap_or_else(|| {
            // Without its newline the last line counts as torn, and is missed.
            panic!("byte {at} of line {line} was not seen")
        });
        let last = at + 1 == whole.len();
        let named = fault.contains(&format!("jsonl:{line}:")) || last;
        assert!(named, "byte {at}, line {line}: {fault}");
    }
}

#[tokio::test]
async fn lines_left_out_swapped_or_cut_off_are_missed() {
    let bench = Bench::with_lines(4).await;
    let whole = bench.text();
    let head = super::read_head(&bench.store).await.expect("reads");
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    for (kept, fault) in [
        (&[0, 1, 3][..], ":3: lines 3 to 3 are missing"),
        (&[0, 2, 1, 3], ":2: lines 2 to 2 are missing"),
        (&[0, 1, 1, 2, 3], ":3: it is line 2, after line 2"),
        (&[1, 2, 3], "begins with line 1"),
        (&[0, 1], "lines 3 to 4 are missing at the end"),
        (&[], "lines 1 to 4 are missing at the end"),
    ] {
        let text: String = kept.iter().map(|index| lines[*index]).collect();
        bench.write(&text);
        let found = verify(&bench.directory(), head.as_ref()).fault;
        let found = found.expect("a fault");
        assert!(found.contains(fault), "{found}, not {fault}");
    }
}

#[tokio::test]
async fn lines_cut_off_stay_missed_after_more_were_written() {
    let bench = Bench::with_lines(4).await;
    let whole = bench.text();
    let two: String = whole.split_inclusive('\n').take(2).collect();
    bench.write(&two);
    let audit = bench.open().await;
    let said = audit.newest(1).await.expect("reads").remove(0);
    assert_eq!(said.why.as_deref(), Some("lines 3 to 4 are missing"));
    assert_eq!((said.number, said.outcome), (5, Outcome::Failed));
    audit
        .append(&bench.store, told("later"))
        .await
        .expect("writes");
    let fault = bench.verify().await.fault.expect("a fault");
    assert!(fault.contains("lines 3 to 4 are missing"), "{fault}");
}

#[tokio::test]
async fn a_log_made_anew_by_somebody_else_is_not_the_one_the_store_knows() {
    let bench = Bench::with_lines(3).await;
    let forged = Bench::with_lines(3).await;
    bench.write(&forged.text());
    let fault = bench.verify().await.fault.expect("a fault");
    assert!(
        fault.contains("the line that the store knows") || fault.contains("follow"),
        "{fault}"
    );
    let longer = Bench::with_lines(9).await;
    let bench = Bench::with_lines(3).await;
    bench.write(&longer.text());
    let head = super::read_head(&bench.store).await.expect("reads");
    let fault = verify(&bench.directory(), head.as_ref()).fault;
    assert!(fault.expect("a fault").contains(":3:"));
}

#[tokio::test]
async fn a_torn_last_line_is_mended_and_said_and_no_fault() {
    let bench = Bench::with_lines(2).await;
    let whole = bench.text();
    for cut in [1, 20, 100] {
        bench.write(&format!("{}{}", bench.text(), &whole[..cut]));
        let head = super::read_head(&bench.store).await.expect("reads");
        let before = verify(&bench.directory(), head.as_ref());
        assert_eq!((before.fault, before.torn_bytes), (None, cut as u64));
        let said = bench.newest().await;
        assert_eq!((said.who.as_str(), said.outcome), ("node", Outcome::Done));
        let why = said.why.expect("a reason");
        assert!(why.contains(&format!("{cut} bytes")), "{why}");
        let after = bench.verify().await;
        assert_eq!((after.fault, after.torn_bytes), (None, 0));
    }
}

#[tokio::test]
async fn a_line_whose_head_was_not_written_before_a_kill_is_kept() {
    let bench = Bench::with_lines(2).await;
    let head = super::read_head(&bench.store).await.expect("reads");
    let audit = bench.open().await;
    audit
        .append(&bench.store, told("last"))
        .await
        .expect("writes");
    super::write_head(&bench.store, &head.expect("a head"))
        .await
        .expect("goes back");
    assert_eq!(bench.newest().await.object, "last");
    let audit = bench.open().await;
    audit
        .append(&bench.store, told("more"))
        .await
        .expect("writes");
    let verdict = bench.verify().await;
    assert_eq!((verdict.lines, verdict.fault), (4, None));
}

#[tokio::test]
async fn files_are_begun_anew_and_the_oldest_let_go() {
    let bench = Bench::with_lines(1).await;
    let audit = Audit::open_with(bench.directory(), &bench.store, 1).await;
    let audit = audit.expect("opens");
    for _ in 0..super::FILES_MAX + 2 {
        audit
            .append(&bench.store, told("more"))
            .await
            .expect("writes");
    }
    drop(audit);
    let files = super::read::files(&bench.directory()).expect("lists");
    assert_eq!(files.len(), super::FILES_MAX);
    assert!(!bench.file().exists());
    let verdict = bench.verify().await;
    assert_eq!(verdict.fault, None);
    assert!(verdict.first > 1, "{verdict:?}");
    std::fs::remove_file(&files[0].1).expect("removes");
    let fault = bench.verify().await.fault.expect("a fault");
    assert!(fault.contains("the log begins with line"), "{fault}");
}
