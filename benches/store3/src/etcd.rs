//! Three members of etcd, with TLS on all their ports.

use crate::{MEMBERS, rate};
use bench_common::child::{Child, free_address, installed};
use bench_common::{Failure, beside};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LEADER_MAX: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);

struct Member {
    _child: Child,
    client: SocketAddr,
    metrics: SocketAddr,
}

pub struct Etcd {
    members: Vec<Member>,
    keys: PathBuf,
    writes: PathBuf,
}

/// One authority and one key for all: `ca.pem`, `client.pem`, `client.key`.
fn make_keys(place: &Path) -> Result<(), Failure> {
    fs::create_dir_all(place)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let own = params.signed_by(&key, &issuer)?;
    fs::write(place.join("ca.pem"), issuer.pem())?;
    fs::write(place.join("client.pem"), own.pem())?;
    fs::write(place.join("client.key"), key.serialize_pem())?;
    Ok(())
}

fn words(keys: &Path) -> Vec<String> {
    let file = |name: &str| keys.join(name).display().to_string();
    let mut words = Vec::new();
    for side in ["", "peer-"] {
        words.push(format!("--{side}trusted-ca-file={}", file("ca.pem")));
        words.push(format!("--{side}cert-file={}", file("client.pem")));
        words.push(format!("--{side}key-file={}", file("client.key")));
        words.push(format!("--{side}client-cert-auth"));
    }
    words
}

impl Etcd {
    /// None where it is not installed.
    pub fn start(home: &Path) -> Result<Option<Self>, Failure> {
        let Some(program) = installed(&["etcd"]) else {
            return Ok(None);
        };
        let keys = home.join("keys");
        make_keys(&keys)?;
        let mut peers = Vec::new();
        for _ in 0..MEMBERS {
            peers.push(free_address()?);
        }
        let all: Vec<String> = peers
            .iter()
            .enumerate()
            .map(|(at, peer)| format!("m{at}=https://{peer}"))
            .collect();
        let mut started = Vec::new();
        for (at, peer) in peers.iter().enumerate() {
            let (client, metrics) = (free_address()?, free_address()?);
            let own = home.join(format!("m{at}"));
            fs::create_dir_all(&own)?;
            let mut command = Command::new(&program);
            command
                .arg(format!("--name=m{at}"))
                .arg(format!("--data-dir={}", own.join("data").display()))
                .arg(format!("--listen-client-urls=https://{client}"))
                .arg(format!("--advertise-client-urls=https://{client}"))
                .arg(format!("--listen-peer-urls=https://{peer}"))
                .arg(format!("--initial-advertise-peer-urls=https://{peer}"))
                .arg(format!("--initial-cluster={}", all.join(",")))
                .arg(format!("--listen-metrics-urls=http://{metrics}"))
                .args(["--logger=zap", "--log-level=error"])
                .args(words(&keys));
            // It listens at once, and answers clients when all are there.
            let child = Child::start("etcd", command, *peer, &own)?;
            started.push(Member {
                _child: child,
                client,
                metrics,
            });
        }
        Ok(Some(Self {
            members: started,
            keys,
            writes: beside("examples/writes")?,
        }))
    }

    fn leader(&self) -> Result<&Member, Failure> {
        let until = Instant::now() + LEADER_MAX;
        while Instant::now() < until {
            if let Some(leader) = self.members.iter().find(|member| member.leads()) {
                return Ok(leader);
            }
            std::thread::sleep(LOOK);
        }
        Err("no member of etcd leads".into())
    }

    pub fn writes(&self, clients: u32, seconds: u64) -> Result<f64, Failure> {
        let leader = self.leader()?;
        let output = Command::new(&self.writes)
            .arg(format!("https://{}", leader.client))
            .arg(clients.to_string())
            .arg(seconds.to_string())
            .arg(&self.keys)
            .output()?;
        let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        rate(&said).map_err(|why| format!("{why}: {wrong}").into())
    }
}

impl Member {
    fn leads(&self) -> bool {
        let asked = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.metrics)?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
            let mut said = String::new();
            stream.read_to_string(&mut said)?;
            Ok(said)
        };
        asked().is_ok_and(|said| said.lines().any(|line| line == "etcd_server_is_leader 1"))
    }
}
