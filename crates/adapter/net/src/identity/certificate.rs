//! Reads what a node's certificate says.
//!
//! Holds: a certificate has one name, a URI of ours, and an Ed25519 key; any
//! other is refused. Never: says whether the certificate is to be trusted.

use super::key::PublicKey;
use kernel::UnixMillis;
use wire::net::{Identity, IdentityError};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::FromDer;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    #[error("no certificate was shown")]
    Missing,
    #[error("the certificate cannot be read")]
    Damaged,
    #[error("the certificate's key is not of Ed25519")]
    Key,
    #[error("the certificate must hold one name, an identity, and no other")]
    Names,
    #[error("the certificate's identity cannot be read")]
    Identity(#[source] IdentityError),
}

/// A node's certificate, read and not yet trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    pub identity: Identity,
    pub public_key: PublicKey,
    pub not_before: UnixMillis,
    pub not_after: UnixMillis,
}

impl CertificateView {
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| CertificateError::Damaged)?;
        if !rest.is_empty() {
            return Err(CertificateError::Damaged);
        }
        let key = certificate.public_key();
        if key.algorithm.algorithm != OID_SIG_ED25519 || key.algorithm.parameters.is_some() {
            return Err(CertificateError::Key);
        }
        let bytes = key.subject_public_key.data.as_ref();
        let public_key = PublicKey(bytes.try_into().map_err(|_| CertificateError::Key)?);
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| CertificateError::Names)?
            .ok_or(CertificateError::Names)?;
        let [GeneralName::URI(uri)] = names.value.general_names[..] else {
            return Err(CertificateError::Names);
        };
        let identity = Identity::parse_uri(uri, public_key.fingerprint())
            .map_err(CertificateError::Identity)?;
        let validity = certificate.validity();
        let millis = |seconds: i64| UnixMillis(u64::try_from(seconds).unwrap_or(0) * 1_000);
        Ok(Self {
            identity,
            public_key,
            not_before: millis(validity.not_before.timestamp()),
            not_after: millis(validity.not_after.timestamp()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, SanType};

    fn made(names: Vec<SanType>, algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().expect("ascii"))
    }

    const GOOD: &str = "homeostat://c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1/agent/000000000000002a/eu/1";

    #[test]
    fn a_certificate_says_who_its_holder_is() {
        let der = made(vec![uri(GOOD)], &rcgen::PKCS_ED25519);
        let view = CertificateView::read(&der).expect("reads");
        assert_eq!(view.identity.to_uri(), GOOD);
        assert_eq!(view.identity.key, view.public_key.fingerprint());
    }

    #[test]
    fn other_names_keys_and_counts_are_refused() {
        let dns = SanType::DnsName("harbour".try_into().expect("ascii"));
        let ed = &rcgen::PKCS_ED25519;
        let refused = |names, algorithm| CertificateView::read(&made(names, algorithm)).err();
        assert_eq!(refused(vec![], ed), Some(CertificateError::Names));
        assert_eq!(
            refused(vec![dns.clone()], ed),
            Some(CertificateError::Names)
        );
        assert_eq!(
            refused(vec![uri(GOOD), dns], ed),
            Some(CertificateError::Names)
        );
        assert_eq!(
            refused(vec![uri(GOOD), uri(GOOD)], ed),
            Some(CertificateError::Names)
        );
        assert_eq!(
            refused(vec![uri(GOOD)], &rcgen::PKCS_ECDSA_P256_SHA256),
            Some(CertificateError::Key)
        );
        assert_eq!(
            refused(vec![uri("spiffe://x")], ed),
            Some(CertificateError::Identity(IdentityError::Scheme))
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            prop_assert!(CertificateView::read(&bytes).is_err());
        }

        #[test]
        fn damaged_certificates_never_panic(at: prop::sample::Index, to: u8) {
            let mut der = made(vec![uri(GOOD)], &rcgen::PKCS_ED25519);
            let at = at.index(der.len());
            der[at] = to;
            let _ = CertificateView::read(&der);
            der.truncate(at);
            prop_assert!(CertificateView::read(&der).is_err());
        }
    }
}
