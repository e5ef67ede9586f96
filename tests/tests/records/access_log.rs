//! The access log of a real node: what was answered is in it, whoever is killed.

use black_box::{TestNode, get, kill, processes, project, until};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a killed writer may lose.
const LAST: Duration = Duration::from_secs(1);

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

fn number_in(path: &str) -> Option<u64> {
    path.strip_prefix("/?n=")?.parse().ok()
}

/// How often each number is in the sealed files.
fn sealed(node: &TestNode) -> BTreeMap<u64, u64> {
    let mut numbers = BTreeMap::new();
    for path in files(&node.layout.access_parquet(), "parquet") {
        let reader = SerializedFileReader::new(File::open(path).expect("opens")).expect("reads");
        for row in reader.get_row_iter(None).expect("reads") {
            let row = row.expect("a row");
            let path = row.get_string(4).expect("its path");
            if let Some(number) = number_in(path) {
                assert_eq!(row.get_ushort(7).expect("its status"), 200);
                assert_eq!(row.get_string(1).expect("its client"), "127.0.0.0");
                assert_eq!(row.get_string(3).expect("its host"), "localhost");
                *numbers.entry(number).or_default() += 1;
            }
        }
    }
    numbers
}

/// The numbers in segments that are not sealed yet.
fn unsealed(node: &TestNode) -> BTreeSet<u64> {
    let directory = node.layout.access_rows();
    let mut paths = files(&directory, "open");
    paths.extend(files(&directory, "rows"));
    paths
        .iter()
        .filter_map(|path| telemetry::read_segment(path).ok())
        .flatten()
        .filter_map(|row| number_in(&row.path))
        .collect()
}

/// Asks with that number; whether it was answered well.
fn ask(node: &TestNode, number: u64) -> bool {
    let answer = get(node.http, "localhost", &format!("/?n={number}"));
    answer.is_ok_and(|answer| answer.status == 200)
}

fn end(pid: u32) {
    kill(pid);
    until("its end", || (!processes::is_alive(pid)).then_some(()));
}

/// Everything but what a living edge still writes is sealed.
fn until_sealed(node: &TestNode) {
    let (_, _, edge) = node.pids();
    let of_another = |path: &PathBuf| !path.to_string_lossy().contains(&format!("-{edge}-"));
    until("the seal of what dead edges left", || {
        let directory = node.layout.access_rows();
        let mut left = files(&directory, "open");
        left.extend(files(&directory, "rows"));
        (!left.iter().any(of_another)).then_some(())
    });
}

#[test]
fn a_killed_edge_has_logged_all_but_the_last_second_and_it_is_sealed() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let began = Instant::now();
    let mut answered = Vec::new();
    let mut number = 0;
    while began.elapsed() < 3 * LAST {
        number += 1;
        assert!(ask(&node, number));
        answered.push((number, Instant::now()));
    }
    let killed = Instant::now();
    end(node.pids().2);
    until("another edge", || ask(&node, 0).then_some(()));
    until_sealed(&node);
    let found = sealed(&node);
    let due = |at: Instant| killed - at > LAST;
    let lost: Vec<_> = answered
        .iter()
        .filter(|(number, at)| due(*at) && !found.contains_key(number))
        .collect();
    assert!(lost.is_empty(), "{} of {number} lost", lost.len());
    assert!(found.values().all(|times| *times == 1), "some are doubled");
}

#[test]
fn no_row_is_lost_or_doubled_when_the_agent_is_killed_while_it_seals() {
    let node = TestNode::new();
    let directory = project(&node, "one", 1, "");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let mut rng = fastrand::Rng::with_seed(3);
    let mut number = 0;
    for _ in 0..6 {
        let first = number + 1;
        for _ in 0..300 {
            number += 1;
            until("an answer", || ask(&node, number).then_some(()));
        }
        // With the kernel, so that nothing may be lost from here on.
        until("the rows", || {
            let rows = unsealed(&node);
            (first..=number)
                .all(|number| rows.contains(&number))
                .then_some(())
        });
        let (_, agent, edge) = node.pids();
        end(edge);
        // The agent seals what the edge has left; it is killed on the way.
        std::thread::sleep(Duration::from_micros(rng.u64(0..15_000)));
        end(agent);
        until("another agent and edge", || {
            let back = node.run(&["get", "sites"]).status.success() && ask(&node, 0);
            (back && node.pids().2 != edge).then_some(())
        });
    }
    until_sealed(&node);
    let found = sealed(&node);
    let wrong: Vec<_> = (1..=number)
        .filter(|number| found.get(number) != Some(&1))
        .map(|number| (number, found.get(&number)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
