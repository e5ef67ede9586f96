//! Decides which variables are the worker's own and which its guest's.
//!
//! Holds: the guest gets neither its address nor anything of the node's.

use crate::error::WorkerError;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use wire::bucket::{CAPABILITY_VARIABLE, SOCKET_VARIABLE};

/// Of the node's own variables.
const OURS: &str = "HOMEOSTAT_";
const NOT_FOR_GUESTS: [&str; 3] = ["HOST", "PORT", "PATH"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Where the worker listens.
    pub address: SocketAddr,
    /// The agent's socket for buckets, and what this replica may open there.
    pub buckets: Option<(PathBuf, String)>,
    /// What the guest gets.
    pub guest: Vec<(String, String)>,
}

impl Environment {
    pub fn read(all: impl IntoIterator<Item = (String, String)>) -> Result<Self, WorkerError> {
        let (mut host, mut port) = (None, None);
        let (mut socket, mut capability) = (None, None);
        let mut guest = Vec::new();
        for (name, value) in all {
            match name.as_str() {
                "HOST" => host = Some(value),
                "PORT" => port = Some(value),
                SOCKET_VARIABLE => socket = Some(PathBuf::from(value)),
                CAPABILITY_VARIABLE => capability = Some(value),
                _ if NOT_FOR_GUESTS.contains(&&*name) || name.starts_with(OURS) => {}
                _ => guest.push((name, value)),
            }
        }
        let host: IpAddr = number("HOST", host)?;
        let port: u16 = number("PORT", port)?;
        guest.sort();
        Ok(Self {
            address: SocketAddr::new(host, port),
            buckets: socket.zip(capability),
            guest,
        })
    }
}

fn number<T: std::str::FromStr>(
    name: &'static str,
    value: Option<String>,
) -> Result<T, WorkerError> {
    let found = value.unwrap_or_default();
    found
        .parse()
        .map_err(|_| WorkerError::Environment { name, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(all: &[(&str, &str)]) -> Result<Environment, WorkerError> {
        let all = all.iter();
        Environment::read(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_guest_gets_what_is_not_the_nodes() {
        let found = read(&[
            ("PATH", "/bin"),
            ("HOST", "127.0.0.1"),
            ("HOMEOSTAT_CAPABILITY", "secret"),
            ("PORT", "8000"),
            ("TITLE", "News"),
            ("LANG", "C"),
        ]);
        let found = found.expect("reads");
        assert_eq!(found.address, ([127, 0, 0, 1], 8000).into());
        let names: Vec<&str> = found.guest.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["LANG", "TITLE"]);
        // A capability is for nothing without the place to show it.
        assert_eq!(found.buckets, None);
    }

    #[test]
    fn buckets_are_the_workers_to_reach() {
        let found = read(&[
            ("HOST", "127.0.0.1"),
            ("PORT", "8000"),
            ("HOMEOSTAT_BUCKETS", "/d/run/buckets.sock"),
            ("HOMEOSTAT_CAPABILITY", "hb1.a.b"),
        ]);
        let found = found.expect("reads");
        let expected = ("/d/run/buckets.sock".into(), "hb1.a.b".to_owned());
        assert_eq!(found.buckets, Some(expected));
        assert!(found.guest.is_empty());
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (all, name) in [
            (&[("PORT", "8000")][..], "HOST"),
            (&[("HOST", "127.0.0.1"), ("PORT", "80000")], "PORT"),
        ] {
            let error = read(all).expect_err("refused");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
