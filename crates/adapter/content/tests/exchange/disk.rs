//! A disk that is full, or becomes so.

use crate::support::{Manner, Place, all, fetch, fetch_tree, noise};
use content::{ContentError, FetchError, FetchOptions, Wanted};
use kernel::Bytes;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A memory file system of so many MiB, made as root.
struct Disk(tempfile::TempDir);

impl Disk {
    fn of(mebibytes: u64) -> Option<Self> {
        let disk = Self(tempfile::tempdir().expect("a directory"));
        let options = format!("size={mebibytes}m,mode=0755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(disk.path())
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        if !mounted {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: a disk cannot be mounted here; this test needs root"
            );
        }
        mounted.then_some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(path: &Path) {
        let mut ballast = fs::File::create(path.join("ballast")).expect("creates");
        let block = vec![7; 4_096];
        while ballast.write_all(&block).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).output();
    }
}

fn to_the_brim() -> FetchOptions {
    FetchOptions {
        room_left: Bytes(0),
        ..FetchOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_fit_is_refused_before_it_travels() {
    let Some(disk) = Disk::of(24) else {
        return;
    };
    let (ours, theirs) = (Place::within(disk.path()), Place::new());
    let before = ours.file(b"as it was");
    let bytes = noise(40 << 20, 1);
    let hash = theirs.file(&bytes);
    let good = theirs.holder("good", Manner::Good);
    let client = ours.fetcher_with(to_the_brim());
    let error = fetch(&client, Wanted::new(hash), &[&good]).await;
    let error = error.expect_err("does not fit");
    assert!(
        matches!(error, FetchError::Content(ContentError::Full { .. })),
        "{error}"
    );
    assert!(error.hint().is_some());
    let tree = theirs.tree(&[("long".to_owned(), bytes)]);
    let error = fetch_tree(&client, tree, &[&good]).await;
    let error = error.expect_err("does not fit");
    assert!(matches!(error, FetchError::NoRoom { .. }), "{error}");
    assert_eq!(
        ours.content.read_verified(before).expect("reads"),
        b"as it was"
    );
    assert_eq!(ours.temporary(), [""; 0]);
    drop(ours);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_ends_a_fetch_that_can_go_on_later() {
    let Some(disk) = Disk::of(48) else {
        return;
    };
    let (ours, theirs) = (Place::within(disk.path()), Place::new());
    let files: Vec<_> = (0..3_000_usize)
        .map(|at| (format!("{at}"), noise(5_000 + at, at as u64)))
        .collect();
    let tree = theirs.tree(&files);
    let good = theirs.holder("good", Manner::Good);
    let client = ours.fetcher_with(to_the_brim());
    let mut full = false;
    let error = client
        .fetch_tree(tree, &all(&[&good]), &mut |progress| {
            if progress.files > 1_200 && !full {
                Disk::fill(disk.path());
                full = true;
            }
        })
        .await
        .expect_err("the disk is full");
    assert!(
        matches!(error, FetchError::Content(ContentError::Full { .. })),
        "{error}"
    );
    assert!(ours.content.tree(tree).is_err(), "it is not visible");
    fs::remove_file(disk.path().join("ballast")).expect("removes");
    let fetched = fetch_tree(&client, tree, &[&good]).await;
    let fetched = fetched.expect("there is room again");
    assert!(fetched.files < 2_100, "{} files came again", fetched.files);
    for entry in ours.content.tree(tree).expect("is here").entries.values() {
        ours.content.read_verified(entry.hash).expect("is here");
    }
    drop(ours);
}
