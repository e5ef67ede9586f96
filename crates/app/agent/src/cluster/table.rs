//! Who belongs: the node table and join tokens in the store.
//!
//! Holds: an id is issued once, in the same transaction that uses up the
//! token; names of nodes that belong differ; a revoked node stays in the
//! table, so that its id and its key are known for ever.
//! Never: removes a node because it is silent.

use super::kept::Holder;
use crate::apply::{api_error, storage};
use kernel::{Hash, Name, NodeId, Revision, UnixMillis, ZonePath};
use node::desired::FIRST_NODE;
use node::nodes::{
    ADMISSIONS_PREFIX, Admission, FormerZone, NEXT_NODE_KEY, NODES_PREFIX, NodeRecord, NodeTable,
    Way, admission_key, node_key,
};
use node::relays::RELAYS_MAX;
use node::store::{Compare, Entry, Operation, Store, StoreError, Transaction};
use std::collections::BTreeSet;
use wire::api::{ApiError, Role};
use wire::net::join::ADDRESSES_MAX;

/// Another writer was faster so often: somebody else's trouble.
const TRIES_MAX: usize = 16;
/// Of one node: more moves in a day than that, and a certificate of the first is
/// refused.
const FORMER_MAX: usize = 8;
/// Tokens that were never used are forgotten when so many are open.
const ADMISSIONS_MAX: usize = 1_000;

/// What somebody who joins asks for.
#[derive(Clone, Debug)]
pub struct Applicant {
    pub token: String,
    pub name: Name,
    pub key: Hash,
    pub way: Way,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    #[error("the token is not known here")]
    Unknown,
    #[error("the token let another machine in already")]
    Used,
    #[error("the token's time is over")]
    Expired,
    #[error("the key belongs to node `{0}` already")]
    KeyInUse(Name),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("too many join at once")]
    Contended,
}

fn read<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value)
        .map_err(|error| StoreError::Invalid(format!("{key} cannot be read: {error}")))
}

fn write<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// The table, and the revision that it is of.
pub async fn read_all(store: &dyn Store) -> Result<(NodeTable, Revision), StoreError> {
    let range = store.range(NODES_PREFIX).await?;
    let records = range.entries.iter().map(|entry| {
        let record: NodeRecord = read(&entry.key, &entry.value)?;
        Ok((record.id, record))
    });
    let table: Result<NodeTable, StoreError> = records.collect();
    Ok((table?, range.revision))
}

async fn nodes(store: &dyn Store) -> Result<NodeTable, StoreError> {
    Ok(read_all(store).await?.0)
}

/// The node that the cluster begins with, once.
pub async fn begin(store: &dyn Store, record: &NodeRecord) -> Result<(), StoreError> {
    // Nothing is written where that was done: the disk may be full by now.
    if nodes(store).await?.contains_key(&record.id) {
        return Ok(());
    }
    let key = node_key(record.id);
    let next = FIRST_NODE.0 + 1;
    let transaction = Transaction {
        compare: vec![Compare::Absent(key.clone())],
        then: vec![
            Operation::Put(key, write(record)?),
            Operation::Put(NEXT_NODE_KEY.to_owned(), write(&next)?),
        ],
        otherwise: Vec::new(),
    };
    store.transact(transaction).await.map(drop)
}

/// What a follower knows of the holder before it has heard from it.
pub async fn introduce(
    store: &dyn Store,
    holder: &Holder,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if nodes(store).await?.contains_key(&holder.id) {
        return Ok(());
    }
    let record = NodeRecord {
        id: holder.id,
        way: Way {
            addresses: holder.addresses.clone(),
            ..Way::default()
        },
        ..first(holder.name.clone(), holder.zone.clone(), holder.key, now)
    };
    let key = node_key(holder.id);
    let transaction = Transaction {
        compare: vec![Compare::Absent(key.clone())],
        then: vec![Operation::Put(key, write(&record)?)],
        otherwise: Vec::new(),
    };
    store.transact(transaction).await.map(drop)
}

/// The next id. Whatever changes the table writes it, so that who compares it
/// knows that the table stands still.
async fn counter(store: &dyn Store) -> Result<Entry, StoreError> {
    let found = node::store::get(store, NEXT_NODE_KEY).await?;
    found.ok_or_else(|| StoreError::Invalid("this cluster has no first node".to_owned()))
}

/// Keeps what a new token may be used for.
pub async fn offer(
    store: &dyn Store,
    token: &str,
    admission: &Admission,
    now: UnixMillis,
) -> Result<(), ApiError> {
    let open = store.range(ADMISSIONS_PREFIX).await;
    let open = open.map_err(|error| storage(&error))?;
    let over = open.entries.iter().filter(|entry| {
        let kept: Result<Admission, _> = read(&entry.key, &entry.value);
        kept.is_ok_and(|kept| kept.expires_at <= now)
    });
    let mut then: Vec<Operation> = over
        .map(|entry| Operation::Delete(entry.key.clone()))
        .collect();
    if open.entries.len() - then.len() >= ADMISSIONS_MAX {
        let message = format!("{ADMISSIONS_MAX} join tokens are open already");
        return Err(api_error("conflict", message, Some("let some of them end")));
    }
    let value = write(admission).map_err(|error| storage(&error))?;
    then.push(Operation::Put(admission_key(token), value));
    let transaction = Transaction {
        then,
        ..Transaction::default()
    };
    let done = store.transact(transaction).await;
    done.map(drop).map_err(|error| storage(&error))
}

/// What a token was made for, if it is still good.
pub async fn admission(
    store: &dyn Store,
    token: &str,
    now: UnixMillis,
) -> Result<Admission, AdmissionError> {
    let key = admission_key(token);
    let entry = node::store::get(store, &key).await?;
    let entry = entry.ok_or(AdmissionError::Unknown)?;
    let admission: Admission = read(&entry.key, &entry.value)?;
    if admission.expires_at <= now {
        return Err(AdmissionError::Expired);
    }
    Ok(admission)
}

/// Uses the token up and writes the new node into the table, or neither. Whoever
/// calls has checked that the applicant has the token.
pub async fn admit(
    store: &dyn Store,
    applicant: &Applicant,
    now: UnixMillis,
) -> Result<NodeRecord, AdmissionError> {
    for _ in 0..TRIES_MAX {
        let admission = admission(store, &applicant.token, now).await?;
        let next = counter(store).await?;
        let table = nodes(store).await?;
        if let Some(id) = admission.used_by {
            // The answer to the same machine was lost.
            let same = table.get(&id).filter(|same| same.key == applicant.key);
            return same.cloned().ok_or(AdmissionError::Used);
        }
        if let Some(other) = table.values().find(|other| other.key == applicant.key) {
            return Err(AdmissionError::KeyInUse(other.name.clone()));
        }
        let id: u64 = read(&next.key, &next.value)?;
        let name = free_name(&table, &applicant.name);
        let zone = admission.zone.clone();
        let record = NodeRecord {
            owner: admission.owner,
            may_vote: admission.may_vote,
            witness: admission.witness,
            way: applicant.way.clone(),
            ..NodeRecord::new(NodeId(id), name, zone, applicant.key, now)
        };
        let used = Admission {
            used_by: Some(record.id),
            ..admission
        };
        let token = admission_key(&applicant.token);
        let transaction = Transaction {
            compare: vec![
                Compare::Present(token.clone()),
                Compare::Modified(next.key.clone(), next.modified),
            ],
            then: vec![
                Operation::Put(token, write(&used)?),
                Operation::Put(next.key, write(&(id + 1))?),
                Operation::Put(node_key(record.id), write(&record)?),
            ],
            otherwise: Vec::new(),
        };
        if store.transact(transaction).await?.succeeded {
            return Ok(record);
        }
    }
    Err(AdmissionError::Contended)
}

/// `name`, or with the smallest number that makes it differ.
fn free_name(table: &NodeTable, name: &Name) -> Name {
    let taken = |name: &Name| {
        let mut others = table.values().filter(|other| other.belongs());
        others.any(|other| other.name == *name)
    };
    if !taken(name) {
        return name.clone();
    }
    let stem: String = name.as_str().chars().take(52).collect();
    let stem = stem.trim_end_matches('-');
    (2..u32::MAX)
        .filter_map(|number| Name::new(format!("{stem}-{number}")).ok())
        .find(|name| !taken(name))
        .unwrap_or_else(|| name.clone())
}

/// The node called so, or with this id.
pub fn find<'a>(table: &'a NodeTable, called: &str) -> Option<&'a NodeRecord> {
    let mut belonging = table.values().filter(|record| record.belongs());
    belonging
        .find(|record| record.name.as_str() == called)
        .or_else(|| {
            let mut all = table.values();
            all.find(|record| record.id.to_string() == called)
        })
}

pub fn none_called(called: &str) -> ApiError {
    let message = format!("no node is called `{called}`");
    api_error("not_found", message, Some("homeostat node ls"))
}

async fn change(
    store: &dyn Store,
    called: &str,
    make: impl Fn(&NodeTable, &NodeRecord) -> Result<NodeRecord, ApiError>,
) -> Result<NodeRecord, ApiError> {
    let changed = change_all(store, |table| {
        let record = find(table, called).ok_or_else(|| none_called(called))?;
        Ok(vec![make(table, record)?])
    });
    let mut changed = changed.await?.into_iter();
    changed.next().ok_or_else(|| none_called(called))
}

/// All that `make` gives, or none.
async fn change_all(
    store: &dyn Store,
    make: impl Fn(&NodeTable) -> Result<Vec<NodeRecord>, ApiError>,
) -> Result<Vec<NodeRecord>, ApiError> {
    for _ in 0..TRIES_MAX {
        let next = counter(store).await.map_err(|error| storage(&error))?;
        let table = nodes(store).await.map_err(|error| storage(&error))?;
        let changed = make(&table)?;
        let mut then = vec![Operation::Put(next.key.clone(), next.value)];
        for record in &changed {
            let value = write(record).map_err(|error| storage(&error))?;
            then.push(Operation::Put(node_key(record.id), value));
        }
        let transaction = Transaction {
            compare: vec![Compare::Modified(next.key, next.modified)],
            then,
            otherwise: Vec::new(),
        };
        let done = store.transact(transaction).await;
        if done.map_err(|error| storage(&error))?.succeeded {
            return Ok(changed);
        }
    }
    let message = "the node table is changed by others all the time";
    Err(api_error("conflict", message, Some("try again")))
}

/// From now on it is refused, and its id and key are never used again.
///
/// * `leader`: the node that this runs on.
pub async fn revoke(
    store: &dyn Store,
    called: &str,
    leader: NodeId,
    now: UnixMillis,
) -> Result<NodeRecord, ApiError> {
    change(store, called, |_, record| {
        if record.id == leader {
            let message = format!(
                "`{}` leads the cluster: it cannot be revoked now",
                record.name
            );
            let help = "homeostat down there; then another one leads, and revokes it";
            return Err(api_error("conflict", message, Some(help)));
        }
        Ok(NodeRecord {
            revoked_at: Some(record.revoked_at.unwrap_or(now)),
            ..record.clone()
        })
    })
    .await
}

/// Writes down how `node` says that it is reached.
///
/// Returns whether that was news.
pub async fn moved(store: &dyn Store, node: NodeId, way: &Way) -> Result<bool, ApiError> {
    let (table, _) = read_all(store).await.map_err(|error| storage(&error))?;
    let wanted = as_it_can_be(&table, node, way);
    let record = table.get(&node).filter(|record| record.belongs());
    if record.is_none_or(|record| record.way == wanted) {
        return Ok(false);
    }
    change(store, &node.to_string(), |table, _| {
        // Another one may be called like its id.
        let record = table.get(&node);
        let record = record.ok_or_else(|| none_called(&node.to_string()))?;
        Ok(NodeRecord {
            way: as_it_can_be(table, node, way),
            ..record.clone()
        })
    })
    .await?;
    Ok(true)
}

/// What a node says of itself, within bounds: the node that the cluster began with
/// can be called, and relays are others that can.
fn as_it_can_be(table: &NodeTable, node: NodeId, way: &Way) -> Way {
    let mut way = way.clone();
    way.addresses.truncate(ADDRESSES_MAX);
    way.outbound_only &= node != FIRST_NODE;
    let mut seen = BTreeSet::new();
    way.relays.retain(|relay| {
        let record = table.get(relay).filter(|record| record.belongs());
        record.is_some_and(|record| !record.way.outbound_only)
            && *relay != node
            && seen.insert(*relay)
    });
    way.relays.truncate(RELAYS_MAX);
    if way.outbound_only {
        way.addresses.clear();
    } else {
        way.relays.clear();
    }
    way
}

pub async fn rename(store: &dyn Store, called: &str, to: &Name) -> Result<NodeRecord, ApiError> {
    change(store, called, |table, record| {
        let mut others = table
            .values()
            .filter(|other| other.id != record.id && other.belongs());
        if others.any(|other| other.name == *to) {
            let message = format!("another node is called `{to}`");
            return Err(api_error("conflict", message, Some("homeostat node ls")));
        }
        Ok(NodeRecord {
            name: to.clone(),
            ..record.clone()
        })
    })
    .await
}

/// Has it emptied from now on, or no more.
pub async fn drain(
    store: &dyn Store,
    called: &str,
    draining: bool,
) -> Result<NodeRecord, ApiError> {
    change(store, called, |_, record| {
        if !record.belongs() {
            return Err(none_called(called));
        }
        Ok(NodeRecord {
            draining,
            ..record.clone()
        })
    })
    .await
}

/// Puts one node into another zone.
pub async fn put_into(
    store: &dyn Store,
    called: &str,
    zone: &ZonePath,
    now: UnixMillis,
) -> Result<NodeRecord, ApiError> {
    change(store, called, |_, record| {
        if !record.belongs() {
            return Err(none_called(called));
        }
        Ok(in_zone(record, zone.clone(), now))
    })
    .await
}

/// Gives a zone with all below it another name, or another zone's: then both are
/// one.
pub async fn move_zone(
    store: &dyn Store,
    from: &ZonePath,
    to: &ZonePath,
    now: UnixMillis,
) -> Result<Vec<NodeRecord>, ApiError> {
    change_all(store, |table| {
        let belonging = table.values().filter(|record| record.belongs());
        let within = belonging.filter(|record| from.contains(&record.zone));
        let moved = within.map(|record| {
            let zone = record.zone.moved(from, to).map_err(|error| {
                let message = format!("`{}` cannot follow: {error}", record.zone);
                api_error("invalid_name", message, Some("choose a shorter one"))
            })?;
            Ok(in_zone(record, zone, now))
        });
        let moved: Vec<NodeRecord> = moved.collect::<Result<_, ApiError>>()?;
        if moved.is_empty() {
            let message = format!("no node is in `{from}`");
            return Err(api_error("not_found", message, Some("homeostat zones")));
        }
        Ok(moved)
    })
    .await
}

/// Its certificates say where it was until it has others.
fn in_zone(record: &NodeRecord, zone: ZonePath, now: UnixMillis) -> NodeRecord {
    if record.zone == zone {
        return record.clone();
    }
    let kept = record.former.iter();
    let kept = kept.filter(|it| now < it.until && it.zone != zone && it.zone != record.zone);
    let mut former: Vec<FormerZone> = kept.cloned().collect();
    former.push(FormerZone {
        zone: record.zone.clone(),
        until: UnixMillis(now.0.saturating_add(millis(net::identity::LIFE))),
    });
    former.drain(..former.len().saturating_sub(FORMER_MAX));
    NodeRecord {
        former,
        zone,
        ..record.clone()
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The first node's record.
pub fn first(name: Name, zone: ZonePath, key: Hash, now: UnixMillis) -> NodeRecord {
    NodeRecord {
        owner: Role::Admin,
        ..NodeRecord::new(FIRST_NODE, name, zone, key, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::EmbeddedStore;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    async fn cluster() -> (tempfile::TempDir, EmbeddedStore) {
        let folder = tempfile::tempdir().expect("a folder");
        let options = store::Options {
            path: folder.path().join("control.redb"),
            node: FIRST_NODE,
            group: store::Group::Alone,
        };
        let store = EmbeddedStore::open(options).await.expect("opens");
        let record = first(name("one"), ZonePath::root(), Hash([1; 32]), UnixMillis(1));
        begin(&store, &record).await.expect("begins");
        begin(&store, &record).await.expect("once");
        (folder, store)
    }

    async fn token(store: &dyn Store, id: &str) {
        let admission = Admission {
            zone: "/eu/1".parse().expect("a zone"),
            owner: Role::Viewer,
            may_vote: true,
            witness: false,
            expires_at: UnixMillis(1_000),
            verifier: [9; 32],
            used_by: None,
        };
        let kept = offer(store, id, &admission, UnixMillis(0)).await;
        kept.expect("keeps");
    }

    fn applicant(token: &str, key: u8) -> Applicant {
        Applicant {
            token: token.to_owned(),
            name: name("one"),
            key: Hash([key; 32]),
            way: Way::default(),
        }
    }

    #[tokio::test]
    async fn a_token_admits_one_node_once_under_a_name_of_its_own() {
        let (_folder, store) = cluster().await;
        token(&store, "a").await;
        let admitted = admit(&store, &applicant("a", 2), UnixMillis(5)).await;
        let admitted = admitted.expect("admits");
        assert_eq!(admitted.id, NodeId(2));
        assert_eq!(admitted.name, name("one-2"));
        assert_eq!(admitted.zone.to_string(), "/eu/1");
        let again = admit(&store, &applicant("a", 2), UnixMillis(6)).await;
        assert_eq!(again, Ok(admitted), "its answer was lost");
        let other = admit(&store, &applicant("a", 3), UnixMillis(6)).await;
        assert_eq!(other, Err(AdmissionError::Used));
        assert_eq!(nodes(&store).await.expect("reads").len(), 2);
    }

    #[tokio::test]
    async fn unknown_or_ended_tokens_and_used_keys_admit_nobody() {
        let (_folder, store) = cluster().await;
        token(&store, "a").await;
        let refused = admit(&store, &applicant("b", 2), UnixMillis(5)).await;
        assert_eq!(refused, Err(AdmissionError::Unknown));
        let late = admit(&store, &applicant("a", 2), UnixMillis(1_000)).await;
        assert_eq!(late, Err(AdmissionError::Expired));
        let twin = admit(&store, &applicant("a", 1), UnixMillis(5)).await;
        assert_eq!(twin, Err(AdmissionError::KeyInUse(name("one"))));
        let good = admit(&store, &applicant("a", 2), UnixMillis(5)).await;
        assert!(good.is_ok(), "the token was used up by a refusal");
    }

    #[tokio::test]
    async fn many_who_join_at_once_get_ids_of_their_own() {
        let (_folder, store) = cluster().await;
        let store = std::sync::Arc::new(store);
        let mut joining = tokio::task::JoinSet::new();
        for number in 0..8_u8 {
            token(&*store, &number.to_string()).await;
            let store = std::sync::Arc::clone(&store);
            joining.spawn(async move {
                let applicant = applicant(&number.to_string(), 10 + number);
                admit(&*store, &applicant, UnixMillis(5)).await
            });
        }
        let mut ids = std::collections::BTreeSet::new();
        while let Some(joined) = joining.join_next().await {
            ids.insert(joined.expect("ends").expect("joins").id);
        }
        assert_eq!(ids, (2..=9).map(NodeId).collect());
    }

    #[tokio::test]
    async fn a_revoked_node_stays_known_and_its_name_is_free_again() {
        let (_folder, store) = cluster().await;
        token(&store, "a").await;
        token(&store, "b").await;
        let admitted = admit(&store, &applicant("a", 2), UnixMillis(5)).await;
        let admitted = admitted.expect("admits");
        let revoked = revoke(&store, "one-2", FIRST_NODE, UnixMillis(7)).await;
        assert_eq!(revoked.expect("revokes").revoked_at, Some(UnixMillis(7)));
        let twin = admit(&store, &applicant("b", 2), UnixMillis(8)).await;
        assert!(matches!(twin, Err(AdmissionError::KeyInUse(_))));
        let next = admit(&store, &applicant("b", 3), UnixMillis(8)).await;
        assert_eq!(next.expect("admits").name, admitted.name);
        assert!(
            revoke(&store, "one", FIRST_NODE, UnixMillis(9))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn what_a_node_says_of_its_way_is_kept_within_bounds() {
        let (_folder, store) = cluster().await;
        for (id, key) in [("a", 2), ("b", 3)] {
            token(&store, id).await;
            let admitted = admit(&store, &applicant(id, key), UnixMillis(5)).await;
            admitted.expect("admits");
        }
        let hidden = Way {
            addresses: vec![([192, 0, 2, 1], 1).into(); 100],
            outbound_only: true,
            relays: vec![NodeId(1), NodeId(2), NodeId(1), NodeId(9)],
        };
        assert_eq!(moved(&store, NodeId(2), &hidden).await, Ok(true));
        assert_eq!(moved(&store, NodeId(2), &hidden).await, Ok(false));
        let kept = async |id: u64| nodes(&store).await.expect("reads")[&NodeId(id)].way.clone();
        let expected = Way {
            addresses: Vec::new(),
            outbound_only: true,
            relays: vec![NodeId(1)],
        };
        assert_eq!(kept(2).await, expected);
        // Who cannot be called passes nothing on, and holds no store.
        let through = Way {
            relays: vec![NodeId(2)],
            ..hidden.clone()
        };
        assert_eq!(moved(&store, NodeId(3), &through).await, Ok(true));
        assert_eq!(kept(3).await.relays, []);
        assert_eq!(moved(&store, NodeId(1), &hidden).await, Ok(true));
        let first = kept(1).await;
        assert!(!first.outbound_only && first.addresses.len() <= ADDRESSES_MAX);
        assert_eq!(moved(&store, NodeId(9), &hidden).await, Ok(false));
    }

    #[tokio::test]
    async fn names_of_nodes_differ() {
        let (_folder, store) = cluster().await;
        token(&store, "a").await;
        let admitted = admit(&store, &applicant("a", 2), UnixMillis(5)).await;
        admitted.expect("admits");
        assert!(rename(&store, "one-2", &name("one")).await.is_err());
        let renamed = rename(&store, "one-2", &name("two")).await;
        assert_eq!(renamed.expect("renames").name, name("two"));
        assert!(rename(&store, "one-2", &name("three")).await.is_err());
    }
    #[tokio::test]
    async fn a_zone_moves_with_all_below_it_and_old_certificates_are_good_for_a_day() {
        let (_folder, store) = cluster().await;
        let zone = |text: &str| text.parse::<ZonePath>().expect("a zone");
        for (id, key) in [("a", 2), ("b", 3)] {
            token(&store, id).await;
            let admitted = admit(&store, &applicant(id, key), UnixMillis(5)).await;
            admitted.expect("admits");
        }
        let put = put_into(&store, "one-3", &zone("/eu/2"), UnixMillis(10)).await;
        assert_eq!(put.expect("puts").zone, zone("/eu/2"));
        let moved = move_zone(&store, &zone("/eu"), &zone("/at"), UnixMillis(20)).await;
        let moved = moved.expect("moves");
        let zones: Vec<String> = moved.iter().map(|it| it.zone.to_string()).collect();
        assert_eq!(zones, ["/at/1", "/at/2"]);
        let day = millis(net::identity::LIFE);
        for (said, now, is_good) in [
            ("/at/2", day * 9, true),
            ("/eu/2", 19 + day, true),
            ("/eu/2", 20 + day, false),
            ("/eu/1", 9 + day, true),
            ("/eu/1", 10 + day, false),
            ("/us", 0, false),
        ] {
            let certified = moved[1].is_certified(&zone(said), UnixMillis(now));
            assert_eq!(certified, is_good, "{said} at {now}");
        }
        let nobody = move_zone(&store, &zone("/eu"), &zone("/us"), UnixMillis(30)).await;
        assert_eq!(nobody.expect_err("is empty").code, "not_found");
        let deep = zone("/a/b/c/d/e/f/g/h");
        let deep = move_zone(&store, &zone("/at"), &deep, UnixMillis(30)).await;
        assert_eq!(deep.expect_err("is too deep").code, "invalid_name");
        // However often it moves, its record is bounded.
        for number in 0..20 {
            let to = zone(&format!("/z{number}"));
            let put = put_into(&store, "one-3", &to, UnixMillis(40)).await;
            assert!(put.expect("puts").former.len() <= FORMER_MAX);
        }
    }
}
