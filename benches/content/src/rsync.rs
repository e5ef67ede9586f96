//! The named peer: rsync, through stunnel, from one holder.
//!
//! In: committed configurations. Out: how long the same file takes.
//! Holds: its programs run in the same two namespaces as our nodes, over the
//! same device, line and distance; they are ended with this.

use crate::place::{HOLDERS, Place, finish};
use bench_common::Failure;
use bench_common::child::installed;
use bench_common::machine::said_by;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const HOLDER: usize = 0;
const RECEIVER: usize = HOLDERS;
const READY_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

pub struct Peer {
    pub versions: String,
    rsync: PathBuf,
    _running: Vec<Running>,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    /// None where it is not installed.
    pub fn start(place: &Place) -> Result<Option<Self>, Failure> {
        let found = (installed(&["rsync"]), installed(&["stunnel4", "stunnel"]));
        let (Some(rsync), Some(stunnel)) = found else {
            return Ok(None);
        };
        let home = place.home();
        certificate(home)?;
        let daemon = configure(place, "rsyncd.conf", include_str!("../rsyncd.conf"))?;
        let holder = include_str!("../stunnel-holder.conf");
        let holder = configure(place, "stunnel-holder.conf", holder)?;
        let receiver = include_str!("../stunnel-receiver.conf");
        let receiver = configure(place, "stunnel-receiver.conf", receiver)?;
        let mut command = place.command(HOLDER, &rsync);
        command
            .args(["--daemon", "--no-detach", "--config"])
            .arg(daemon);
        let mut running = vec![spawn(command, home, "rsyncd.said")?];
        for (node, file) in [(HOLDER, holder), (RECEIVER, receiver)] {
            let mut command = place.command(node, &stunnel);
            command.arg(file);
            running.push(spawn(command, home, "stunnel.said")?);
        }
        let versions = [
            said_by(&rsync, &["--version"]),
            said_by(&stunnel, &["-version"]).filter(|said| said.contains('5')),
        ];
        let versions: Vec<String> = versions.into_iter().flatten().collect();
        let peer = Self {
            versions: versions.join(" over "),
            rsync,
            _running: running,
        };
        peer.wait(place)?;
        Ok(Some(peer))
    }

    fn client(&self, place: &Place) -> Command {
        let mut command = place.command(RECEIVER, &self.rsync);
        command.arg("--archive").arg("--whole-file");
        command
    }

    fn wait(&self, place: &Place) -> Result<(), Failure> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            let mut list = self.client(place);
            list.arg("--list-only").arg("rsync://127.0.0.1:8732/site/");
            match finish(list) {
                Ok(_) => return Ok(()),
                Err(why) if Instant::now() >= deadline => return Err(why),
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    /// Seconds until the receiver has the file, as durable as ours is.
    pub fn fetch(&self, place: &Place) -> Result<f64, Failure> {
        let data = &place.lab.nodes()[RECEIVER].data;
        let to = data.parent().unwrap_or(data).join("rsync");
        let _ = fs::remove_dir_all(&to);
        fs::create_dir_all(&to)?;
        let mut fetch = self.client(place);
        fetch.arg("--fsync");
        fetch.arg("rsync://127.0.0.1:8732/site/").arg(&to);
        let began = Instant::now();
        finish(fetch)?;
        let seconds = began.elapsed().as_secs_f64();
        let mut compare = Command::new("cmp");
        compare
            .arg(to.join("film.bin"))
            .arg(place.site().join("film.bin"));
        finish(compare)?;
        fs::remove_dir_all(&to)?;
        Ok(seconds)
    }
}

fn spawn(mut command: Command, home: &Path, said: &str) -> Result<Running, Failure> {
    let log = fs::File::create(home.join(said))?;
    let command = command.stdout(log.try_clone()?).stderr(log);
    Ok(Running(command.stdin(Stdio::null()).spawn()?))
}

fn configure(place: &Place, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let address = place.lab.nodes()[HOLDER].address.to_string();
    let home = place.home();
    let text = text
        .replace("@HERE@", &home.to_string_lossy())
        .replace("@SITE@", &place.site().to_string_lossy())
        .replace("@ADDRESS@", &address);
    let path = home.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// A key and a certificate of this run's own.
fn certificate(home: &Path) -> Result<(), Failure> {
    let (key, chain) = (home.join("key.pem"), home.join("chain.pem"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
    ]);
    openssl.args(["-subj", "/CN=holder", "-keyout"]);
    openssl.arg(&key).arg("-out").arg(&chain);
    finish(openssl)?;
    let both = [fs::read(&key)?, fs::read(&chain)?].concat();
    Ok(fs::write(home.join("holder.pem"), both)?)
}
