//! Impairments as a laboratory writes them into a file.
//!
//! Holds: what cannot be read changes nothing; the file is looked at again for
//! as long as the process lives.

use super::impair::{Impairment, Impairments};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wire::lab;

const LOOK: Duration = Duration::from_millis(100);

/// What the file says of the node at `own`, now and whenever it changes. Needs a
/// tokio runtime.
pub fn impairments_from(path: PathBuf, own: IpAddr) -> Impairments {
    let impairments = Impairments::new();
    let follower = impairments.clone();
    let mut seen = None;
    look(&path, own, &follower, &mut seen);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            look(&path, own, &follower, &mut seen);
        }
    });
    impairments
}

fn look(path: &Path, own: IpAddr, to: &Impairments, seen: &mut Option<SystemTime>) {
    let changed = std::fs::metadata(path).and_then(|found| found.modified());
    let Ok(changed) = changed else { return };
    if *seen == Some(changed) {
        return;
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let read = match lab::Impairments::read(&text) {
        Ok(read) => read,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "impairments stay as they are");
            return;
        }
    };
    *seen = Some(changed);
    to.clear_all();
    for (remote, link) in read.of(own) {
        let span = |ms: f64| Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        let impairment = Impairment {
            delay: span(link.one_way_ms),
            jitter: span(link.jitter_ms),
            loss: link.loss,
            cut_to: link.cut,
            ..Impairment::default()
        };
        to.set_ip(remote, impairment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_changes_nothing_and_the_next_file_does() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("impairments.json");
        let own: IpAddr = "127.18.1.1".parse().expect("an address");
        let impairments = Impairments::new();
        let mut seen = None;
        look(&path, own, &impairments, &mut seen);
        std::fs::write(&path, b"{").expect("writes");
        look(&path, own, &impairments, &mut seen);
        assert_eq!(seen, None);
        let whole = lab::Impairments {
            version: lab::LAB_VERSION,
            links: Vec::new(),
        };
        std::fs::write(&path, whole.text()).expect("writes");
        look(&path, own, &impairments, &mut seen);
        assert!(seen.is_some());
    }
}
