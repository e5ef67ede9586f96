//! Rows and packets of the tree: their golden bytes, and hostile ones.

use super::*;
use kernel::{NodeId, UnixMillis, ZonePath};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::net::SocketAddr;

fn stamp() -> impl Strategy<Value = Stamp> {
    (0..=EPOCH_MAX, any::<u32>(), any::<u64>()).prop_map(|(epoch, number, issuer)| Stamp {
        epoch,
        number,
        issuer: NodeId(issuer),
    })
}

fn contact() -> impl Strategy<Value = Contact> {
    let address = prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
    ];
    (any::<u64>(), address).prop_map(|(node, address)| Contact {
        node: NodeId(node),
        address,
    })
}

fn row() -> impl Strategy<Value = Row> {
    let zone = "(/[a-z0-9]{1,9}){1,8}".prop_map(|text| text.parse::<ZonePath>().expect("a zone"));
    let contacts = prop::collection::vec(contact(), 0..=CONTACTS_MAX);
    let coverage = any::<(u64, u64, u64, u64)>();
    let proofs = (any::<Digest>(), any::<Digest>(), 0..=BEATS_MAX);
    let attributes = prop::collection::vec(any::<u8>(), 0..400);
    (
        zone,
        stamp(),
        any::<bool>(),
        contacts,
        coverage,
        proofs,
        attributes,
    )
        .prop_map(
            |(zone, stamp, ended, contacts, coverage, proofs, attributes)| Row {
                zone,
                stamp,
                ended,
                contacts,
                coverage: Coverage {
                    expected: coverage.0,
                    reporting: coverage.1,
                    oldest_ms: coverage.2,
                },
                issued_at: UnixMillis(coverage.3),
                inputs: proofs.0,
                anchor: proofs.1,
                beats: proofs.2,
                attributes,
            },
        )
}

fn signed(row: &Row) -> SignedRow {
    let bytes = row.encode().expect("within limits");
    SignedRow::new(row.clone(), bytes, &[7; 64])
}

fn key() -> impl Strategy<Value = ZoneKey> {
    any::<u64>().prop_map(ZoneKey)
}

fn notice() -> impl Strategy<Value = Notice> {
    let zone = || "(/[a-z0-9]{1,9}){1,8}".prop_map(|text| text.parse().expect("a zone"));
    let run = (".{0,90}", any::<(u64, u16, u8, u64)>(), zone());
    let run = run.prop_map(|(text, numbers, canary)| {
        Says::Run(Run {
            text,
            issued_at: UnixMillis(numbers.0),
            threshold: numbers.1,
            priority: numbers.2,
            canary,
            canary_ms: numbers.3,
        })
    });
    let quarantine = ".{0,60}".prop_map(|why| Says::Quarantine { why });
    let says = prop_oneof![run, Just(Says::Remove), quarantine];
    let numbers = (any::<u64>(), any::<u64>(), 0..=LIFETIME_MS_MAX);
    ("[a-z][a-z0-9_]{0,63}", zone(), numbers, says).prop_map(|(name, zone, numbers, says)| Notice {
        program: name.parse().expect("a name"),
        zone,
        version: numbers.0,
        issuer: NodeId(numbers.1),
        lifetime_ms: numbers.2,
        says,
    })
}

fn signed_notice(notice: &Notice) -> SignedNotice {
    let bytes = notice.encode().expect("within limits");
    SignedNotice::new(notice.clone(), bytes, &[7; 64])
}

fn notice_keys() -> impl Strategy<Value = Vec<NoticeKey>> {
    prop::collection::vec(any::<u64>().prop_map(NoticeKey), 0..=NOTICES_MAX)
}

fn part() -> impl Strategy<Value = Part<'static>> {
    let entry = (key(), stamp(), any::<u16>());
    let entry = entry.prop_map(|(zone, stamp, beat)| Entry { zone, stamp, beat });
    let entries = prop::collection::vec(entry, 0..=ENTRIES_MAX);
    let beat = (
        key(),
        any::<u64>(),
        any::<u32>(),
        any::<u16>(),
        any::<Digest>(),
        any::<u64>(),
    );
    prop_oneof![
        (any::<bool>(), any::<u64>()).prop_map(|(asked, age_ms)| Part::Row {
            asked,
            age_ms,
            bytes: b"opaque here",
        }),
        beat.prop_map(
            |(zone, epoch, number, beat, proof, age_ms)| Part::Beat(Beat {
                zone,
                epoch,
                number,
                beat,
                proof,
                age_ms
            })
        ),
        (key(), any::<u64>()).prop_map(|(zone, hash)| Part::Hash { zone, hash }),
        (key(), key(), key(), entries).prop_map(|(zone, low, high, entries)| Part::Stamps {
            zone,
            low,
            high,
            entries
        }),
        prop::collection::vec(key(), 0..=WANTED_MAX).prop_map(Part::Want),
        any::<u64>().prop_map(|age_ms| Part::Notice {
            age_ms,
            bytes: b"opaque here"
        }),
        (key(), any::<u64>()).prop_map(|(zone, hash)| Part::NoticesHash { zone, hash }),
        (key(), notice_keys()).prop_map(|(zone, keys)| Part::Notices { zone, keys }),
        (key(), notice_keys()).prop_map(|(zone, keys)| Part::WantNotices { zone, keys }),
    ]
}

fn written(packet: &Packet) -> Vec<u8> {
    let mut writer = Writer::new(packet.seq, &packet.acks);
    let whole = packet.parts.iter().all(|part| writer.push(part));
    assert!(whole, "one packet holds it");
    writer.into_bytes()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writes");
        text
    })
}

const STAMP: Stamp = Stamp {
    epoch: 300,
    number: 2,
    issuer: NodeId(0x0102_0304_0506_0708),
};

fn golden_row() -> Row {
    let contact = |node, address: &str| Contact {
        node: NodeId(node),
        address: address.parse().expect("an address"),
    };
    Row {
        zone: "/eu/vienna".parse().expect("a zone"),
        stamp: STAMP,
        ended: false,
        contacts: vec![
            contact(0x0102_0304_0506_0708, "10.1.2.3:7000"),
            contact(9, "[fd00::1]:7000"),
        ],
        coverage: Coverage {
            expected: 32,
            reporting: 31,
            oldest_ms: 1_500,
        },
        issued_at: UnixMillis(1_800_000_000_000),
        inputs: [0xaa; 16],
        anchor: [0xbb; 16],
        beats: 256,
        attributes: b"attributes".to_vec(),
    }
}

#[test]
fn golden_row_of_version_1() {
    let row = signed(&golden_row());
    assert_eq!(SignedRow::decode(row.bytes()), Ok(row.clone()));
    insta::assert_snapshot!("tree_row_version_1", hex(row.bytes()));
}

#[test]
fn golden_packets_of_version_1() {
    let (zone, low, high) = (ZoneKey(1), ZoneKey(2), ZoneKey(u64::MAX));
    let entry = Entry {
        zone: low,
        stamp: STAMP,
        beat: 3,
    };
    let entries = vec![entry];
    let beat = Beat {
        zone,
        epoch: 300,
        number: 2,
        beat: 130,
        proof: [0xcc; 16],
        age_ms: 1_000,
    };
    let row = |asked| Part::Row {
        asked,
        age_ms: 250,
        bytes: b"row",
    };
    let parts = vec![
        row(false),
        row(true),
        Part::Beat(beat),
        Part::Hash { zone, hash: 9 },
        Part::Stamps {
            zone,
            low,
            high,
            entries,
        },
        Part::Want(vec![zone, low]),
        Part::Notice {
            age_ms: 250,
            bytes: b"notice",
        },
        Part::NoticesHash { zone, hash: 9 },
        Part::Notices {
            zone,
            keys: vec![NoticeKey(3)],
        },
        Part::WantNotices {
            zone,
            keys: vec![NoticeKey(4)],
        },
    ];
    let mut told = String::new();
    for part in parts {
        let packet = Packet {
            seq: 200,
            acks: vec![5, 700],
            parts: vec![part],
        };
        let bytes = written(&packet);
        assert_eq!(decode(&bytes), Ok(packet));
        told.push_str(&hex(&bytes));
        told.push('\n');
    }
    insta::assert_snapshot!("tree_packets_version_1", told);
}

#[test]
fn golden_notices_of_version_1() {
    let run = Says::Run(Run {
        text: "SELECT COUNT(*) AS nodes FROM children".to_owned(),
        issued_at: UnixMillis(1_800_000_000_000),
        threshold: 50,
        priority: 7,
        canary: "/eu/vienna".parse().expect("a zone"),
        canary_ms: 30_000,
    });
    let why = "out of fuel".to_owned();
    let mut told = String::new();
    for says in [run, Says::Remove, Says::Quarantine { why }] {
        let notice = Notice {
            program: "nodes".parse().expect("a name"),
            zone: "/eu".parse().expect("a zone"),
            version: 3,
            issuer: NodeId(9),
            lifetime_ms: 86_400_000,
            says,
        };
        let signed = signed_notice(&notice);
        assert_eq!(SignedNotice::decode(signed.bytes()), Ok(signed.clone()));
        told.push_str(&hex(signed.bytes()));
        told.push('\n');
    }
    insta::assert_snapshot!("tree_notices_version_1", told);
}

#[test]
fn other_versions_and_limits_are_named() {
    let refused = decode(&[9, 0, 0]).expect_err("refused");
    assert_eq!(refused.to_string(), "tree version 9, this program speaks 1");
    let long = Row {
        attributes: vec![0; ATTRIBUTES_BYTES_MAX + 1],
        ..golden_row()
    };
    let refused = long.encode().expect_err("refused");
    assert_eq!(
        refused.to_string(),
        "a zone's attributes of 4097 bytes is over the limit of 4096"
    );
    let last = Row {
        stamp: Stamp {
            epoch: EPOCH_MAX + 1,
            ..STAMP
        },
        ..golden_row()
    };
    assert!(last.encode().is_err());
    let rootless = Row {
        zone: ZonePath::root(),
        ..golden_row()
    };
    assert_eq!(rootless.encode(), Err(TreeError::Zone));
}

#[test]
fn the_longest_list_of_stamps_fits_a_datagram() {
    let (zone, low, high) = (ZoneKey(u64::MAX), ZoneKey(0), ZoneKey(u64::MAX));
    let stamp = Stamp {
        epoch: EPOCH_MAX,
        number: u32::MAX,
        issuer: NodeId(u64::MAX),
    };
    let beat = BEATS_MAX;
    let entries = vec![Entry { zone, stamp, beat }; ENTRIES_MAX];
    let mut writer = Writer::new(0, &[]);
    writer.push(&Part::Stamps {
        zone,
        low,
        high,
        entries,
    });
    assert!(writer.into_bytes().len() <= PACKET_BYTES_MAX);
}

proptest! {
    #[test]
    fn stamps_read_back_and_any_text_is_read_or_refused(stamp in stamp(), text: String) {
        prop_assert_eq!(stamp.to_string().parse(), Ok(stamp));
        let _ = text.parse::<Stamp>();
    }

    #[test]
    fn what_was_seen_reads_back_and_any_text_is_read_or_refused(
        stamp in stamp(),
        parts in prop::collection::btree_map("[a-z0-9-]{1,9}", stamp(), 1..6),
        text: String,
    ) {
        for seen in [Seen::Row(stamp), Seen::Parts(parts)] {
            prop_assert_eq!(seen.to_string().parse(), Ok(seen));
        }
        let _ = text.parse::<Seen>();
    }

    #[test]
    fn rows_read_back(row in row()) {
        let signed = signed(&row);
        let again = SignedRow::decode(signed.bytes()).expect("reads");
        prop_assert_eq!(&again, &signed);
        prop_assert_eq!(again.signature(), [7; 64]);
        prop_assert_eq!(again.signed(), row.encode().expect("within limits"));
        let head = head(signed.bytes()).expect("reads");
        prop_assert_eq!((head.stamp, head.key), (row.stamp, ZoneKey::of(&row.zone)));
    }

    #[test]
    fn packets_read_back(
        seq: u32,
        acks in prop::collection::vec(any::<u32>(), 0..9),
        part in part(),
    ) {
        let packet = Packet { seq, acks, parts: vec![part] };
        let bytes = written(&packet);
        prop_assert_eq!(decode(&bytes), Ok(packet));
    }

    #[test]
    fn hostile_bytes_never_panic_and_have_one_spelling(mut bytes: Vec<u8>, honest: bool) {
        if let Some(first) = bytes.first_mut().filter(|_| honest) {
            *first = PACKET_VERSION;
        }
        if let Ok(packet) = decode(&bytes) {
            prop_assert_eq!(written(&packet), bytes.clone());
        }
        if let Ok(row) = SignedRow::decode(&bytes) {
            let again = row.row.encode().expect("within limits");
            prop_assert_eq!(again.as_slice(), row.signed());
        }
        if let Ok(notice) = SignedNotice::decode(&bytes) {
            let again = notice.notice.encode().expect("within limits");
            prop_assert_eq!(again.as_slice(), notice.signed());
        }
        let _ = head(&bytes);
    }

    #[test]
    fn notices_read_back(notice in notice()) {
        let signed = signed_notice(&notice);
        prop_assert_eq!(SignedNotice::decode(signed.bytes()), Ok(signed));
    }

    #[test]
    fn what_was_bent_is_refused_or_read_as_what_it_says(
        row in row(),
        part in part(),
        at: prop::sample::Index,
        bend in 1_u8..,
        keep: prop::sample::Index,
    ) {
        let bend = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= bend;
            bytes.truncate(keep.index(bytes.len()) + 1);
            bytes
        };
        let bent = bend(signed(&row).bytes());
        if let Ok(read) = SignedRow::decode(&bent) {
            let again = read.row.encode().expect("within limits");
            prop_assert_eq!(again.as_slice(), read.signed());
        }
        let packet = Packet { seq: 1, acks: vec![2], parts: vec![part] };
        let bent = bend(&written(&packet));
        if let Ok(packet) = decode(&bent) {
            prop_assert_eq!(written(&packet), bent);
        }
    }
}
