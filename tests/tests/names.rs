//! Names belong to their project: two projects that call their things alike run
//! beside each other, and neither is touched by what happens to the other.

use black_box::{TestNode, get, kill, program, says, until};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Output;

/// A project with `site/blog` and `service/api`, at a host of its own.
fn project(node: &TestNode, name: &str, version: &str, more: &str) -> PathBuf {
    let directory = node.scratch().join(name);
    std::fs::create_dir_all(directory.join("site")).expect("a directory");
    let page = format!("{name} {version}");
    std::fs::write(directory.join("site/index.html"), page).expect("a page");
    let program = program("black-box-service");
    let text = format!(
        r#"[project]
name = "{name}"

[site.blog]
root = "site"
hosts = ["{name}.test"]

[service.api]
run = {{ process = ["{program}"] }}
routes = [{{ host = "{name}.test", path = "/api" }}]
environment = {{ VERSION = "{name} {version}" }}
bindings = {{ blog = {{ to = "site/blog", environment = "BLOG" }} }}
stop_grace = "1s"
{more}
"#,
        program = program.display()
    );
    std::fs::write(directory.join("homeostat.toml"), text).expect("a manifest");
    directory
}

fn apply(node: &TestNode, name: &str, version: &str) {
    let directory = project(node, name, version, "");
    node.ok(&["apply", directory.to_str().expect("UTF-8")]);
}

fn body(node: &TestNode, project: &str, path: &str) -> Option<String> {
    let answer = get(node.http, &format!("{project}.test"), path).ok()?;
    (answer.status == 200).then(|| String::from_utf8_lossy(&answer.body).into_owned())
}

/// The process id and version that a project's service tells.
fn api(node: &TestNode, project: &str) -> Option<(u32, String)> {
    let told: Value = serde_json::from_str(&body(node, project, "/api")?).ok()?;
    let pid = u32::try_from(told["pid"].as_u64()?).ok()?;
    Some((pid, told["version"].as_str()?.to_owned()))
}

#[track_caller]
fn serves(node: &TestNode, name: &str, version: &str) {
    let wanted = format!("{name} {version}");
    assert_eq!(body(node, name, "/").as_ref(), Some(&wanted));
    let (_, told) = api(node, name).expect("answers");
    assert_eq!(told, wanted);
}

fn names(node: &TestNode, kind: &str) -> Vec<String> {
    let listed = node.ok(&["get", kind, "-o", "name"]);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn two_projects_with_the_same_names_are_changed_killed_and_told_of_apart() {
    let node = TestNode::new();
    node.ok(&["up"]);
    for name in ["one", "two"] {
        apply(&node, name, "first");
    }
    for name in ["one", "two"] {
        serves(&node, name, "first");
    }
    what_is_printed_can_be_pasted_back(&node);
    a_change_and_its_way_back_are_one_projects(&node);
    so_are_a_crash_and_what_is_told_of_it(&node);
    what_a_new_agent_finds_is_whose_it_was(&node);
    is_logged_by_project(&node);
    a_name_is_short_for_who_is_alone_with_it(&node);
}

/// And what is not clear is asked about.
fn what_is_printed_can_be_pasted_back(node: &TestNode) {
    assert_eq!(
        names(node, "services"),
        ["service/one/api", "service/two/api"]
    );
    assert_eq!(names(node, "sites"), ["site/one/blog", "site/two/blog"]);
    for kind in ["services", "sites", "replicas", "revisions"] {
        for name in names(node, kind) {
            let shown = node.ok(&["get", &name, "-o", "name"]);
            assert_eq!(shown.trim(), name);
        }
    }
    for words in [
        &["get", "service/api"][..],
        &["why", "service/api"],
        &["logs", "api"],
        &["restart", "api"],
    ] {
        let asked = node.run(words);
        assert_eq!(asked.status.code(), Some(2), "{words:?} {}", says(&asked));
        let told = says(&asked);
        assert!(told.contains("service/one/api, service/two/api"), "{told}");
    }
    let table = node.ok(&["get", "services"]);
    assert!(
        table.contains("\none/api ") && table.contains("\ntwo/api "),
        "{table}"
    );
}

/// The other project's replica is not even restarted.
fn a_change_and_its_way_back_are_one_projects(node: &TestNode) {
    let untouched = api(node, "two");
    apply(node, "one", "second");
    serves(node, "one", "second");
    assert_eq!(api(node, "two"), untouched);
    node.ok(&["rollback", "one"]);
    serves(node, "one", "first");
    node.ok(&["restart", "one/api"]);
    assert_eq!(api(node, "two"), untouched);
}

/// Decisions and output, too.
fn so_are_a_crash_and_what_is_told_of_it(node: &TestNode) {
    let untouched = api(node, "two");
    let (before, _) = api(node, "one").expect("answers");
    assert!(body(node, "one", "/api/log?words-of-one").is_some());
    assert!(body(node, "two", "/api/log?words-of-two").is_some());
    kill(before);
    until("another replica", || {
        api(node, "one").filter(|(pid, _)| *pid != before)
    });
    assert_eq!(api(node, "two"), untouched);
    let why = node.ok(&["why", "service/one/api"]);
    assert!(why.contains("signal 9") && !why.contains("two"), "{why}");
    let why = node.ok(&["why", "service/two/api"]);
    assert!(
        !why.contains("signal 9") && !why.contains("one.api"),
        "{why}"
    );
    let logs = until("its words", || {
        let logs = node.ok(&["logs", "service/one/api"]);
        logs.contains("words-of-one").then_some(logs)
    });
    assert!(!logs.contains("words-of-two"), "{logs}");
}

/// By their ids.
fn what_a_new_agent_finds_is_whose_it_was(node: &TestNode) {
    // One that still ends might be taken for the one that stays.
    until("a replica each", || {
        (names(node, "replicas").len() == 2).then_some(())
    });
    let running = ["one", "two"].map(|name| api(node, name));
    let (_, agent, _) = node.pids();
    kill(agent);
    until("another agent", || {
        node.find_pids().filter(|pids| pids.1 != agent)
    });
    until("all ready again", || {
        let services = node.run(&["get", "services", "-o", "json"]);
        let services: Value = serde_json::from_slice(&services.stdout).ok()?;
        let mut all = services.as_array()?.iter();
        all.all(|one| one["state"] == "ready").then_some(())
    });
    assert_eq!(["one", "two"].map(|name| api(node, name)), running);
}

/// What is gone can be asked about still.
fn a_name_is_short_for_who_is_alone_with_it(node: &TestNode) {
    let empty = node.scratch().join("two/homeostat.toml");
    std::fs::write(&empty, "[project]\nname = \"two\"\n").expect("a manifest");
    node.ok(&[
        "apply",
        empty.parent().expect("one").to_str().expect("UTF-8"),
    ]);
    assert_eq!(names(node, "services"), ["service/api"]);
    node.ok(&["get", "service/api"]);
    serves(node, "one", "first");
    let why = node.ok(&["why", "service/two/api"]);
    assert!(why.contains("two.api"), "{why}");
}

fn is_logged_by_project(node: &TestNode) {
    let rows = |project: &str| {
        let directory = std::fs::read_dir(node.layout.access_rows());
        let paths = directory.into_iter().flatten().flatten();
        let rows = paths.filter_map(|entry| telemetry::read_segment(&entry.path()).ok());
        let mut rows: Vec<_> = rows.flatten().collect();
        rows.retain(|row| row.host == format!("{project}.test"));
        rows
    };
    for project in ["one", "two"] {
        let rows = until("its rows", || {
            let rows = rows(project);
            let both = rows.iter().any(|row| row.site.is_some())
                && rows.iter().any(|row| row.service.is_some());
            both.then_some(rows)
        });
        for row in rows {
            assert_eq!(row.project.expect("a project").as_str(), project);
            let name = row.site.or(row.service).expect("a name");
            assert!(matches!(name.as_str(), "blog" | "api"), "{name}");
            let replica = row
                .replica
                .map(|replica| replica.service.project.to_string());
            assert!(replica.is_none_or(|replica| replica == project));
        }
    }
}

fn with(node: &TestNode, token: &str, words: &[&str]) -> Output {
    let mut command = node.command(words);
    command.env("HOMEOSTAT_TOKEN", token);
    command.output().expect("the program runs")
}

#[test]
fn a_projects_token_sees_nothing_of_anothers_things_of_the_same_names() {
    let node = TestNode::new();
    node.ok(&["up"]);
    for name in ["mine", "theirs"] {
        apply(&node, name, "first");
    }
    kill(api(&node, "theirs").expect("answers").0);
    until("another replica", || api(&node, "theirs"));
    let made = node.ok(&["token", "create", "--role", "admin", "--project", "mine"]);
    let token = made.trim();
    for (words, alone) in [
        (&["get", "services", "-o", "name"][..], "service/api"),
        (&["get", "sites", "-o", "name"], "site/blog"),
        (&["get", "service/api", "-o", "name"], "service/api"),
        (&["get", "service/api", "-o", "json"], ""),
        (&["get", "replicas", "-o", "json"], ""),
        (&["get", "revisions", "-o", "json"], ""),
        (&["get", "nodes", "-o", "json"], ""),
        (&["why", "service/api"], ""),
        (&["why", "service/api", "-o", "json"], ""),
        (&["logs", "api"], ""),
        (&["restart", "api"], ""),
    ] {
        let seen = with(&node, token, words);
        let out = String::from_utf8_lossy(&seen.stdout);
        let all = format!("{out}{}", says(&seen));
        assert!(seen.status.success(), "{words:?} {all}");
        assert!(!all.contains("theirs"), "{words:?} {all}");
        assert!(alone.is_empty() || out.trim() == alone, "{words:?} {all}");
    }
    for verb in [
        &["get", "service/theirs/api"][..],
        &["why", "service/theirs/api"],
        &["logs", "theirs/api"],
        &["restart", "theirs/api"],
    ] {
        let refused = with(&node, token, verb);
        let words: Vec<String> = verb
            .iter()
            .map(|word| word.replace("theirs", "nobody"))
            .collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let absent = with(&node, token, &words);
        assert_eq!(refused.status.code(), Some(3), "{}", says(&refused));
        assert_eq!(says(&refused).replace("theirs", "nobody"), says(&absent));
    }

    // A route is the node's: that it is taken is all there is to know.
    let more = "\n[service.other]\nrun = { process = [\"true\"] }\n\
                routes = [{ host = \"theirs.test\", path = \"/api\" }]";
    let directory = project(&node, "mine", "second", more);
    let path = directory.to_str().expect("UTF-8");
    for verb in ["plan", "apply"] {
        let refused = with(&node, token, &[verb, path]);
        let told = says(&refused);
        assert_eq!(refused.status.code(), Some(5), "{told}");
        assert!(
            told.contains("the route theirs.test/api is taken"),
            "{told}"
        );
        assert!(!told.contains("`theirs`"), "{told}");
    }
    serves(&node, "mine", "first");
    serves(&node, "theirs", "first");
}

#[test]
fn a_route_that_was_given_up_is_not_taken_back_from_its_new_project() {
    let node = TestNode::new();
    node.ok(&["up"]);
    apply(&node, "one", "first");
    let route = "[{ host = \"one.test\", path = \"/api\" }]";
    let moved = |name: &str, version: &str, from: &str, to: &str| {
        let directory = project(&node, name, version, "");
        let path = directory.join("homeostat.toml");
        let text = std::fs::read_to_string(&path).expect("reads");
        std::fs::write(&path, text.replace(from, to)).expect("writes");
        node.ok(&["apply", directory.to_str().expect("UTF-8")]);
    };
    moved("one", "second", route, "[]");
    moved(
        "two",
        "first",
        "[{ host = \"two.test\", path = \"/api\" }]",
        route,
    );
    let refused = node.run(&["rollback", "one"]);
    let told = says(&refused);
    assert_eq!(refused.status.code(), Some(5), "{told}");
    assert!(told.contains("belongs to project `two` already"), "{told}");
    let (_, version) = api(&node, "one").expect("answers");
    assert_eq!(version, "two first");
}

/// A project whose `service/memory` is an actor with a bucket, and whose
/// `service/probe` is a component.
fn guests_of(node: &TestNode, name: &str) -> PathBuf {
    let directory = node.scratch().join(name);
    std::fs::create_dir_all(&directory).expect("makes");
    std::fs::write(directory.join("actor.wasm"), guests::PROBE_ACTOR).expect("writes");
    std::fs::write(directory.join("probe.wasm"), guests::PROBE).expect("writes");
    let text = format!(
        r#"[project]
name = "{name}"

[service.memory]
run = {{ actor = "actor.wasm" }}
routes = [{{ host = "{name}.test", path = "/" }}]
secrets = {{ WORD = "word" }}
bindings = {{ kept = {{ to = "bucket/kept" }} }}

[service.probe]
run = {{ wasm = "probe.wasm" }}
routes = [{{ host = "{name}.test", path = "/environment" }}]
secrets = {{ WHOSE = "word" }}

[bucket.kept]
quota = "1 MiB"
rate = 100
"#
    );
    std::fs::write(directory.join("homeostat.toml"), text).expect("writes");
    directory
}

#[test]
fn actors_components_secrets_and_buckets_of_the_same_names_are_apart() {
    let node = TestNode::new();
    node.ok(&["up"]);
    for name in ["one", "two"] {
        let file = node.scratch().join("secret");
        std::fs::write(&file, format!("secret of {name}")).expect("writes");
        let mut set = node.command(&["secret", "set", "word", "--project", name]);
        set.stdin(std::fs::File::open(&file).expect("opens"));
        assert!(set.status().expect("runs").success());
        let directory = guests_of(&node, name);
        node.ok(&["apply", directory.to_str().expect("UTF-8")]);
    }
    for name in ["one", "two"] {
        let said = |path: &str| body(&node, name, path);
        assert_eq!(
            said("/environment?WHOSE"),
            Some(format!("secret of {name}"))
        );
        assert_eq!(said(&format!("/keep?{name}")).as_deref(), Some(name));
        assert_eq!(said("/bucket/add?n").as_deref(), Some("Ok(1)"));
    }
    // Woken from where each was put away.
    node.ok(&["restart", "one/memory"]);
    node.ok(&["restart", "two/memory"]);
    for name in ["one", "two"] {
        let kept = body(&node, name, "/keep?again");
        assert_eq!(kept, Some(format!("{name},again")));
    }
    let states = std::fs::read_dir(node.layout.actors()).expect("lists");
    let mut states: Vec<_> = states.flatten().map(|entry| entry.file_name()).collect();
    states.sort();
    assert_eq!(states, ["one.memory", "two.memory"]);
}
