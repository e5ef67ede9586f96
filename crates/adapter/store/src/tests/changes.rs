//! Changes: all or nothing, within their bounds, once, and fenced.

use super::reopenable;
use crate::change::{Bound, Change, ChangeRefusal, Changed, Fence, Once, Step};
use crate::state::State;
use crate::{ChangeError, EmbeddedStore};
use kernel::{FencingEpoch, Revision};
use node::store::{Operation, Transaction};
use proptest::prelude::*;

const BUCKET: &str = "/bucket/news/comments/";

fn at(key: &str) -> String {
    format!("{BUCKET}{key}")
}

fn put(key: &str, bytes: usize) -> Step {
    Step::Put(at(key), vec![b'v'; bytes])
}

fn steps(steps: impl IntoIterator<Item = Step>) -> Change {
    Change {
        steps: steps.into_iter().collect(),
        ..Change::default()
    }
}

fn bounded(bytes_max: u64, step: Step) -> Change {
    let bounds = vec![Bound {
        prefix: BUCKET.into(),
        bytes_max,
    }];
    Change {
        bounds,
        ..steps([step])
    }
}

fn once(number: u64, answered: u64) -> Change {
    let once = Once {
        client: "c".into(),
        number,
        answered,
    };
    Change {
        once: Some(once),
        ..steps([Step::Add(at("n"), 1)])
    }
}

fn sum(changed: Result<Changed, ChangeRefusal>) -> Option<i64> {
    match changed.expect("done") {
        Changed::Done { sum, .. } => sum,
        Changed::Differs { .. } => None,
    }
}

fn rows(state: &State) -> Vec<(String, Vec<u8>)> {
    let entries = state.range(BUCKET).into_iter();
    entries.map(|entry| (entry.key, entry.value)).collect()
}

#[test]
fn a_comparison_that_fails_undoes_all_and_says_what_is_there() {
    let mut state = State::default();
    state
        .change(steps([put("a", 1), put("b", 1)]))
        .expect("done");
    let before = rows(&state);
    let compare = |expected| Step::CompareAndSet {
        key: at("b"),
        expected,
        value: Some(b"new".into()),
    };
    for expected in [None, Some(Revision(1)), Some(Revision(7))] {
        let change = steps([
            put("a", 9),
            Step::Delete(at("b")),
            put("b", 9),
            compare(expected),
        ]);
        let changed = state.change(change).expect("decided");
        let Changed::Differs { current } = changed else {
            panic!("{changed:?}");
        };
        // What the steps before it made of it.
        assert_eq!(current.expect("there").value.len(), 9);
        assert_eq!(rows(&state), before);
        assert_eq!(state.revision(), Revision(1));
    }
    let changed = state
        .change(steps([compare(Some(Revision(1)))]))
        .expect("done");
    assert_eq!(
        changed,
        Changed::Done {
            revision: Revision(2),
            sum: None
        }
    );
    let gone = Step::CompareAndSet {
        key: at("b"),
        expected: Some(Revision(2)),
        value: None,
    };
    state.change(steps([gone])).expect("done");
    assert_eq!(rows(&state).len(), 1);
    let absent = Step::CompareAndSet {
        key: at("b"),
        expected: None,
        value: Some(Vec::new()),
    };
    state.change(steps([absent])).expect("done");
    assert_eq!(rows(&state).len(), 2);
}

#[test]
fn numbers_are_added_to_and_nothing_else_is() {
    let mut state = State::default();
    let add = |key, delta| steps([Step::Add(at(key), delta)]);
    assert_eq!(sum(state.change(add("n", 5))), Some(5));
    assert_eq!(sum(state.change(add("n", -7))), Some(-2));
    state
        .change(steps([Step::Put(at("text"), b"x".into())]))
        .expect("done");
    state
        .change(steps([Step::Put(at("most"), i64::MAX.to_string().into())]))
        .expect("done");
    let key = at("text");
    assert_eq!(
        state.change(add("text", 1)),
        Err(ChangeRefusal::NotANumber { key })
    );
    let key = at("most");
    assert_eq!(
        state.change(add("most", 1)),
        Err(ChangeRefusal::Overflow { key })
    );
}

#[test]
fn what_would_pass_its_bound_is_undone_and_what_shrinks_never_is() {
    let mut state = State::default();
    let entry = crate::weight(&at("a"), &[0; 100]);
    state
        .change(bounded(entry, put("a", 100)))
        .expect("fits just");
    let full = state.change(bounded(entry, put("a", 101)));
    assert_eq!(
        full,
        Err(ChangeRefusal::Full {
            prefix: BUCKET.into(),
            used: entry,
            wanted: entry + 1,
            bytes_max: entry
        })
    );
    assert!(state.change(bounded(entry, put("b", 0))).is_err());
    assert_eq!(state.range(BUCKET)[0].value.len(), 100);
    // Also where the bound was lowered since.
    state.change(bounded(10, put("a", 50))).expect("shrinks");
    state
        .change(bounded(10, Step::Delete(at("a"))))
        .expect("shrinks");
    assert_eq!(state.weight(BUCKET), 0);
}

#[test]
fn a_change_is_done_once_until_it_is_answered_and_never_after() {
    let mut state = State::default();
    assert_eq!(sum(state.change(once(1, 0))), Some(1));
    assert_eq!(sum(state.change(once(2, 0))), Some(2));
    for _ in 0..3 {
        assert_eq!(sum(state.change(once(1, 0))), Some(1));
    }
    assert_eq!(sum(state.change(once(3, 1))), Some(3));
    assert_eq!(sum(state.change(once(2, 1))), Some(2));
    let late = ChangeRefusal::Answered { number: 1 };
    assert_eq!(state.change(once(1, 0)), Err(late));
    assert_eq!(sum(state.change(once(9, 8))), Some(4));
    // Its floor and its one result are all that is kept.
    assert_eq!(state.range("/once/c/").len(), 2);
    let other = Change {
        once: Some(Once {
            client: "d".into(),
            number: 1,
            answered: 0,
        }),
        ..once(1, 0)
    };
    assert_eq!(sum(state.change(other)), Some(5));
}

#[test]
fn a_lower_epoch_is_refused_once_a_higher_one_was_seen() {
    let mut state = State::default();
    let fenced = |epoch| Change {
        fence: Some(Fence {
            holder: "news/visitors/0".into(),
            epoch: FencingEpoch(epoch),
        }),
        ..steps([Step::Add(at("n"), 1)])
    };
    assert_eq!(sum(state.change(fenced(3))), Some(1));
    assert_eq!(sum(state.change(fenced(3))), Some(2));
    // Seen, though it changed nothing.
    let seen = Change {
        steps: Vec::new(),
        ..fenced(4)
    };
    state.change(seen).expect("seen");
    let refused = ChangeRefusal::Fenced {
        holder: "news/visitors/0".into(),
        highest: FencingEpoch(4),
    };
    assert_eq!(state.change(fenced(3)), Err(refused));
    assert_eq!(sum(state.change(fenced(4))), Some(3));
}

#[test]
fn watches_see_the_last_state_of_each_key_and_no_bookkeeping() {
    let mut state = State::default();
    let change = Change {
        steps: vec![put("a", 1), put("a", 2), put("b", 1), Step::Delete(at("b"))],
        ..once(1, 0)
    };
    state.change(change).expect("done");
    let (revision, events) = state.next_events("/", Revision(0)).expect("events");
    assert_eq!((revision, events.len()), (Revision(1), 2));
    assert_eq!(state.next_events("/once/", Revision(0)), None);
}

#[tokio::test]
async fn what_was_remembered_outlives_its_process() {
    let folder = tempfile::tempdir().expect("folder");
    let options = reopenable(folder.path());
    let store = EmbeddedStore::open(options.clone()).await.expect("opens");
    let quota = |step| Change {
        once: None,
        ..bounded(500, step)
    };
    store.change(once(1, 0)).await.expect("done");
    store.change(quota(put("a", 100))).await.expect("fits");
    let weight = store.read(|view| view.weight(BUCKET)).await.expect("reads");
    store.shutdown().await;
    let store = EmbeddedStore::open(options).await.expect("opens again");
    let again = store.change(once(1, 0)).await.expect("remembered");
    assert!(
        matches!(again, Changed::Done { sum: Some(1), .. }),
        "{again:?}"
    );
    let after = store.read(|view| view.weight(BUCKET)).await.expect("reads");
    assert_eq!(after, weight);
    let full = store.change(quota(put("b", 400))).await;
    let Err(ChangeError::Refused(ChangeRefusal::Full { used, .. })) = full else {
        panic!("{full:?}");
    };
    assert_eq!(used, weight);
    store.shutdown().await;
}

fn any_step() -> impl Strategy<Value = Step> {
    let key = prop_oneof!["a", "b", "c/d", "e/f/g/h"].prop_map(|key| at(&key));
    (key, 0_usize..200, 0..4).prop_map(|(key, bytes, kind)| match kind {
        0 => Step::Delete(key),
        1 => Step::Add(key, 1),
        2 => Step::CompareAndSet {
            key,
            expected: None,
            value: Some(vec![b'1'; bytes % 9]),
        },
        _ => Step::Put(key, vec![b'1'; bytes % 15]),
    })
}

proptest! {
    #[test]
    fn weights_are_always_those_of_the_keys(
        changes in prop::collection::vec((prop::collection::vec(any_step(), 1..4), 0_u64..900), 1..40),
    ) {
        let mut state = State::default();
        for (round, (taken, bytes_max)) in changes.into_iter().enumerate() {
            let before = (rows(&state), state.revision());
            let bounds = ["/bucket/news/", BUCKET].map(|prefix| Bound { prefix: prefix.into(), bytes_max });
            let change = Change { bounds: bounds.into(), ..steps(taken) };
            let used = state.weight(BUCKET);
            match state.change(change) {
                Ok(Changed::Done { .. }) => {
                    let now = state.weight(BUCKET);
                    prop_assert!(now <= bytes_max || now <= used);
                }
                Ok(Changed::Differs { .. }) | Err(_) => {
                    prop_assert_eq!((rows(&state), state.revision()), before);
                }
            }
            if round % 7 == 6 {
                let gone = Transaction { then: vec![Operation::DeletePrefix(at("c"))], ..Transaction::default() };
                let _ = state.apply(crate::types::Command::Transact(gone));
            }
            let counted: u64 = state.range(BUCKET).iter().map(|e| crate::weight(&e.key, &e.value)).sum();
            prop_assert_eq!(state.weight(BUCKET), counted);
            prop_assert_eq!(state.weight("/bucket/news/"), counted);
        }
    }
}
