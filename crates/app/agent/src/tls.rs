//! The local authority and the certificate the edge shows.
//!
//! Holds: the authority's key never leaves its file (mode 0600); the leaf is
//! made anew when its hosts change or a third of its life is left.

use jiff::Timestamp;
use jiff::tz::Offset;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
    date_time_ymd,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wire::edge::CertificateView;

/// Days a leaf lives; browsers refuse more than 398.
const LEAF_DAYS: i64 = 90;
pub const AUTHORITY: &str = "authority.pem";
pub const AUTHORITY_KEY: &str = "authority.key";
/// A point of P-256, uncompressed.
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

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
    #[error("a key of {bytes} bytes is none that can be certified")]
    PublicKey { bytes: usize },
}

/// A certificate and its key, as they lie on the disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Leaf {
    pub hosts: Vec<String>,
    pub not_after_unix: i64,
    pub chain_pem: String,
    pub key_pem: String,
    /// By another node's authority.
    #[serde(default)]
    pub issued: bool,
}

impl Leaf {
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub fn left(&self) -> Duration {
        let left = self.not_after_unix - Timestamp::now().as_second();
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }

    pub fn view(&self) -> CertificateView {
        CertificateView {
            hosts: self.hosts.clone(),
            chain_pem: self.chain_pem.clone(),
            key_pem: self.key_pem.clone(),
        }
    }
}

pub fn leaf_life() -> Duration {
    Duration::from_hours(24 * LEAF_DAYS.unsigned_abs())
}

/// A key for a certificate that another node's authority issues.
pub fn site_key() -> Result<KeyPair, TlsError> {
    KeyPair::generate().map_err(TlsError::Certificate)
}

/// Its public half, as [`Authority::certify`] takes it.
pub fn public_point(key: &KeyPair) -> Vec<u8> {
    PublicKeyData::der_bytes(key).to_vec()
}

struct PublicPoint<'a>(&'a [u8]);

impl PublicKeyData for PublicPoint<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
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
        let certificate = directory.join(AUTHORITY);
        let key = directory.join(AUTHORITY_KEY);
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
        if let Some(leaf) = Leaf::read(&path)
            && leaf.hosts == names
            && !leaf.issued
            && leaf.left() > leaf_life() / 3
        {
            return Ok(leaf.view());
        }
        let leaf = self.make_leaf(names)?;
        let bytes = serde_json::to_vec(&leaf).unwrap_or_default();
        write_private(&path, &bytes)?;
        Ok(leaf.view())
    }

    /// A certificate like [`Authority::leaf`]'s that is kept nowhere.
    pub fn passing_leaf(
        &self,
        hosts: impl IntoIterator<Item = String>,
    ) -> Result<CertificateView, TlsError> {
        let names = names_with_own(hosts);
        self.make_leaf(names).map(|leaf| leaf.view())
    }

    /// For a key whose private half is elsewhere. Who calls has checked the
    /// names.
    ///
    /// * `public_key`: a point of P-256, uncompressed.
    ///
    /// Returns the chain, PEM, and its end in seconds.
    pub fn certify(
        &self,
        names: Vec<String>,
        public_key: &[u8],
    ) -> Result<(String, i64), TlsError> {
        let bytes = public_key.len();
        if bytes != POINT_BYTES || public_key.first() != Some(&UNCOMPRESSED) {
            return Err(TlsError::PublicKey { bytes });
        }
        self.sign(names, &PublicPoint(public_key))
    }

    fn make_leaf(&self, names: Vec<String>) -> Result<Leaf, TlsError> {
        let key = site_key()?;
        let (chain_pem, not_after_unix) = self.sign(names.clone(), &key)?;
        Ok(Leaf {
            hosts: names,
            not_after_unix,
            chain_pem,
            key_pem: key.serialize_pem(),
            issued: false,
        })
    }

    fn sign(
        &self,
        names: Vec<String>,
        key: &impl PublicKeyData,
    ) -> Result<(String, i64), TlsError> {
        let mut params = CertificateParams::new(names).map_err(TlsError::Certificate)?;
        let not_after_unix = Timestamp::now().as_second() + LEAF_DAYS * 86_400;
        // Backdated, so that a client whose clock is behind accepts it.
        set_validity(
            &mut params,
            Timestamp::now().as_second() - 7_200,
            not_after_unix,
        );
        params.distinguished_name = named("Homeostat edge");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(TlsError::Certificate)?;
        Ok((certificate.pem(), not_after_unix))
    }
}

/// With those that mean this machine.
pub fn names_with_own(hosts: impl IntoIterator<Item = String>) -> Vec<String> {
    let own = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let names: BTreeSet<String> = own.into_iter().chain(hosts).collect();
    names.into_iter().collect()
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
