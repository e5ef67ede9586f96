//! Decides whether who shows a certificate is who it says, and belongs.
//!
//! In: a chain, the time, what the caller requires. Out: the identity, or why
//! it is refused. Holds: the chain ends at the pinned root, the cluster is its
//! own, the certificate is of the required kind and node and of this time, and
//! the node table agrees, each time anew. Never: resumes a session, which would
//! leave the table unasked.

use super::certificate::CertificateView;
use kernel::{Hash, NodeId, UnixMillis};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError};
use rustls::{Error, SignatureScheme};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use wire::net::{ClusterId, Identity, Kind};

/// How long beyond its end an unrevoked certificate stays accepted while there
/// is no quorum to renew it.
pub const GRACE: Duration = Duration::from_hours(7 * 24);
/// Ours is two; some room for an authority above.
const CHAIN_MAX: usize = 4;
const CERTIFICATE_BYTES_MAX: usize = 4_096;

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    #[error("it showed no certificate")]
    NoCertificate,
    #[error("its certificate cannot be read")]
    Certificate,
    #[error("its certificate is not of this cluster's authority")]
    Chain,
    #[error("its certificate names another cluster")]
    Cluster,
    #[error("its certificate is of another kind than is required here")]
    Kind,
    #[error("it is another node than the one called")]
    Node,
    #[error("its certificate is not valid yet")]
    NotYetValid,
    #[error("its certificate has ended")]
    Expired,
    #[error("no node of that name belongs here")]
    Unknown,
    #[error("it was revoked")]
    Revoked,
    #[error("the node of that name has another key")]
    OtherKey,
    #[error("the node of that name is of another zone")]
    OtherZone,
}

impl Refusal {
    pub const ALL: [Self; 12] = [
        Self::NoCertificate,
        Self::Certificate,
        Self::Chain,
        Self::Cluster,
        Self::Kind,
        Self::Node,
        Self::NotYetValid,
        Self::Expired,
        Self::Unknown,
        Self::Revoked,
        Self::OtherKey,
        Self::OtherZone,
    ];
}

/// The node table's word on an identity: whether the node belongs, with that
/// key and that zone, and is not revoked. Asked on the network's threads: it
/// answers from memory.
pub trait Authorise: Send + Sync + 'static {
    fn authorise(&self, identity: &Identity) -> Result<(), Refusal>;
}

impl<F> Authorise for F
where
    F: Fn(&Identity) -> Result<(), Refusal> + Send + Sync + 'static,
{
    fn authorise(&self, identity: &Identity) -> Result<(), Refusal> {
        self(identity)
    }
}

/// Tells the wall-clock time.
pub type Clock = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// The system's clock.
pub fn wall_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.unwrap_or_default().as_millis();
        UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
    })
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub kind: Kind,
    /// Whom we called, if we did.
    pub node: Option<NodeId>,
}

/// Whom to believe.
pub struct Trust {
    root: CertificateDer<'static>,
    cluster: ClusterId,
    authorise: Arc<dyn Authorise>,
    clock: Clock,
    tolerance: Duration,
    no_quorum: AtomicBool,
}

impl Trust {
    /// * `root`: the root's certificate, DER.
    /// * `tolerance`: how far a clock may be off beyond what backdating covers.
    pub fn new(
        root: &[u8],
        authorise: Arc<dyn Authorise>,
        clock: Clock,
        tolerance: Duration,
    ) -> Self {
        Self {
            root: CertificateDer::from(root.to_vec()),
            cluster: ClusterId::of_root(root_hash(root)),
            authorise,
            clock,
            tolerance,
            no_quorum: AtomicBool::new(false),
        }
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// While there is no quorum, ended certificates are accepted for [`GRACE`].
    pub fn set_no_quorum(&self, no_quorum: bool) {
        self.no_quorum.store(no_quorum, Ordering::Relaxed);
    }

    /// When a certificate that ends at `not_after` is no longer accepted.
    pub(crate) fn accepted_until(&self, not_after: UnixMillis) -> UnixMillis {
        let grace = if self.no_quorum.load(Ordering::Relaxed) {
            GRACE
        } else {
            Duration::ZERO
        };
        let more = u64::try_from((self.tolerance + grace).as_millis()).unwrap_or(u64::MAX);
        UnixMillis(not_after.0.saturating_add(more))
    }

    /// Who shows `chain`, its own certificate first.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        requirement: Requirement,
        usage: Usage,
    ) -> Result<CertificateView, Refusal> {
        let now = (self.clock)();
        let view = chained(&self.root, chain, usage, now)?;
        if view.identity.cluster != self.cluster {
            return Err(Refusal::Cluster);
        }
        if view.identity.kind != requirement.kind {
            return Err(Refusal::Kind);
        }
        if requirement
            .node
            .is_some_and(|node| node != view.identity.node)
        {
            return Err(Refusal::Node);
        }
        let tolerance = u64::try_from(self.tolerance.as_millis()).unwrap_or(u64::MAX);
        if now.0.saturating_add(tolerance) < view.not_before.0 {
            return Err(Refusal::NotYetValid);
        }
        if now > self.accepted_until(view.not_after) {
            return Err(Refusal::Expired);
        }
        self.authorise.authorise(&view.identity)?;
        Ok(view)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trust({})", self.cluster)
    }
}

/// On which side of a connection a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
}

pub(crate) fn root_hash(root: &[u8]) -> Hash {
    Hash(*blake3::hash(root).as_bytes())
}

/// Checks signatures up to `root`, at the moment within the certificate's life
/// that is nearest to `now`: its own validity is judged by the caller.
fn chained(
    root: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    usage: Usage,
    now: UnixMillis,
) -> Result<CertificateView, Refusal> {
    let (own, above) = chain.split_first().ok_or(Refusal::NoCertificate)?;
    let fits = |der: &CertificateDer<'_>| der.len() <= CERTIFICATE_BYTES_MAX;
    if chain.len() > CHAIN_MAX || !chain.iter().all(fits) {
        return Err(Refusal::Certificate);
    }
    let view = CertificateView::read(own).map_err(|_| Refusal::Certificate)?;
    let nearest = now
        .0
        .clamp(view.not_before.0, view.not_after.0.max(view.not_before.0));
    let anchor = anchor_from_trusted_cert(root).map_err(|_| Refusal::Chain)?;
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    EndEntityCert::try_from(own)
        .map_err(|_| Refusal::Certificate)?
        .verify_for_usage(
            &[webpki::ring::ED25519],
            &[anchor],
            above,
            UnixTime::since_unix_epoch(Duration::from_millis(nearest)),
            usage,
            None,
            None,
        )
        .map_err(|_| Refusal::Chain)?;
    Ok(view)
}

/// Whom a token's pin makes believable: an agent whose chain holds the root
/// with that hash and ends there.
pub(crate) fn verify_pinned(
    pin: Hash,
    chain: &[CertificateDer<'_>],
    now: UnixMillis,
) -> Result<CertificateView, Refusal> {
    let root = chain
        .iter()
        .skip(1)
        .find(|der| root_hash(der) == pin)
        .ok_or(Refusal::Chain)?;
    let view = chained(root, chain, Usage::Server, now)?;
    if view.identity.cluster != ClusterId::of_root(pin) {
        return Err(Refusal::Cluster);
    }
    if view.identity.kind != Kind::Agent {
        return Err(Refusal::Kind);
    }
    Ok(view)
}

/// How a verifier decides.
enum Judge {
    Trust(Arc<Trust>, Requirement),
    /// The clock of a machine that joins may be anything: time is not judged.
    Pin(Hash, Clock),
}

type OnRefusal = Arc<dyn Fn(Refusal) + Send + Sync>;

/// Brings the judgement into a handshake, and keeps why it refused.
pub(crate) struct PeerVerifier {
    judge: Judge,
    /// Whether one who shows no certificate may go on, to join.
    strangers: bool,
    on_refusal: OnRefusal,
    refused: Mutex<Option<Refusal>>,
}

impl PeerVerifier {
    pub(crate) fn new(
        trust: Arc<Trust>,
        requirement: Requirement,
        strangers: bool,
        on_refusal: OnRefusal,
    ) -> Self {
        Self {
            judge: Judge::Trust(trust, requirement),
            strangers,
            on_refusal,
            refused: Mutex::default(),
        }
    }

    pub(crate) fn pinned(pin: Hash, clock: Clock) -> Self {
        Self {
            judge: Judge::Pin(pin, clock),
            strangers: false,
            on_refusal: Arc::new(|_| ()),
            refused: Mutex::default(),
        }
    }

    /// Why the last handshake was refused.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(
        &self,
        own: &CertificateDer<'_>,
        above: &[CertificateDer<'_>],
        usage: Usage,
    ) -> Result<(), Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(own).chain(above).cloned().collect();
        let verified = match &self.judge {
            Judge::Trust(trust, requirement) => trust.verify(&chain, *requirement, usage),
            Judge::Pin(pin, clock) => verify_pinned(*pin, &chain, clock()),
        };
        verified.map(|_| ()).map_err(|refusal| {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
            (self.on_refusal)(refusal);
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        })
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerVerifier")
    }
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    rustls::crypto::verify_tls13_signature(
        message,
        certificate,
        signature,
        &rustls::crypto::ring::default_provider().signature_verification_algorithms,
    )
}

fn never_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Server)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.strangers
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Client)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
