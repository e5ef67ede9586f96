//! The sensor of the loop over content: what is needed, what is here, who else
//! has it.
//!
//! In: desired state, other nodes' reports, this disk. Out: one reading, when
//! something that matters has changed and now and then.

use super::kept::{Kept, One};
use super::reading;
use super::told::{Damaged, Need};
use crate::apply::{read_desired, read_history};
use crate::machine::{now, unix_now};
use crate::shared::{Message, Shared};
use ::content::Content;
use kernel::{Bytes, Hash, NodeId, ObjectRef};
use node::NodeEvent;
use node::desired::Applied;
use node::nodes::{AskedContent, ContentReport};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;

const EVERY: Duration = Duration::from_secs(30);
/// Changes come in bursts.
const SETTLE: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);
/// Of what a roll-back would need, over all nodes.
const COPIES: u32 = 2;

/// What other nodes say, as far as content goes.
pub(super) type Elsewhere = BTreeMap<NodeId, ContentReport>;

/// Looks, and looks again; runs for ever.
pub async fn run(shared: Arc<Shared>) {
    let mut kept = Kept::read(&shared.layout);
    let mut looked_at = now();
    let mut surveyed = false;
    let cluster = &shared.cluster;
    let mut reports = cluster.reports.subscribe();
    let mut reach = cluster.reach_changes();
    loop {
        let elsewhere = elsewhere(&shared);
        let at = now();
        kept.age(at.since(looked_at));
        looked_at = at;
        match look(&shared, kept, &elsewhere, !surveyed).await {
            (back, Ok(event)) => {
                kept = back;
                surveyed = true;
                if shared.messages.send(Message::Node(event)).await.is_err() {
                    return;
                }
            }
            (back, Err(error)) => {
                kept = back;
                tracing::warn!(error, "content is not looked at");
                tokio::time::sleep(RETRY).await;
            }
        }
        let timer = tokio::time::sleep(EVERY.min(shared.holdings.settings.keep));
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = &mut timer => break,
                () = shared.holdings.woken() => break,
                changed = reports.changed() => if changed.is_err() { return },
                changed = reach.changed() => if changed.is_err() { return },
            }
            // Reports tell of much else.
            if self::elsewhere(&shared) != elsewhere {
                break;
            }
        }
        tokio::time::sleep(SETTLE).await;
    }
}

fn elsewhere(shared: &Shared) -> Elsewhere {
    let cluster = &shared.cluster;
    let reports = cluster.reports.borrow();
    let others = reports.iter().filter(|(node, _)| {
        let record = cluster.record(**node);
        **node != cluster.own.id
            && record.is_some_and(|record| record.belongs())
            && cluster.reach(**node).is_up()
    });
    let others = others.map(|(node, report)| (*node, report.content.clone()));
    others.collect()
}

/// What is needed, in order, and what is asked of this node beside that.
#[derive(Default)]
pub(super) struct Wishes {
    pub desired: Vec<Hash>,
    pub needs: BTreeMap<Hash, Need>,
    pub asked: BTreeMap<Hash, AskedContent>,
}

impl Wishes {
    fn add(&mut self, applied: &Applied) {
        let project = &applied.manifest.project;
        let trees = applied.trees.iter().map(|named| (true, "site", named));
        let programs = applied.all_programs();
        let programs = programs.map(|named| (false, "service", named));
        for (tree, kind, (name, hash)) in trees.chain(programs) {
            let object = ObjectRef::new(kind, format!("{project}/{name}"));
            let need = self.needs.entry(*hash).or_insert_with(|| {
                self.desired.push(*hash);
                Need {
                    tree,
                    name: object.to_string(),
                    objects: Vec::new(),
                    origin: applied.origin,
                }
            });
            if !need.objects.contains(&object) {
                need.objects.push(object);
            }
        }
    }
}

/// * what current states name, everywhere;
/// * what states kept for a roll-back name: on the leader, which asks the others
///   for copies.
async fn wishes(shared: &Shared, elsewhere: &Elsewhere) -> Result<Wishes, String> {
    let desired = read_desired(&shared.store).await;
    let desired = desired.map_err(|error| error.to_string())?;
    let mut wishes = Wishes::default();
    for applied in desired.projects.values() {
        wishes.add(applied);
    }
    if !shared.cluster.leads() {
        let asked = elsewhere
            .get(&shared.cluster.led_last())
            .map(|report| report.asked.clone());
        wishes.asked = asked.unwrap_or_default();
        let desired = &wishes.needs;
        wishes.asked.retain(|hash, _| !desired.contains_key(hash));
        return Ok(wishes);
    }
    let current = wishes.needs.clone();
    for project in desired.projects.keys() {
        let history = read_history(&shared.control, project).await;
        for applied in history.map_err(|error| error.message)? {
            wishes.add(&applied);
        }
    }
    for (hash, need) in &wishes.needs {
        if !current.contains_key(hash) {
            let asked = AskedContent {
                tree: need.tree,
                name: need.name.clone(),
                copies: COPIES,
            };
            wishes.asked.insert(*hash, asked);
        }
    }
    Ok(wishes)
}

async fn look(
    shared: &Arc<Shared>,
    kept: Kept,
    elsewhere: &Elsewhere,
    survey: bool,
) -> (Kept, Result<NodeEvent, String>) {
    let wishes = match wishes(shared, elsewhere).await {
        Ok(wishes) => wishes,
        Err(error) => return (kept, Err(error)),
    };
    let doubted = shared.holdings.damaged();
    let mut kept = kept;
    for hash in shared.holdings.take_young() {
        kept.held.entry(hash).and_modify(|one| one.age_ms = 0);
    }
    let disk = Disk {
        content: shared.content.clone(),
        root: shared.layout.content(),
        kept,
        doubted,
        survey,
    };
    // The disk may be slow; nothing else waits for it.
    let found = spawn_blocking(move || disk.look(wishes)).await;
    match found {
        Ok((kept, found)) => {
            let event = found.map(|found| reading::tell(shared, &kept, found, elsewhere));
            (kept, event)
        }
        Err(error) => (Kept::read(&shared.layout), Err(error.to_string())),
    }
}

/// What a look at the disk works with.
struct Disk {
    content: Content,
    root: PathBuf,
    kept: Kept,
    doubted: BTreeMap<Hash, Damaged>,
    survey: bool,
}

pub(super) struct Found {
    pub wishes: Wishes,
    /// Files that were in doubt before the look.
    pub known: BTreeSet<Hash>,
    pub damaged: BTreeMap<Hash, Damaged>,
    pub pinned: BTreeSet<Hash>,
    pub free: Bytes,
}

impl Disk {
    fn look(mut self, wishes: Wishes) -> (Kept, Result<Found, String>) {
        let here = |hash: &Hash| self.content.path(*hash).exists();
        let held = &mut self.kept.held;
        held.retain(|hash, _| here(hash));
        for (hash, need) in wishes.needs.iter().filter(|(hash, _)| here(hash)) {
            let new = || One {
                tree: need.tree,
                name: need.name.clone(),
                bytes: bytes_of(&self.content, *hash, need.tree),
                age_ms: 0,
            };
            held.entry(*hash).or_insert_with(new).age_ms = 0;
        }
        for (hash, asked) in wishes.asked.iter().filter(|(hash, _)| here(hash)) {
            held.entry(*hash).or_insert_with(|| One {
                tree: asked.tree,
                name: asked.name.clone(),
                bytes: bytes_of(&self.content, *hash, asked.tree),
                age_ms: 0,
            });
        }
        self.kept.write();
        let known = self.doubted.keys().copied().collect();
        let damaged = self.damaged(&wishes);
        let found = self.rest(wishes, known, damaged);
        (self.kept, found)
    }

    fn rest(
        &self,
        wishes: Wishes,
        known: BTreeSet<Hash>,
        damaged: BTreeMap<Hash, Damaged>,
    ) -> Result<Found, String> {
        let pins = self.content.pins(unix_now());
        let pins = pins.map_err(|error| kernel::error_chain(&error))?;
        let disk = rustix::fs::statvfs(&self.root).map_err(|error| error.to_string())?;
        Ok(Found {
            wishes,
            known,
            damaged,
            pinned: pins.values().map(|pin| pin.hash).collect(),
            free: Bytes(disk.f_bavail.saturating_mul(disk.f_frsize)),
        })
    }

    /// What of the doubted files is still not here, and who needs it; once after
    /// the start, every file that should be here is looked for.
    fn damaged(&self, wishes: &Wishes) -> BTreeMap<Hash, Damaged> {
        let gone = |hash: &Hash| !self.content.path(*hash).exists();
        let mut damaged: BTreeMap<Hash, Damaged> = BTreeMap::new();
        let doubted = self.doubted.keys().any(gone);
        if !doubted && !self.survey {
            return damaged;
        }
        let at = unix_now();
        for (hash, one) in self.kept.held.iter().filter(|(_, one)| one.tree) {
            // One that cannot be read is a damaged file itself.
            let Ok(tree) = self.content.tree(*hash) else {
                let _ = self.content.check(*hash);
                continue;
            };
            for (path, entry) in &tree.entries {
                let doubted = self.doubted.get(&entry.hash);
                if (doubted.is_none() && !self.survey) || !gone(&entry.hash) {
                    continue;
                }
                let need = wishes.needs.get(hash);
                let found = damaged.entry(entry.hash).or_insert_with(|| Damaged {
                    need: Some(Need {
                        tree: false,
                        name: format!("{} /{path}", one.name),
                        objects: need.map(|it| it.objects.clone()).unwrap_or_default(),
                        origin: need.map_or(node::desired::FIRST_NODE, |it| it.origin),
                    }),
                    trees: BTreeSet::new(),
                    since: doubted.map_or(at, |it| it.since),
                });
                found.trees.insert(*hash);
            }
        }
        for (hash, doubted) in self.doubted.iter().filter(|(hash, _)| gone(hash)) {
            if let Some(need) = wishes.needs.get(hash) {
                let need = Some(need.clone());
                let whole = Damaged {
                    need,
                    ..doubted.clone()
                };
                damaged.entry(*hash).or_insert(whole);
            }
        }
        damaged
    }
}

/// Of all files of a tree, or of a program.
fn bytes_of(content: &Content, hash: Hash, tree: bool) -> u64 {
    let own = std::fs::metadata(content.path(hash)).map_or(0, |found| found.len());
    if !tree {
        return own;
    }
    let entries = content.tree(hash).map(|tree| tree.entries);
    let files: BTreeMap<Hash, u64> = entries
        .unwrap_or_default()
        .values()
        .map(|entry| (entry.hash, entry.bytes))
        .collect();
    files.values().sum::<u64>() + own
}
