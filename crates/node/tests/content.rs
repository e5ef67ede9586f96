//! The loop over content within the node: decided, recorded with what it
//! concerns, answered, tried again.

use control::holding::{Desired, Seen};
use kernel::{Bytes, Hash, ObjectRef, Time};
use node::{Node, NodeEffect, NodeEvent, Settings};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::decision::{Decision, JournalEntry, Observation};

const HASH: Hash = Hash([1; 32]);

fn site() -> ObjectRef {
    ObjectRef::new("site", "news/front")
}

/// One site that is desired and not here.
fn seen() -> NodeEvent {
    let wanted = Desired {
        hash: HASH,
        bytes: Bytes(7),
    };
    let seen = Seen {
        desired: vec![wanted],
        free: Bytes::mebibytes(1_024),
        others: 1,
        names: [(HASH, site().to_string())].into(),
        ..Seen::default()
    };
    NodeEvent::ContentSeen {
        seen: Box::new(seen),
        objects: BTreeMap::from([(HASH, vec![site()])]),
    }
}

fn decisions(effects: &[NodeEffect]) -> Vec<Decision> {
    let decision = |effect: &NodeEffect| match effect {
        NodeEffect::Record(JournalEntry::Decision(decision)) => Some(decision.clone()),
        _ => None,
    };
    effects.iter().filter_map(decision).collect()
}

fn observations(effects: &[NodeEffect]) -> Vec<Observation> {
    let observation = |effect: &NodeEffect| match effect {
        NodeEffect::Record(JournalEntry::Observation(seen)) => Some(seen.clone()),
        _ => None,
    };
    effects.iter().filter_map(observation).collect()
}

fn fetches(effects: &[NodeEffect]) -> bool {
    effects.contains(&NodeEffect::FetchContent { hash: HASH })
}

fn node() -> Node {
    let settings = Settings {
        called: "two".to_owned(),
        ..Settings::default()
    };
    Node::new(1, settings)
}

#[test]
fn a_fetch_is_decided_once_recorded_with_its_site_and_seen_to_its_end() {
    let mut node = node();
    let effects = node.handle(seen(), Time(0));
    assert!(fetches(&effects));
    let decided = decisions(&effects);
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].subject, ObjectRef::new("node", "two"));
    assert_eq!(decided[0].about, [site()]);
    assert!(
        decided[0].decided.contains("fetch site/news/front"),
        "{decided:?}"
    );
    node::replay(&decided[0]).expect("replays bit for bit");
    assert!(!fetches(&node.handle(seen(), Time(1))), "it is on its way");
    let what = "site/news/front is here, whole".to_owned();
    let effects = node.handle(NodeEvent::ContentFetched { hash: HASH, what }, Time(2));
    let seen = observations(&effects);
    assert!(seen.len() == 1 && seen[0].worked && seen[0].decision == decided[0].id);

    let entries: Vec<JournalEntry> = decided.into_iter().map(JournalEntry::Decision).collect();
    for object in [site(), ObjectRef::new("node", "two")] {
        assert_eq!(node::why(&entries, &object).len(), 1, "{object}");
    }
    let other = ObjectRef::new("site", "shop/front");
    assert_eq!(node::why(&entries, &other), []);
}

#[test]
fn what_failed_is_tried_again_without_another_look() {
    let mut node = node();
    let _ = node.handle(seen(), Time(0));
    let why = "nobody gave it".to_owned();
    let effects = node.handle(NodeEvent::ContentFetchFailed { hash: HASH, why }, Time(5));
    let seen = observations(&effects);
    assert!(!seen[0].worked && seen[0].what.contains("nobody gave it"));
    let again = node.next_wake().expect("it rests");
    assert_eq!(again, Time(5) + Duration::from_secs(1));
    let early = again - Duration::from_millis(1);
    assert!(!fetches(&node.handle(NodeEvent::Tick, early)));
    assert!(fetches(&node.handle(NodeEvent::Tick, again)));
}
