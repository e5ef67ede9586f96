//! Who belongs: keys, the authority that certifies them, and the trust that
//! checks what others show.

mod authority;
mod certificate;
mod key;
mod trust;

pub use authority::{Authority, AuthorityError, IssuedCertificate, LIFE, RootKey};
pub use certificate::{CertificateError, CertificateView};
pub use key::{KeyError, NodeKey, PublicKey, TokenVerifier, sign_with_token, verify_statement};
pub use trust::{Authorise, Clock, GRACE, Refusal, Requirement, Trust, Usage, wall_clock};

pub(crate) use trust::{PeerVerifier, verify_pinned};

use rustls::pki_types::CertificateDer;
use std::sync::Arc;

/// What a node shows: its key and its certificate's chain, its own first.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub key: Arc<NodeKey>,
    /// DER, up to below the root.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub root: Vec<u8>,
}

impl Credentials {
    /// What the first certificate says, unverified: it is our own.
    pub fn view(&self) -> Result<CertificateView, CertificateError> {
        let own = self.chain.first().ok_or(CertificateError::Missing)?;
        CertificateView::read(own)
    }

    /// The chain as it is shown: the root is among it, so that who joins can
    /// compare it with the hash in the token.
    pub(crate) fn shown(&self) -> Vec<CertificateDer<'static>> {
        let whole = self.chain.iter().chain(std::iter::once(&self.root));
        whole.map(|der| CertificateDer::from(der.clone())).collect()
    }
}
