//! What a person is told about a wrong manifest.

use kernel::Name;
use manifest::{Manifest, Mistake, parse, position};
use std::fmt::Write as _;

const GOOD: &str = include_str!("good.toml");

fn read(text: &str) -> Result<Manifest, Vec<Mistake>> {
    parse(text, &Name::new("folder").expect("a name"))
}

fn told(text: &str) -> String {
    let mut out = String::new();
    for mistake in read(text).expect_err("the text has a mistake") {
        let place = mistake.position(text);
        let (line, column) = (place.line, place.column);
        let (code, message) = (mistake.code, &mistake.message);
        let _ = writeln!(out, "{line}:{column} [{code}] {message}");
        if let Some(help) = &mistake.help {
            let _ = writeln!(out, "     help: {help}");
        }
    }
    out
}

#[test]
fn several_mistakes_are_told_at_once() {
    let text = r#"
[project]
nmae = "news"

[site.news]
root = "/srv/news"
host = ["news.localhost"]

[service.search]
run = { process = ["bin/news-search"] }
replicas = 0
deadline = 5
bindings = { site = { to = "site/new", environment = "NEWS_SITE" } }
environment = { PORT = "80" }

[services.other]
"#;
    insta::assert_snapshot!(told(text), @r#"
    3:1 [unknown-key] unknown key `nmae` in `project`
         help: did you mean `name`?
    6:8 [path] the path is absolute
         help: write it relative to the manifest's directory
    7:1 [unknown-key] unknown key `host` in `news`
         help: did you mean `hosts`?
    11:12 [range] `replicas` is out of range
         help: write a number from 1 to 1000
    12:12 [type] `deadline` cannot be a whole number
         help: write a duration such as "250ms" or "5m"
    13:28 [unknown-target] nothing is called `site/new`
         help: did you mean `site/news`?
    14:17 [environment] `PORT` is set by the node
         help: choose another name; the service listens where `HOST` and `PORT` say
    16:2 [unknown-key] unknown key `services` in the manifest
         help: did you mean `service`?
    "#);
}

#[test]
fn broken_syntax_keeps_the_mistakes_of_other_lines() {
    let text = "[site.news]\nroot = \"site\nhots = [\"a\"]\n\n[service.search\nreplicas = 1\n";
    insta::assert_snapshot!(told(text), @r#"
    2:13 [syntax] invalid basic string, expected `"`
    3:1 [unknown-key] unknown key `hots` in `news`
         help: did you mean `hosts`?
    5:16 [syntax] unclosed table, expected `]`
    "#);
}

#[test]
fn routes_of_two_objects_may_not_be_the_same() {
    let text = r#"
[site.news]
root = "site"
[service.search]
run = { process = ["search"] }
routes = [{ path = "/search/" }, { path = "/search" }, { path = "/" }]
"#;
    insta::assert_snapshot!(told(text), @r#"
    6:34 [duplicate-route] `service/search` asks for host `*` and path `/search` twice
         help: leave one out
    6:56 [duplicate-route] `service/search` asks for host `*` and path `/`, which `site/news` has
         help: give one of them another `host` or `path`
    "#);
}

#[test]
fn what_is_wrong_with_a_job_is_pointed_at() {
    let text = r#"
[service.twice]
run = { process = ["x"] }
[job.twice]
run = { wasm = "x.wasm" }
schedule = "0 25 * * *"
overlap = "maybe"
[job.often]
run = { process = [] }
catch_up = "1h"
time_zone = "UTC"
indices = 2
parallel = 3
once = true
overlap = "allow"
retries = 101
deadline = "1m"
attempt_timeout = "2m"
replicas = 2
[job.when]
schedule = "0 0 30 2 *"
[job.where]
run = { process = ["x"] }
schedule = "0 0 * * *"
time_zone = "Europe/Atlantis"
"#;
    insta::assert_snapshot!(told(text), @r#"
    4:6 [name] `twice` is a service too
         help: give one of them another name
    5:16 [conflict] a job is a `process`: a component and an actor answer requests
         help: write `run = { process = ["PROGRAM", "ARGUMENT"] }`
    6:12 [schedule] `0 25 * * *`: this is no cron pattern: number out of bounds
         help: write minute, hour, day, month, weekday: `30 3 * * 1-5` is 3:30 from Monday to Friday
    7:11 [overlap] `maybe` says nothing about runs that overlap
         help: write `skip`, `allow` or `replace`
    9:19 [range] `process` is empty
    10:12 [conflict] `catch_up` is a schedule's, and there is none
         help: write `schedule`, or leave it out
    11:13 [conflict] `time_zone` is a schedule's, and there is none
         help: write `schedule`, or leave it out
    13:12 [conflict] `parallel` is more than there are parts
         help: lower it, or write more `indices`
    15:11 [conflict] what runs `once` allows no second run beside it
         help: write `skip` or `replace`
    16:11 [range] `retries` is out of range
         help: write a number from 0 to 100
    18:19 [conflict] one attempt may take longer than the whole run
         help: lower it, or raise `deadline`
    19:1 [unknown-key] unknown key `replicas` in `often`
         help: `often` knows `attempt_timeout`, `backoff`, `bindings`, `catch_up`, `deadline`, `environment`, `indices`, `keep_runs`, `limits`, `node`, `once`, `overlap`, `parallel`, `retries`, `run`, `schedule`, `secrets`, `stop_grace` and `time_zone`
    20:6 [missing] `when` has no `run`
         help: write `run = { process = ["PROGRAM", "ARGUMENT"] }`
    21:12 [schedule] `0 0 30 2 *`: it is never due: no such day comes
         help: write minute, hour, day, month, weekday: `30 3 * * 1-5` is 3:30 from Monday to Friday
    25:13 [schedule] `Europe/Atlantis`: there is no time zone of that name
         help: write a name such as `Europe/Vienna`, or leave it out for UTC
    "#);
}

/// What is written in place of a part of the good manifest, the code that is
/// told, and a word of the help or message.
const PLANTED: &[(&str, &str, &str, &str)] = &[
    ("[project]", "[projet]", "unknown-key", "`project`"),
    ("name = \"news\"", "name = \"News\"", "name", "a-z"),
    ("name = \"news\"", "name = 5", "type", "quotes"),
    (
        "name = \"news\"",
        "name = \"news\"\nname = \"x\"",
        "syntax",
        "duplicate",
    ),
    ("[service.search]", "[service.search_1]", "name", "a-z"),
    ("root = \"site\"", "", "missing", "root"),
    ("root = \"site\"", "root = \"/site\"", "path", "relative"),
    ("root = \"site\"", "root = \"a/../../b\"", "path", ".."),
    ("root = \"site\"", "rot = \"site\"", "unknown-key", "`root`"),
    (
        "[\"news.localhost\", \"localhost\"]",
        "\"localhost\"",
        "type",
        "list",
    ),
    (
        "[\"news.localhost\", \"localhost\"]",
        "[]",
        "range",
        "empty",
    ),
    (
        "\"news.localhost\", \"l",
        "\"News.localhost\", \"l",
        "host",
        "news.localhost",
    ),
    ("\"news.localhost\", \"l", "\"a:80\", \"l", "host", "port"),
    (
        "\"news.localhost\", \"l",
        "\"localhost\", \"l",
        "duplicate-route",
        "twice",
    ),
    (
        "index = \"index.html\"",
        "index = \"a/b.html\"",
        "path",
        "file's name",
    ),
    (
        "max_age = \"5m\"",
        "max_age = \"5 minutes\"",
        "duration",
        "250ms",
    ),
    (
        "max_age = \"5m\"",
        "maxage = \"5m\"",
        "unknown-key",
        "max_age",
    ),
    ("[\"/assets/\"]", "[\"assets\"]", "path", "/assets"),
    ("\"99.9%\"", "\"99.9\"", "percentage", "%"),
    ("\"99.9%\"", "\"100%\"", "range", "100%"),
    ("\"99.9%\"", "0.999", "type", "percentage"),
    ("cost = 0.5", "cost = nan", "range", "from 0"),
    ("cost = 0.5", "cost = -1", "range", "from 0"),
    (
        "run = { process = [",
        "run = { proces = [",
        "unknown-key",
        "process",
    ),
    (
        "run = { process = [",
        "run = { wsm = [",
        "unknown-key",
        "wasm",
    ),
    (
        "[\"bin/news-search\", \"--site\", \"site\"]",
        "[]",
        "range",
        "empty",
    ),
    ("\"--site\"", "5", "type", "quotes"),
    ("replicas = 2", "replicas = 1001", "range", "1000"),
    (
        "replicas = 2",
        "replicas = 99999999999999999999999",
        "range",
        "1000",
    ),
    ("replicas = 2", "replicas = \"2\"", "type", "whole number"),
    (
        "path = \"/search\" }",
        "path = \"search\" }",
        "path",
        "/search",
    ),
    (", path = \"/search\" }", " }", "missing", "path"),
    (
        "path = \"/search\" }",
        "path = \"/\" }",
        "duplicate-route",
        "another",
    ),
    ("KEY = \"value\"", "PORT = \"1\"", "environment", "node"),
    (
        "KEY = \"value\"",
        "\"1 2\" = \"1\"",
        "environment",
        "letters",
    ),
    (
        "environment = \"NEWS_SITE\"",
        "environment = \"KEY\"",
        "environment",
        "another",
    ),
    ("256 MiB", "256", "size", "MiB"),
    ("256 MiB", "1 B", "range", "MiB"),
    ("cpu = 0.5", "cpu = 0", "range", "0.01"),
    (
        "open_files = 1024",
        "files = 1024",
        "unknown-key",
        "open_files",
    ),
    (
        "probes.readiness",
        "probes.readyness",
        "unknown-key",
        "readiness",
    ),
    (
        "http = \"/healthz\", every = \"100ms\"",
        "every = \"100ms\"",
        "missing",
        "tcp",
    ),
    (
        "http = \"/healthz\", every = \"100ms\"",
        "http = \"/\", tcp = true",
        "conflict",
        "one",
    ),
    ("tcp = true", "tcp = false", "conflict", "tcp = true"),
    ("every = \"100ms\"", "every = \"1us\"", "range", "10ms"),
    ("failures = 50", "failures = 0", "range", "1"),
    (
        "to = \"site/news\"",
        "to = \"site/nwes\"",
        "unknown-target",
        "`site/news`",
    ),
    (
        "to = \"site/news\"",
        "to = \"sites/news\"",
        "unknown-target",
        "`site/news`",
    ),
    (
        "to = \"site/news\"",
        "to = \"news\"",
        "unknown-target",
        "`site/news`",
    ),
    (
        "to = \"site/news\"",
        "to = \"service/search\"",
        "unknown-target",
        "another",
    ),
    ("to = \"site/news\", ", "", "missing", "to"),
    ("stop_grace = \"10s\"", "stop_grace = \"2h\"", "range", "1h"),
    ("stop_grace = \"10s\"", "stop_grace = ", "syntax", ""),
];

#[test]
fn planted_mistakes_are_told_with_line_and_mend() {
    for (part, planted, code, word) in PLANTED {
        let start = GOOD
            .find(part)
            .unwrap_or_else(|| panic!("`{part}` is in the good manifest"));
        let text = GOOD.replacen(part, planted, 1);
        let mistakes = read(&text).expect_err(planted);
        let all = told(&text);
        let [mistake] = mistakes.as_slice() else {
            panic!("`{planted}` is one mistake, told as:\n{all}");
        };
        assert_eq!(mistake.code, *code, "{planted}:\n{all}");
        let words = format!(
            "{} {}",
            mistake.message,
            mistake.help.as_deref().unwrap_or("")
        );
        assert!(words.contains(word), "{planted}:\n{all}");
        let line = mistake.position(&text).line;
        let wanted = position(GOOD, start).line;
        // A missing key is told at its object's name, a second key at itself.
        let near = wanted.saturating_sub(3)..=wanted + 1;
        let exact = !matches!(*code, "missing" | "syntax");
        assert!(
            near.contains(&line) && (!exact || line == wanted),
            "{planted}:\n{all}"
        );
    }
}

#[test]
fn an_empty_manifest_is_not_taken_for_a_wish_to_stop_all() {
    assert_eq!(read("# nothing\n").expect_err("empty")[0].code, "missing");
    assert_eq!(
        read("[project]").expect("runs nothing").project.as_str(),
        "folder"
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the bound is on real time, and only a test looks at it"
)]
fn hostile_sizes_are_refused_in_bounded_time() {
    let deep = format!("a = {}", "[".repeat(100_000));
    let dotted = format!("{} = 1", vec!["a"; 100_000].join("."));
    let sites: Vec<String> = (0..5000)
        .map(|n| format!("[site.s{n}]\nroot = 'a'"))
        .collect();
    let wide = sites.join("\n");
    let long = "#".repeat(manifest::TEXT_BYTES_MAX + 1);
    let unknown = "a.b = 1\n".repeat(100_000);
    let broken = "= =\n".repeat(200_000);
    let opened = "[\n".repeat(300_000);
    let names: Vec<String> = (0..900)
        .map(|n| format!("service.a{n:060}.run.process = ['a']"))
        .collect();
    let bindings: Vec<String> = (0..900)
        .map(|n| format!("service.a{n:060}.bindings.b{n} = {{ to = 'service/b{n:050}' }}"))
        .collect();
    let unbound = [names, bindings].concat().join("\n");
    for text in [deep, dotted, wide, long, unknown, broken, opened, unbound] {
        let start = std::time::Instant::now();
        let mistakes = read(&text).expect_err("too much");
        assert!(mistakes.len() <= 100 && !mistakes.is_empty());
        let (took, bytes) = (start.elapsed(), text.len());
        assert!(
            took.as_secs() < 10,
            "{bytes} bytes took {took:?}: {}",
            &text[..20]
        );
    }
}

#[test]
fn what_a_kind_of_service_has_no_use_for_is_told() {
    let text = r#"
[service.a]
run = { wasm = "a.wasm", actor = "a.wasm" }

[service.b]
run = { wasm = "/b.wasm" }
probes.liveness = { tcp = true }
limits = { cpu = 1, processes = 2, open_files = 16 }
environment = { KEY = "x" }
secrets = { KEY = "key", OTHER = "Not a name" }
bindings.site = { to = "site/s", environment = "SITE" }
bindings.bucket = { to = "bucket/c", environment = "BUCKET" }

[service.c]
run = { process = ["c"] }
limits = { time = "1s", concurrency = 3, reuse = 5 }
secrets = { TOKEN = "token" }
bindings.bucket = { to = "bucket/b" }
bindings.b = { to = "service/b", environment = "TOKEN" }

[service.d]
run = { actor = "d.wasm" }
replicas = 2
bindings.b = { to = "service/b", environment = "B" }

[site.s]
root = "s"

[bucket.b]
quota = "1 KiB"
rate = 0
"#;
    insta::assert_snapshot!(told(text), @r#"
    3:7 [conflict] a service is one of `process`, `wasm` and `actor`
         help: leave the others out
    6:16 [path] the path is absolute
         help: write it relative to the manifest's directory
    7:1 [conflict] a component has no probes
         help: leave them out: the edge says when it can take requests
    8:18 [conflict] `cpu` is not for a component
         help: a component has `memory`, `time`, `concurrency` and `reuse`
    8:33 [conflict] `processes` is not for a component
         help: a component has `memory`, `time`, `concurrency` and `reuse`
    8:49 [conflict] `open_files` is not for a component
         help: a component has `memory`, `time`, `concurrency` and `reuse`
    10:13 [environment] `KEY` is already set in `environment`
         help: choose another name
    10:34 [name] `Not a name` is not a name: `N` cannot stand in a name: only a-z, 0-9 and `-`
         help: 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end
    11:24 [conflict] wasm has no files to find a site in
         help: run it as a `process`, or ask for the documents at the edge
    12:26 [unknown-target] nothing is called `bucket/c`
         help: did you mean `service/c`?
    16:19 [conflict] `time` is not for a process
         help: set `deadline`; a process bounds its own requests
    16:39 [conflict] `concurrency` is not for a process
         help: set `deadline`; a process bounds its own requests
    16:50 [conflict] `reuse` is for a component only
         help: instances are a component's; a process and an actor live on by themselves
    18:26 [conflict] a process cannot be bound to a bucket
         help: run it as `wasm` or `actor`
    19:48 [environment] `TOKEN` is already set in `secrets`
         help: choose another name
    23:12 [conflict] there is one of an actor
         help: leave `replicas` out: its memory is in one place
    24:21 [conflict] an actor makes no requests of its own
         help: run it as `wasm` or `process`
    30:9 [range] `1 KiB` is out of range
         help: write a size from `1 MiB` to `16 TiB`
    31:8 [range] `rate` is out of range
         help: write a number from 1 to 10000000
    "#);
}

#[test]
fn who_may_call_is_said_in_known_words() {
    let text = r#"
[project]
name = "p"
network = { default = "closed" }
[service.a]
run = { process = ["a"] }
port = 0
allow_from = ["shop", "shop/web/x", "Shop"]
bindings = { b = { to = "service/b" }, c = { to = "service/shop/till" }, d = { to = "service/p/nobody" } }
[service.b]
run = { actor = "b.wasm" }
bindings = { a = { to = "service/shop/till" } }
"#;
    insta::assert_snapshot!(told(text), @r#"
    4:23 [network] `closed` is neither `allow` nor `deny`
         help: write `default = "deny"`
    7:8 [range] `port` is out of range
         help: write a number from 1 to 65535
    8:23 [name] `shop/web/x` names no caller
         help: write `PROJECT` or `PROJECT/SERVICE`
    8:37 [name] `Shop` names no caller
         help: write `PROJECT` or `PROJECT/SERVICE`
    9:74 [missing] `d` has no `environment`
         help: write `environment = "VARIABLE"`
    9:85 [unknown-target] nothing is called `service/p/nobody`
         help: there is `service/b`
    12:25 [conflict] an actor makes no requests of its own
         help: run it as `wasm` or `process`
    "#);
}

#[test]
fn a_rollout_has_the_keys_of_its_strategy_and_of_nothing_that_is_one() {
    let text = r#"
[service.a]
run = { process = ["a"] }
rollout = { strategy = "green", share = "10%" }
[service.b]
run = { process = ["b"] }
rollout = { strategy = "canary", share = "200%", for = "soon", keep = "1m" }
[service.c]
run = { process = ["c"] }
singleton = true
rollout = { strategy = "blue-green", keep = "1m", max_latency = "1s" }
[service.d]
run = { wasm = "d.wasm" }
rollout = { strategy = "canary", for = "manual" }
[service.e]
run = { actor = "e.wasm" }
rollout = { strategy = "canary" }
[service.f]
run = { process = ["f"] }
singleton = true
rollout = { strategy = "rolling", batch = "10%" }
[service.g]
run = { process = ["g"] }
rollout = { strategy = "canary", batch = "10%" }
"#;
    insta::assert_snapshot!(told(text), @r#"
    4:24 [strategy] `green` is no strategy of a rollout
         help: write `rolling`, `canary` or `blue-green`
    4:41 [conflict] `share` is of a canary only
         help: write `strategy = "canary"`, or leave it out
    7:42 [range] `200%` is out of range
         help: write a share of more than 0% and of less than 100%
    7:56 [duration] `soon` is not a duration
         help: write a number with `ms`, `s`, `m`, `h` or `d`, such as `250ms`
    7:71 [conflict] `keep` is of blue-green only
         help: write `strategy = "blue-green"`, or leave it out
    11:24 [conflict] a singleton cannot run in two generations at once
         help: leave `rollout` out: it is rolled over node by node
    11:65 [conflict] `max_latency` is of a canary only
         help: write `strategy = "canary"`, or leave it out
    14:24 [conflict] a component runs in the edge of each request, not as replicas of two generations
         help: leave `rollout` out: it is rolled over node by node
    17:24 [conflict] an actor cannot run in two generations at once
         help: leave `rollout` out: it is rolled over node by node
    21:43 [conflict] a singleton cannot run in two generations at once
         help: leave `rollout` out: it is rolled over node by node
    24:42 [conflict] `batch` is of rolling only
         help: write `strategy = "rolling"`, or leave it out
    "#);
}
