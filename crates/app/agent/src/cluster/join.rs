//! How a machine joins, on both sides: the command that pastes the line, and the
//! answer of a member of the stores.

use super::Cluster;
use super::group::generation;
use super::kept::{Holder, Kept, KeptError, Own};
use super::listen::{self, ListenError, Wanted};
use super::table::{self, AdmissionError};
use crate::machine::unix_now;
use crate::shared::Shared;
use kernel::Name;
use net::identity::IssuedCertificate;
use net::join::{Applicant, Doorkeeper, Future, Refused, Welcome};
use net::{Credentials, Joined, Joining, PublicKey, TokenVerifier};
use node::nodes::{NodeRecord, Way};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use wire::cluster::{JoinWords, MemberWords, WelcomeWords};
use wire::layout::Layout;
use wire::net::join::Refusal;
use wire::net::{JoinToken, Kind, TokenId};

/// For one of the token's addresses.
const WITHIN: Duration = Duration::from_secs(5);
/// A member that cannot admit now is asked again for so long.
const ADMITTED_MAX: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    #[error("this machine has a node already: `{name}`, of {whose}")]
    Already { name: Name, whose: &'static str },
    #[error("what the node is cannot be kept")]
    Kept(#[from] KeptError),
    #[error("where the node listens cannot be chosen")]
    Listen(#[from] ListenError),
    #[error("the machine cannot join")]
    Net(#[from] net::join::JoinError),
    #[error("the cluster's welcome cannot be read: {0}")]
    Welcome(String),
}

impl JoinError {
    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Already { .. } => {
                Some("start it without `--join`, or give another directory with --data-dir")
            }
            Self::Net(error) => error.hint(),
            Self::Kept(error) => error.hint(),
            _ => None,
        }
    }
}

/// Makes this machine's directory a node of the token's cluster. Nothing is
/// kept of a join that fails, but keys that the next one uses.
pub async fn join(
    layout: &Layout,
    token: JoinToken,
    name: Option<Name>,
    wanted: &Wanted,
) -> Result<Own, JoinError> {
    let kept = Kept::new(layout);
    if let Some(own) = kept.own()? {
        let whose = match own.holder {
            None => "a cluster of its own",
            Some(_) => "a cluster that it joined",
        };
        return Err(JoinError::Already {
            name: own.name,
            whose,
        });
    }
    let listen = listen::listen(layout, wanted)?;
    let key = kept.key_or_new(Kind::Agent)?;
    let edge_key = kept.make_key(Kind::Edge)?;
    let words = serde_json::to_vec(&JoinWords {
        edge_key: edge_key.0,
        outbound_only: listen.outbound_only,
    });
    let unreadable = |error: serde_json::Error| JoinError::Welcome(error.to_string());
    let joining = Joining {
        token,
        key: Arc::new(key),
        name,
        addresses: if listen.outbound_only {
            Vec::new()
        } else {
            listen::reachable(&listen, listen.agent, &listen::addresses())
        },
        words: words.map_err(unreadable)?,
        within: WITHIN,
    };
    let joined = enter(&joining).await?;
    let welcome: WelcomeWords = serde_json::from_slice(&joined.words).map_err(unreadable)?;
    let name = |text: &str| Name::new(text).map_err(|error| JoinError::Welcome(error.to_string()));
    if welcome.holder != joined.by.node {
        let why = "who admitted it is not who it names".to_owned();
        return Err(JoinError::Welcome(why));
    }
    let member = |words: MemberWords| {
        Ok(Holder {
            id: words.id,
            name: name(&words.name)?,
            zone: words.zone,
            key: words.key,
            addresses: words.addresses,
        })
    };
    let members = welcome.members.iter().cloned().map(member);
    let own = Own {
        members: members.collect::<Result<_, JoinError>>()?,
        id: joined.identity.node,
        name: name(&welcome.name)?,
        zone: joined.identity.zone.clone(),
        holder: Some(Holder {
            id: welcome.holder,
            name: name(&welcome.holder_name)?,
            zone: joined.by.zone.clone(),
            key: joined.by.key,
            // Where it was reached comes first: that way there is one.
            addresses: std::iter::once(joined.at)
                .chain(welcome.holder_addresses.iter().copied())
                .collect(),
        }),
    };
    trust(layout, &welcome.authority_pem)?;
    keep(&kept, &joined.credentials, &welcome, &own)?;
    Ok(own)
}

/// Members that choose a leader, or others of them, admit nobody for a moment.
async fn enter(joining: &Joining) -> Result<Joined, net::join::JoinError> {
    let deadline = Instant::now() + ADMITTED_MAX;
    loop {
        match net::join(joining).await {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            outcome => return outcome,
        }
    }
}

/// Clients of this node trust what those of the others do.
fn trust(layout: &Layout, authority_pem: &str) -> Result<(), KeptError> {
    if authority_pem.is_empty() {
        return Ok(());
    }
    let path = layout.tls();
    std::fs::create_dir_all(&path).map_err(|source| KeptError::File { path, source })?;
    let written = crate::tls::write_private(&layout.authority(), authority_pem.as_bytes());
    written.map_err(KeptError::Private)
}

fn keep(
    kept: &Kept,
    credentials: &Credentials,
    welcome: &WelcomeWords,
    own: &Own,
) -> Result<(), JoinError> {
    if let Some(raised) = &welcome.raised {
        generation::keep(kept, raised).map_err(JoinError::Welcome)?;
    }
    kept.keep_root(&credentials.root)?;
    kept.keep_chain(Kind::Agent, &credentials.chain)?;
    kept.keep_chain(Kind::Edge, &welcome.edge)?;
    Ok(kept.keep_own(own)?)
}

/// A member's answer to strangers with a token.
pub struct Keeper(pub Weak<Shared>);

impl Keeper {
    async fn let_in(&self, applicant: Applicant) -> Result<Welcome, Refused> {
        let refuse = |why: Refusal, words: String| Refused { why, words };
        let unable = |words: &str| refuse(Refusal::Unable, words.to_owned());
        let shared = self.0.upgrade().ok_or_else(|| unable("it is going down"))?;
        let words: JoinWords = serde_json::from_slice(&applicant.words)
            .map_err(|error| refuse(Refusal::Protocol, error.to_string()))?;
        let usual = || Name::new("node").ok();
        let name = applicant.name.clone().or_else(usual);
        let asked = table::Applicant {
            token: applicant.token.to_string(),
            name: name.ok_or_else(|| unable("it has no name"))?,
            key: applicant.key.fingerprint(),
            way: way_of(&shared.cluster, &applicant, &words),
        };
        let admitted = table::admit(&shared.control, &asked, unix_now()).await;
        let record = admitted.map_err(|error| {
            let why = match &error {
                AdmissionError::Unknown => Refusal::Token,
                AdmissionError::Expired => Refusal::Expired,
                AdmissionError::Used => Refusal::Used,
                AdmissionError::KeyInUse(_) => Refusal::Key,
                AdmissionError::Contended => Refusal::Busy,
                AdmissionError::Store(_) => Refusal::Unable,
            };
            refuse(why, error.to_string())
        })?;
        let issue = |kind, key: &PublicKey| {
            issue(&shared.cluster, kind, &record, key).map_err(|error| unable(&error))
        };
        let agent = issue(Kind::Agent, &applicant.key)?;
        let edge = issue(Kind::Edge, &PublicKey(words.edge_key))?;
        let cluster = &shared.cluster;
        let welcome = WelcomeWords {
            name: record.name.to_string(),
            holder: cluster.own.id,
            holder_name: cluster.name().to_string(),
            holder_addresses: cluster.addresses(),
            members: other_members(cluster),
            edge: edge.chain,
            raised: cluster.generation.raised.clone(),
            authority_pem: shared.certificates.authority_pem().unwrap_or_default(),
        };
        tracing::info!(node = %record.id, name = %record.name, zone = %record.zone, "joined");
        Ok(Welcome {
            chain: agent.chain,
            root: cluster
                .authority
                .get()
                .map_or_else(Vec::new, |it| it.root().to_vec()),
            words: serde_json::to_vec(&welcome).unwrap_or_default(),
        })
    }
}

/// Those who keep the stores beside this node.
fn other_members(cluster: &Cluster) -> Vec<MemberWords> {
    let nodes = cluster.nodes.borrow().clone();
    let members = cluster.members().all();
    let others = members.iter().filter(|node| **node != cluster.own.id);
    let records = others.filter_map(|node| nodes.get(node).cloned());
    let words = records.map(|record| MemberWords {
        id: record.id,
        name: record.name.to_string(),
        zone: record.zone,
        key: record.key,
        addresses: record.way.addresses,
    });
    words.collect()
}

/// One that can only call out is reached through this node at first.
fn way_of(cluster: &Cluster, applicant: &Applicant, words: &JoinWords) -> Way {
    if words.outbound_only {
        return Way {
            addresses: Vec::new(),
            outbound_only: true,
            relays: vec![cluster.own.id],
        };
    }
    Way {
        addresses: applicant.addresses.clone(),
        ..Way::default()
    }
}

/// A certificate for a node that belongs.
pub fn issue(
    cluster: &Cluster,
    kind: Kind,
    record: &NodeRecord,
    key: &PublicKey,
) -> Result<IssuedCertificate, String> {
    let authority = cluster.authority.get().ok_or("it issues nothing")?;
    if !record.belongs() {
        return Err("the node was revoked".to_owned());
    }
    let identity = authority.identity(kind, record.id, record.zone.clone(), key);
    let issued = authority.issue(&identity, key, unix_now());
    issued.map_err(|error| error.to_string())
}

impl Doorkeeper for Keeper {
    fn verifier(&self, token: TokenId) -> Future<'_, Result<Option<TokenVerifier>, Refused>> {
        let unable = |words: String| Refused {
            why: Refusal::Unable,
            words,
        };
        Box::pin(async move {
            let going_down = || unable("it is going down".to_owned());
            let shared = self.0.upgrade().ok_or_else(going_down)?;
            // Who was not entrusted with the authority lets nobody in.
            let entrusted = shared.cluster.authority.get();
            entrusted.ok_or_else(|| unable("it issues nothing".to_owned()))?;
            match table::admission(&shared.control, &token.to_string(), unix_now()).await {
                Ok(admission) => Ok(Some(TokenVerifier(PublicKey(admission.verifier)))),
                Err(error @ (AdmissionError::Store(_) | AdmissionError::Contended)) => {
                    Err(unable(error.to_string()))
                }
                Err(_) => Ok(None),
            }
        })
    }

    fn admit(&self, applicant: Applicant) -> Future<'_, Result<Welcome, Refused>> {
        Box::pin(self.let_in(applicant))
    }
}
