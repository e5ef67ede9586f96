//! That a cluster's desired state is in an etcd: chosen by the first node before it
//! begins, told to those who may lead.
//!
//! In: what a person writes. Out: the same, checked and kept.
//! Holds: a node that has begun keeps its state where it is; what is kept lies in
//! a private file.

use super::super::super::{Kept, KeptError};
use std::fs;
use std::path::{Path, PathBuf};
use wire::cluster::{EtcdAccess, EtcdTls};
use wire::layout::Layout;

const NOTE: &str = "etcd.json";
const SCHEME: &str = "etcd://";
const PORT: u16 = 2_379;
const ROOT: &str = "homeostat";

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutsideError {
    #[error("`{url}` is not where an etcd is: {why}")]
    Url { url: String, why: &'static str },
    #[error("cannot read {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("this node's desired state is {before} already, and not {wanted}")]
    Elsewhere { before: String, wanted: String },
    #[error("its desired state is in {url}, and this program was built without etcd")]
    NotBuilt { url: String },
    #[error("where desired state is")]
    Kept(#[from] KeptError),
    #[error("{path} is damaged")]
    Damaged { path: PathBuf },
}

impl OutsideError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Url { .. } => Some("homeostat up --store etcd://HOST:PORT,HOST:PORT/ROOT"),
            Self::File { .. } => {
                Some("--store-tls names a directory with ca.pem, cert.pem and key.pem")
            }
            Self::Elsewhere { .. } => {
                Some("leave out --store, or begin another cluster with another --data-dir")
            }
            Self::NotBuilt { .. } => Some("build it with: cargo build --release --features etcd"),
            Self::Damaged { .. } => Some("put a copy back in its place"),
            Self::Kept(error) => error.hint(),
        }
    }
}

/// * `tls`: a directory with `ca.pem`, `cert.pem` and `key.pem`.
pub fn access(url: &str, tls: Option<&Path>) -> Result<EtcdAccess, OutsideError> {
    let wrong = |why| OutsideError::Url {
        url: url.to_owned(),
        why,
    };
    let rest = url
        .strip_prefix(SCHEME)
        .ok_or_else(|| wrong("it does not begin with etcd://"))?;
    let (members, root) = rest.split_once('/').unwrap_or((rest, ROOT));
    let root = root.trim_end_matches('/');
    let root = if root.is_empty() { ROOT } else { root };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !root.chars().all(is_letter) {
        return Err(wrong("its root may have letters, digits, `-`, `_` and `.`"));
    }
    if rest.contains('@') {
        return Err(wrong(
            "etcd knows this cluster by its certificate (--store-tls), not by a password",
        ));
    }
    let endpoints = members.split(',').map(|member| {
        let (host, port) = host_and_port(member)?;
        Some(format!("{host}:{port}"))
    });
    let endpoints: Option<Vec<_>> = endpoints.collect();
    Ok(EtcdAccess {
        endpoints: endpoints.ok_or_else(|| wrong("HOST:PORT is expected"))?,
        root: root.to_owned(),
        tls: tls.map(read_tls).transpose()?,
    })
}

/// An IPv6 address is in brackets.
fn host_and_port(member: &str) -> Option<(&str, u16)> {
    let (host, port) = match member.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (member, PORT),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_host = if let Some(address) = bare {
        address.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !host.is_empty() && host.chars().all(is_letter)
    };
    is_host.then_some((host, port))
}

fn read_tls(directory: &Path) -> Result<EtcdTls, OutsideError> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read_to_string(&path).map_err(|source| OutsideError::File { path, source })
    };
    Ok(EtcdTls {
        authority: read("ca.pem")?,
        certificate: read("cert.pem")?,
        key: read("key.pem")?,
    })
}

/// None: the cluster's members keep its state themselves.
pub fn read(layout: &Layout) -> Result<Option<EtcdAccess>, OutsideError> {
    let path = layout.cluster().join(NOTE);
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|_| OutsideError::Damaged { path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OutsideError::File { path, source }),
    }
}

pub fn keep(kept: &Kept, access: &EtcdAccess) -> Result<(), KeptError> {
    let bytes = serde_json::to_vec_pretty(access).unwrap_or_default();
    kept.keep_note(NOTE, &bytes)
}

/// For a node that does not run: where it is to begin a cluster. Says no where it
/// has begun one.
pub fn choose(layout: &Layout, access: &EtcdAccess) -> Result<(), OutsideError> {
    let kept = Kept::new(layout);
    let wanted = format!("in {}", access.url());
    let before = match read(layout)? {
        Some(before) if before.url() == access.url() => {
            // Its certificate may be another.
            return keep(&kept, access).map_err(OutsideError::from);
        }
        Some(before) => format!("in {}", before.url()),
        None if kept.own()?.is_some() => "with its members".to_owned(),
        None if cfg!(feature = "etcd") => {
            return keep(&kept, access).map_err(OutsideError::from);
        }
        None => {
            let url = access.url();
            return Err(OutsideError::NotBuilt { url });
        }
    };
    Err(OutsideError::Elsewhere { before, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etcd_is_written_as_its_members_and_a_root() {
        let one = access("etcd://one", None).expect("an etcd");
        assert_eq!(
            (one.endpoints, one.root),
            (vec!["one:2379".to_owned()], "homeostat".to_owned())
        );
        let three = access("etcd://10.0.0.1:1,[::1]:2,c.example/edge-7/", None).expect("an etcd");
        assert_eq!(three.endpoints, ["10.0.0.1:1", "[::1]:2", "c.example:2379"]);
        assert_eq!(
            three.url(),
            "etcd://10.0.0.1:1,[::1]:2,c.example:2379/edge-7"
        );
        let again = access(&three.url(), None).expect("the same");
        assert_eq!(again, three);
        for wrong in [
            "",
            "one:2379",
            "http://one:2379",
            "etcd://",
            "etcd:///root",
            "etcd://one:port",
            "etcd://one:99999",
            "etcd://one,,two",
            "etcd://one/a/b",
            "etcd://one/a b",
            "etcd://[::1",
            "etcd://[one]:1",
            "etcd://a:b:1",
            "etcd://user:word@one",
        ] {
            let why = access(wrong, None).expect_err(wrong);
            assert!(matches!(why, OutsideError::Url { .. }), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_node_that_has_begun_stays_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let [one, two] =
            ["etcd://one", "etcd://two"].map(|url| access(url, None).expect("an etcd"));
        let chosen = choose(&layout, &one);
        if cfg!(feature = "etcd") {
            chosen.expect("nothing has begun");
            assert_eq!(read(&layout).expect("reads"), Some(one.clone()));
            choose(&layout, &one).expect("the same");
        } else {
            let why = chosen.expect_err("it cannot be used");
            assert!(matches!(why, OutsideError::NotBuilt { .. }), "{why}");
            keep(&Kept::new(&layout), &one).expect("keeps");
        }
        let why = choose(&layout, &two).expect_err("another");
        assert!(
            why.to_string()
                .contains("etcd://one:2379/homeostat already"),
            "{why}"
        );
    }

    #[test]
    fn what_is_kept_and_damaged_is_said_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        assert_eq!(read(&layout).expect("reads"), None);
        Kept::new(&layout).keep_note(NOTE, b"{").expect("keeps");
        assert!(matches!(read(&layout), Err(OutsideError::Damaged { .. })));
    }
}
