//! The local authority and the certificate the edge shows.
//!
//! Holds: the authority's key never leaves its file (mode 0600); the leaf is
//! made anew when its hosts change or a third of its life is left.

use jiff::Timestamp;
use jiff::tz::Offset;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use wire::edge::CertificateView;

/// Days a leaf lives; browsers refuse more than 398.
const LEAF_DAYS: i64 = 90;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("cannot read or write {path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot make or read a certificate")]
    Certificate(#[source] rcgen::Error),
    #[error("{path} is damaged; move the directory away to make a new authority")]
    Damaged { path: PathBuf },
}

#[derive(Serialize, Deserialize)]
struct Leaf {
    hosts: Vec<String>,
    not_after_unix: i64,
    chain_pem: String,
    key_pem: String,
}

#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Reads the authority in `directory`, or makes it.
    pub fn open(directory: &Path) -> Result<Self, TlsError> {
        let file = |source| TlsError::File {
            path: directory.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(file)?;
        let certificate = directory.join("authority.pem");
        let key = directory.join("authority.key");
        if !certificate.exists() || !key.exists() {
            make_authority(&certificate, &key)?;
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| TlsError::File {
                path: path.to_owned(),
                source,
            })
        };
        let pair = KeyPair::from_pem(&read(&key)?).map_err(|_| TlsError::Damaged { path: key })?;
        Ok(Self {
            directory: directory.to_owned(),
            issuer: Issuer::new(authority_params(), pair),
        })
    }

    /// The certificate for `hosts` and this machine's own names.
    pub fn leaf(&self, hosts: &BTreeSet<String>) -> Result<CertificateView, TlsError> {
        let names = names_with_own(hosts.iter().filter(|host| *host != "*").cloned());
        let path = self.directory.join("leaf.json");
        if let Some(leaf) = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Leaf>(&bytes).ok())
            && leaf.hosts == names
            && leaf.not_after_unix - Timestamp::now().as_second() > LEAF_DAYS * 86_400 / 3
        {
            return Ok(view(leaf));
        }
        let leaf = self.make_leaf(names)?;
        let bytes = serde_json::to_vec(&leaf).unwrap_or_default();
        write_private(&path, &bytes)?;
        Ok(view(leaf))
    }

    /// A certificate like [`Authority::leaf`]'s that is kept nowhere.
    pub fn passing_leaf(
        &self,
        hosts: impl IntoIterator<Item = String>,
    ) -> Result<CertificateView, TlsError> {
        let names = names_with_own(hosts);
        self.make_leaf(names).map(view)
    }

    fn make_leaf(&self, names: Vec<String>) -> Result<Leaf, TlsError> {
        let mut params = CertificateParams::new(names.clone()).map_err(TlsError::Certificate)?;
        let not_after_unix = Timestamp::now().as_second() + LEAF_DAYS * 86_400;
        // Backdated, so that a client whose clock is behind accepts it.
        set_validity(
            &mut params,
            Timestamp::now().as_second() - 7_200,
            not_after_unix,
        );
        params.distinguished_name = named("Homeostat edge");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(TlsError::Certificate)?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(TlsError::Certificate)?;
        Ok(Leaf {
            hosts: names,
            not_after_unix,
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// With those that mean this machine.
fn names_with_own(hosts: impl IntoIterator<Item = String>) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names: BTreeSet<String> = own.into_iter().chain(hosts).collect();
    names.into_iter().collect()
}

fn view(leaf: Leaf) -> CertificateView {
    CertificateView {
        hosts: leaf.hosts,
        chain_pem: leaf.chain_pem,
        key_pem: leaf.key_pem,
    }
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn set_validity(params: &mut CertificateParams, from_unix: i64, to_unix: i64) {
    let date = |unix: i64| {
        let at = Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH);
        let civil = Offset::UTC.to_datetime(at).date();
        let month = u8::try_from(civil.month()).unwrap_or(1);
        let day = u8::try_from(civil.day()).unwrap_or(1);
        date_time_ymd(i32::from(civil.year()), month, day)
    };
    params.not_before = date(from_unix);
    params.not_after = date(to_unix);
}

/// All of the authority's certificate that its leaves refer to.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named("Homeostat local authority");
    params
}

fn make_authority(certificate: &Path, key: &Path) -> Result<(), TlsError> {
    let mut params = authority_params();
    let now = Timestamp::now().as_second();
    set_validity(&mut params, now - 7_200, now + 3_650 * 86_400);
    let pair = KeyPair::generate().map_err(TlsError::Certificate)?;
    let signed = params.self_signed(&pair).map_err(TlsError::Certificate)?;
    // The key first: a certificate without its key would be trusted for nothing.
    write_private(key, pair.serialize_pem().as_bytes())?;
    write_private(certificate, signed.pem().as_bytes())
}

/// Whole or not at all, readable by the owner only.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    let aside = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaf_is_kept_until_its_hosts_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path()).expect("made");
        let news: BTreeSet<String> = ["news.localhost".to_owned()].into();
        let first = authority.leaf(&news).expect("made");
        let again = Authority::open(directory.path()).expect("read back");
        assert_eq!(again.leaf(&news).expect("kept"), first);
        assert_ne!(again.leaf(&BTreeSet::new()).expect("made"), first);
    }

    #[test]
    fn a_leaf_in_the_last_third_of_its_life_is_made_anew() {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path()).expect("made");
        let hosts = BTreeSet::new();
        let first = authority.leaf(&hosts).expect("made");
        let path = directory.path().join("leaf.json");
        let mut leaf: Leaf =
            serde_json::from_slice(&fs::read(&path).expect("kept")).expect("a leaf");
        leaf.not_after_unix -= LEAF_DAYS * 86_400 * 2 / 3 + 60;
        fs::write(&path, serde_json::to_vec(&leaf).expect("JSON")).expect("written");
        assert_ne!(authority.leaf(&hosts).expect("made anew"), first);
    }

    #[test]
    fn a_damaged_key_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        Authority::open(directory.path()).expect("made");
        fs::write(directory.path().join("authority.key"), "garbage").expect("written");
        let error = Authority::open(directory.path()).expect_err("refused");
        assert!(error.to_string().contains("authority.key"), "{error}");
    }
}
