//! What reads bytes that others wrote: each may refuse them, and must not panic.
//!
//! In: any bytes. Holds: what was read and is written again is read as the same.
//! The tests of the workspace play the corpus through these too.

use kernel::{Hash, Name, NodeId, Time, UnixMillis, ZonePath};
use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 16] = [
    ("identity", identity),
    ("token", token),
    ("head", head),
    ("datagram", datagram),
    ("certificate", certificate),
    ("gossip", gossip),
    ("membership", membership),
    ("exchange", exchange),
    ("lab", lab),
    ("row", row),
    ("manifest", manifest_text),
    ("frames", frames),
    ("peer", peer),
    ("guests", guests),
    ("script", script),
    ("job", job),
];

/// Text, as far as the bytes are any.
fn with_text(bytes: &[u8], read: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        read(text);
    }
}

fn text_again<T>(text: &str)
where
    T: FromStr + Display + PartialEq + Debug,
    T::Err: Debug + Display,
{
    match text.parse::<T>() {
        Ok(read) => assert_eq!(read.to_string().parse::<T>().expect("reads again"), read),
        Err(why) => drop(why.to_string()),
    }
}

fn identity(bytes: &[u8]) {
    use wire::net::Identity;
    with_text(bytes, |text| {
        let key = Hash([7; 32]);
        if let Ok(read) = Identity::parse_uri(text, key) {
            assert_eq!(Identity::parse_uri(&read.to_uri(), key), Ok(read));
        }
    });
}

fn token(bytes: &[u8]) {
    use wire::net::{JoinToken, TokenError};
    with_text(bytes, |text| match text.parse::<JoinToken>() {
        Ok(read) => {
            let again: Result<JoinToken, TokenError> = read.to_string().parse();
            assert_eq!(again.expect("reads again"), read);
        }
        Err(why) => drop((why.to_string(), why.hint())),
    });
}

fn head(bytes: &[u8]) {
    use wire::net::frame::{HEADER_BYTES, Head, Header, VERSION, VERSION_MIN};
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    for version in VERSION_MIN..=VERSION {
        let Ok(header) = Header::read(*header, version) else {
            continue;
        };
        let Some(content) = rest.get(..header.bytes) else {
            continue;
        };
        let Ok(read) = Head::decode(header, content) else {
            continue;
        };
        let again = read.encode(version).expect("writes");
        let (header, content) = again.split_first_chunk::<HEADER_BYTES>().expect("a header");
        let header = Header::read(*header, version).expect("reads again");
        assert_eq!(Head::decode(header, content).expect("reads again"), read);
    }
}

fn datagram(bytes: &[u8]) {
    use wire::net::frame::{Datagram, VERSION, VERSION_MIN};
    for version in VERSION_MIN..=VERSION {
        if let Ok(read) = Datagram::decode(bytes, version) {
            let again = read.encode(version).expect("writes");
            assert_eq!(
                Datagram::decode(&again, version).expect("reads again"),
                read
            );
        }
    }
}

fn certificate(bytes: &[u8]) {
    let _ = net::identity::CertificateView::read(bytes);
}

fn gossip(bytes: &[u8]) {
    use wire::gossip::{Writer, decode, encode_news};
    let Ok(packet) = decode(bytes) else {
        return;
    };
    let mut writer = Writer::new(packet.life, &packet.body);
    for news in &packet.news {
        assert!(
            writer.push(&encode_news(news)),
            "what came in one packet fits in one"
        );
    }
    assert_eq!(decode(&writer.into_bytes()).expect("reads again"), packet);
}

/// A core that hears whatever others send: it answers in bounds and goes on.
fn membership(bytes: &[u8]) {
    use aggregation::membership::{Belongs, Effect, Event, Membership, Parameters, Start};
    let start = Start {
        node: NodeId(1),
        nonce: 1,
        remembered: None,
        wall: UnixMillis(1),
        attributes: Vec::new(),
    };
    let mut now = Time(1_000_000_000);
    let mut core = Membership::new(start, Parameters::default(), 1, now);
    let belongs = Belongs {
        zone: ZonePath::root(),
        revoked: false,
        outbound_only: false,
    };
    let table = (1..=4)
        .map(|node| (NodeId(node), belongs.clone()))
        .collect();
    let _ = core.handle(Event::Table(Arc::new(table)), now);
    let mut rest = bytes;
    // Who, how much later in quarters of a second, how long, and the packet.
    while let [from, wait, high, low, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(more.len());
        let (payload, after) = more.split_at(length);
        rest = after;
        now = now + Duration::from_millis(250) * u32::from(*wait);
        let heard = Event::Received {
            from: NodeId(u64::from(*from % 6)),
            payload: payload.to_vec(),
        };
        for event in [heard, Event::Tick] {
            let effects = core.handle(event, now);
            for effect in &effects {
                if let Effect::Send { payload, .. } = effect {
                    assert!(payload.len() <= wire::gossip::PACKET_BYTES_MAX);
                    wire::gossip::decode(payload).expect("what it sends can be read");
                }
            }
            assert!(
                effects.len() < 1_000,
                "{} effects of one packet",
                effects.len()
            );
        }
        assert!(core.views().count() <= 3, "strangers are not taken in");
    }
}

fn exchange(bytes: &[u8]) {
    use wire::exchange::{Description, HEADER_BYTES, Header, Kind, Refusal, Request};
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    let Ok(header) = Header::decode(*header) else {
        return;
    };
    assert_eq!(
        Header::decode(header.encode()).expect("reads again"),
        header
    );
    let after = |frame: Vec<u8>| frame.get(HEADER_BYTES..).unwrap_or_default().to_vec();
    match header.kind {
        Kind::Request => {
            if let Ok(read) = Request::decode(body) {
                let again = after(read.frame().expect("writes"));
                assert_eq!(Request::decode(&again).expect("reads again"), read);
            }
        }
        Kind::Description => {
            if let Ok(read) = Description::decode(body) {
                let again = read.record().expect("writes");
                assert_eq!(Description::decode(&again).expect("reads again"), read);
            }
        }
        Kind::Refusal => {
            if let Ok(read) = Refusal::decode(body) {
                let again = after(read.frame().expect("writes"));
                assert_eq!(Refusal::decode(&again).expect("reads again"), read);
            }
        }
        Kind::Piece => {}
    }
}

fn json_again<T>(bytes: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + Debug,
{
    if let Ok(read) = serde_json::from_slice::<T>(bytes) {
        let again = serde_json::to_vec(&read).expect("writes");
        assert_eq!(
            serde_json::from_slice::<T>(&again).expect("reads again"),
            read
        );
    }
}

fn lab(bytes: &[u8]) {
    use wire::lab::{FromKeeper, Impairments, LabPlan, Place, ToKeeper};
    json_again::<ToKeeper>(bytes);
    json_again::<FromKeeper>(bytes);
    with_text(bytes, |text| {
        text_again::<Place>(text);
        if let Ok(read) = Impairments::read(text) {
            assert_eq!(Impairments::read(&read.text()).expect("reads again"), read);
        }
        let _ = LabPlan::read(text);
    });
}

fn row(bytes: &[u8]) {
    use wire::attributes::{AttributeName, Row};
    if let Ok(read) = Row::decode(bytes) {
        assert_eq!(read.encode().expect("writes"), bytes);
    }
    with_text(bytes, text_again::<AttributeName>);
}

fn manifest_text(bytes: &[u8]) {
    with_text(bytes, |text| {
        let Ok(fallback) = Name::new("fuzz") else {
            return;
        };
        match manifest::parse(text, &fallback) {
            Ok(read) => {
                let text = serde_json::to_string(&read).expect("writes");
                let again: manifest::Manifest = serde_json::from_str(&text).expect("reads again");
                assert_eq!(again, read);
            }
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                for mistake in mistakes {
                    let _ = mistake.position(text);
                }
            }
        }
    });
}

/// Between a node's processes. With the checksum made right, for libFuzzer
/// would not find one.
fn frames(bytes: &[u8]) {
    use wire::bucket::{Capability, FromBuckets, ToBuckets};
    use wire::edge::{FromEdge, ToEdge};
    use wire::frame::Decoder;
    use wire::shim::{FromShim, ToShim};
    use wire::supervise::{FromSupervisor, ToSupervisor};
    let mut decoder = Decoder::default();
    for piece in bytes.chunks(7) {
        decoder.push(piece);
        while let Ok(Some(_)) = decoder.next::<serde_json::Value>() {}
    }
    let _ = serde_json::from_slice::<ToEdge>(bytes);
    let _ = serde_json::from_slice::<FromEdge>(bytes);
    let _ = serde_json::from_slice::<ToShim>(bytes);
    let _ = serde_json::from_slice::<FromShim>(bytes);
    let _ = serde_json::from_slice::<ToBuckets>(bytes);
    let _ = serde_json::from_slice::<FromBuckets>(bytes);
    let _ = serde_json::from_slice::<ToSupervisor>(bytes);
    let _ = serde_json::from_slice::<FromSupervisor>(bytes);
    let _ = serde_json::from_slice::<wire::api::ApplyRequest>(bytes);
    with_text(bytes, |text| {
        if let Ok(read) = Capability::read(text) {
            assert_eq!(Capability::read(&read.text()), Ok(read));
        }
    });
}

fn peer(bytes: &[u8]) {
    use wire::peer::{Answered, Forwarded, GREETING_BYTES, Greeting};
    if let Ok(greeting) = <[u8; GREETING_BYTES]>::try_from(bytes)
        && let Ok(read) = Greeting::decode(greeting)
    {
        assert_eq!(read.encode(), greeting);
    }
    with_text(bytes, |text| {
        text_again::<Forwarded>(text);
        text_again::<Answered>(text);
    });
}

/// What a guest answers, and what an actor that was put away left on disk.
fn guests(bytes: &[u8]) {
    let _ = wire::actor::Reply::decode(bytes);
    let _ = wire::actor::channel(bytes);
    // A true checksum, for libFuzzer would not find one.
    let mut sealed = bytes.to_vec();
    sealed.extend([0; 32]);
    let _ = wire::checkpoint::decode(&sealed, |_| [0; 32]);
}

fn script(bytes: &[u8]) {
    with_text(bytes, |text| {
        if let Ok(read) = node::script::Script::parse("fuzz", text) {
            let _ = read.manifest("./program");
        }
    });
}

/// What was written of a job by whoever led before, and what befalls it then: three
/// bytes an event.
fn job(bytes: &[u8]) {
    use jobs::{End, Event, Machine, Now, Record};
    let split = bytes.iter().position(|byte| *byte == 0);
    let (record, events) = bytes.split_at(split.unwrap_or(bytes.len()));
    let Ok(record) = serde_json::from_slice::<Record>(record) else {
        return;
    };
    let text = "[project]\nname = \"p\"\n[job.j]\nrun = { process = [\"true\"] }\n\
                indices = 3\nparallel = 2\ndeadline = \"1h\"\nschedule = \"* * * * *\"\n";
    let name = Name::new("p").expect("a name");
    let manifest = manifest::parse(text, &name).expect("a manifest");
    let job = manifest.jobs.values().next();
    let mut clock = 1_700_000_000_000_u64;
    let mut machine = Machine::new(job, kernel::Revision(1), record);
    for event in events.get(1..).unwrap_or_default().chunks_exact(3) {
        let (kind, which, wait) = (event[0], u64::from(event[1]), u64::from(event[2]));
        clock += wait * 10_000;
        let now = Now {
            wall: UnixMillis(clock),
            steady: UnixMillis(clock),
        };
        let (run, index) = (which >> 2, u32::try_from(which & 3).unwrap_or(0));
        let event = match kind % 7 {
            0 => Event::Tick,
            1 => Event::Asked {
                arguments: Vec::new(),
            },
            2 => Event::Cancelled { run: None },
            3 => Event::Placed {
                run,
                index,
                node: NodeId(1),
                epoch: kernel::FencingEpoch(1),
            },
            4 => Event::Running { attempt: which },
            5 => Event::Ended {
                attempt: which,
                end: End::Succeeded,
            },
            _ => Event::Lost {
                attempt: which,
                why: "lost".to_owned(),
                may_have_run: true,
            },
        };
        let _ = machine.handle(event, now);
        let _ = machine.wake(now);
    }
}
