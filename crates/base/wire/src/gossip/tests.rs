//! Packets of gossip: their golden bytes, and hostile ones.

use super::*;
use proptest::prelude::*;
use std::fmt::Write as _;

fn life() -> impl Strategy<Value = Life> {
    (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(epoch, nonce, incarnation)| Life {
        epoch,
        nonce,
        incarnation,
    })
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<u64>().prop_map(NodeId)
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        Just(Said::Alive),
        Just(Said::Suspect),
        Just(Said::Dead),
        Just(Said::Left)
    ]
}

fn version() -> impl Strategy<Value = AttributesVersion> {
    (any::<u64>(), any::<u32>()).prop_map(|(epoch, number)| AttributesVersion { epoch, number })
}

fn entry() -> impl Strategy<Value = Entry> {
    (node(), life(), said(), version()).prop_map(|(node, life, said, attributes)| Entry {
        node,
        life,
        said,
        attributes,
    })
}

fn body() -> impl Strategy<Value = Body> {
    let range = (node(), node(), any::<u64>());
    let range = range.prop_map(|(low, high, hash)| Range { low, high, hash });
    prop_oneof![
        Just(Body::Gossip),
        any::<u32>().prop_map(|seq| Body::Ping { seq }),
        any::<u32>().prop_map(|seq| Body::Ack { seq }),
        (any::<u32>(), node()).prop_map(|(seq, target)| Body::PingFor { seq, target }),
        (any::<u32>(), node()).prop_map(|(seq, target)| Body::AckFor { seq, target }),
        (any::<u32>(), node()).prop_map(|(seq, target)| Body::NackFor { seq, target }),
        prop::collection::vec(range, 0..=RANGES_MAX).prop_map(Body::Ranges),
        (
            node(),
            node(),
            prop::collection::vec(entry(), 0..=ENTRIES_MAX)
        )
            .prop_map(|(low, high, entries)| Body::Entries { low, high, entries }),
        prop::collection::vec(node(), 0..=WANTED_MAX).prop_map(Body::Want),
    ]
}

fn news() -> impl Strategy<Value = News> {
    let blob = prop::collection::vec(any::<u8>(), 0..=ATTRIBUTES_BYTES_MAX);
    prop_oneof![
        (node(), life(), said(), node()).prop_map(|(node, life, said, by)| News::Reach {
            node,
            life,
            said,
            by
        }),
        (
            node(),
            version(),
            version(),
            proptest::collection::vec(any::<u8>(), 0..40)
        )
            .prop_map(|(node, base, version, patch)| News::Patch {
                node,
                base,
                version,
                patch,
            }),
        (node(), version(), blob).prop_map(|(node, version, bytes)| News::Attributes {
            node,
            version,
            bytes
        }),
    ]
}

fn written(packet: &Packet) -> Vec<u8> {
    let mut writer = Writer::new(packet.life, &packet.body);
    for one in &packet.news {
        writer.push(&encode_news(one));
    }
    writer.into_bytes()
}

const ABOUT: NodeId = NodeId(0x0102_0304_0506_0708);
const LIFE: Life = Life {
    epoch: 300,
    nonce: 5,
    incarnation: 1,
};
const SECOND: AttributesVersion = AttributesVersion {
    epoch: 300,
    number: 2,
};

/// One of each kind.
fn bodies() -> Vec<Body> {
    let (seq, target) = (7, ABOUT);
    vec![
        Body::Gossip,
        Body::Ping { seq },
        Body::Ack { seq },
        Body::PingFor { seq, target },
        Body::AckFor { seq, target },
        Body::NackFor { seq, target },
        Body::Ranges(vec![Range {
            low: NodeId(0),
            high: NodeId(u64::MAX),
            hash: 9,
        }]),
        Body::Entries {
            low: NodeId(1),
            high: NodeId(2),
            entries: vec![Entry {
                node: ABOUT,
                life: LIFE,
                said: Said::Dead,
                attributes: SECOND,
            }],
        },
        Body::Want(vec![ABOUT]),
    ]
}

#[test]
fn golden_packets_of_version_1() {
    let news = vec![
        News::Reach {
            node: ABOUT,
            life: LIFE,
            said: Said::Suspect,
            by: NodeId(3),
        },
        News::Attributes {
            node: ABOUT,
            version: SECOND,
            bytes: b"blob".to_vec(),
        },
    ];
    let mut told = String::new();
    for body in bodies() {
        let packet = Packet {
            life: LIFE,
            body,
            news: news.clone(),
        };
        let bytes = written(&packet);
        assert_eq!(decode(&bytes), Ok(packet));
        for byte in bytes {
            write!(told, "{byte:02x}").expect("writes");
        }
        told.push('\n');
    }
    insta::assert_snapshot!("gossip_version_1", told);
}

#[test]
fn another_version_is_named() {
    let refused = decode(&[9, 0, 0, 0, 0]).expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "gossip version 9, this program speaks 1"
    );
}

proptest! {
    #[test]
    fn packets_read_back(
        life in life(),
        body in body(),
        news in prop::collection::vec(news(), 0..4),
    ) {
        let mut writer = Writer::new(life, &body);
        let held: Vec<News> = news
            .into_iter()
            .filter(|one| writer.push(&encode_news(one)))
            .collect();
        let bytes = writer.into_bytes();
        prop_assert!(bytes.len() <= PACKET_BYTES_MAX);
        prop_assert_eq!(decode(&bytes), Ok(Packet { life, body, news: held }));
    }

    #[test]
    fn hostile_bytes_never_panic_and_have_one_spelling(mut bytes: Vec<u8>, honest: bool) {
        if let Some(first) = bytes.first_mut().filter(|_| honest) {
            *first = VERSION;
        }
        if let Ok(packet) = decode(&bytes) {
            prop_assert_eq!(written(&packet), bytes);
        }
    }

    #[test]
    fn a_packet_that_was_bent_is_refused_or_read_as_what_it_says(
        life in life(),
        body in body(),
        at: prop::sample::Index,
        bend in 1_u8..,
        keep: prop::sample::Index,
    ) {
        let mut bytes = written(&Packet { life, body, news: Vec::new() });
        let at = at.index(bytes.len());
        bytes[at] ^= bend;
        bytes.truncate(keep.index(bytes.len()) + 1);
        if let Ok(packet) = decode(&bytes) {
            prop_assert_eq!(written(&packet), bytes);
        }
    }
}
