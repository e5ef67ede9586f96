//! A machine of its own behind a firewall that lets nobody call in: a network
//! namespace, a pair of devices, and a rule that drops new datagrams inwards.
//! Needs root; taken away with the value.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const PREFIX: &str = "hswall-";

pub struct Firewall {
    pub namespace: String,
    /// This machine's address, as it is seen from inside.
    pub outside: IpAddr,
    pub inside: IpAddr,
    device: String,
}

/// By this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A program in the namespace, in all else as here.
pub fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("--")
        .arg(program);
    command
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{program} {}: {said}", words.join(" ")))
}

impl Firewall {
    /// None, with a line that says why, where it cannot be made.
    ///
    /// # Panics
    /// When it was made and lets datagrams in.
    pub fn new() -> Option<Self> {
        remove_dead();
        let pid = std::process::id();
        let number = MADE.fetch_add(1, Relaxed);
        // Of the block for laboratories, where labs have their addresses in
        // 198.18.0.0/16.
        let net = pid.wrapping_mul(16).wrapping_add(number) % 16_384 * 4;
        let [.., high, low] = net.to_be_bytes();
        let wall = Self {
            namespace: format!("{PREFIX}{pid}-{number}"),
            outside: Ipv4Addr::new(198, 19, high, low + 1).into(),
            inside: Ipv4Addr::new(198, 19, high, low + 2).into(),
            device: format!("hsw{pid}{number}"),
        };
        if let Err(why) = wall.make() {
            let line = format!("SKIPPED: no firewall can be made here, which needs root: {why}");
            let _ = writeln!(std::io::stderr(), "{line}");
            return None;
        }
        wall.check();
        Some(wall)
    }

    /// The machine inside has this address too from now on.
    ///
    /// # Panics
    /// When it cannot have it.
    pub fn gain(&self, address: IpAddr) {
        let (address, name) = (address.to_string(), self.namespace.as_str());
        let words = ["-n", name, "addr", "add", &address, "dev", &self.device];
        run("ip", &words).expect("an address");
    }

    fn make(&self) -> Result<(), String> {
        let (name, within) = (self.namespace.as_str(), self.device.as_str());
        let out = format!("{within}o");
        let ip = |words: &[&str]| run("ip", words);
        let in_there = |words: &[&str]| ip(&[&["-n", name], words].concat());
        ip(&["netns", "add", name])?;
        ip(&[
            "link", "add", &out, "type", "veth", "peer", "name", within, "netns", name,
        ])?;
        ip(&["addr", "add", &format!("{}/30", self.outside), "dev", &out])?;
        ip(&["link", "set", &out, "up"])?;
        in_there(&["addr", "add", &format!("{}/30", self.inside), "dev", within])?;
        in_there(&["link", "set", within, "up"])?;
        in_there(&["link", "set", "lo", "up"])?;
        self.rules(
            "table inet wall {\n counter dropped { }\n chain input {\n\
             type filter hook input priority 0; policy accept\n\
             iifname \"lo\" accept\n\
             ct state established,related accept\n\
             meta l4proto udp counter name dropped drop\n }\n}\n",
        )
    }

    fn rules(&self, rules: &str) -> Result<(), String> {
        let mut nft = inside(&self.namespace, Path::new("nft"));
        let nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn();
        let mut nft = nft.map_err(|error| format!("nft: {error}"))?;
        let mut input = nft.stdin.take().ok_or("nft takes nothing")?;
        input
            .write_all(rules.as_bytes())
            .map_err(|error| error.to_string())?;
        drop(input);
        match nft.wait() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("nft: {other:?}")),
        }
    }

    /// Datagrams that were dropped.
    ///
    /// # Panics
    /// When the rules are gone.
    pub fn dropped(&self) -> u64 {
        let mut nft = inside(&self.namespace, Path::new("nft"));
        let said = nft.args(["list", "counter", "inet", "wall", "dropped"]);
        let said = said.output().expect("nft runs").stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        let count = said.split("packets ").nth(1).expect("a count");
        let count = count.split(' ').next().expect("a count");
        count.trim().parse().expect("a number")
    }

    fn check(&self) {
        let socket = UdpSocket::bind((self.outside, 0)).expect("a socket");
        crate::until("a datagram that is dropped", || {
            let _ = socket.send_to(b"x", (self.inside, 9));
            (self.dropped() > 0).then_some(())
        });
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        // The devices go with it.
        let _ = run("ip", &["netns", "del", &self.namespace]);
    }
}

/// Those of tests that were killed.
fn remove_dead() {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten();
    for name in names.flatten().map(|entry| entry.file_name()) {
        let name = name.to_string_lossy();
        let rest = name.strip_prefix(PREFIX);
        let Some(pid) = rest.and_then(|rest| rest.split('-').next()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            let _ = run("ip", &["netns", "del", &name]);
        }
    }
}
