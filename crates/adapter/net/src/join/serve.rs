//! Hears a stranger out: one request, checked, then the doorkeeper.

use super::export;
use crate::identity::{PublicKey, TokenVerifier, verify_statement};
use crate::transport::frames;
use crate::transport::stats::{Counters, Refused as Counted};
use kernel::Name;
use quinn::{Connection, VarInt};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use wire::net::TokenId;
use wire::net::frame::Head;
use wire::net::join::{Admitted, BY_NODE, BY_TOKEN, JoinAnswer, JoinRequest, Refusal as Why};

/// An answer that takes its time.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// A machine that has proved the token's secret and that the key is its own.
#[derive(Clone, Debug)]
pub struct Applicant {
    pub token: TokenId,
    pub key: PublicKey,
    pub name: Option<Name>,
    /// Where it says that it will listen.
    pub addresses: Vec<SocketAddr>,
    /// Where it calls from.
    pub remote: SocketAddr,
    /// The agents' own.
    pub words: Vec<u8>,
}

/// What a node begins with.
#[derive(Clone, Debug)]
pub struct Welcome {
    /// As issued: DER, the node's own first, up to below the root.
    pub chain: Vec<Vec<u8>>,
    /// DER.
    pub root: Vec<u8>,
    /// The agents' own.
    pub words: Vec<u8>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub why: Why,
    pub words: String,
}

/// Knows the tokens and admits nodes: the agent.
pub trait Doorkeeper: Send + Sync + 'static {
    /// What checks the token's secret; nothing when there is no such token, and an
    /// error when that cannot be told now. Changes nothing.
    fn verifier(&self, token: TokenId) -> Future<'_, Result<Option<TokenVerifier>, Refused>>;

    /// Uses the token up, writes the node into the table and issues, or says
    /// why not. The same applicant may ask again when its answer was lost.
    fn admit(&self, applicant: Applicant) -> Future<'_, Result<Welcome, Refused>>;
}

/// One visit. The caller bounds its time and ends the connection after it.
pub(crate) async fn serve(
    connection: &Connection,
    version: u8,
    doorkeeper: &Arc<dyn Doorkeeper>,
    counters: &Counters,
    within: Duration,
) {
    // One stream, and less than the widest request in flight.
    connection.set_receive_window(VarInt::from_u32(64 << 10));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
    let Ok((mut send, mut recv)) = connection.accept_bi().await else {
        return counters.refuse(Counted::Join);
    };
    let Ok(Head::Join(request)) = frames::read_head(&mut recv, version, within).await else {
        return counters.refuse(Counted::Join);
    };
    let answer = match answer(connection, request, doorkeeper).await {
        Ok(welcome) => JoinAnswer::Admitted(Admitted {
            chain: welcome.chain,
            root: welcome.root,
            words: welcome.words,
        }),
        Err(Refused { why, words }) => {
            counters.refuse(match why {
                Why::Token | Why::Protocol => Counted::Join,
                _ => Counted::JoinRefused,
            });
            JoinAnswer::Refused { why, words }
        }
    };
    let Ok(frame) = Head::Joined(answer).encode(version) else {
        return;
    };
    if send.write_all(&frame).await.is_ok() && send.finish().is_ok() {
        // Ending the connection at once would cut the answer off.
        let _ = send.stopped().await;
    }
}

async fn answer(
    connection: &Connection,
    request: JoinRequest,
    doorkeeper: &Arc<dyn Doorkeeper>,
) -> Result<Welcome, Refused> {
    let refused = |why| Refused {
        why,
        words: String::new(),
    };
    let wish = request.wish;
    if !wish.within_limits() {
        return Err(refused(Why::Protocol));
    }
    let export = export(connection).ok_or(refused(Why::Unable))?;
    let key = PublicKey(wish.public_key);
    let own = wish.statement(BY_NODE, &export);
    if !verify_statement(&key, &own, &request.by_node) {
        return Err(refused(Why::Protocol));
    }
    // An unknown token and a wrong secret are told alike.
    let verifier = doorkeeper.verifier(wish.token).await?;
    let verifier = verifier.ok_or(refused(Why::Token))?;
    let proof = wish.statement(BY_TOKEN, &export);
    if !verify_statement(&verifier.0, &proof, &request.by_token) {
        return Err(refused(Why::Token));
    }
    doorkeeper
        .admit(Applicant {
            token: wish.token,
            key,
            name: wish.name,
            addresses: wish.addresses,
            remote: connection.remote_address(),
            words: wish.words,
        })
        .await
}
