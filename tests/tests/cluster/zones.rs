//! The zone tree of real nodes: what zones come to, questions to all of them,
//! and what is said of those that do not answer.

use super::{token_for, until_seen};
use black_box::{Load, TestNode, kill, project, says, until};
use serde_json::{Value, json};

fn join(first: &TestNode, name: &str, zone: &str) -> TestNode {
    let node = TestNode::new().named(name);
    node.ok(&["up", "--join", &token_for(first, zone, &[])]);
    node
}

/// The first node beside the zones, and one in each of two.
fn three() -> [TestNode; 3] {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", "/eu/1");
    let third = join(&first, "three", "/us/1");
    [first, second, third]
}

fn ask(node: &TestNode, words: &[&str]) -> Option<Value> {
    let words: Vec<&str> = ["ask"]
        .into_iter()
        .chain(words.iter().copied())
        .chain(["-o", "json"])
        .collect();
    serde_json::from_slice(&node.run(&words).stdout).ok()
}

/// The value of that name.
fn value(answer: &Value, name: &str) -> Value {
    let values = answer["values"].as_array().into_iter().flatten();
    let mut named = values.filter(|one| one["name"] == name);
    named.next().map_or(Value::Null, |one| one["value"].clone())
}

fn zone(node: &TestNode, name: &str) -> Option<Value> {
    let zones = node.run(&["zones", "-o", "json"]);
    let zones: Value = serde_json::from_slice(&zones.stdout).ok()?;
    let zones = zones["zones"].as_array()?;
    zones.iter().find(|one| one["zone"] == name).cloned()
}

#[test]
fn every_node_answers_for_all_and_says_who_did_not() {
    let [first, second, third] = three();
    second.ok(&["publish", "disk=ssd"]);
    let all = "SELECT COUNT(*) AS nodes, COUNT(*) FILTER (WHERE disk = 'ssd') AS fast";
    for node in [&first, &second, &third] {
        until("all are in it", || {
            let answer = ask(node, &[all])?;
            let found = (value(&answer, "nodes"), value(&answer, "fast"));
            let whole = answer["expected"] == 3 && answer["reporting"] == 3;
            (whole && found == (json!(3), json!(1))).then_some(())
        });
    }
    // The rows behind a number, and one zone alone.
    let answer = ask(
        &third,
        &["SELECT COUNT(*) WHERE disk = 'ssd'", "--rows", "5"],
    );
    let answer = answer.expect("an answer");
    assert_eq!(answer["rows"][0]["node"], "two", "{answer}");
    assert_eq!(answer["rows"][0]["zone"], "/eu/1", "{answer}");
    let europe = ask(&third, &["SELECT COUNT(*)", "--zone", "/eu"]).expect("an answer");
    assert_eq!(
        (&europe["expected"], value(&europe, "count")),
        (&json!(1), json!(1))
    );
    let nowhere = first.run(&["ask", "SELECT COUNT(*)", "--zone", "/mars"]);
    assert_eq!(nowhere.status.code(), Some(3), "{}", says(&nowhere));
    let wrong = first.run(&["ask", "SELECT COUNT(* FROM children"]);
    assert!(
        !wrong.status.success() && says(&wrong).contains("column"),
        "{}",
        says(&wrong)
    );

    // The power of one goes: its zone is unknown, and is no silent zero.
    let stamp = until("the zone's own row", || {
        let europe = zone(&first, "/eu")?;
        let stamp = europe["stamp"].as_str()?.to_owned();
        (europe["attributes"]["nodes"] == 1).then_some(stamp)
    });
    demands_are_met_or_refused(&first, &third, &stamp);
    second.power_off();
    until_seen(&first, "two", "dead");
    until("unknown since", || {
        zone(&first, "/eu")?["unknown_since_ms"].as_u64()
    });
    let root = zone(&first, "/").expect("the root");
    assert_eq!(
        (&root["expected"], &root["reporting"]),
        (&json!(3), &json!(2))
    );
    let answer = ask(&first, &[all]).expect("an answer");
    assert_eq!(
        (&answer["expected"], &answer["reporting"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(answer["silent"][0]["zone"], "/eu", "{answer}");
    let fresh = first.run(&["ask", "SELECT COUNT(*)", "--fresh", "5s"]);
    assert_eq!(fresh.status.code(), Some(6), "{}", says(&fresh));
    // And comes back.
    second.ok(&["up"]);
    until("known again", || {
        let europe = zone(&first, "/eu")?;
        (europe["reporting"] == 1 && europe["unknown_since_ms"].is_null()).then_some(())
    });
}

fn demands_are_met_or_refused(first: &TestNode, third: &TestNode, stamp: &str) {
    let eu = ["zones", "--zone", "/eu"];
    until("as fresh, and as late, as is demanded", || {
        let demand = ["--fresh", "1m", "--at-least", stamp];
        let shown = third.run(&[&eu[..], &demand].concat());
        shown.status.success().then_some(())
    });
    for demand in [["--at-least", "999999.1.1"], ["--fresh", "0ms"]] {
        let late = third.run(&[&eu[..], &demand].concat());
        assert_eq!(late.status.code(), Some(6), "{}", says(&late));
    }
    // The root has no row: its stamp names all that went into it.
    let root = ["zones", "--zone", "/"];
    let seen = zone(third, "/").expect("the root")["stamp"].clone();
    let seen = seen.as_str().expect("a stamp").to_owned();
    assert!(seen.contains("eu@") && seen.contains("us@"), "{seen}");
    until("a root as late as was seen", || {
        let shown = first.run(&[&root[..], &["--at-least", &seen, "--fresh", "1m"]].concat());
        shown.status.success().then_some(())
    });
    for demand in ["eu@999999.1.1", "mars@1.1.1"] {
        let late = first.run(&[&root[..], &["--at-least", demand]].concat());
        assert_eq!(late.status.code(), Some(6), "{}", says(&late));
    }
    let row = first.run(&[&root[..], &["--at-least", stamp]].concat());
    assert!(says(&row).contains("not of this zone"), "{}", says(&row));
    let wrong = third.run(&[&eu[..], &["--at-least", "what"]].concat());
    assert!(
        says(&wrong).contains("epoch.number.issuer"),
        "{}",
        says(&wrong)
    );
}

#[test]
fn a_program_is_installed_everywhere_and_removed_everywhere() {
    let [first, second, third] = three();
    let program = "SELECT MAX(shelf) AS top_shelf, COUNT(shelf) AS shelves";
    for (node, shelf) in [
        (&first, "shelf=1"),
        (&second, "shelf=2"),
        (&third, "shelf=3"),
    ] {
        node.ok(&["publish", shelf]);
    }
    // By whoever may, on the node that holds the store alone.
    first.ok(&["aggregates", "add", "shelves", program]);
    for node in [&first, &second, &third] {
        until("computed at the root", || {
            let attributes = zone(node, "/")?["attributes"].clone();
            (attributes["top_shelf"] == 3 && attributes["shelves"] == 3).then_some(())
        });
        let listed = node.ok(&["aggregates", "ls"]);
        assert!(
            listed.contains("shelves") && listed.contains("health"),
            "{listed}"
        );
    }
    let denied = second.run(&["aggregates", "rm", "shelves"]);
    assert_eq!(denied.status.code(), Some(4), "{}", says(&denied));
    let wrong = first.run(&["aggregates", "add", "wrong", "SELECT NO_SUCH(x) AS y"]);
    assert!(
        !wrong.status.success() && says(&wrong).contains("column"),
        "{}",
        says(&wrong)
    );
    first.ok(&["aggregates", "rm", "shelves"]);
    for node in [&first, &second, &third] {
        until("gone", || {
            let attributes = zone(node, "/")?["attributes"].clone();
            (attributes["top_shelf"].is_null() && attributes["nodes"] == 3).then_some(())
        });
    }
    let again = first.run(&["aggregates", "rm", "shelves"]);
    assert_eq!(again.status.code(), Some(3), "{}", says(&again));
}

/// Every node is in every answer, once; of that zone alone, so many.
fn until_counted(nodes: [&TestNode; 3], of: &str, count: u64) {
    for node in nodes {
        until(&format!("{count} in {of}"), || {
            let all = ask(node, &["SELECT COUNT(*)"])?;
            let expected = all["expected"].as_u64()?;
            assert!(
                expected <= 3 || all["moving"] == true,
                "counted twice: {all}"
            );
            let there = ask(node, &["SELECT COUNT(*)", "--zone", of])?;
            let whole = expected == 3 && all["reporting"] == 3 && all["moving"] == false;
            (whole && there["reporting"] == count).then_some(())
        });
    }
}

#[test]
fn zones_are_renamed_merged_and_divided_while_they_run() {
    let nodes = three();
    let [first, second, third] = &nodes;
    let all = [first, second, third];
    first.ok(&[
        "apply",
        project(first, "news", 1, "").to_str().expect("UTF-8"),
    ]);
    until("served by another node", || {
        second.get("/").ok().filter(|answer| answer.status == 200)
    });
    let load = Load::of(second.http, "/");

    first.ok(&["zones", "mv", "/eu/1", "/eu/vienna"]);
    until_counted(all, "/eu/vienna", 1);
    let gone = first.run(&["ask", "SELECT COUNT(*)", "--zone", "/eu/1"]);
    assert_eq!(gone.status.code(), Some(3), "{}", says(&gone));
    // Its certificates say so, and it is let in with them.
    until("new certificates", || {
        second.logs().contains("certificates renewed").then_some(())
    });
    let (_, agent, _) = second.pids();
    kill(agent);
    until_counted(all, "/eu/vienna", 1);

    first.ok(&["zones", "mv", "/us/1", "/eu/vienna"]);
    until_counted(all, "/eu/vienna", 2);
    for node in all {
        until("the empty zone has ended", || {
            zone(node, "/us").is_none().then_some(())
        });
    }
    first.ok(&["node", "move", "three", "--zone", "/eu/graz"]);
    until_counted(all, "/eu/graz", 1);
    until_counted(all, "/eu/vienna", 1);
    let outcome = load.stop();
    assert!(outcome.bad.is_empty() && outcome.good > 0, "{outcome:?}");

    let denied = second.run(&["zones", "mv", "/eu", "/us"]);
    assert_eq!(denied.status.code(), Some(4), "{}", says(&denied));
    let nowhere = first.run(&["zones", "mv", "/mars", "/venus"]);
    assert_eq!(nowhere.status.code(), Some(3), "{}", says(&nowhere));
    let wrong = first.run(&["node", "move", "three", "--zone", "eu"]);
    assert!(
        !wrong.status.success() && says(&wrong).contains("is not a zone"),
        "{}",
        says(&wrong)
    );
}

/// Four nodes where three are as many as may know all of all.
#[test]
fn a_large_cluster_keeps_its_leaf_zones_in_view_and_works_as_a_small_one() {
    let small = || TestNode::new().set("HOMEOSTAT_WHOLE_MAX", "3");
    let first = small();
    let directory = project(&first, "one page", 3, "");
    first.ok(&["up"]);
    let join = |name: &str, zone: &str| {
        let node = small().named(name);
        node.ok(&["up", "--join", &token_for(&first, zone, &[])]);
        node
    };
    let (two, three) = (join("two", "/eu/1"), join("three", "/us/1"));
    until_seen(&two, "three", "alive");
    let four = join("four", "/eu/1");
    three.ok(&["publish", "shelf=7"]);
    until_seen(&two, "four", "alive");
    for (by, far) in [(&two, "three"), (&three, "four"), (&first, "two")] {
        until_seen(by, far, "zone-alive");
    }
    // What is not told is asked for.
    let shown = || two.ok(&["node", "show", "three", "-o", "json"]);
    let shown: Value = serde_json::from_str(&shown()).expect("json");
    assert_eq!(
        (&shown["state"], &shown["attributes"]["shelf"]),
        (&json!("alive"), &json!(7)),
        "{shown}"
    );
    let all = ["SELECT COUNT(*) AS nodes, MAX(shelf) AS shelf"];
    until("all answer", || {
        let answer = ask(&four, &all)?;
        let found = (value(&answer, "nodes"), value(&answer, "shelf"));
        (found == (json!(4), json!(7))).then_some(())
    });
    // Replicas are dealt out over zones that are not in view, and all serve.
    first.ok(&["apply", &directory.display().to_string()]);
    for node in [&first, &two, &three, &four] {
        until("a page of any of them", || {
            node.get("/echo").ok().filter(|answer| answer.status == 200)
        });
    }
    three.power_off();
    for node in [&two, &four] {
        until_seen(node, "three", "zone-silent");
    }
    for _ in 0..20 {
        assert_eq!(two.get("/").expect("an answer").status, 200);
    }
    let gone = two.ok(&["node", "show", "three", "-o", "json"]);
    let gone: Value = serde_json::from_str(&gone).expect("json");
    assert_eq!(gone["state"], "unanswered");
    three.ok(&["up"]);
    until_seen(&two, "three", "zone-alive");
}
