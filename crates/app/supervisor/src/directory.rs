//! The data directory: made, locked, its version checked.
//!
//! In: its path. Out: the lock, which names this process its one supervisor.
//! Never: changes anything in a directory of another version.

use crate::SupervisorError;
use ipc::{LockFile, lock_file};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::layout::{DATA_VERSION, Layout};

/// A supervisor that goes down holds its lock a moment longer than its socket.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(10);

pub async fn prepare(layout: &Layout) -> Result<LockFile, SupervisorError> {
    if !Layout::sockets_fit(&layout.root) {
        return Err(SupervisorError::PathTooLong {
            path: layout.root.clone(),
        });
    }
    check_version(&layout.version())?;
    for path in [layout.root.clone(), layout.run(), layout.logs()] {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(unusable(&path))?;
    }
    let lock = lock(layout).await?;
    if !check_version(&layout.version())? {
        write_version(&layout.version())?;
    }
    Ok(lock)
}

/// Whether the directory has a version; another one than ours is refused.
fn check_version(path: &Path) -> Result<bool, SupervisorError> {
    match fs::read_to_string(path) {
        Ok(found) if found.trim() == DATA_VERSION => Ok(true),
        Ok(found) => Err(SupervisorError::Version {
            path: path.into(),
            found: found.trim().chars().take(40).collect(),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(path)(error)),
    }
}

fn write_version(path: &Path) -> Result<(), SupervisorError> {
    replace(path, format!("{DATA_VERSION}\n").as_bytes()).map_err(unusable(path))
}

/// A small file, whole or as it was before.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes)?;
    fs::File::open(&beside)?.sync_all()?;
    fs::rename(&beside, path)
}

async fn lock(layout: &Layout) -> Result<LockFile, SupervisorError> {
    let path = layout.run().join("supervisor.lock");
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match lock_file(&path) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let answers = ipc::connect(&layout.supervisor_socket()).await.is_ok();
                if answers || Instant::now() >= deadline {
                    return Err(SupervisorError::Running {
                        path: layout.root.clone(),
                    });
                }
                tokio::time::sleep(LOCK_RETRY).await;
            }
            Err(error) => return Err(unusable(&path)(error)),
        }
    }
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> SupervisorError {
    let path = path.to_owned();
    move |source| SupervisorError::Directory { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_directory_gets_its_version_and_another_one_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout::new(folder.path().join("data"));
        drop(prepare(&layout).await.expect("prepares"));
        let written = fs::read_to_string(layout.version()).expect("reads");
        assert_eq!(written.trim(), DATA_VERSION);
        drop(prepare(&layout).await.expect("its own version"));
        fs::write(layout.version(), "77\n").expect("writes");
        let error = prepare(&layout).await.expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("77") && text.contains(DATA_VERSION), "{text}");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("writes");
        let layout = Layout::new(file.join("data"));
        let error = prepare(&layout).await.expect_err("refused");
        assert!(matches!(error, SupervisorError::Directory { .. }));
        assert!(error.hint().expect("hint").contains("--data-dir"));
    }
}
