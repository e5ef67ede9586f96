//! Nodes of the built program: three that hold a site, and one that comes to
//! have it.
//!
//! Holds: before each run the receiver has nothing of the site, on disk or half
//! fetched; a run counts only when what came is whole.

use crate::place::{HOLDERS, Place, finish};
use bench_common::{Failure, say};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const RECEIVER: usize = HOLDERS;
const READY_MAX: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_millis(5);

/// The site as content names it.
pub struct Site {
    tree: String,
}

/// All four are up, and hold the site.
pub fn begin(place: &Place) -> Result<Site, Failure> {
    for node in 0..=RECEIVER {
        let mut command = up(place, node);
        let zone = place.lab.nodes()[node].zone.to_string();
        if node == 0 {
            command.args(["--zone", &zone]);
        } else {
            let mut token = homeostat(place, 0);
            token.args(["token", "create", "--ttl", "15m", "--zone", &zone]);
            command.args(["--join", finish(token)?.trim()]);
        }
        finish(command)?;
    }
    let mut apply = homeostat(place, 0);
    apply.arg("apply").arg(place.project());
    finish(apply)?;
    let mut get = homeostat(place, 0);
    get.args(["get", "sites", "-o", "json"]);
    let sites: serde_json::Value = serde_json::from_str(&finish(get)?)?;
    let tree = sites[0]["observed"]["tree"].as_str();
    let tree = tree.ok_or("the site has no tree")?.to_owned();
    let site = Site { tree };
    for node in 0..=RECEIVER {
        site.wait(place, node)?;
    }
    Ok(site)
}

fn homeostat(place: &Place, node: usize) -> Command {
    let mut command = place.command(node, &place.program);
    // Rights of the person's own are for nodes of the person's own.
    command.env_remove("HOMEOSTAT_TOKEN");
    command
}

fn up(place: &Place, node: usize) -> Command {
    let address = place.lab.nodes()[node].address;
    let at = |port| SocketAddr::new(address, port).to_string();
    let mut command = homeostat(place, node);
    command.arg("up");
    command.args(["--agent-listen", &at(7_600), "--edge-listen", &at(7_601)]);
    command
}

impl Site {
    /// A tree is visible once all of it is.
    fn path(&self, place: &Place, node: usize) -> PathBuf {
        let content = place.lab.nodes()[node].data.join("content");
        let (first, rest) = self.tree.split_at(2);
        content.join("chunks").join(first).join(rest)
    }

    fn wait(&self, place: &Place, node: usize) -> Result<(), Failure> {
        let path = self.path(place, node);
        let deadline = Instant::now() + READY_MAX;
        while !path.exists() {
            if Instant::now() >= deadline {
                return Err(format!("{} did not come", path.display()).into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}

/// Seconds from the receiver's start until it has the site.
pub fn fetch(place: &Place, site: &Site) -> Result<f64, Failure> {
    let mut down = homeostat(place, RECEIVER);
    down.arg("down");
    finish(down)?;
    let data = &place.lab.nodes()[RECEIVER].data;
    forget(&data.join("content"))?;
    let mut start = up(place, RECEIVER);
    let began = Instant::now();
    let mut child = start.spawn()?;
    site.wait(place, RECEIVER)?;
    let seconds = began.elapsed().as_secs_f64();
    child.wait()?;
    check(place, data)?;
    tell_shares(place);
    Ok(seconds)
}

fn forget(content: &Path) -> Result<(), Failure> {
    for part in ["chunks", "pieces", "tmp", "variants"] {
        fs::remove_dir_all(content.join(part))?;
    }
    Ok(())
}

/// The longest file there has the bytes of the one that was applied.
fn check(place: &Place, data: &Path) -> Result<(), Failure> {
    let mut longest = (0, PathBuf::new());
    for directory in fs::read_dir(data.join("content/chunks"))? {
        for file in fs::read_dir(directory?.path())? {
            let file = file?;
            longest = longest.max((file.metadata()?.len(), file.path()));
        }
    }
    let mut compare = Command::new("cmp");
    compare.arg(longest.1).arg(place.site().join("film.bin"));
    finish(compare).map(drop)
}

/// Which holder gave how much.
fn tell_shares(place: &Place) {
    let name = place.lab.name(RECEIVER).to_string();
    let mut why = homeostat(place, RECEIVER);
    why.args(["why", &format!("node/{name}"), "-o", "json"]);
    let said = finish(why).unwrap_or_default();
    let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
    let steps = said["chain"].as_array().cloned().unwrap_or_default();
    let mut told = steps
        .iter()
        .filter_map(|step| step["observation"]["what"].as_str());
    if let Some(what) = told.next() {
        say(&format!("    {what}"));
    }
}
