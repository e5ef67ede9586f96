//! Replicas that are not what their probes say.

use super::members::three;
use super::{good, text};
use black_box::{Answer, Load, ask, project, until};
use serde_json::Value;

#[test]
fn a_probe_that_lies_costs_few_requests_and_its_replica_is_restarted() {
    let nodes = three();
    let [first, _, third] = &nodes;
    let directory = project(first, "page", 3, "");
    first.ok(&["apply", text(&directory)]);
    let pid = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body).ok()?["pid"].as_u64();
    until("each node has one", || {
        (first.ready_on("echo", &["one", "two", "three"]) == [1, 1, 1]).then_some(())
    });
    for node in &nodes {
        good(node, "/echo");
    }
    let loads = nodes.each_ref().map(|node| Load::of(node.http, "/echo"));
    let lies = ask(third.http, "POST", "localhost", "/echo/lie", b"").expect("an answer");
    let liar = pid(&lies).expect("its process");
    // What the edge says of it is told, and that its probe says otherwise.
    let replicas = third.ok(&["get", "replicas", "-o", "name"]);
    let told = until("it is restarted", || {
        let of = |name: &str| third.ok(&["why", name]);
        let why: String = replicas.lines().map(of).collect();
        why.contains("its probe says that it is well")
            .then_some(why)
    });
    assert!(told.contains("errors in a row"), "{told}");
    until("another process answers", || {
        let answer = third.get("/echo").ok()?;
        (answer.status == 200 && pid(&answer)? != liar).then_some(())
    });
    let [at_first, at_second, at_third] = loads.map(Load::stop);
    for outcome in [&at_first, &at_second] {
        assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");
    }
    // Five in a row each time that its probe is believed, and those under way.
    assert!(at_third.bad.len() < 50, "{at_third:?}");
    assert!(at_third.bad.iter().all(|bad| bad == "status 500"));
    assert!(at_third.good > 100, "{at_third:?}");
}
