//! A log that is taken over by one member whose majority is lost for good, and one
//! that is begun anew because another member did that.
//!
//! In: a store's file that is not open. Out: the same file, of a later generation.
//! Holds: what the file had stays, also what was never known to be committed; a
//! file is of one generation, and never goes back; a crash leaves it as it was or
//! as it is to be.

use crate::OpenError;
use crate::disk::{LOG, META, encode};
use crate::file::{self, Loaded, Place};
use crate::state::GENERATION_SHIFT;
use crate::types::{Batch, Command, LogEntry, LogId, Vote};
use kernel::NodeId;
use node::store::Transaction;
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership};
use redb::{Database, Durability, ReadableDatabase};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const GENERATION: &str = "generation";

/// Of the file at `path`, as it was last given; none where there is no file. Blocks.
pub fn generation(path: &Path, node: NodeId) -> Result<Option<u64>, OpenError> {
    if !path.exists() {
        return Ok(None);
    }
    let (database, _) = file::open(Place::File(path.to_owned()), node.0)?;
    read(&database)
        .map(Some)
        .map_err(|error| file::unreadable(&path.display().to_string(), error))
}

/// Makes `node` the only member of the store in its file, and raises its
/// generation; one that is of this generation already stays as it is. Blocks.
///
/// * `rank`: the generation in its high 16 bits; below it, whatever tells two that
///   are equal apart.
/// * `then`: written together with that.
///
/// One that was never given anything begins with nothing.
pub fn take_over(path: &Path, node: NodeId, rank: u64, then: Transaction) -> Result<(), OpenError> {
    let name = path.display().to_string();
    let (database, loaded) = file::open(Place::File(path.to_owned()), node.0)?;
    take_over_in(&database, &loaded, node, (rank, then), &name)
}

pub(crate) fn take_over_in(
    database: &Database,
    loaded: &Loaded,
    node: NodeId,
    (rank, then): (u64, Transaction),
    name: &str,
) -> Result<(), OpenError> {
    let unreadable = |error| file::unreadable(name, error);
    if read(database).map_err(unreadable)? >= rank {
        return Ok(());
    }
    let last = loaded.last();
    let next = last.map_or(0, |id| id.index + 1);
    let voted = loaded.vote.map_or(0, |vote| vote.leader_id().term);
    let term = voted.max(last.map_or(0, |id| id.leader_id.term)) + 1;
    let id = |index| LogId::new(CommittedLeaderId::new(term, node.0), index);
    let voters = vec![BTreeSet::from([node.0])];
    let alone = Membership::new(voters, BTreeMap::from([(node.0, BasicNode::default())]));
    let generation = u16::try_from(rank >> GENERATION_SHIFT).unwrap_or(u16::MAX);
    let commands = vec![Command::Raise { generation }, Command::Transact(then)];
    let entries = [
        EntryPayload::Membership(alone),
        EntryPayload::Normal(Batch(commands)),
    ];
    let entries = (next..).zip(entries).map(|(index, payload)| {
        let entry = LogEntry {
            log_id: id(index),
            payload,
        };
        Ok((index, encode(&entry)?))
    });
    let damaged = |reason: String| OpenError::Damaged {
        path: name.to_owned(),
        reason,
    };
    let entries: Vec<(u64, Vec<u8>)> = entries.collect::<Result<_, String>>().map_err(damaged)?;
    let vote = encode(&Vote::new(term, node.0)).map_err(damaged)?;
    write(database, &entries, &vote, rank).map_err(unreadable)
}

/// Moves the file at `path` aside, if it is of an earlier generation, and makes an
/// empty one, which knows nothing until a leader lets it in. Blocks.
///
/// Returns where what was there is now.
pub fn begin_anew(path: &Path, node: NodeId, rank: u64) -> Result<Option<PathBuf>, OpenError> {
    let mut moved = None;
    match self::generation(path, node)? {
        Some(before) if before >= rank => return Ok(None),
        Some(before) => {
            let mut aside = path.as_os_str().to_owned();
            aside.push(format!(".generation-{}", before >> GENERATION_SHIFT));
            let aside = PathBuf::from(aside);
            let renamed = std::fs::rename(path, &aside);
            renamed.map_err(|source| OpenError::File {
                path: path.display().to_string(),
                source,
            })?;
            moved = Some(aside);
        }
        None => {}
    }
    let row: (&str, &[u8]) = (GENERATION, &rank.to_le_bytes());
    file::make_with(path, node.0, &[row])?;
    Ok(moved)
}

/// Says of a file that was made otherwise, from a backup, of which generation it
/// is. Blocks.
pub fn set_generation(path: &Path, node: NodeId, rank: u64) -> Result<(), OpenError> {
    let (database, _) = file::open(Place::File(path.to_owned()), node.0)?;
    mark(&database, rank).map_err(|error| file::unreadable(&path.display().to_string(), error))
}

/// The first is nought.
fn read(database: &Database) -> Result<u64, redb::Error> {
    let meta = database.begin_read()?.open_table(META)?;
    let row = meta.get(GENERATION)?;
    let bytes = row.map(|row| <[u8; 8]>::try_from(row.value()));
    match bytes {
        None => Ok(0),
        Some(Ok(bytes)) => Ok(u64::from_le_bytes(bytes)),
        Some(Err(_)) => Err(redb::Error::Corrupted("its generation".to_owned())),
    }
}

fn mark(database: &Database, rank: u64) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction
        .open_table(META)?
        .insert(GENERATION, rank.to_le_bytes().as_slice())?;
    transaction.commit()?;
    Ok(())
}

fn write(
    database: &Database,
    entries: &[(u64, Vec<u8>)],
    vote: &[u8],
    rank: u64,
) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    {
        let mut meta = transaction.open_table(META)?;
        let mut log = transaction.open_table(LOG)?;
        for (index, bytes) in entries {
            log.insert(*index, bytes.as_slice())?;
        }
        meta.insert("vote", vote)?;
        meta.insert(GENERATION, rank.to_le_bytes().as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}
