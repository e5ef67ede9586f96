//! Where this node listens for other nodes: chosen once, kept on its disk.
//!
//! Holds: a node that starts again listens where it did, for the others know
//! it there.

use kernel::error_chain;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use wire::cluster::Listen;
use wire::layout::Layout;

const AGENT_PORT: u16 = 7_600;
const EDGE_PORT: u16 = 7_601;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    #[error("cannot read or write {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    #[error("no UDP port of {address} is free for other nodes")]
    Port {
        address: IpAddr,
        source: std::io::Error,
    },
}

/// What a person asks for; what is not said stays as it was.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub agent: Option<SocketAddr>,
    pub edge: Option<SocketAddr>,
    pub advertise: Vec<IpAddr>,
    pub outbound_only: Option<bool>,
}

fn path(layout: &Layout) -> PathBuf {
    layout.cluster().join("listen.json")
}

/// As it was chosen.
pub fn read(layout: &Layout) -> Result<Listen, ListenError> {
    match kept(layout)? {
        Some(listen) => Ok(listen),
        None => listen(layout, &Wanted::default()),
    }
}

fn kept(layout: &Layout) -> Result<Option<Listen>, ListenError> {
    let path = path(layout);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            let why = error_chain(&error);
            ListenError::Damaged { path, why }
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ListenError::File { path, source }),
    }
}

/// Chooses ports, and writes them down for the agent and the edge.
pub fn listen(layout: &Layout, wanted: &Wanted) -> Result<Listen, ListenError> {
    let before = kept(layout)?;
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let choose = |wanted: Option<SocketAddr>, before: Option<SocketAddr>, usual: u16| {
        match (wanted, before) {
            (Some(wanted), _) if wanted.port() != 0 => Ok(wanted),
            // Any free port: the one before is as good.
            (Some(wanted), Some(before)) if before.ip() == wanted.ip() => Ok(before),
            (Some(wanted), _) => free(wanted.ip(), 0),
            (None, Some(before)) => Ok(before),
            (None, None) => free(any, usual).or_else(|_| free(any, 0)),
        }
    };
    let kept = before.as_ref();
    let chosen = Listen {
        agent: choose(wanted.agent, kept.map(|it| it.agent), AGENT_PORT)?,
        edge: choose(wanted.edge, kept.map(|it| it.edge), EDGE_PORT)?,
        advertise: if wanted.advertise.is_empty() {
            kept.map_or_else(Vec::new, |it| it.advertise.clone())
        } else {
            wanted.advertise.clone()
        },
        outbound_only: wanted
            .outbound_only
            .unwrap_or_else(|| kept.is_some_and(|it| it.outbound_only)),
    };
    if before.as_ref() != Some(&chosen) {
        let path = path(layout);
        let file = |source| ListenError::File {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(layout.cluster()).map_err(file)?;
        let bytes = serde_json::to_vec_pretty(&chosen).unwrap_or_default();
        let aside = path.with_extension("new");
        fs::write(&aside, bytes).map_err(file)?;
        fs::rename(&aside, &path).map_err(file)?;
    }
    Ok(chosen)
}

fn free(address: IpAddr, port: u16) -> Result<SocketAddr, ListenError> {
    let bound = UdpSocket::bind((address, port)).and_then(|socket| socket.local_addr());
    bound.map_err(|source| ListenError::Port { address, source })
}

/// Addresses under which a socket of this machine can be reached, the most
/// likely first.
///
/// * `machine`: this machine's own, as [`addresses`] has them.
pub fn reachable(listen: &Listen, socket: SocketAddr, machine: &[IpAddr]) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, socket.port());
    if !listen.advertise.is_empty() {
        return listen.advertise.iter().copied().map(at).collect();
    }
    if !socket.ip().is_unspecified() {
        return vec![socket];
    }
    let heard = |ip: &&IpAddr| socket.is_ipv6() || ip.is_ipv4();
    let all = machine.iter().filter(heard).copied().map(at);
    all.take(wire::net::token::ADDRESSES_MAX).collect()
}

/// This machine's own addresses, the most likely to be reached from elsewhere
/// first. Asks the system.
pub fn addresses() -> Vec<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut all: Vec<IpAddr> = interfaces
        .iter()
        .filter(|one| !one.is_link_local())
        .map(if_addrs::Interface::ip)
        .collect();
    all.sort_by_key(|ip| (ip.is_loopback(), ip.is_ipv6(), *ip));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stay_until_others_are_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let local = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        let wanted = Wanted {
            agent: local(0),
            edge: local(0),
            outbound_only: Some(true),
            ..Wanted::default()
        };
        let first = listen(&layout, &wanted).expect("chooses");
        assert_ne!(first.agent.port(), 0);
        assert_eq!(listen(&layout, &wanted).expect("stays"), first);
        assert_eq!(read(&layout).expect("reads"), first);
        let other = Wanted {
            agent: local(1),
            ..Wanted::default()
        };
        let changed = listen(&layout, &other).expect("changes");
        assert_eq!((changed.agent.port(), changed.edge), (1, first.edge));
        assert_eq!(reachable(&changed, changed.agent, &[]), [changed.agent]);
        assert!(changed.outbound_only);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        fs::create_dir_all(layout.cluster()).expect("makes");
        fs::write(path(&layout), b"{").expect("writes");
        let error = read(&layout).expect_err("damaged");
        assert!(error.to_string().contains("listen.json"), "{error}");
    }
}
