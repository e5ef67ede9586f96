//! Components from the outside: applied, asked, changed, killed.

use black_box::{Load, TestNode, kill, says, until};
use std::path::PathBuf;

/// A project whose one service is the probe guest, at `/`.
fn project(node: &TestNode, component: &[u8], more: &str) -> PathBuf {
    let directory = node.scratch().join("components");
    std::fs::create_dir_all(&directory).expect("makes");
    std::fs::write(directory.join("probe.wasm"), component).expect("writes");
    let manifest = format!(
        "[project]\nname = \"test\"\n\n[service.probe]\nrun = {{ wasm = \"probe.wasm\" }}\n\
         routes = [{{ path = \"/\" }}]\n{more}\n"
    );
    std::fs::write(directory.join("homeostat.toml"), manifest).expect("writes");
    directory
}

fn body(node: &TestNode, path: &str) -> String {
    let answer = node.get(path).expect("answers");
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[test]
fn a_component_serves_changes_without_a_failed_request_and_is_seen() {
    let node = TestNode::new();
    let directory = project(&node, guests::PROBE, "environment = { VERSION = \"1\" }");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    assert_eq!(body(&node, "/hello"), "hello");
    assert_eq!(body(&node, "/environment?VERSION"), "1");
    let replicas = node.ok(&["get", "replicas", "-o", "json"]);
    let replicas: serde_json::Value = serde_json::from_str(&replicas).expect("JSON");
    assert_eq!(replicas[0]["state"], "ready", "{replicas}");
    let (_, _, edge) = node.pids();
    assert_eq!(replicas[0]["observed"]["pid"], edge);

    let load = Load::of(node.http, "/environment?VERSION");
    for version in 2..5 {
        let more = format!("environment = {{ VERSION = \"{version}\" }}");
        let _ = project(&node, guests::PROBE, &more);
        node.ok(&["apply", path]);
        assert_eq!(body(&node, "/environment?VERSION"), version.to_string());
    }
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");

    assert_eq!(body(&node, "/print?hello-log"), "printed");
    until("its output", || {
        node.ok(&["logs", "probe"])
            .contains("hello-log")
            .then_some(())
    });
    assert!(
        node.ok(&["why", "service/probe"])
            .contains("put them into the routes")
    );
}

#[test]
fn killed_edges_and_agents_lose_no_component() {
    let node = TestNode::new();
    let directory = project(&node, guests::PROBE, "replicas = 2");
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    assert_eq!(body(&node, "/hello"), "hello");
    for _ in 0..3 {
        let load = Load::of(node.http, "/hello");
        let (_, agent, _) = node.pids();
        kill(agent);
        until("another agent", || {
            node.find_pids().filter(|pids| pids.1 != agent)
        });
        let outcome = load.stop();
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
        let (_, _, edge) = node.pids();
        kill(edge);
        until("another edge that serves", || {
            let served = node
                .get("/hello")
                .is_ok_and(|answer| answer.body == b"hello");
            let another = node.find_pids().is_some_and(|pids| pids.2 != edge);
            (served && another).then_some(())
        });
    }
    let objects = until("the new edge's word", || {
        let text = node.ok(&["get", "replicas", "-o", "json"]);
        let objects: serde_json::Value = serde_json::from_str(&text).ok()?;
        let edge = node.find_pids()?.2;
        (objects.as_array()?.iter())
            .all(|one| one["observed"]["pid"] == edge)
            .then_some(objects)
    });
    let restarts = objects.as_array().expect("a list").iter();
    assert!(restarts.clone().count() == 2);
    assert!(
        restarts.clone().all(|one| one["observed"]["restarts"] == 0),
        "{objects}"
    );
}

#[test]
fn what_cannot_run_is_refused_whole_and_named() {
    let node = TestNode::new();
    let directory = project(&node, guests::PROBE, "");
    let path = directory.to_str().expect("UTF-8");
    node.ok(&["up", path]);
    let mut truncated = guests::PROBE.to_vec();
    truncated.truncate(guests::PROBE.len() / 2);
    let foreign = b"\x7fELF\x02\x01\x01\0".to_vec();
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    let unknown = wat::parse_str(
        r#"(component (import "wasi:http/typess@0.2.0" (instance (export "f" (func)))))"#,
    )
    .expect("encodes");
    for (bytes, words) in [
        (truncated, "not a component"),
        (foreign, "not a component"),
        (Vec::new(), "not a component"),
        (core_module, "wasm-tools component new"),
        (unknown, "wasi:http/types"),
    ] {
        let _ = project(&node, &bytes, "");
        for command in ["plan", "apply"] {
            let refused = node.run(&[command, path]);
            let told = says(&refused);
            assert_eq!(refused.status.code(), Some(1), "{told}");
            assert!(
                told.contains(words) && told.contains("service/probe"),
                "{told}"
            );
        }
        assert_eq!(body(&node, "/hello"), "hello");
    }
}

#[test]
fn a_guest_that_loops_grows_or_traps_costs_its_own_request_only() {
    let node = TestNode::new();
    let more = "limits = { memory = \"16 MiB\", time = \"300ms\", concurrency = 4 }";
    let directory = project(&node, guests::PROBE, more);
    node.ok(&["up", directory.to_str().expect("UTF-8")]);
    let load = Load::of(node.http, "/hello");
    for (path, status) in [
        ("/loop", 504),
        ("/grow", 502),
        ("/trap", 502),
        ("/recurse", 502),
    ] {
        assert_eq!(node.get(path).expect("answers").status, status, "{path}");
    }
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    let log = node.logs();
    assert!(
        log.contains("more memory than its limit"),
        "named in the edge's log"
    );
}

#[test]
fn an_untrusted_projects_component_runs_apart_and_calls_whom_it_is_bound_to() {
    let node = TestNode::new();
    node.ok(&["up"]);
    node.ok(&["project", "set", "test", "--trusted", "false"]);
    let more = "limits = { reuse = 1000 }\nbindings = { other = { to = \"service/other\", environment = \"OTHER\" } }\n\
                [service.other]\nrun = { wasm = \"probe.wasm\" }\nroutes = [{ path = \"/other\" }]\n\
                [service.third]\nrun = { wasm = \"probe.wasm\" }\nroutes = [{ path = \"/third\" }]\n";
    let directory = project(&node, guests::PROBE, more);
    node.ok(&["apply", directory.to_str().expect("UTF-8")]);
    let (_, _, edge) = node.pids();
    let replicas = node.ok(&["get", "replicas", "-o", "json"]);
    let replicas: serde_json::Value = serde_json::from_str(&replicas).expect("JSON");
    for replica in replicas.as_array().expect("a list") {
        let pid = replica["observed"]["pid"].as_u64().expect("a number");
        assert_ne!(pid, u64::from(edge), "{replica}");
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).expect("lives");
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(command.contains("worker --kind component"), "{command}");
    }
    let authority = node.http;
    let called = body(&node, &format!("/call?{authority}/other/x"));
    assert!(called.starts_with("200 with"), "{called}");
    for denied in [
        format!("{authority}/third/x"),
        format!("{authority}/"),
        format!("{}/other/x", node.https),
    ] {
        let called = body(&node, &format!("/call?{denied}"));
        assert!(called.starts_with("refused"), "{denied}: {called}");
    }
    // The instance is used again, and the next request finds what it counted.
    let counts: Vec<u32> = (0..3)
        .map(|_| body(&node, "/count").parse().expect("a number"))
        .collect();
    assert!(
        counts.windows(2).all(|pair| pair[0] < pair[1]),
        "{counts:?}"
    );
}
