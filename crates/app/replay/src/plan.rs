//! What will be sent and when, before anything is sent.
//!
//! In: a log or a generator's settings, the target's documents. Out: requests
//! in the order of their times. Holds: a log's times are whole seconds, and
//! requests are logged when they end, so they are put in order, and those of
//! one second are spread evenly over it; one seed, one plan; at most
//! [`REQUESTS_MAX`] requests.

use crate::log::{Entry, Lines};
use crate::popularity::Popularity;
use crate::report::{LogReport, MappingReport, SkippedLine};
use crate::{Generated, ReplayError, ReplayOptions, Search, Source};
use http::Method;
use http::uri::PathAndQuery;
use kernel::Rng;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

pub const REQUESTS_MAX: u64 = 5_000_000;
const SKIPPED_SHOWN: usize = 5;
/// Keys of queries that people type words into.
const SEARCH_KEYS: [&str; 5] = ["q", "query", "s", "search", "keywords"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// From the first request's time, before any scaling.
    pub at: Duration,
    /// Index in [`Plan::targets`].
    pub target: usize,
    pub method: Method,
}

#[derive(Debug, Default)]
pub struct Plan {
    pub requests: Vec<Planned>,
    pub targets: Vec<PathAndQuery>,
    pub log: Option<LogReport>,
    pub mapping: Option<MappingReport>,
}

/// Makes the plan; reads whole files, so not for an async thread.
///
/// # Errors
/// [`ReplayError`] when a file cannot be read, or nothing is left to send.
pub fn plan(options: &ReplayOptions) -> Result<Plan, ReplayError> {
    let popularity = match &options.popularity {
        Some(path) => Some(Popularity::read(path)?),
        None => None,
    };
    let limit = options.limit.unwrap_or(REQUESTS_MAX).min(REQUESTS_MAX);
    let mut plan = match &options.source {
        Source::Generated(settings) => {
            let known = popularity.unwrap_or_else(Popularity::front_page);
            generated(*settings, &known, limit, options.seed)
        }
        Source::Log(path) => {
            let file = File::open(path).map_err(|source| ReplayError::Read {
                path: path.clone(),
                source,
            })?;
            let read = recorded(BufReader::new(file), path, limit, options.all_methods)?;
            match popularity {
                Some(known) => map(read, &known, options.search.as_ref(), options.seed),
                None => read,
            }
        }
    };
    if plan.requests.is_empty() {
        return Err(ReplayError::Nothing);
    }
    if let Some(most) = options.gap_max {
        shorten_gaps(&mut plan.requests, most);
    }
    Ok(plan)
}

fn generated(settings: Generated, site: &Popularity, limit: u64, seed: u64) -> Plan {
    let mut rng = Rng::seeded(seed);
    let mut at = 0.0;
    let requests = (0..limit)
        .map(|_| {
            let planned = Planned {
                at: Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX),
                target: site.draw(&mut rng),
                method: Method::GET,
            };
            // Independent clients: the gaps are exponential.
            at -= (1.0 - rng.unit()).ln() / settings.per_second;
            planned
        })
        .collect();
    Plan {
        requests,
        targets: site.documents().to_vec(),
        ..Plan::default()
    }
}

/// The requests of a log under the names they were recorded by.
fn recorded(
    input: impl BufRead,
    path: &Path,
    limit: u64,
    all_methods: bool,
) -> Result<Plan, ReplayError> {
    let mut report = LogReport::default();
    let mut known = HashMap::<PathAndQuery, usize>::new();
    let mut plan = Plan::default();
    let mut found: Vec<(i64, Planned)> = Vec::new();
    for line in Lines::new(input) {
        let line = line.map_err(|source| ReplayError::Read {
            path: path.to_owned(),
            source,
        })?;
        if report.used >= limit {
            report.beyond_limit = true;
            break;
        }
        report.lines += 1;
        let entry = match line.entry {
            Ok(entry) => entry,
            Err(error) => {
                report.malformed += 1;
                note(&mut report, line.number, error.to_string());
                continue;
            }
        };
        let reads = matches!(entry.method, Method::GET | Method::HEAD);
        if !reads && !all_methods {
            let why = format!("{} may change things", entry.method);
            note(&mut report, line.number, why);
            let method = entry.method.to_string();
            *report.methods.entry(method).or_default() += 1;
            continue;
        }
        report.used += 1;
        found.push((entry.unix, planned(entry, &mut known, &mut plan.targets)));
    }
    plan.requests = in_order(found);
    plan.log = Some(report);
    Ok(plan)
}

fn planned(
    entry: Entry,
    known: &mut HashMap<PathAndQuery, usize>,
    targets: &mut Vec<PathAndQuery>,
) -> Planned {
    let target = *known.entry(entry.target).or_insert_with_key(|target| {
        targets.push(target.clone());
        targets.len() - 1
    });
    Planned {
        at: Duration::ZERO,
        target,
        method: entry.method,
    }
}

fn note(report: &mut LogReport, line: u64, why: String) {
    if report.first_skipped.len() < SKIPPED_SHOWN {
        report.first_skipped.push(SkippedLine { line, why });
    }
}

fn in_order(mut found: Vec<(i64, Planned)>) -> Vec<Planned> {
    found.sort_by_key(|(unix, _)| *unix);
    let first = found.first().map_or(0, |(unix, _)| *unix);
    for second in found.chunk_by_mut(|(a, _), (b, _)| a == b) {
        let together = u32::try_from(second.len()).unwrap_or(u32::MAX);
        for (index, (unix, planned)) in (0..).zip(second.iter_mut()) {
            let whole = Duration::from_secs(unix.abs_diff(first));
            planned.at = whole + Duration::from_secs(1) / together * index;
        }
    }
    found.into_iter().map(|(_, planned)| planned).collect()
}

/// Gives the requests the target's names.
fn map(read: Plan, site: &Popularity, search: Option<&Search>, seed: u64) -> Plan {
    let mut counts = vec![0; read.targets.len()];
    for request in &read.requests {
        counts[request.target] += 1;
    }
    let mapped = site.map(&counts);
    let documents = site.documents();
    let mut report = MappingReport {
        recorded: read.targets.len(),
        documents: documents.len(),
        dealt_again: read.targets.len().saturating_sub(documents.len()),
        searches: 0,
    };
    let mut targets = documents.to_vec();
    let mut searches = Searches::new(search, documents, seed);
    let mut requests = read.requests;
    for request in &mut requests {
        let looked_for = is_search(&read.targets[request.target]);
        request.target = match searches.instead(looked_for) {
            Some(search) => {
                report.searches += 1;
                searches.place(search, &mut targets)
            }
            None => mapped[request.target],
        };
    }
    Plan {
        requests,
        targets,
        log: read.log,
        mapping: Some(report),
    }
}

fn is_search(target: &PathAndQuery) -> bool {
    let pairs = target.query().unwrap_or_default().split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .any(|(key, value)| !value.is_empty() && SEARCH_KEYS.contains(&key))
}

/// Turns some requests into searches for words of the documents' own paths.
struct Searches<'a> {
    settings: Option<&'a Search>,
    words: Vec<&'a str>,
    rng: Rng,
    placed: BTreeMap<usize, usize>,
}

impl<'a> Searches<'a> {
    fn new(settings: Option<&'a Search>, documents: &'a [PathAndQuery], seed: u64) -> Self {
        let pages = documents.iter().map(PathAndQuery::path);
        let mut words: Vec<_> = pages
            .filter_map(|path| path.strip_suffix(".html").or(path.strip_suffix('/')))
            .flat_map(|path| path.split(['/', '-', '_', '.']))
            .filter(|word| word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_alphabetic()))
            .collect();
        words.sort_unstable();
        words.dedup();
        Self {
            settings,
            words,
            rng: Rng::seeded(seed),
            placed: BTreeMap::new(),
        }
    }

    /// The word to look for instead of a document, if this request is to search.
    fn instead(&mut self, looked_for: bool) -> Option<usize> {
        let settings = self.settings?;
        let drawn = self.rng.unit() < settings.share;
        let word = self.rng.below(self.words.len() as u64);
        let chosen = (looked_for || drawn) && !self.words.is_empty();
        chosen.then(|| usize::try_from(word).unwrap_or(0))
    }

    /// Where the search for this word stands among the targets.
    fn place(&mut self, word: usize, targets: &mut Vec<PathAndQuery>) -> usize {
        let path = self.settings.map_or("/", |settings| settings.path.as_str());
        let text = format!("{path}?q={}", self.words[word]);
        *self.placed.entry(word).or_insert_with(|| {
            let target = PathAndQuery::try_from(text);
            targets.push(target.unwrap_or_else(|_| PathAndQuery::from_static("/")));
            targets.len() - 1
        })
    }
}

fn shorten_gaps(requests: &mut [Planned], most: Duration) {
    let (mut before, mut cut) = (Duration::ZERO, Duration::ZERO);
    for request in requests {
        let gap = request.at.saturating_sub(before);
        before = request.at;
        cut += gap.saturating_sub(most);
        request.at = request.at.saturating_sub(cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    fn log(lines: &[(&str, &str)]) -> String {
        lines
            .iter()
            .fold(String::new(), |mut text, (time, request)| {
                let _ = writeln!(
                    text,
                    "h - - [17/May/2015:10:{time} +0000] \"{request} HTTP/1.1\" 200 1"
                );
                text
            })
    }

    fn read(text: &str) -> Plan {
        recorded(text.as_bytes(), Path::new("log"), 100, false).expect("a plan")
    }

    fn options(source: Source) -> ReplayOptions {
        ReplayOptions::new(source, "http://127.0.0.1:1")
    }

    fn asked(plan: &Plan) -> Vec<(u64, &str)> {
        let millis = |at: Duration| u64::try_from(at.as_millis()).expect("small");
        let requests = plan.requests.iter();
        requests
            .map(|request| (millis(request.at), plan.targets[request.target].as_str()))
            .collect()
    }

    #[test]
    fn requests_are_put_in_order_and_those_of_one_second_spread_over_it() {
        let text = log(&[
            ("05:09", "GET /late"),
            ("05:07", "GET /a"),
            ("05:07", "HEAD /b"),
            ("05:07", "GET /a"),
            ("05:07", "GET /c"),
        ]);
        let plan = read(&text);
        let expected = [
            (0, "/a"),
            (250, "/b"),
            (500, "/a"),
            (750, "/c"),
            (2_000, "/late"),
        ];
        assert_eq!(asked(&plan), expected);
        assert_eq!(plan.requests[1].method, Method::HEAD);
        assert_eq!(plan.requests[2].method, Method::GET);
        assert_eq!(plan.targets.len(), 4);
    }

    #[test]
    fn what_is_left_out_is_counted_and_the_first_are_named() {
        let mut text = log(&[
            ("05:01", "POST /form"),
            ("05:02", "GET /a"),
            ("05:03", "OPTIONS /"),
        ]);
        text.push_str("nonsense\n");
        text.push_str(&"worse\n".repeat(20));
        let report = read(&text).log.expect("a report");
        assert_eq!((report.lines, report.used, report.malformed), (24, 1, 21));
        assert_eq!(report.methods["POST"] + report.methods["OPTIONS"], 2);
        assert_eq!(report.first_skipped.len(), SKIPPED_SHOWN);
        assert_eq!(report.first_skipped[0].line, 1);
        assert!(report.first_skipped[0].why.contains("POST"));
        assert_eq!(report.first_skipped[2].why, "column 1: no time in brackets");
    }

    #[test]
    fn a_limit_ends_the_reading_and_says_so() {
        let text = log(&[
            ("05:01", "GET /a"),
            ("05:02", "GET /b"),
            ("05:03", "GET /c"),
        ]);
        let plan = recorded(text.as_bytes(), Path::new("log"), 2, false).expect("a plan");
        assert_eq!(asked(&plan), [(0, "/a"), (1_000, "/b")]);
        assert!(plan.log.expect("a report").beyond_limit);
    }

    #[test]
    fn recorded_popularity_meets_the_targets_documents() {
        let home = tempfile::tempdir().expect("a directory");
        let list = home.path().join("popularity.tsv");
        std::fs::write(&list, "/\t0.6\n/ferry.html\t0.4\n").expect("a list");
        let path = home.path().join("access.log");
        let text = log(&[
            ("05:01", "GET /old"),
            ("05:02", "GET /hot?page=2"),
            ("05:03", "GET /hot?page=2"),
            ("05:04", "GET /cold?q=tram"),
        ]);
        std::fs::write(&path, text).expect("a log");
        let mut options = options(Source::Log(path));
        options.popularity = Some(list);
        let mapped = plan(&options).expect("a plan");
        let paths: Vec<_> = asked(&mapped).into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["/ferry.html", "/", "/", "/"]);
        let report = mapped.mapping.expect("a report");
        assert_eq!((report.recorded, report.documents), (3, 2));
        assert_eq!((report.dealt_again, report.searches), (1, 0));

        // What was a search stays one.
        options.search = Some(Search {
            path: "/search".to_owned(),
            share: 0.0,
        });
        let mapped = plan(&options).expect("a plan");
        assert_eq!(asked(&mapped)[3].1, "/search?q=ferry");
        options.search = Some(Search {
            path: "/search".to_owned(),
            share: 1.0,
        });
        let mapped = plan(&options).expect("a plan");
        assert_eq!(mapped.mapping.expect("a report").searches, 4);
    }

    #[test]
    fn generated_gaps_have_the_mean_asked_for_and_one_seed_gives_one_plan() {
        let mut options = options(Source::Generated(Generated { per_second: 50.0 }));
        options.limit = Some(20_000);
        let first = plan(&options).expect("a plan");
        let last = first.requests.last().expect("a request").at.as_secs_f64();
        assert!((390.0..410.0).contains(&last), "{last}");
        assert!(first.requests.is_sorted_by_key(|request| request.at));
        assert_eq!(first.requests, plan(&options).expect("a plan").requests);
        options.seed += 1;
        assert_ne!(first.requests, plan(&options).expect("a plan").requests);
    }

    #[test]
    fn long_gaps_are_cut_and_short_ones_kept() {
        let text = log(&[
            ("00:00", "GET /a"),
            ("00:01", "GET /b"),
            ("59:00", "GET /c"),
            ("59:02", "GET /d"),
        ]);
        let mut plan = read(&text);
        shorten_gaps(&mut plan.requests, Duration::from_secs(10));
        let times: Vec<_> = asked(&plan).into_iter().map(|(at, _)| at).collect();
        assert_eq!(times, [0, 1_000, 11_000, 13_000]);
    }

    #[test]
    fn nothing_to_send_is_an_error() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("access.log");
        let gone = plan(&options(Source::Log(path.clone()))).expect_err("no log");
        assert!(matches!(gone, ReplayError::Read { .. }));
        std::fs::write(&path, "nonsense\n").expect("a log");
        let empty = plan(&options(Source::Log(path))).expect_err("no requests");
        assert!(matches!(empty, ReplayError::Nothing) && empty.hint().is_some());
    }
}
