//! The cluster's authority: a root that a person keeps, and an intermediate
//! that issues.
//!
//! In: identities and public keys, the time. Out: certificates of a day.
//! Holds: the root's key is given out once and never kept; a certificate is
//! issued only when the identity's fingerprint is the key's and its cluster
//! is this one. Never: decides who may have one.

use super::key::PublicKey;
use kernel::{Hash, NodeId, UnixMillis, ZonePath};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;
use wire::net::{ClusterId, Identity, Kind};
use zeroize::{Zeroize, Zeroizing};

/// How long a node's certificate lasts.
pub const LIFE: Duration = Duration::from_hours(24);
/// How far a node's certificate is backdated, for clocks that are behind.
pub const BACKDATED: Duration = Duration::from_hours(2);
/// The authority's own certificates are backdated by more, so that every
/// moment of a node's certificate lies within them.
const AUTHORITY_BACKDATED: Duration = Duration::from_hours(7 * 24);
const INTERMEDIATE_LIFE: Duration = Duration::from_hours(10 * 366 * 24);
const ROOT_LIFE: Duration = Duration::from_hours(30 * 366 * 24);
const SEALED_VERSION: u8 = 1;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
    #[error("the system gives no random bytes")]
    Random,
    #[error("the sealed authority cannot be read")]
    Damaged,
    #[error("the sealed authority is of version {0}, this program reads {SEALED_VERSION}")]
    Version(u8),
    #[error("the root's key cannot be read, or is not of this cluster's root")]
    RootKey,
    #[error("the identity is of cluster {found}, this authority of {own}")]
    Cluster { found: ClusterId, own: ClusterId },
    #[error("the identity's fingerprint is not of the key that is to be certified")]
    Fingerprint,
}

/// The root's private key, for the person who keeps it.
pub struct RootKey(Zeroizing<String>);

impl RootKey {
    /// PEM. Show it once; nothing else can make a new intermediate.
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(…)")
    }
}

/// A node's new certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    pub identity: Identity,
    /// DER, the node's own first, up to below the root.
    pub chain: Vec<Vec<u8>>,
    pub not_after: UnixMillis,
}

/// Issues with the intermediate's key.
pub struct Authority {
    cluster: ClusterId,
    /// DER.
    root: Vec<u8>,
    /// DER.
    intermediate: Vec<u8>,
    key_pkcs8: Zeroizing<Vec<u8>>,
    issuer: Issuer<'static, KeyPair>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    root: Vec<u8>,
    intermediate: Vec<u8>,
    key_pkcs8: Vec<u8>,
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.key_pkcs8.zeroize();
    }
}

impl Authority {
    /// A new cluster's authority, and the key of its root.
    pub fn create(now: UnixMillis) -> Result<(Self, RootKey), AuthorityError> {
        let key = generate()?;
        let params = authority_params("Homeostat root", 1, now, ROOT_LIFE)?;
        let root = params.self_signed(&key).map_err(AuthorityError::Make)?;
        let root = root.der().to_vec();
        let pem = RootKey(Zeroizing::new(key.serialize_pem()));
        let authority = Self::below(root, key, now)?;
        Ok((authority, pem))
    }

    /// A new intermediate, from the root that a person kept: `root` is its
    /// certificate, which every node has.
    pub fn renew(root: &[u8], key_pem: &str, now: UnixMillis) -> Result<Self, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(|_| AuthorityError::RootKey)?;
        let (_, certificate) =
            x509_parser::parse_x509_certificate(root).map_err(|_| AuthorityError::RootKey)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::RootKey);
        }
        Self::below(root.to_vec(), key, now)
    }

    fn below(root: Vec<u8>, root_key: KeyPair, now: UnixMillis) -> Result<Self, AuthorityError> {
        // All of the root's certificate that others refer to.
        let above = Issuer::new(
            authority_params("Homeostat root", 1, now, ROOT_LIFE)?,
            root_key,
        );
        let key = generate()?;
        let params = authority_params("Homeostat intermediate", 0, now, INTERMEDIATE_LIFE)?;
        let intermediate = params
            .signed_by(&key, &above)
            .map_err(AuthorityError::Make)?;
        let key_pkcs8 = Zeroizing::new(key.serialize_der());
        Ok(Self {
            cluster: cluster_of(&root),
            root,
            intermediate: intermediate.der().to_vec(),
            key_pkcs8,
            issuer: Issuer::new(params, key),
        })
    }

    /// All of it, with the private key: for the caller to seal.
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let sealed = Sealed {
            root: self.root.clone(),
            intermediate: self.intermediate.clone(),
            key_pkcs8: self.key_pkcs8.to_vec(),
        };
        let mut bytes = Zeroizing::new(vec![SEALED_VERSION]);
        // Writing to memory fails for no value of this type.
        let content = Zeroizing::new(postcard::to_stdvec(&sealed).unwrap_or_default());
        bytes.extend_from_slice(&content);
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AuthorityError> {
        let (&version, content) = bytes.split_first().ok_or(AuthorityError::Damaged)?;
        if version != SEALED_VERSION {
            return Err(AuthorityError::Version(version));
        }
        let (sealed, rest): (Sealed, _) =
            postcard::take_from_bytes(content).map_err(|_| AuthorityError::Damaged)?;
        if !rest.is_empty() {
            return Err(AuthorityError::Damaged);
        }
        let damaged = |_| AuthorityError::Damaged;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(sealed.key_pkcs8.as_slice());
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ED25519).map_err(damaged)?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&sealed.intermediate)
            .map_err(|_| AuthorityError::Damaged)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(AuthorityError::Damaged);
        }
        let params = authority_params(
            "Homeostat intermediate",
            0,
            UnixMillis::default(),
            INTERMEDIATE_LIFE,
        )?;
        Ok(Self {
            cluster: cluster_of(&sealed.root),
            root: sealed.root.clone(),
            intermediate: sealed.intermediate.clone(),
            key_pkcs8: Zeroizing::new(sealed.key_pkcs8.clone()),
            issuer: Issuer::new(params, key),
        })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// DER.
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// What join tokens pin.
    pub fn root_hash(&self) -> Hash {
        Hash(*blake3::hash(&self.root).as_bytes())
    }

    /// The identity of whoever holds `key`.
    pub fn identity(&self, kind: Kind, node: NodeId, zone: ZonePath, key: &PublicKey) -> Identity {
        Identity {
            cluster: self.cluster,
            kind,
            node,
            zone,
            key: key.fingerprint(),
        }
    }

    /// A certificate of [`LIFE`] from `now`, backdated by [`BACKDATED`].
    pub fn issue(
        &self,
        identity: &Identity,
        key: &PublicKey,
        now: UnixMillis,
    ) -> Result<IssuedCertificate, AuthorityError> {
        if identity.cluster != self.cluster {
            return Err(AuthorityError::Cluster {
                found: identity.cluster,
                own: self.cluster,
            });
        }
        if identity.key != key.fingerprint() {
            return Err(AuthorityError::Fingerprint);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&identity.to_string());
        params.serial_number = Some(serial()?);
        let uri = identity.to_uri();
        let uri = uri.as_str().try_into().map_err(AuthorityError::Make)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = false;
        params.is_ca = IsCa::ExplicitNoCa;
        let not_after = set_validity(&mut params, now, BACKDATED, LIFE);
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(AuthorityError::Make)?;
        Ok(IssuedCertificate {
            identity: identity.clone(),
            chain: vec![certificate.der().to_vec(), self.intermediate.clone()],
            not_after,
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.cluster)
    }
}

fn cluster_of(root: &[u8]) -> ClusterId {
    ClusterId::of_root(Hash(*blake3::hash(root).as_bytes()))
}

fn generate() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(AuthorityError::Make)
}

fn serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0_u8; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Random)?;
    // A serial number is positive.
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn named(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn authority_params(
    name: &str,
    below: u8,
    now: UnixMillis,
    life: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, AUTHORITY_BACKDATED, life);
    Ok(params)
}

/// Returns when it ends, in whole seconds as a certificate holds it.
fn set_validity(
    params: &mut CertificateParams,
    now: UnixMillis,
    backdated: Duration,
    life: Duration,
) -> UnixMillis {
    let seconds = now.0 / 1_000;
    let from = seconds.saturating_sub(backdated.as_secs());
    let to = seconds.saturating_add(life.as_secs());
    let date = |seconds: u64| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = date(from);
    params.not_after = date(to);
    UnixMillis(to * 1_000)
}

#[cfg(test)]
mod tests {
    use super::super::{CertificateView, NodeKey};
    use super::*;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_500);

    fn identity(authority: &Authority, key: &NodeKey) -> Identity {
        let zone = "/eu/1".parse().expect("a zone");
        authority.identity(Kind::Agent, NodeId(42), zone, &key.public())
    }

    #[test]
    fn a_node_certificate_lasts_a_day_and_is_backdated_by_two_hours() {
        let (authority, _) = Authority::create(NOW).expect("an authority");
        let key = NodeKey::generate().expect("a key");
        let identity = identity(&authority, &key);
        let issued = authority
            .issue(&identity, &key.public(), NOW)
            .expect("issues");
        let view = CertificateView::read(&issued.chain[0]).expect("reads");
        assert_eq!(view.identity, identity);
        assert_eq!(view.not_before, UnixMillis(1_799_992_800_000));
        assert_eq!(view.not_after, UnixMillis(1_800_086_400_000));
        assert_eq!(view.not_after, issued.not_after);
    }

    #[test]
    fn an_unsealed_authority_issues_as_before_and_damage_is_refused() {
        let (authority, _) = Authority::create(NOW).expect("an authority");
        let bytes = authority.to_bytes();
        let again = Authority::from_bytes(&bytes).expect("reads back");
        assert_eq!(again.cluster(), authority.cluster());
        assert_eq!(again.root(), authority.root());
        let key = NodeKey::generate().expect("a key");
        let identity = identity(&again, &key);
        assert!(again.issue(&identity, &key.public(), NOW).is_ok());
        for end in 0..bytes.len() {
            assert!(Authority::from_bytes(&bytes[..end]).is_err());
        }
        let mut newer = bytes.clone();
        newer[0] = 2;
        assert!(matches!(
            Authority::from_bytes(&newer),
            Err(AuthorityError::Version(2))
        ));
    }

    #[test]
    fn another_cluster_and_another_key_are_not_certified() {
        let (authority, _) = Authority::create(NOW).expect("an authority");
        let (other, _) = Authority::create(NOW).expect("an authority");
        let key = NodeKey::generate().expect("a key");
        let foreign = identity(&other, &key);
        assert!(matches!(
            authority.issue(&foreign, &key.public(), NOW),
            Err(AuthorityError::Cluster { .. })
        ));
        let second = NodeKey::generate().expect("a key");
        let own = identity(&authority, &key);
        assert!(matches!(
            authority.issue(&own, &second.public(), NOW),
            Err(AuthorityError::Fingerprint)
        ));
    }

    #[test]
    fn the_kept_root_key_makes_a_new_intermediate_and_no_other_does() {
        let (authority, kept) = Authority::create(NOW).expect("an authority");
        let renewed = Authority::renew(authority.root(), kept.pem(), NOW).expect("renews");
        assert_eq!(renewed.cluster(), authority.cluster());
        assert_ne!(renewed.intermediate, authority.intermediate);
        let (_, others) = Authority::create(NOW).expect("an authority");
        assert!(matches!(
            Authority::renew(authority.root(), others.pem(), NOW),
            Err(AuthorityError::RootKey)
        ));
        assert!(!format!("{kept:?}{authority:?}").contains("PRIVATE"));
    }

    proptest! {
        #[test]
        fn hostile_sealed_bytes_never_panic(mut bytes: Vec<u8>) {
            bytes.insert(0, SEALED_VERSION);
            prop_assert!(Authority::from_bytes(&bytes).is_err());
        }
    }
}
