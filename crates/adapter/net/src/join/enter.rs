//! The side of the machine that joins.

use super::export;
use crate::identity::{
    CertificateError, CertificateView, Credentials, NodeKey, PeerVerifier, Refusal, wall_clock,
};
use crate::tls::{self, Purpose, SERVER_NAME};
use crate::transport::frames;
use kernel::{Hash, Name};
use quinn::{ClientConfig, Connection, Endpoint};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use wire::net::frame::Head;
use wire::net::join::{BY_NODE, BY_TOKEN, JoinAnswer, JoinRequest, Refusal as Why, Wish};
use wire::net::{Identity, JoinToken};

/// What a machine joins with.
#[derive(Debug)]
pub struct Joining {
    pub token: JoinToken,
    /// The node's key from now on; keep it before calling.
    pub key: Arc<NodeKey>,
    pub name: Option<Name>,
    /// Where the node will listen.
    pub addresses: Vec<SocketAddr>,
    /// The agents' own; 8 KiB at most.
    pub words: Vec<u8>,
    /// For one address.
    pub within: Duration,
}

/// A node begins.
#[derive(Debug)]
pub struct Joined {
    pub identity: Identity,
    pub credentials: Credentials,
    /// Of the agent that admitted it.
    pub words: Vec<u8>,
    /// Who admitted it, and where it was reached.
    pub by: Identity,
    pub at: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    #[error("the token names no address")]
    NoAddress,
    #[error("no socket to call from")]
    Socket(#[source] std::io::Error),
    #[error("the handshake cannot be configured")]
    Tls(#[source] rustls::Error),
    #[error("no member of the cluster answers at {}", list(.0))]
    Silent(Vec<(SocketAddr, String)>),
    #[error("who answers at {address} is not of the token's cluster: {why}")]
    Stranger { address: SocketAddr, why: Refusal },
    #[error("the cluster refused: {}", refusal_text(*why, words))]
    Refused { why: Why, words: String },
    #[error("the answer from {address} breaks the protocol: {what}")]
    Protocol { address: SocketAddr, what: String },
    #[error("the certificate that was issued cannot be used")]
    Certificate(#[source] CertificateError),
}

impl JoinError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAddress | Self::Silent(_) => {
                Some("check that a member runs and that its UDP port is open from here")
            }
            Self::Stranger { .. } => Some("make a new token on a member: `homeostat token create`"),
            Self::Refused { why, .. } => match why {
                Why::Token | Why::Expired | Why::Used => {
                    Some("make a new token on a member: `homeostat token create`")
                }
                Why::Name => Some("choose another name"),
                Why::Busy | Why::Unable => Some("try again in a moment"),
                Why::Key | Why::Protocol => None,
            },
            _ => None,
        }
    }

    /// Whether another address may do better.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::Silent(_) | Self::Stranger { .. } | Self::Protocol { .. }
        ) || self.may_pass()
    }

    /// Whether a member answered, and may do better in a moment.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Refused { why, .. } if matches!(why, Why::Busy | Why::Unable))
    }
}

fn list(tried: &[(SocketAddr, String)]) -> String {
    let each = tried
        .iter()
        .map(|(address, why)| format!("{address} ({why})"));
    each.collect::<Vec<_>>().join(", ")
}

fn refusal_text(why: Why, words: &str) -> String {
    let text = match why {
        Why::Token => "it does not know this token",
        Why::Expired => "the token has expired",
        Why::Used => "the token was used already",
        Why::Name => "the name is another node's",
        Why::Key => "the key is another node's",
        Why::Busy => "too many join at once",
        Why::Unable => "the member cannot admit nodes now",
        Why::Protocol => "the request breaks the protocol",
    };
    if words.is_empty() {
        text.to_owned()
    } else {
        format!("{text}: {words}")
    }
}

/// Joins at the first of the token's addresses that admits.
pub async fn join(joining: &Joining) -> Result<Joined, JoinError> {
    if joining.token.addresses.is_empty() {
        return Err(JoinError::NoAddress);
    }
    let mut caller = Caller {
        endpoints: Vec::new(),
        pin: joining.token.root,
    };
    let mut silent = Vec::new();
    let mut last = None;
    // All are called at once; only one is asked to admit at a time.
    let mut calls = JoinSet::new();
    for address in &joining.token.addresses {
        match caller.call(*address, joining.within) {
            Ok(call) => {
                calls.spawn(call);
            }
            Err(error) => last = Some(error),
        }
    }
    while let Some(called) = calls.join_next().await {
        let outcome = match called {
            Ok((address, Ok(connection))) => {
                let asked = ask(joining, &connection, address);
                tokio::time::timeout(joining.within, asked)
                    .await
                    .unwrap_or_else(|_| {
                        Err(JoinError::Silent(vec![(address, "no answer".to_owned())]))
                    })
            }
            Ok((_, Err(error))) => Err(error),
            Err(_) => continue,
        };
        match outcome {
            Ok(joined) => return Ok(joined),
            Err(JoinError::Silent(mut tried)) => silent.append(&mut tried),
            Err(error) if error.passes() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or(JoinError::Silent(silent)))
}

struct Caller {
    /// One for each family of addresses.
    endpoints: Vec<(bool, Endpoint)>,
    pin: Hash,
}

type Called = (SocketAddr, Result<Connection, JoinError>);

impl Caller {
    fn call(
        &mut self,
        address: SocketAddr,
        within: Duration,
    ) -> Result<impl std::future::Future<Output = Called> + Send + use<>, JoinError> {
        let endpoint = self.endpoint(address.is_ipv4())?;
        let silent = move |why: String| JoinError::Silent(vec![(address, why)]);
        let verifier = Arc::new(PeerVerifier::pinned(self.pin, wall_clock()));
        let versions = crate::versions_spoken();
        let crypto = tls::client(None, verifier.clone(), Purpose::Join, &versions)
            .map_err(JoinError::Tls)?;
        let connecting = endpoint
            .connect_with(ClientConfig::new(crypto), address, SERVER_NAME)
            .map_err(|why| silent(why.to_string()))?;
        Ok(async move {
            let connected = match tokio::time::timeout(within, connecting).await {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err(error)) => Err(match verifier.refused() {
                    Some(why) => JoinError::Stranger { address, why },
                    None => silent(error.to_string()),
                }),
                Err(_) => Err(silent("no answer".to_owned())),
            };
            (address, connected)
        })
    }

    fn endpoint(&mut self, v4: bool) -> Result<Endpoint, JoinError> {
        if let Some((_, endpoint)) = self.endpoints.iter().find(|(family, _)| *family == v4) {
            return Ok(endpoint.clone());
        }
        let any = if v4 {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        let endpoint = Endpoint::client(any).map_err(JoinError::Socket)?;
        self.endpoints.push((v4, endpoint.clone()));
        Ok(endpoint)
    }
}

async fn ask(
    joining: &Joining,
    connection: &Connection,
    address: SocketAddr,
) -> Result<Joined, JoinError> {
    let broken = |what: &str| JoinError::Protocol {
        address,
        what: what.to_owned(),
    };
    let lost = |why: &dyn std::fmt::Display| JoinError::Silent(vec![(address, why.to_string())]);
    let (_, version) = crate::transport::spoken(connection).ok_or(broken("its version"))?;
    let (_, by) = crate::transport::agreed(connection).ok_or(broken("its certificate"))?;
    let export = export(connection).ok_or(broken("its session"))?;
    let wish = Wish {
        token: joining.token.id,
        public_key: joining.key.public().0,
        name: joining.name.clone(),
        addresses: joining.addresses.clone(),
        words: joining.words.clone(),
    };
    let by_token = wish.statement(BY_TOKEN, &export);
    let by_token = crate::identity::sign_with_token(&joining.token, &by_token);
    let by_node = joining.key.sign(&wish.statement(BY_NODE, &export));
    let request = JoinRequest {
        wish,
        by_token,
        by_node,
    };
    let frame = Head::Join(request)
        .encode(version)
        .map_err(|_| broken("the request is too long"))?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(|why| lost(&why))?;
    send.write_all(&frame).await.map_err(|why| lost(&why))?;
    let _ = send.finish();
    let answer = frames::read_head(&mut recv, version, joining.within).await;
    match answer {
        Ok(Head::Joined(JoinAnswer::Admitted(admitted))) => {
            let credentials = Credentials {
                key: joining.key.clone(),
                chain: admitted.chain,
                root: admitted.root,
            };
            let view = own(joining, &credentials).map_err(broken)?;
            Ok(Joined {
                identity: view.identity,
                credentials,
                words: admitted.words,
                by: by.identity,
                at: address,
            })
        }
        Ok(Head::Joined(JoinAnswer::Refused { why, words })) => {
            Err(JoinError::Refused { why, words })
        }
        Ok(_) => Err(broken("no answer to a join")),
        Err(_) => Err(lost(&"it ended without an answer")),
    }
}

/// Whether what was issued is for us, of the token's cluster and zone.
fn own(joining: &Joining, credentials: &Credentials) -> Result<CertificateView, &'static str> {
    let shown = credentials.shown();
    let view = crate::identity::verify_pinned(joining.token.root, &shown, wall_clock()())
        .map_err(|_| "the certificate is not of the token's cluster")?;
    if view.public_key != joining.key.public() {
        return Err("the certificate is for another key");
    }
    if view.identity.zone != joining.token.zone {
        return Err("the certificate is for another zone than the token's");
    }
    Ok(view)
}
