//! Machines that join with a token, and strangers who try other things.

mod common;

use common::{Cluster, Node, SOON, any_port, node, until};
use kernel::{NodeId, ZonePath};
use net::identity::Refusal;
use net::join::{Applicant, Future, JoinError, Refused, Welcome};
use net::transport::Refused as Counted;
use net::{
    Authority, Doorkeeper, JoinToken, Joining, Kind, NodeKey, Options, TokenId, TokenVerifier, join,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wire::net::join::Refusal as Why;

/// What an agent does: tokens once, a row in the table, a certificate.
struct Door {
    cluster: Arc<Cluster>,
    tokens: Mutex<BTreeMap<TokenId, (TokenVerifier, ZonePath, bool)>>,
    admitted: Mutex<Vec<Applicant>>,
    /// It cannot tell now which tokens there are.
    is_unable: AtomicBool,
}

impl Doorkeeper for Door {
    fn verifier(&self, token: TokenId) -> Future<'_, Result<Option<TokenVerifier>, Refused>> {
        let tokens = self.tokens.lock().expect("unpoisoned");
        let found = tokens.get(&token).map(|(verifier, ..)| *verifier);
        let unable = Refused {
            why: Why::Unable,
            words: "nobody leads".to_owned(),
        };
        let is_unable = self.is_unable.load(Ordering::Relaxed);
        Box::pin(async move { if is_unable { Err(unable) } else { Ok(found) } })
    }

    fn admit(&self, applicant: Applicant) -> Future<'_, Result<Welcome, Refused>> {
        let answer = self.decide(&applicant);
        self.admitted.lock().expect("unpoisoned").push(applicant);
        Box::pin(async move { answer })
    }
}

impl Door {
    fn decide(&self, applicant: &Applicant) -> Result<Welcome, Refused> {
        let mut tokens = self.tokens.lock().expect("unpoisoned");
        let (_, zone, used) = tokens.get_mut(&applicant.token).expect("was verified");
        if std::mem::replace(used, true) {
            return Err(Refused {
                why: Why::Used,
                words: "by node 9".to_owned(),
            });
        }
        let authority = &self.cluster.authority;
        let identity = authority.identity(Kind::Agent, NodeId(9), zone.clone(), &applicant.key);
        self.cluster.table.admit(&identity);
        let issued = authority
            .issue(&identity, &applicant.key, common::now())
            .expect("issues");
        Ok(Welcome {
            chain: issued.chain,
            root: authority.root().to_vec(),
            words: b"begin".to_vec(),
        })
    }
}

struct Place {
    cluster: Arc<Cluster>,
    door: Arc<Door>,
    member: Node,
}

impl Place {
    fn new() -> Self {
        let cluster = Arc::new(Cluster::new());
        let door = Arc::new(Door {
            is_unable: AtomicBool::new(false),
            cluster: cluster.clone(),
            tokens: Mutex::default(),
            admitted: Mutex::default(),
        });
        let mut options = cluster.options(1);
        options.doorkeeper = Some(door.clone());
        options.limits.handshake_time = Duration::from_secs(1);
        let member = node(options);
        Self {
            cluster,
            door,
            member,
        }
    }

    fn token(&self, id: u64) -> JoinToken {
        let token = JoinToken {
            id: TokenId(id),
            secret: [7; 16],
            root: self.cluster.authority.root_hash(),
            zone: "/eu/1".parse().expect("a zone"),
            addresses: vec![self.member.address()],
        };
        let row = (TokenVerifier::of(&token), token.zone.clone(), false);
        self.door
            .tokens
            .lock()
            .expect("unpoisoned")
            .insert(token.id, row);
        token
    }

    fn admitted(&self) -> usize {
        self.door.admitted.lock().expect("unpoisoned").len()
    }

    fn refused(&self, what: Counted) -> u64 {
        self.member.stats().refused(what)
    }
}

fn joining(token: JoinToken) -> Joining {
    Joining {
        token,
        key: Arc::new(NodeKey::generate().expect("a key")),
        name: Some(kernel::Name::new("harbour").expect("a name")),
        addresses: vec!["192.0.2.7:7400".parse().expect("an address")],
        words: b"hello".to_vec(),
        within: Duration::from_secs(5),
    }
}

#[tokio::test]
async fn a_pasted_line_makes_a_machine_a_node_that_calls_and_is_called() {
    let mut place = Place::new();
    let line = place.token(1).to_string();
    let joining = joining(line.parse().expect("reads"));
    let joined = join(&joining).await.expect("joins");
    assert_eq!(joined.identity.node, NodeId(9));
    assert_eq!(joined.identity.zone, "/eu/1".parse().expect("a zone"));
    assert_eq!(joined.by.node, NodeId(1));
    assert_eq!(joined.words, b"begin");
    {
        let admitted = place.door.admitted.lock().expect("unpoisoned");
        assert_eq!(admitted[0].name, joining.name);
        assert_eq!(admitted[0].addresses, joining.addresses);
        assert_eq!(admitted[0].words, b"hello");
    }
    common::echo(&mut place.member.incoming.calls);
    let options = Options::new(any_port(), joined.credentials, place.cluster.table.hook());
    let new = node(options);
    new.knows(&place.member);
    new.transport
        .call(NodeId(1), 1, "x", SOON)
        .await
        .expect("answers");
}

#[tokio::test]
async fn a_token_serves_once_and_a_wrong_secret_never() {
    let place = Place::new();
    let token = place.token(1);
    let wrong = JoinToken {
        secret: [8; 16],
        ..token.clone()
    };
    let refused = join(&joining(wrong)).await.expect_err("a wrong secret");
    assert!(matches!(
        refused,
        JoinError::Refused {
            why: Why::Token,
            ..
        }
    ));
    let unknown = JoinToken {
        id: TokenId(2),
        ..token.clone()
    };
    let refused = join(&joining(unknown)).await.expect_err("no such token");
    assert!(matches!(
        refused,
        JoinError::Refused {
            why: Why::Token,
            ..
        }
    ));
    assert_eq!((place.admitted(), place.refused(Counted::Join)), (0, 2));

    place.door.is_unable.store(true, Ordering::Relaxed);
    let refused = join(&joining(token.clone())).await.expect_err("unable");
    assert!(refused.may_pass(), "{refused}");
    place.door.is_unable.store(false, Ordering::Relaxed);
    assert_eq!(
        (place.admitted(), place.refused(Counted::JoinRefused)),
        (0, 1)
    );

    join(&joining(token.clone())).await.expect("joins");
    let again = join(&joining(token)).await.expect_err("used");
    assert!(matches!(&again, JoinError::Refused { why: Why::Used, words } if words == "by node 9"));
    assert!(again.hint().is_some());
    assert_eq!(place.refused(Counted::JoinRefused), 2);
}

#[tokio::test]
async fn another_clusters_member_is_not_believed_and_gets_nothing() {
    let (place, other) = (Place::new(), Place::new());
    let mut token = place.token(1);
    // Somebody else's address, or an address that somebody else took over.
    token.addresses = vec![other.member.address()];
    other.token(1);
    let refused = join(&joining(token.clone())).await.expect_err("a stranger");
    assert!(matches!(
        refused,
        JoinError::Stranger {
            why: Refusal::Chain,
            ..
        }
    ));
    assert_eq!(other.admitted(), 0);
    // With a true member among the addresses the line still does.
    token.addresses.push(place.member.address());
    join(&joining(token)).await.expect("joins");
}

#[tokio::test]
async fn a_token_for_another_zone_is_noticed_by_who_joins() {
    let place = Place::new();
    let mut token = place.token(1);
    token.zone = "/us/1".parse().expect("a zone");
    let refused = join(&joining(token)).await.expect_err("another zone");
    assert!(matches!(refused, JoinError::Protocol { .. }));
}

#[tokio::test]
async fn a_member_without_a_doorkeeper_sends_strangers_away() {
    let place = Place::new();
    let plain = place.cluster.node(2);
    let mut token = place.token(1);
    token.addresses = vec![plain.address()];
    let refused = join(&joining(token)).await.expect_err("nobody to ask");
    assert!(matches!(refused, JoinError::Silent(_)));
    until("counted", || plain.stats().refused(Counted::Handshake) == 1).await;
}

#[tokio::test]
async fn nobody_there_and_no_address_are_said() {
    let place = Place::new();
    let mut token = place.token(1);
    let silent = std::net::UdpSocket::bind(any_port()).expect("binds");
    token.addresses = vec![silent.local_addr().expect("bound")];
    let mut quick = joining(token.clone());
    quick.within = Duration::from_millis(200);
    let failed = join(&quick).await.expect_err("nobody");
    assert!(matches!(&failed, JoinError::Silent(tried) if tried.len() == 1));
    token.addresses.clear();
    let failed = join(&joining(token)).await.expect_err("nowhere");
    assert!(matches!(failed, JoinError::NoAddress));
}

#[tokio::test]
async fn the_lost_root_key_can_renew_the_authority_that_admits() {
    let (authority, kept) = Authority::create(common::now()).expect("an authority");
    let renewed = Authority::renew(authority.root(), kept.pem(), common::now()).expect("renews");
    let cluster = Cluster {
        authority: renewed,
        table: common::Table::default(),
    };
    let (a, mut b) = cluster.pair();
    common::echo(&mut b.incoming.calls);
    a.transport
        .call(NodeId(2), 1, "x", SOON)
        .await
        .expect("answers");
}
