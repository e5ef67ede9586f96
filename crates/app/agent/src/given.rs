//! Certificates that people give the node, beside those of its own authority.
//!
//! In: a chain and its key, PEM. Out: what the edge shows for the hosts that
//! they cover.
//! Holds: a pair is checked whole before anything is kept; files are mode 0600
//! and whole at any moment; for a host that several pairs name, the newest wins.
//! Never: asks who signed it, for that is between the host and its clients.

use crate::tls::{TlsError, write_private};
use jiff::Timestamp;
use kernel::fnv1a;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::edge::CertificateView;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GivenError {
    #[error("the chain holds no certificate in PEM")]
    NoCertificate,
    #[error("the chain cannot be read: {0}")]
    Chain(String),
    #[error("the key is no private key in PEM")]
    NoKey,
    #[error("the certificate for {hosts} names another key than the one given")]
    OtherKey { hosts: String },
    #[error("the key cannot be used: {0}")]
    Key(String),
    #[error("the certificate names no host")]
    NoHost,
}

impl GivenError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoCertificate | Self::Chain(_) => {
                Some("give a PEM file: the host's certificate first, then its intermediates")
            }
            Self::NoKey | Self::Key(_) => {
                Some("give the key's PEM file, PKCS #8, SEC 1 or PKCS #1, without a passphrase")
            }
            Self::OtherKey { .. } => {
                Some("give the key that the certificate was asked for with, and that certificate")
            }
            Self::NoHost => Some("have it issued with its hosts as subject alternative names"),
        }
    }
}

/// Issuers renew a month before the end, or sooner; two weeks before it
/// somebody should look.
const NOTICE_SECONDS: i64 = 14 * 86_400;

/// A chain and a key that belong together.
#[derive(Clone, Serialize, Deserialize)]
pub struct Pair {
    pub hosts: BTreeSet<String>,
    pub expires_unix: i64,
    /// Counts what was given: clocks may go back.
    number: u64,
    chain_pem: String,
    key_pem: String,
}

/// Checks a pair; keeps nothing.
pub fn check(chain_pem: &str, key_pem: &str) -> Result<Pair, GivenError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| GivenError::Chain(error.to_string()))?;
    let first = chain.first().ok_or(GivenError::NoCertificate)?;
    let (hosts, expires_unix) = read(first)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| GivenError::NoKey)?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => GivenError::OtherKey {
            hosts: hosts.iter().cloned().collect::<Vec<_>>().join(", "),
        },
        other => GivenError::Key(other.to_string()),
    })?;
    Ok(Pair {
        hosts,
        expires_unix,
        number: 0,
        chain_pem: chain_pem.to_owned(),
        key_pem: key_pem.to_owned(),
    })
}

fn read(certificate: &CertificateDer<'_>) -> Result<(BTreeSet<String>, i64), GivenError> {
    let unreadable = |error: &dyn std::error::Error| GivenError::Chain(error.to_string());
    let (_, read) = parse_x509_certificate(certificate).map_err(|error| unreadable(&error))?;
    let names = read
        .subject_alternative_name()
        .map_err(|error| unreadable(&error))?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let hosts: BTreeSet<String> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if hosts.is_empty() {
        return Err(GivenError::NoHost);
    }
    Ok((hosts, read.validity().not_after.timestamp()))
}

impl Pair {
    /// What its owner should know before clients tell them.
    pub fn warning(&self) -> Option<String> {
        let left = self.expires_unix - Timestamp::now().as_second();
        let at = Timestamp::from_second(self.expires_unix).ok()?;
        match left {
            ..=0 => Some(format!("it expired at {at}: clients will refuse it")),
            1..NOTICE_SECONDS => Some(format!("it expires at {at}")),
            _ => None,
        }
    }

    fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.hosts.contains(host)
            || parent.is_some_and(|parent| self.hosts.contains(&format!("*.{parent}")))
    }

    /// The same hosts have the same file, so that a renewed pair replaces the
    /// old one.
    fn file_name(&self) -> String {
        let bytes = self.hosts.iter().flat_map(|host| host.bytes().chain([0]));
        format!("given-{:016x}.json", fnv1a(bytes))
    }
}

/// All that was given, the newest first.
pub struct Given {
    directory: PathBuf,
    pairs: Mutex<Vec<Pair>>,
}

impl Given {
    /// Reads what is kept; a file that cannot be read is named in the log and
    /// left alone.
    pub fn open(directory: &Path) -> Result<Self, TlsError> {
        let file = |source| TlsError::File {
            path: directory.to_owned(),
            source,
        };
        let mut pairs = Vec::new();
        for entry in fs::read_dir(directory).map_err(file)? {
            let path = entry.map_err(file)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let kept = path.extension().is_some_and(|it| it == "json");
            if !name.starts_with("given-") || !kept {
                continue;
            }
            match fs::read(&path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| e.to_string()))
            {
                Ok(pair) => pairs.push(pair),
                Err(error) => {
                    tracing::error!(path = %path.display(), error, "a given certificate is not used");
                }
            }
        }
        pairs.sort_by_key(|pair: &Pair| std::cmp::Reverse(pair.number));
        Ok(Self {
            directory: directory.to_owned(),
            pairs: Mutex::new(pairs),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Durable when this returns.
    pub fn keep(&self, mut pair: Pair) -> Result<(), TlsError> {
        let mut pairs = self.lock();
        pair.number = pairs.first().map_or(0, |newest| newest.number) + 1;
        let path = self.directory.join(pair.file_name());
        let bytes = serde_json::to_vec(&pair).unwrap_or_default();
        write_private(&path, &bytes)?;
        pairs.retain(|old| old.hosts != pair.hosts);
        pairs.insert(0, pair);
        Ok(())
    }

    pub fn covers(&self, host: &str) -> bool {
        self.lock().iter().any(|pair| pair.covers(host))
    }

    /// What should be renewed, by its hosts.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |pair: &Pair| {
            let hosts: Vec<&str> = pair.hosts.iter().map(String::as_str).collect();
            Some(format!("for {}: {}", hosts.join(", "), pair.warning()?))
        };
        self.lock().iter().filter_map(warning).collect()
    }

    pub fn views(&self) -> Vec<CertificateView> {
        let view = |pair: &Pair| CertificateView {
            hosts: pair.hosts.iter().cloned().collect(),
            chain_pem: pair.chain_pem.clone(),
            key_pem: pair.key_pem.clone(),
        };
        self.lock().iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use std::os::unix::fs::PermissionsExt;

    fn issue(hosts: &[&str]) -> (String, String) {
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(names)
            .expect("parameters")
            .self_signed(&key)
            .expect("signs");
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_renewed_pair_replaces_the_old_one_and_survives_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let given = Given::open(folder.path()).expect("opens");
        for hosts in [&["a.example"][..], &["*.b.example"], &["a.example"]] {
            let (chain, key) = issue(hosts);
            given
                .keep(check(&chain, &key).expect("fits"))
                .expect("keeps");
        }
        let again = Given::open(folder.path()).expect("opens");
        assert_eq!(again.views(), given.views());
        assert_eq!(given.views().len(), 2);
        for (host, covered) in [
            ("a.example", true),
            ("x.b.example", true),
            ("*.b.example", true),
            ("b.example", false),
            ("x.y.b.example", false),
        ] {
            assert_eq!(given.covers(host), covered, "{host}");
        }
        for entry in fs::read_dir(folder.path()).expect("lists") {
            let mode = entry
                .expect("entry")
                .metadata()
                .expect("there")
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_says_why() {
        let (chain, key) = issue(&["a.example"]);
        let (other, _) = issue(&["b.example"]);
        let nameless = {
            let key = KeyPair::generate().expect("a key");
            let made = CertificateParams::default().self_signed(&key);
            (made.expect("signs").pem(), key.serialize_pem())
        };
        let torn = chain.replace("\nMI", "\nxx");
        for (chain, key, why) in [
            (&other, &key, "another key"),
            (&key, &key, "no certificate"),
            (&chain, &chain, "no private key"),
            (&torn, &key, "chain cannot be read"),
            (&String::new(), &key, "no certificate"),
            (&nameless.0, &nameless.1, "no host"),
        ] {
            let error = check(chain, key).err().expect("refused");
            assert!(error.to_string().contains(why), "{error}, not {why}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn an_expired_certificate_is_taken_with_a_warning() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let chain = params.self_signed(&key).expect("signs").pem();
        let pair = check(&chain, &key.serialize_pem()).expect("fits");
        let warning = pair.warning().expect("warns");
        assert!(warning.contains("2021-01-01"), "{warning}");

        let mut soon = pair;
        soon.expires_unix = Timestamp::now().as_second() + NOTICE_SECONDS - 60;
        assert!(soon.warning().expect("warns").contains("expires at"));
        soon.expires_unix += 3_600;
        assert_eq!(soon.warning(), None);
    }
}
