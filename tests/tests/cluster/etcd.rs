//! Clusters whose desired state is in an etcd: as with their own store, and what is
//! different when etcd is away.

use super::members::{change_page, serves, status};
use super::{join, state, text};
use black_box::etcd::Etcd;
use black_box::{TestNode, project, says, until};
use serde_json::Value;

fn leader(node: &TestNode) -> Option<String> {
    let status = status(node);
    status["groups"][0]["leader"].as_str().map(str::to_owned)
}

/// All three may lead, and all know who does.
fn until_all_may_lead(nodes: &[&TestNode], url: &str) {
    until("all keep their state in etcd", || {
        let all = nodes.iter().all(|node| {
            let status = status(node);
            let groups = status["groups"].as_array().cloned().unwrap_or_default();
            let voters: Value = ["one", "two", "three"].as_slice().into();
            groups.len() == 2
                && groups[0]["kept_in"] == url
                && groups[0]["leader"].is_string()
                && groups[1]["voters"] == voters
        });
        all.then_some(())
    });
}

#[test]
fn a_cluster_in_etcd_goes_on_without_its_leader_and_serves_without_etcd() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let url = etcd.url("edge");
    let first = TestNode::new();
    first.ok(&["up", "--store", &url]);
    assert_eq!(leader(&first).as_deref(), Some("one"));
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    until_all_may_lead(&[&first, &second, &third], &url);
    let directory = project(&second, "before", 2, "");
    second.apply(&directory);
    serves(&third, "before");

    first.power_off();
    let next = until("another one leads", || {
        leader(&third).filter(|name| name != "one")
    });
    until("it is the same one to both", || {
        (leader(&second).as_ref() == Some(&next)).then_some(())
    });
    change_page(&directory, "after");
    second.apply(&directory);
    for node in [&second, &third] {
        serves(node, "after");
    }

    // Without etcd nothing can be changed, and all that runs runs on; a node that
    // starts serves what it had.
    etcd.end();
    let told = until("it is noticed", || {
        let refused = third.run(&["apply", text(&directory)]);
        says(&refused).contains(&url).then(|| says(&refused))
    });
    assert!(told.contains("nobody leads"), "{told}");
    second.power_off();
    second.ok(&["up"]);
    serves(&second, "after");
    serves(&third, "after");
    let backed_up = third.scratch().join("backup");
    let forced = third.run(&["store", "force-leader", "--yes"]);
    assert_eq!(forced.status.code(), Some(5), "{}", says(&forced));

    etcd.go_on();
    change_page(&directory, "with etcd again");
    until("it is applied", || {
        let applied = third.run(&["apply", text(&directory)]);
        applied.status.success().then_some(())
    });
    serves(&second, "with etcd again");
    let said = third.run(&["store", "backup", text(&backed_up)]);
    assert!(said.status.success(), "{}", says(&said));
    assert!(
        says(&said).contains("etcdctl snapshot save"),
        "{}",
        says(&said)
    );
    first.ok(&["up"]);
    serves(&first, "with etcd again");
    until("it is seen", || {
        (state(&third, "one").as_deref() == Some("alive")).then_some(())
    });
}

#[test]
fn where_state_is_kept_is_chosen_once_and_for_one_cluster() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    let (url, other) = (etcd.url("one"), etcd.url("other"));
    let first = TestNode::new();
    first.ok(&["up", "--store", &url]);
    first.ok(&["up", "--store", &url]);
    let refused = first.run(&["up", "--store", &other]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
    assert!(says(&refused).contains("already"), "{}", says(&refused));
    first.ok(&["down"]);
    let refused = first.run(&["up", "--store", &other]);
    assert_eq!(refused.status.code(), Some(5), "{}", says(&refused));
    // Its leadership is still there to be had.
    let second = TestNode::new();
    let foreign = second.run(&["up", "--store", &url]);
    assert!(
        says(&foreign).contains("another cluster"),
        "{}",
        says(&foreign)
    );
    first.ok(&["up"]);
    assert_eq!(leader(&first).as_deref(), Some("one"));
    let plain = TestNode::new();
    plain.ok(&["up"]);
    let late = plain.run(&["up", "--store", &url]);
    assert!(says(&late).contains("with its members"), "{}", says(&late));
    let wrong = plain.run(&["up", "--store", "http://127.0.0.1:2379"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", says(&wrong));
    // Nothing answers there.
    let alone = TestNode::new();
    let silent = alone.run(&["up", "--store", "etcd://127.0.0.1:1"]);
    assert!(
        says(&silent).contains("does not answer"),
        "{}",
        says(&silent)
    );
}
