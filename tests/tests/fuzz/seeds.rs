//! One good message of each kind, from which a fuzzer starts.

use kernel::{Bytes, Hash, Name, NodeId, UnixMillis, ZonePath};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// The target, the seed's name, its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

fn zone() -> ZonePath {
    "/eu/vienna/rack1".parse().expect("a zone")
}

fn address() -> SocketAddr {
    SocketAddr::from(([198, 18, 1, 1], 7_600))
}

pub fn all() -> Vec<Seed> {
    let mut all = Vec::new();
    let mut put = |target: &'static str, seeds: Vec<(&str, Vec<u8>)>| {
        let seeds = seeds.into_iter();
        all.extend(seeds.map(|(name, bytes)| (target, name.to_owned(), bytes)));
    };
    put("identity", identities());
    put("token", tokens());
    put("head", heads());
    put("datagram", datagrams());
    put("gossip", gossip());
    put("membership", membership());
    put("exchange", exchange());
    put("lab", lab());
    put("row", rows());
    put("frames", frames());
    put("peer", peer());
    put("guests", guests());
    put("manifest", manifests());
    put("job", jobs());
    for (name, text) in node::script::SCRIPTS {
        all.push(("script", name.to_owned(), text.as_bytes().to_vec()));
    }
    all
}

fn identities() -> Vec<(&'static str, Vec<u8>)> {
    use wire::net::{ClusterId, Identity, Kind};
    let of = |kind, zone| Identity {
        cluster: ClusterId([3; 16]),
        kind,
        node: NodeId(7),
        zone,
        key: Hash([7; 32]),
    };
    vec![
        ("agent", of(Kind::Agent, zone()).to_uri().into_bytes()),
        (
            "edge",
            of(Kind::Edge, ZonePath::root()).to_uri().into_bytes(),
        ),
    ]
}

fn tokens() -> Vec<(&'static str, Vec<u8>)> {
    use wire::net::{JoinToken, TokenId};
    let token = JoinToken {
        id: TokenId(1),
        secret: [2; 16],
        root: Hash([3; 32]),
        zone: zone(),
        addresses: vec![address(), "[2001:db8::1]:7600".parse().expect("an address")],
    };
    vec![("usual", token.to_string().into_bytes())]
}

fn hellos() -> Vec<(&'static str, Vec<u8>)> {
    use wire::net::frame::{Head, Hello, VERSION, VERSION_MIN};
    let hello = Head::Hello(Hello {
        instance: 1,
        sequence: 2,
        generation: 0,
        relays: false,
    });
    let written = [("hello-old", VERSION_MIN), ("hello", VERSION)];
    let seeds = written.map(|(name, version)| (name, hello.encode(version).expect("writes")));
    seeds.into()
}

fn heads() -> Vec<(&'static str, Vec<u8>)> {
    use wire::net::frame::{Call, Head, Open, Reply, Status, VERSION};
    use wire::net::join::{Admitted, JoinAnswer, JoinRequest, Refusal, Signature, Wish};
    let wish = Wish {
        token: wire::net::TokenId(1),
        public_key: [2; 32],
        name: Name::new("n2").ok(),
        addresses: vec![address()],
        words: b"{}".to_vec(),
    };
    let heads = [
        (
            "call",
            Head::Call(Call {
                method: 5,
                deadline_ms: 1_000,
                body_bytes: 3,
                generation: 1,
            }),
        ),
        (
            "open",
            Head::Open(Open {
                method: 1,
                priority: 2,
                head: vec![1, 2],
                generation: 1,
            }),
        ),
        (
            "reply",
            Head::Reply(Reply {
                status: Status::Done,
                body_bytes: 9,
            }),
        ),
        (
            "join",
            Head::Join(JoinRequest {
                wish,
                by_token: Signature([4; 64]),
                by_node: Signature([5; 64]),
            }),
        ),
        (
            "admitted",
            Head::Joined(JoinAnswer::Admitted(Admitted {
                chain: vec![vec![48, 1], vec![48, 2]],
                root: vec![48, 3],
                words: b"{}".to_vec(),
            })),
        ),
        (
            "refused",
            Head::Joined(JoinAnswer::Refused {
                why: Refusal::Used,
                words: "used".to_owned(),
            }),
        ),
    ];
    let mut seeds = hellos();
    seeds.extend(heads.map(|(name, head)| (name, head.encode(VERSION).expect("writes"))));
    seeds
}

fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    use wire::net::frame::{Content, Datagram, Direction, Place, RelayPiece, VERSION, VERSION_MIN};
    let write = |content, version| {
        let datagram = Datagram {
            content,
            generation: 0,
        };
        datagram.encode(version).expect("writes")
    };
    let piece = RelayPiece {
        direction: Direction::To,
        node: NodeId(9),
        packet: 1,
        place: Place::First,
        bytes: &[1, 2, 3],
    };
    vec![
        ("gossip-old", write(Content::Gossip(b"hello"), VERSION_MIN)),
        ("gossip", write(Content::Gossip(b"hello"), VERSION)),
        ("relay", write(Content::Relay(piece), VERSION)),
    ]
}

fn packets() -> Vec<(&'static str, Vec<u8>)> {
    use wire::gossip::{
        AttributesVersion, Body, Entry, Life, News, Range, Said, Writer, encode_news,
    };
    let life = Life {
        epoch: 5,
        nonce: 6,
        incarnation: 1,
    };
    let version = AttributesVersion {
        epoch: 5,
        number: 2,
    };
    let (node, target) = (NodeId(2), NodeId(3));
    let entry = Entry {
        node,
        life,
        said: Said::Alive,
        attributes: version,
    };
    let bodies = [
        ("gossip", Body::Gossip),
        ("ping", Body::Ping { seq: 1 }),
        ("ack", Body::Ack { seq: 1 }),
        ("ping-for", Body::PingFor { seq: 2, target }),
        ("nack-for", Body::NackFor { seq: 2, target }),
        (
            "ranges",
            Body::Ranges(vec![Range {
                low: NodeId(0),
                high: NodeId(u64::MAX),
                hash: 7,
            }]),
        ),
        (
            "entries",
            Body::Entries {
                low: NodeId(1),
                high: NodeId(4),
                entries: vec![entry],
            },
        ),
        ("want", Body::Want(vec![node, target])),
    ];
    let news = [
        News::Reach {
            node: target,
            life,
            said: Said::Suspect,
            by: node,
        },
        News::Attributes {
            node: target,
            version,
            bytes: vec![1, 2, 3],
        },
    ];
    let whole = |body: &Body| {
        let mut writer = Writer::new(life, body);
        for one in &news {
            assert!(writer.push(&encode_news(one)));
        }
        writer.into_bytes()
    };
    bodies
        .iter()
        .map(|(name, body)| (*name, whole(body)))
        .collect()
}

fn gossip() -> Vec<(&'static str, Vec<u8>)> {
    packets()
}

/// All packets, one after the other, from two nodes.
fn membership() -> Vec<(&'static str, Vec<u8>)> {
    let mut story = Vec::new();
    for (at, (_, packet)) in (0_u8..).zip(packets()) {
        story.extend([2 + at % 2, at * 3]);
        let length = u16::try_from(packet.len()).expect("short");
        story.extend(length.to_be_bytes());
        story.extend(packet);
    }
    vec![("story", story)]
}

fn exchange() -> Vec<(&'static str, Vec<u8>)> {
    use wire::exchange::{Description, PIECE_BYTES_MIN, Refusal, Request, Want};
    let wants = vec![
        Want::Describe { hash: [1; 32] },
        Want::Pieces {
            hash: [2; 32],
            first: 0,
            count: 4,
        },
    ];
    let description = Description {
        length: PIECE_BYTES_MIN * 2,
        chain: vec![[3; 32], [4; 32]],
    };
    vec![
        ("request", Request { wants }.frame().expect("writes")),
        ("description", description.frame().expect("writes")),
        (
            "refusal",
            Refusal::Version { spoken: 1 }.frame().expect("writes"),
        ),
    ]
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("writes")
}

fn lab() -> Vec<(&'static str, Vec<u8>)> {
    use wire::lab::{Between, Fault, FromKeeper, LabStatus, ToKeeper};
    let between = Between {
        from: "/eu/1".parse().expect("a place"),
        to: "n2".parse().ok(),
        one_way: true,
    };
    let node = Name::new("n2").expect("a name");
    let begin = |fault| {
        json(&ToKeeper::Begin {
            fault,
            for_ms: Some(30_000),
        })
    };
    let impairments = r#"{"version":1,"links":[{"from":"127.18.1.1","to":"127.18.1.2","one_way_ms":45.0,"loss":0.01}]}"#;
    vec![
        ("cut", begin(Fault::Cut(between.clone()))),
        (
            "slow",
            begin(Fault::Slow {
                between,
                by_ms: 40.0,
            }),
        ),
        (
            "fill",
            begin(Fault::Fill {
                node,
                leave: Bytes(1),
            }),
        ),
        ("down", json(&ToKeeper::Down)),
        ("status", json(&FromKeeper::Status(LabStatus::default()))),
        ("impairments", impairments.as_bytes().to_vec()),
    ]
}

fn rows() -> Vec<(&'static str, Vec<u8>)> {
    use wire::attributes::{Row, Value};
    let values = [
        ("up", Value::Bool(true)),
        ("free", Value::Int(-5)),
        ("load", Value::Float(0.5)),
        ("name", Value::Text("n1".to_owned())),
        ("sketch", Value::Bytes(vec![1, 2, 3])),
        ("since", Value::Time(UnixMillis(1_767_225_600_000))),
        ("late", Value::Duration(-1_000)),
        ("tags", Value::Set(["a".to_owned(), "b".to_owned()].into())),
    ];
    let named = values.map(|(name, value)| (name.parse().expect("a name"), value));
    let row = Row(BTreeMap::from(named));
    vec![
        ("all-kinds", row.encode().expect("writes")),
        ("empty", Row::default().encode().expect("writes")),
    ]
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    use wire::shim::ToShim;
    let stop = ToShim::Stop { grace_ms: 5_000 };
    vec![
        ("frame", wire::frame::encode(&stop).expect("writes")),
        ("stop", json(&stop)),
        (
            "apply",
            br#"{"manifest":"[project]\nname = \"p\"\n","directory":"/p"}"#.to_vec(),
        ),
    ]
}

fn peer() -> Vec<(&'static str, Vec<u8>)> {
    use wire::peer::{Answered, Forwarded, Greeting};
    let replica: kernel::ReplicaId = "news.search-g12-0".parse().expect("an id");
    let forwarded = Forwarded {
        via: vec![NodeId(1), NodeId(2)],
        left: Duration::from_millis(900),
        replica: replica.clone(),
        client: address().ip(),
        tls: true,
        request: 77,
    };
    let by = Answered::By {
        node: NodeId(2),
        replica: Some(replica),
    };
    vec![
        ("welcome", Greeting::Welcome.encode().to_vec()),
        ("forwarded", forwarded.to_string().into_bytes()),
        ("answered", by.to_string().into_bytes()),
        ("refused", Answered::Refused.to_string().into_bytes()),
    ]
}

fn guests() -> Vec<(&'static str, Vec<u8>)> {
    use wire::actor::{Reply, VERSION};
    // An answer of status 200 without headers, whose body is `ok`.
    let mut answer = vec![VERSION, 0];
    answer.extend(200_u16.to_le_bytes());
    answer.extend([0; 4]);
    answer.extend(2_u32.to_le_bytes());
    answer.extend(b"ok");
    assert!(
        Reply::decode(&answer).is_ok(),
        "{:?}",
        Reply::decode(&answer)
    );
    vec![("answer", answer)]
}

fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    let news = include_str!("../../../examples/news/homeostat.toml");
    let script = node::script::built_in("join")
        .expect("known")
        .expect("a script");
    vec![
        ("news", news.as_bytes().to_vec()),
        ("script", script.manifest("./program").into_bytes()),
    ]
}

/// A record in which a part goes on, and what befalls it.
fn jobs() -> Vec<(&'static str, Vec<u8>)> {
    use jobs::{Attempt, Cause, Part, Record, Run};
    let attempt = Attempt {
        serial: 1,
        number: 1,
        node: NodeId(1),
        epoch: kernel::FencingEpoch(7),
        placed: UnixMillis(1_700_000_000_000),
        started: None,
        stopping: None,
    };
    let waiting = Part::Waiting {
        attempts: 1,
        due: UnixMillis(1_700_000_010_000),
    };
    let record = Record {
        runs_begun: 1,
        attempts_begun: 1,
        runs: vec![Run {
            number: 1,
            cause: Cause::Asked,
            arguments: vec!["--all".to_owned()],
            began: UnixMillis(1_700_000_000_000),
            indices: 3,
            once: true,
            succeeded: 1,
            parts: BTreeMap::from([(0, Part::Going(attempt)), (2, waiting)]),
            verdict: None,
            ended: None,
            recent: Vec::new(),
            waits: None,
        }],
        ..Record::default()
    };
    let mut going = serde_json::to_vec(&record).expect("writes");
    going.extend([
        0, 4, 1, 0, 0, 0, 2, 3, 6, 0, 5, 1, 1, 6, 2, 9, 1, 0, 0, 2, 0, 0,
    ]);
    vec![("going", going), ("none", b"{}\0\x01\0\x01".to_vec())]
}
