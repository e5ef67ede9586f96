//! What telemetry promises, through its public face.

use super::*;
use crate::segment::{HEADER, frame};
use kernel::{Bytes, DecisionId, Name, NodeId, ObjectRef, Time, UnixMillis};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Row, RowAccessor};
use proptest::prelude::*;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use wire::decision::{Decision, JournalEntry, Observation};
use wire::rows::AccessRow;

const CHILD: &str = "TELEMETRY_TEST_ROWS";

fn row(number: u64) -> AccessRow {
    let odd = !number.is_multiple_of(2);
    AccessRow {
        at: UnixMillis(number),
        client: "192.0.2.0".to_owned(),
        method: "GET".to_owned(),
        host: "news.test".to_owned(),
        path: format!("/{number}?é"),
        protocol: "HTTP/2.0".to_owned(),
        tls: odd,
        status: 503,
        bytes: u64::MAX - number,
        micros: number * 3,
        project: Some(Name::new("news").expect("a name")),
        site: odd.then(|| Name::new("news").expect("a name")),
        service: (!odd).then(|| Name::new("search").expect("a name")),
        replica: (!odd).then(|| "news.search-g1-0".parse().expect("an id")),
        retries: u32::MAX,
        referer: String::new(),
        agent: "test".to_owned(),
        node: odd.then_some(NodeId(number)),
        forwarded_by: (!odd).then_some(NodeId(number)),
        request: odd.then_some(number),
    }
}

fn segment(directory: &Path, name: &str, numbers: std::ops::Range<u64>) -> PathBuf {
    let mut bytes = HEADER.to_vec();
    for number in numbers {
        bytes.extend(frame(&row(number)).expect("encodes"));
    }
    fs::create_dir_all(directory).expect("creates");
    let path = directory.join(name);
    fs::write(&path, bytes).expect("writes");
    path
}

/// Reads one row back; unsigned columns by their bits.
fn from_parquet(row: &Row) -> AccessRow {
    let text = |at: usize| row.get_string(at).expect("text").clone();
    let maybe = |at: usize| row.get_string(at).ok().cloned();
    let hex = |at: usize| {
        let digits = maybe(at)?;
        Some(u64::from_str_radix(&digits, 16).expect("digits"))
    };
    let millis = row.get_timestamp_millis(0).expect("time");
    AccessRow {
        at: UnixMillis(millis.cast_unsigned()),
        client: text(1),
        method: text(2),
        host: text(3),
        path: text(4),
        protocol: text(5),
        tls: row.get_bool(6).expect("bool"),
        status: row.get_ushort(7).expect("status"),
        bytes: row.get_ulong(8).expect("bytes"),
        micros: row.get_ulong(9).expect("micros"),
        project: maybe(10).map(|name| Name::new(name).expect("a name")),
        site: maybe(11).map(|name| Name::new(name).expect("a name")),
        service: maybe(12).map(|name| Name::new(name).expect("a name")),
        replica: maybe(13).map(|id| id.parse().expect("an id")),
        retries: row.get_uint(14).expect("retries"),
        referer: text(15),
        agent: text(16),
        node: hex(17).map(NodeId),
        forwarded_by: hex(18).map(NodeId),
        request: hex(19),
    }
}

fn all_parquet(directory: &Path) -> Vec<AccessRow> {
    let paths = error::list(directory, "parquet").expect("lists");
    let read = |path: PathBuf| {
        let reader = SerializedFileReader::new(File::open(path).expect("opens")).expect("reads");
        let rows = reader.get_row_iter(None).expect("reads");
        rows.map(|row| from_parquet(&row.expect("a row")))
            .collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(read).collect()
}

fn all_rows(directory: &Path) -> Vec<AccessRow> {
    let mut paths = error::list(directory, "rows").expect("lists");
    paths.extend(error::list(directory, "open").expect("lists"));
    paths.sort();
    paths
        .iter()
        .flat_map(|path| read_segment(path).expect("reads"))
        .collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{what} within 30 s"
        );
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn millis_now() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

#[test]
fn segment_torn_at_any_byte_keeps_its_whole_rows() {
    let place = tempfile::tempdir().expect("a directory");
    let path = segment(place.path(), "a.open", 0..4);
    let bytes = fs::read(&path).expect("reads");
    let mut ends = vec![HEADER.len()];
    for number in 0..4 {
        ends.push(ends[ends.len() - 1] + frame(&row(number)).expect("encodes").len());
    }
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).expect("writes");
        let whole = ends.iter().skip(1).filter(|end| **end <= cut).count() as u64;
        let read: Vec<_> = read_segment(&path).expect("opens").collect();
        assert_eq!(
            read,
            (0..whole).map(row).collect::<Vec<_>>(),
            "cut at {cut}"
        );
    }
}

proptest! {
    #[test]
    fn hostile_segments_never_panic(tail: Vec<u8>, headed: bool) {
        let place = tempfile::tempdir().expect("a directory");
        let mut bytes = if headed { HEADER.to_vec() } else { Vec::new() };
        bytes.extend(tail);
        let path = place.path().join("a.rows");
        fs::write(&path, bytes).expect("writes");
        let _ = read_segment(&path).map(Iterator::count);
    }
}

#[test]
fn rows_are_written_in_order_over_several_segments() {
    let place = tempfile::tempdir().expect("a directory");
    let options = RowLogOptions {
        segment_bytes: 512,
        ..RowLogOptions::default()
    };
    let log = RowLog::create(place.path(), "access", options).expect("creates");
    for number in 0..100 {
        log.append(&row(number));
        if number == 50 {
            until("a first flush", || all_rows(place.path()).len() == 51);
        }
    }
    drop(log);
    assert_eq!(
        all_rows(place.path()),
        (0..100).map(row).collect::<Vec<_>>()
    );
    assert_eq!(error::list(place.path(), "open").expect("lists").len(), 0);
    assert!(error::list(place.path(), "rows").expect("lists").len() >= 2);
}

#[test]
fn rows_wait_for_a_failing_disk_and_those_beyond_the_buffer_are_counted() {
    let place = tempfile::tempdir().expect("a directory");
    let rows = place.path().join("rows");
    let options = RowLogOptions {
        buffer_bytes: 4096,
        flush_every: Duration::from_millis(10),
        ..RowLogOptions::default()
    };
    let log = RowLog::create(&rows, "access", options).expect("creates");
    fs::remove_dir(&rows).expect("removes");
    let mut number = 0;
    until("rows are dropped", || {
        for _ in 0..100 {
            log.append(&row(number));
            number += 1;
        }
        let counts = log.counts();
        counts.dropped > 0 && counts.failed_writes > 0
    });
    fs::create_dir(&rows).expect("creates");
    let kept = log.counts();
    assert_eq!(kept.appended + kept.dropped, number);
    until("the kept rows are written", || {
        all_rows(&rows).len() as u64 == kept.appended
    });
}

#[test]
fn killed_writer_loses_at_most_the_last_second() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let log = RowLog::create(directory.as_ref(), "access", RowLogOptions::default());
        let log = log.expect("creates");
        for number in 0.. {
            let mut row = row(number);
            row.at = UnixMillis(millis_now());
            log.append(&row);
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }
    let place = tempfile::tempdir().expect("a directory");
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args([
            "--exact",
            "tests::killed_writer_loses_at_most_the_last_second",
        ])
        .env(CHILD, place.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    until("a thousand rows", || all_rows(place.path()).len() >= 1000);
    let killed_at = millis_now();
    child.kill().expect("kills");
    child.wait().expect("ends");
    let rows = all_rows(place.path());
    let last = rows.last().expect("rows").at.0;
    assert!(
        last + 1000 >= killed_at,
        "lost {} ms",
        killed_at.saturating_sub(last)
    );
    for (number, found) in (0..).zip(&rows) {
        assert_eq!(found.micros, number * 3, "a gap");
    }
}

#[test]
fn parquet_reads_back_equal_and_segments_wait_for_their_writers_end() {
    let place = tempfile::tempdir().expect("a directory");
    let (rows, parquet) = (place.path().join("rows"), place.path().join("parquet"));
    segment(&rows, "access-1.rows", 0..40_000);
    let torn = segment(&rows, "access-2.rows", 40_000..40_010);
    let bytes = fs::read(&torn).expect("reads");
    fs::write(&torn, &bytes[..bytes.len() - 1]).expect("writes");
    let open = File::open(segment(&rows, "access-3.open", 40_009..40_020)).expect("opens");
    open.lock().expect("locks, as its writer does");
    fs::write(rows.join("access-0.rows"), b"something else").expect("writes");
    let cap = Bytes::mebibytes(100);
    let sealed = seal(&rows, &parquet, cap).expect("seals");
    assert_eq!(
        (sealed.segments, sealed.rows, sealed.files, sealed.bad),
        (2, 40_009, 1, 1)
    );
    drop(open);
    assert_eq!(seal(&rows, &parquet, cap).expect("seals").rows, 11);
    assert!(all_parquet(&parquet) == (0..40_020).map(row).collect::<Vec<_>>());
    assert_eq!(
        seal(&rows, &parquet, cap).expect("seals"),
        Sealed::default()
    );
}

#[test]
fn crash_between_rename_and_removal_seals_nothing_twice() {
    let place = tempfile::tempdir().expect("a directory");
    let (rows, parquet) = (place.path().join("rows"), place.path().join("parquet"));
    let cap = Bytes::mebibytes(100);
    segment(&rows, "access-1.rows", 0..10);
    segment(&rows, "access-3.rows", 10..20);
    seal(&rows, &parquet, cap).expect("seals");
    // As if the crash had come after the first removal; one more sorts between.
    segment(&rows, "access-3.rows", 10..20);
    segment(&rows, "access-2.rows", 20..30);
    fs::write(parquet.join("access-9.partial"), b"half").expect("writes");
    let sealed = seal(&rows, &parquet, cap).expect("seals");
    assert_eq!(sealed.rows, 10);
    let mut numbers: Vec<_> = all_parquet(&parquet).iter().map(|row| row.at.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..30).collect::<Vec<_>>());
    assert!(!parquet.join("access-9.partial").exists());
}

#[test]
fn oldest_parquet_goes_first_beyond_the_cap() {
    let place = tempfile::tempdir().expect("a directory");
    let (rows, parquet) = (place.path().join("rows"), place.path().join("parquet"));
    let mut largest = 0;
    for number in 1..=5 {
        segment(
            &rows,
            &format!("access-{number}.rows"),
            number * 10..number * 10 + 10,
        );
        let none = seal(&rows, &parquet, Bytes::mebibytes(1))
            .expect("seals")
            .removed;
        assert_eq!(none, 0);
        let file = parquet.join(format!("access-{number}..access-{number}.parquet"));
        largest = fs::metadata(file).expect("there").len().max(largest);
    }
    let sealed = seal(&rows, &parquet, Bytes(largest * 2)).expect("seals");
    assert_eq!(sealed.removed, 3);
    assert_eq!(all_parquet(&parquet)[0], row(40));
}

fn decision(id: u64) -> JournalEntry {
    JournalEntry::Decision(Decision {
        id: DecisionId(id),
        at: Time(id),
        at_unix: UnixMillis(5),
        control_loop: "restart".to_owned(),
        seat: "local".to_owned(),
        subject: ObjectRef::new("service", "news/search"),
        about: Vec::new(),
        parameters: serde_json::json!({"limit": 3}),
        state: serde_json::Value::Null,
        reading: serde_json::json!(["line\nbreak"]),
        next_state: serde_json::Value::Null,
        action: serde_json::Value::Null,
        seen: "an exit".to_owned(),
        decided: "a restart".to_owned(),
        causes: Vec::new(),
        expected: None,
    })
}

fn observation(of: u64) -> JournalEntry {
    JournalEntry::Observation(Observation {
        decision: DecisionId(of),
        at: Time(of),
        at_unix: UnixMillis(0),
        what: "started".to_owned(),
        worked: true,
    })
}

#[test]
fn journal_reads_back_across_openings_and_torn_at_any_byte() {
    let place = tempfile::tempdir().expect("a directory");
    let open = || Journal::open(place.path(), JournalOptions::default()).expect("opens");
    let journal = open();
    journal.append(&decision(1)).expect("appends");
    journal.append(&decision(2)).expect("appends");
    let path = error::list(place.path(), "jsonl").expect("lists").remove(0);
    let bytes = fs::read(&path).expect("reads");
    let line = bytes.len() / 2;
    for cut in 0..bytes.len() {
        fs::write(&path, &bytes[..cut]).expect("writes");
        // A line that lacks only its end is whole.
        let whole = (cut + 1) / line;
        assert_eq!(
            read_all(place.path()).expect("reads").len(),
            whole,
            "cut at {cut}"
        );
    }
    let journal = open();
    journal.append(&observation(2)).expect("appends");
    let entries = read_all(place.path()).expect("reads");
    assert_eq!(entries[..2], [decision(1), decision(2)]);
    assert!(matches!(&entries[2], JournalEntry::Observation(o) if o.at_unix.0 > 0));
    assert_eq!(
        last_decision_id(place.path()).expect("reads"),
        Some(DecisionId(2))
    );
    assert_eq!(
        last_decision_id(&place.path().join("none")).expect("reads"),
        None
    );
}

#[test]
fn journal_stays_under_its_cap_and_keeps_the_newest() {
    let place = tempfile::tempdir().expect("a directory");
    let options = JournalOptions {
        file: Bytes(1000),
        cap: Bytes(5000),
    };
    let journal = Journal::open(place.path(), options).expect("opens");
    for id in 0..100 {
        journal.append(&decision(id)).expect("appends");
    }
    let paths = error::list(place.path(), "jsonl").expect("lists");
    let total: u64 = paths
        .iter()
        .map(|path| fs::metadata(path).expect("there").len())
        .sum();
    assert!(total <= 6000, "{total}");
    assert_eq!(
        last_decision_id(place.path()).expect("reads"),
        Some(DecisionId(99))
    );
}
