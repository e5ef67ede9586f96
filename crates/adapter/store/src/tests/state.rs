//! The state by itself, under any commands.

use crate::disk::{decode, encode};
use crate::state::State;
use crate::types::{Command, Reply};
use kernel::{FencingEpoch, Revision};
use node::store::{Compare, Entry, Event, Operation, Transaction};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn a_key() -> impl Strategy<Value = String> {
    "/[ab]/[abc]"
}

fn an_operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (a_key(), any::<[u8; 2]>()).prop_map(|(key, v)| Operation::Put(key, v.into())),
        1 => a_key().prop_map(Operation::Delete),
        1 => "/[ab]/".prop_map(Operation::DeletePrefix),
    ]
}

fn a_transaction() -> impl Strategy<Value = Transaction> {
    let operations = || prop::collection::vec(an_operation(), 0..4);
    let compare = prop_oneof![
        a_key().prop_map(Compare::Absent),
        a_key().prop_map(Compare::Present),
        (a_key(), 0..20_u64).prop_map(|(key, at)| Compare::Modified(key, Revision(at))),
    ];
    let compare = prop::collection::vec(compare, 0..2);
    (compare, operations(), operations()).prop_map(|(compare, then, otherwise)| Transaction {
        compare,
        then,
        otherwise,
    })
}

fn follow(rows: &mut BTreeMap<String, Entry>, event: Event) {
    match event {
        Event::Put(entry) => drop(rows.insert(entry.key.clone(), entry)),
        Event::Deleted(key) => assert!(rows.remove(&key).is_some(), "{key} was not there"),
    }
}

proptest! {
    #[test]
    fn a_watch_from_the_start_rebuilds_the_range(
        transactions in prop::collection::vec(a_transaction(), 0..30),
    ) {
        let mut state = State::default();
        for transaction in transactions {
            let before = state.revision();
            let reply = state.apply(Command::Transact(transaction)).expect("applies");
            let Reply::Transacted(outcome) = reply else {
                panic!("a transaction is answered with {reply:?}");
            };
            prop_assert_eq!(outcome.revision, state.revision());
            prop_assert!(state.revision().0 - before.0 <= 1);
        }
        let (mut rows, mut at) = (BTreeMap::new(), Revision(0));
        while let Some((revision, events)) = state.next_events("", at) {
            prop_assert_eq!(revision.0, at.0 + 1, "a revision was skipped");
            at = revision;
            for event in events {
                follow(&mut rows, event);
            }
        }
        prop_assert_eq!(at, state.revision());
        prop_assert_eq!(rows.into_values().collect::<Vec<_>>(), state.range(""));
    }

    #[test]
    fn a_snapshot_goes_on_like_the_state_it_was_taken_of(
        before in prop::collection::vec(a_transaction(), 0..15),
        after in prop::collection::vec(a_transaction(), 0..15),
    ) {
        let mut state = State::default();
        for transaction in before {
            let _ = state.apply(Command::Transact(transaction));
        }
        let bytes = encode(&state).expect("encodes");
        let mut copy: State = decode(&bytes).expect("decodes");
        for transaction in after {
            let one = state.apply(Command::Transact(transaction.clone()));
            let other = copy.apply(Command::Transact(transaction));
            prop_assert_eq!(format!("{one:?}"), format!("{other:?}"));
        }
        prop_assert_eq!(copy.range(""), state.range(""));
        prop_assert_eq!(copy.revision(), state.revision());
    }
}

fn grant(state: &mut State, holder: &str) -> FencingEpoch {
    let granted = state.apply(Command::Grant {
        name: "seat".into(),
        holder: holder.into(),
        time_to_live: Duration::from_secs(9),
    });
    match granted.expect("is free") {
        Reply::Granted(lease) => lease.epoch,
        reply => panic!("a grant is answered with {reply:?}"),
    }
}

#[test]
fn an_expiry_that_crossed_a_renewal_or_a_new_grant_is_in_vain() {
    let mut state = State::default();
    let name = || "seat".to_owned();
    let epoch = grant(&mut state, "one");
    let late = Command::Expire {
        name: name(),
        epoch,
        renewals: 0,
    };
    let renew = Command::Renew {
        name: name(),
        epoch,
    };
    state.apply(renew).expect("renews");
    let _ = state.apply(late.clone());
    assert!(state.leases().contains_key("seat"));
    let again = grant(&mut state, "one");
    let _ = state.apply(late);
    assert_eq!(state.leases()["seat"].epoch, again);
    let timely = Command::Expire {
        name: name(),
        epoch: again,
        renewals: 0,
    };
    state.apply(timely).expect("expires");
    assert!(grant(&mut state, "two") > again);
}
