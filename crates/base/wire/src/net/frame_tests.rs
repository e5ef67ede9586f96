//! Golden frames of both versions, and hostile ones.

use super::*;
use crate::net::join::{Admitted, Refusal, Signature, Wish};
use crate::net::token::TokenId;
use kernel::Name;
use proptest::prelude::*;
use std::fmt::Write as _;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn heads() -> Vec<Head> {
    vec![
        Head::Hello(Hello {
            instance: 7,
            sequence: 300,
            generation: 0,
            relays: false,
        }),
        Head::Call(Call {
            method: 0x0102,
            deadline_ms: 1_500,
            body_bytes: 3,
            generation: 0,
        }),
        Head::Open(Open {
            method: 9,
            priority: 2,
            head: b"GET".to_vec(),
            generation: 0,
        }),
        Head::Reply(Reply {
            status: Status::Busy,
            body_bytes: 0,
        }),
        Head::Join(JoinRequest {
            wish: Wish {
                token: TokenId(5),
                public_key: [1; 32],
                name: Some(Name::new("harbour").expect("a name")),
                addresses: vec!["192.0.2.7:7400".parse().expect("an address")],
                words: vec![8],
            },
            by_token: Signature([2; 64]),
            by_node: Signature([3; 64]),
        }),
        Head::Joined(JoinAnswer::Refused {
            why: Refusal::Used,
            words: "no".to_owned(),
        }),
        Head::Joined(JoinAnswer::Admitted(Admitted {
            chain: vec![vec![1], vec![2]],
            root: vec![3],
            words: vec![4],
        })),
    ]
}

fn of_generation(head: Head, generation: u16) -> Head {
    match head {
        Head::Hello(hello) => Head::Hello(Hello {
            generation,
            relays: true,
            ..hello
        }),
        Head::Call(call) => Head::Call(Call { generation, ..call }),
        Head::Open(open) => Head::Open(Open { generation, ..open }),
        other => other,
    }
}

fn decode(frame: &[u8], version: u8) -> Result<Head, FrameError> {
    let (header, content) = frame.split_first_chunk().ok_or(FrameError::Truncated)?;
    Head::decode(Header::read(*header, version)?, content)
}

fn golden(version: u8, heads: &[Head]) -> String {
    let mut lines = String::new();
    for head in heads {
        let frame = head.encode(version).expect("encodes");
        assert_eq!(decode(&frame, version).as_ref(), Ok(head));
        let _ = writeln!(lines, "{:?} {}", head.kind(), hex(&frame));
    }
    for content in [
        Content::Gossip(b"rows"),
        Content::Relay(RelayPiece {
            direction: Direction::To,
            node: NodeId(0x2b),
            packet: 512,
            place: Place::Whole,
            bytes: b"all",
        }),
        Content::Relay(RelayPiece {
            direction: Direction::From,
            node: NodeId(0x2a),
            packet: 513,
            place: Place::Second,
            bytes: b"tail",
        }),
    ] {
        let generation = if version < 2 { 0 } else { 0x0304 };
        let datagram = Datagram {
            content,
            generation,
        };
        match datagram.encode(version) {
            Ok(frame) => {
                assert_eq!(Datagram::decode(&frame, version), Ok(datagram));
                let _ = writeln!(lines, "Datagram {}", hex(&frame));
            }
            Err(why) => {
                let _ = writeln!(lines, "Datagram: {why}");
            }
        }
    }
    lines
}

#[test]
fn golden_frames_of_version_1() {
    insta::assert_snapshot!(golden(1, &heads()));
}

#[test]
fn golden_frames_of_version_2() {
    let heads: Vec<Head> = heads()
        .into_iter()
        .map(|head| of_generation(head, 0x0304))
        .collect();
    insta::assert_snapshot!(golden(2, &heads));
}

#[test]
fn a_frame_of_another_version_than_the_connections_is_refused() {
    for head in heads() {
        let frame = head.encode(2).expect("encodes");
        assert_eq!(
            decode(&frame, 1),
            Err(FrameError::Version {
                found: 2,
                expected: 1
            })
        );
    }
}

#[test]
fn every_cut_of_a_frame_is_refused_and_so_is_more_than_a_frame() {
    for head in heads() {
        let frame = head.encode(VERSION).expect("encodes");
        for end in 0..frame.len() {
            assert!(decode(&frame[..end], VERSION).is_err(), "{head:?} at {end}");
        }
        let mut more = frame.clone();
        more.push(0);
        assert_eq!(
            decode(&more, VERSION),
            Err(FrameError::Trailing),
            "{head:?}"
        );
    }
}

#[test]
fn a_head_over_the_limit_is_refused_before_it_is_read() {
    let header = [VERSION, Kind::Call as u8, 0, 1, 0, 0];
    assert_eq!(
        Header::read(header, VERSION),
        Err(FrameError::TooLong {
            bytes: 1 << 16,
            limit: HEAD_BYTES_MAX
        })
    );
    let open = Head::Open(Open {
        method: 1,
        priority: 0,
        head: vec![0; HEAD_BYTES_MAX],
        generation: 0,
    });
    assert!(matches!(
        open.encode(VERSION),
        Err(FrameError::TooLong { .. })
    ));
}

proptest! {
    #[test]
    fn hostile_heads_never_panic(kind in 0_u8..9, content: Vec<u8>, version in 0_u8..4) {
        let length = u32::try_from(content.len()).expect("short").to_be_bytes();
        let mut frame = vec![version, kind];
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&content);
        for spoken in VERSION_MIN..=VERSION {
            if let Ok(head) = decode(&frame, spoken) {
                let again = head.encode(spoken).expect("what was read is within limits");
                prop_assert_eq!(decode(&again, spoken), Ok(head));
            }
        }
    }

    #[test]
    fn hostile_datagrams_never_panic(frame: Vec<u8>, kind in 0_u8..5) {
        let mut frame = frame;
        frame.insert(0, kind);
        for spoken in VERSION_MIN..=VERSION {
            frame.insert(0, spoken);
            if let Ok(datagram) = Datagram::decode(&frame, spoken) {
                prop_assert_eq!(datagram.encode(spoken), Ok(frame.clone()));
            }
            frame.remove(0);
        }
    }
}
