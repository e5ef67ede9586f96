//! Members of etcd in a scratch directory, on free ports, with TLS where it is
//! asked for.
//!
//! Holds: only what was started here is ended, by its id; a port that another
//! took meanwhile means another try.

use etcd::{EtcdStore, Options, SERVER_FLAGS, Tls};
use node::store::{Operation, Transaction};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const READY_MAX: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
const TRIES: usize = 5;

struct Member {
    name: String,
    client: u16,
    peer: u16,
    child: Option<Child>,
}

pub struct Server {
    home: tempfile::TempDir,
    members: Vec<Member>,
    flags: &'static [&'static str],
    tls: Option<Tls>,
}

/// One key for both sides, of an authority of its own.
pub fn keys() -> Tls {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    let own = key();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&own, &issuer).expect("a certificate");
    Tls {
        authority: issuer.pem(),
        certificate: certificate.pem(),
        key: own.serialize_pem(),
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    // Held at once, so that they differ.
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"))
        .collect();
    let port = |held: &TcpListener| held.local_addr().expect("an address").port();
    held.iter().map(port).collect()
}

/// None, with a line that says so, where it is not installed.
pub fn installed() -> Option<()> {
    let found = Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        let why = "etcd is not installed; `cargo xtask test` installs Debian's `etcd-server`";
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    }
    found.ok().map(drop)
}

impl Server {
    /// None where etcd is not installed.
    pub fn start(count: usize) -> Option<Self> {
        Self::start_with(count, &SERVER_FLAGS, None)
    }

    /// For clients that have a certificate.
    pub fn secured() -> Option<Self> {
        Self::start_with(1, &SERVER_FLAGS, Some(&keys()))
    }

    pub fn limited() -> Option<Self> {
        Self::start_with(1, &[], None)
    }

    fn start_with(count: usize, flags: &'static [&'static str], tls: Option<&Tls>) -> Option<Self> {
        installed()?;
        for _ in 0..TRIES {
            let home = tempfile::tempdir().expect("a directory");
            let ports = free_ports(2 * count);
            let members = ports.chunks(2).enumerate().map(|(at, ports)| Member {
                name: format!("m{at}"),
                client: ports[0],
                peer: ports[1],
                child: None,
            });
            let members = members.collect();
            let mut server = Self {
                home,
                members,
                flags,
                tls: tls.cloned(),
            };
            for at in 0..count {
                server.give_power(at);
            }
            if server.are_ready() {
                return Some(server);
            }
        }
        panic!("etcd does not start");
    }

    fn client(&self, member: &Member) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", member.client)
    }

    /// With the keys that they name.
    fn tls_flags(&self) -> Vec<String> {
        let Some(tls) = &self.tls else {
            return Vec::new();
        };
        let file = |flag: &str, text: &str| {
            let path = self.home.path().join(flag);
            fs::write(&path, text).expect("a key");
            format!("--{flag}={}", path.display())
        };
        vec![
            file("trusted-ca-file", &tls.authority),
            file("cert-file", &tls.certificate),
            file("key-file", &tls.key),
            "--client-cert-auth".to_owned(),
        ]
    }

    pub fn give_power(&mut self, at: usize) {
        let (client, tls) = (self.client(&self.members[at]), self.tls_flags());
        let peers: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("{}=http://127.0.0.1:{}", member.name, member.peer))
            .collect();
        let member = &mut self.members[at];
        let peer = format!("http://127.0.0.1:{}", member.peer);
        let data = self.home.path().join(&member.name);
        let said = File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join(format!("{}.log", member.name)))
            .expect("a log");
        let child = Command::new("etcd")
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", peers.join(",")))
            .args(["--logger=zap", "--log-level=error"])
            .args(self.flags)
            .args(tls)
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a log"))
            .stderr(said)
            .spawn();
        member.child = Some(child.expect("etcd starts"));
    }

    /// As without power.
    pub fn cut_power(&mut self, at: usize) {
        if let Some(mut child) = self.members[at].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn are_ready(&mut self) -> bool {
        let until = Instant::now() + READY_MAX;
        loop {
            let mut running = self.members.iter_mut().filter_map(|m| m.child.as_mut());
            if running.any(|child| !matches!(child.try_wait(), Ok(None))) {
                return false;
            }
            let accepts = |member: &Member| TcpStream::connect(("127.0.0.1", member.client));
            if self.members.iter().all(|member| accepts(member).is_ok()) {
                return true;
            }
            if Instant::now() > until {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    pub fn options(&self) -> Options {
        let endpoints = self.members.iter().map(|member| self.client(member));
        Options {
            tls: self.tls.clone(),
            ..Options::new(endpoints.collect())
        }
    }

    pub async fn open(&self) -> EtcdStore {
        self.open_with(self.options()).await
    }

    pub async fn open_with(&self, options: Options) -> EtcdStore {
        let opened = EtcdStore::open(options).await;
        opened.unwrap_or_else(|error| panic!("{error}: {}", said(self.home.path())))
    }
}

fn said(home: &Path) -> String {
    let logs = fs::read_dir(home).into_iter().flatten().flatten();
    let logs = logs.filter(|file| file.path().extension().is_some_and(|end| end == "log"));
    logs.filter_map(|file| fs::read_to_string(file.path()).ok())
        .collect()
}

impl Drop for Server {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.cut_power(at);
        }
    }
}

pub fn put(key: &str, value: &[u8]) -> Transaction {
    Transaction {
        then: vec![Operation::Put(key.into(), value.into())],
        ..Transaction::default()
    }
}

/// Asks until there is an answer.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "not: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
