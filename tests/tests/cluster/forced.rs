//! Where most of those who keep the cluster's state are lost for good: a person has
//! one that is left lead; and with two nodes and a witness nobody has to.

use super::members::{change_page, serves, status, three, until_voters};
use super::{good, join, nodes, state, text, until_seen};
use black_box::{TestNode, project, says, until};
use serde_json::Value;
use std::path::Path;

/// What an apply is told while nobody leads.
fn refused(node: &TestNode, directory: &Path) -> String {
    let told = until("it is noticed", || {
        let refused = node.run(&["apply", text(directory)]);
        says(&refused)
            .contains("no majority")
            .then(|| says(&refused))
    });
    assert!(told.contains("homeostat store force-leader"), "{told}");
    told
}

/// Without the others, which are gone for good.
fn force(node: &TestNode) {
    let unsure = node.run(&["store", "force-leader"]);
    assert_eq!(unsure.status.code(), Some(4), "{}", says(&unsure));
    assert!(says(&unsure).contains("--yes"), "{}", says(&unsure));
    node.ok(&["store", "force-leader", "--yes"]);
}

fn applied(node: &TestNode, directory: &Path, page: &str) {
    change_page(directory, page);
    until("a change", || {
        let applied = node.run(&["apply", text(directory)]);
        applied.status.success().then_some(())
    });
}

fn generation(node: &TestNode) -> Value {
    status(node)["generation"].clone()
}

fn leader(node: &TestNode) -> Option<String> {
    let status = status(node);
    status["groups"][0]["leader"].as_str().map(str::to_owned)
}

#[test]
fn one_that_is_left_of_three_is_made_to_lead_and_who_comes_back_follows() {
    let [first, second, third] = three();
    let directory = project(&second, "before", 1, "");
    second.ok(&["apply", text(&directory)]);
    serves(&third, "before");
    let early = third.run(&["store", "force-leader", "--yes"]);
    assert_eq!(early.status.code(), Some(5), "{}", says(&early));
    first.power_off();
    second.power_off();
    refused(&third, &directory);
    serves(&third, "before");
    force(&third);
    assert_eq!(leader(&third).as_deref(), Some("three"));
    assert_eq!(generation(&third), 1);
    serves(&third, "before");
    applied(&third, &directory, "after");
    serves(&third, "after");
    // One of those that were lost after all: it follows, and undoes nothing.
    let _ = second.run(&["up"]);
    serves(&second, "after");
    assert_eq!(generation(&second), 1);
    until("it learns", || {
        let learners: Value = ["two"].as_slice().into();
        (status(&third)["groups"][0]["learners"] == learners).then_some(())
    });
    let aside = second.layout.root.join("store/control.redb.generation-0");
    assert!(aside.exists(), "what it had is not aside");
    let _ = first.run(&["up"]);
    serves(&first, "after");
    until_voters(&third, &["one", "two", "three"]);
    assert_eq!(leader(&first).as_deref(), Some("three"));
    // All as before: any of them may die, and a new one joins.
    let fourth = join(&second, "four", &[]);
    serves(&fourth, "after");
    assert_eq!(generation(&fourth), 1);
    third.power_off();
    applied(&second, &directory, "without the third");
    serves(&first, "without the third");
}

#[test]
fn two_that_were_lost_and_come_back_together_follow_too() {
    let [first, second, third] = three();
    let directory = project(&third, "before", 1, "");
    third.ok(&["apply", text(&directory)]);
    first.power_off();
    second.power_off();
    refused(&third, &directory);
    force(&third);
    applied(&third, &directory, "after");
    // They are a majority of what they know.
    for node in [&first, &second] {
        let _ = node.run(&["up"]);
    }
    until_voters(&third, &["one", "two", "three"]);
    for node in [&first, &second, &third] {
        serves(node, "after");
        assert_eq!(generation(node), 1);
        assert_eq!(leader(node).as_deref(), Some("three"));
    }
}

#[test]
fn of_two_the_one_that_is_left_serves_on_and_is_made_to_lead() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let degraded = |node: &TestNode| status(node)["groups"][0]["degraded"].clone();
    until("the second learns", || {
        let learners: Value = ["two"].as_slice().into();
        let groups = status(&first)["groups"].as_array()?.clone();
        let all = groups.iter().all(|group| group["learners"] == learners);
        (all && degraded(&first) == false).then_some(())
    });
    let directory = project(&first, "acknowledged", 1, "node = \"two\"");
    first.ok(&["apply", text(&directory)]);
    first.power_off();
    serves(&second, "acknowledged");
    refused(&second, &directory);
    until("it says so", || (degraded(&second) == true).then_some(()));
    assert!(says(&second.run(&["store", "status"])).contains("force-leader"));
    force(&second);
    serves(&second, "acknowledged");
    good(&second, "/echo");
    applied(&second, &directory, "after");
    serves(&second, "after");
    assert_eq!(degraded(&second), true);
    // It led alone and would again: it asks first.
    let _ = first.run(&["up"]);
    serves(&first, "after");
    until("it learns", || {
        let learners: Value = ["one"].as_slice().into();
        let groups = status(&second)["groups"].as_array()?.clone();
        let all = groups.iter().all(|group| group["learners"] == learners);
        (all && degraded(&second) == false).then_some(())
    });
    assert_eq!(leader(&first).as_deref(), Some("two"));
    assert_eq!(state(&first, "two").as_deref(), Some("alive"));
}

#[test]
fn with_a_witness_either_of_two_may_die_and_it_runs_nothing() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let witness = join(&first, "three", &["--witness"]);
    until_voters(&first, &["one", "two", "three"]);
    let directory = project(&first, "before", 3, "");
    first.ok(&["apply", text(&directory)]);
    let runs = |node: &TestNode| {
        let replicas = node.ok(&["get", "replicas"]);
        assert!(!replicas.contains("on three"), "{replicas}");
        replicas.matches("on two").count()
    };
    until("it runs", || (runs(&first) > 0).then_some(()));
    let shown = nodes(&second);
    let shown = shown.iter().find(|one| one["name"] == "three");
    assert_eq!(shown.expect("known")["witness"], true);
    let pinned = project(&first, "before", 1, "node = \"three\"");
    let nowhere = first.run(&["plan", text(&pinned)]);
    assert!(!nowhere.status.success(), "{}", says(&nowhere));
    let directory = project(&first, "before", 3, "");
    first.power_off();
    applied(&second, &directory, "after");
    serves(&second, "after");
    until("all run there", || (runs(&second) == 3).then_some(()));
    serves(&witness, "after");
    until_seen(&witness, "one", "dead");
}
