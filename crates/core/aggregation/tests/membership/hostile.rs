//! Strangers, the revoked, garbage, forged news: refused and counted; one
//! seed, one history.

use crate::world::{SECOND, World, zone};
use aggregation::membership::{
    Belongs, Effect, Event, Membership, Parameters, Reach, Start, Table,
};
use kernel::{NodeId, Time, UnixMillis};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use wire::gossip::{Body, Life, News, Said, Writer, encode_news};

fn alone(node: u64, others: &[u64]) -> Membership {
    let start = Start {
        node: NodeId(node),
        nonce: 7,
        remembered: Some(3),
        wall: UnixMillis(5),
        attributes: b"here".to_vec(),
    };
    let mut core = Membership::new(start, Parameters::default(), 1, Time(1));
    let belongs = |node: &u64| {
        let zone = zone("/eu");
        let revoked = false;
        (
            NodeId(*node),
            Belongs {
                zone,
                revoked,
                outbound_only: false,
            },
        )
    };
    let table: Table = others.iter().chain([&node]).map(belongs).collect();
    let _ = core.handle(Event::Table(Arc::new(table)), Time(1));
    core
}

fn packet(life: Life, body: &Body, news: &[News]) -> Vec<u8> {
    let mut writer = Writer::new(life, body);
    for one in news {
        assert!(writer.push(&encode_news(one)));
    }
    writer.into_bytes()
}

fn life(epoch: u64) -> Life {
    Life {
        epoch,
        nonce: 9,
        incarnation: 0,
    }
}

fn sends_to(effects: &[Effect]) -> Vec<NodeId> {
    let sends = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, .. } => Some(*to),
        _ => None,
    });
    sends.collect()
}

#[test]
fn strangers_get_no_answer_and_are_counted() {
    let mut core = alone(1, &[2]);
    let payload = packet(life(1), &Body::Ping { seq: 1 }, &[]);
    let from = NodeId(66);
    let effects = core.handle(Event::Received { from, payload }, Time(2));
    assert_eq!(sends_to(&effects), []);
    assert_eq!(core.counts().strangers, 1);
}

#[test]
fn news_of_strangers_is_counted_and_not_kept() {
    let mut core = alone(1, &[2]);
    let news = News::Reach {
        node: NodeId(66),
        life: life(1),
        said: Said::Alive,
        by: NodeId(66),
    };
    let payload = packet(life(1), &Body::Gossip, &[news]);
    let from = NodeId(2);
    let _ = core.handle(Event::Received { from, payload }, Time(2));
    assert_eq!(core.counts().unknown, 1);
    assert!(core.view(NodeId(66)).is_none());
}

#[test]
fn the_revoked_is_forgotten_and_never_spoken_to() {
    let mut world = World::settled(1, &["/eu"], 4);
    world.table.get_mut(&NodeId(4)).expect("belongs").revoked = true;
    // The world asserts that nobody speaks to it; that it hears of its end
    // itself is not needed.
    world.tell_table();
    for _ in 0..20 {
        world.pass(SECOND);
        assert!(world.core(NodeId(1)).view(NodeId(4)).is_none());
    }
    world.table.remove(&NodeId(3));
    world.tell_table();
    world.pass(SECOND * 20);
    assert!(world.core(NodeId(1)).view(NodeId(3)).is_none());
    assert_eq!(world.reach(NodeId(1), NodeId(2)), Reach::Alive);
}

/// Node 2 answers each ping and never hears that it is suspected.
#[test]
fn nobody_is_called_dead_by_hearsay() {
    let mut core = alone(1, &[2, 3]);
    let mut now = Time(2);
    let mut inbox = Vec::new();
    for from in [2, 3].map(NodeId) {
        inbox.push((from, packet(life(1), &Body::Gossip, &[])));
    }
    let suspect = News::Reach {
        node: NodeId(2),
        life: life(1),
        said: Said::Suspect,
        by: NodeId(3),
    };
    inbox.push((NodeId(3), packet(life(1), &Body::Gossip, &[suspect])));
    let mut asked = 0;
    while now < Time(0) + SECOND * 60 {
        let mut effects = core.handle(Event::Tick, now);
        for (from, payload) in std::mem::take(&mut inbox) {
            effects.extend(core.handle(Event::Received { from, payload }, now));
        }
        for effect in effects {
            match effect {
                Effect::Send { to, payload } => {
                    let sent = wire::gossip::decode(&payload).expect("a packet");
                    if let Body::Ping { seq } = sent.body {
                        asked += u32::from(to == NodeId(2));
                        inbox.push((to, packet(life(1), &Body::Ack { seq }, &[])));
                    }
                }
                Effect::Reach { is, .. } => assert_ne!(is, Reach::Dead),
                _ => {}
            }
        }
        now = now + Duration::from_millis(10);
    }
    let seen = core.view(NodeId(2)).expect("belongs").reach;
    assert_eq!(seen, Reach::Suspect, "only node 2 can refute it");
    assert!(asked > 10, "{asked}");
}

#[test]
fn a_forged_life_can_be_outdone_up_to_the_last() {
    let mut core = alone(1, &[2]);
    let said = |epoch| News::Reach {
        node: NodeId(1),
        life: life(epoch),
        said: Said::Alive,
        by: NodeId(2),
    };
    let from = NodeId(2);
    let payload = packet(life(1), &Body::Gossip, &[said(1 << 40)]);
    let _ = core.handle(Event::Received { from, payload }, Time(2));
    assert_eq!(core.life().epoch, (1 << 40) + 1);
    let payload = packet(life(1), &Body::Gossip, &[said(u64::MAX)]);
    let effects = core.handle(Event::Received { from, payload }, Time(3));
    assert!(
        effects
            .iter()
            .any(|one| matches!(one, Effect::Superseded { .. }))
    );
    assert_eq!(core.next_wake(), None);
}

#[test]
fn one_seed_has_one_history() {
    let history = |seed| {
        let mut world = World::settled(seed, &["/eu", "/us"], 5);
        world.loss = 0.1;
        world.pass(SECOND * 60);
        (world.packets, world.packet_bytes, world.rng.next_u64())
    };
    assert_eq!(history(4), history(4));
    assert_ne!(history(4), history(5));
}

fn any_life() -> impl Strategy<Value = Life> {
    (
        prop_oneof![0..6_u64, Just(u64::MAX)],
        6..9_u32,
        prop_oneof![0..3_u32, Just(u32::MAX)],
    )
        .prop_map(|(epoch, nonce, incarnation)| Life {
            epoch,
            nonce,
            incarnation,
        })
}

fn any_news() -> impl Strategy<Value = News> {
    let said = prop_oneof![
        Just(Said::Alive),
        Just(Said::Suspect),
        Just(Said::Dead),
        Just(Said::Left)
    ];
    prop_oneof![
        (0..5_u64, any_life(), said, 0..5_u64).prop_map(|(node, life, said, by)| News::Reach {
            node: NodeId(node),
            life,
            said,
            by: NodeId(by),
        }),
        (0..5_u64, 0..4_u64, 0..4_u32, any::<[u8; 3]>()).prop_map(
            |(node, epoch, number, bytes)| {
                News::Attributes {
                    node: NodeId(node),
                    version: wire::gossip::AttributesVersion { epoch, number },
                    bytes: bytes.to_vec(),
                }
            }
        ),
    ]
}

proptest! {
    #[test]
    fn any_bytes_from_anyone_cost_little(
        packets in prop::collection::vec((0..5_u64, prop::collection::vec(any::<u8>(), 0..200)), 0..40),
    ) {
        let mut core = alone(1, &[2, 3]);
        let mut now = Time(2);
        for (from, mut payload) in packets {
            if let Some(first) = payload.first_mut() {
                *first = 1;
            }
            now.0 += 1_000;
            let effects = core.handle(Event::Received { from: NodeId(from), payload }, now);
            prop_assert!(sends_to(&effects).len() <= 32);
        }
    }

    /// Whatever order sayings come in, and however often, what is known at
    /// the end is the same.
    #[test]
    fn sayings_join_in_any_order(
        news in prop::collection::vec(any_news(), 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
    ) {
        let tell = |order: &mut dyn Iterator<Item = &News>| {
            let mut core = alone(1, &[2, 3, 4]);
            let mut now = Time(2);
            for one in order {
                // From one who says nothing of itself by speaking.
                if matches!(one, News::Reach { node: NodeId(1 | 4), .. }) {
                    continue;
                }
                now.0 += 1_000;
                let payload = packet(Life::default(), &Body::Gossip, std::slice::from_ref(one));
                let _ = core.handle(Event::Received { from: NodeId(4), payload }, now);
            }
            [2, 3].map(|node| {
                let view = core.view(NodeId(node)).expect("belongs");
                (view.reach, view.life, view.version)
            })
        };
        let straight = tell(&mut news.iter());
        let mut mixed = order.iter().map(|at| at.get(&news)).chain(news.iter().rev());
        prop_assert_eq!(straight, tell(&mut mixed));
    }
}

#[test]
fn runs_that_come_to_one_epoch_number_their_attributes_apart() {
    let version = |nonce, attributes: &[u8]| {
        let start = Start {
            node: NodeId(1),
            nonce,
            remembered: None,
            wall: UnixMillis(5),
            attributes: attributes.to_vec(),
        };
        Membership::new(start, Parameters::default(), 1, Time(1)).version()
    };
    let (one, later) = (version(1 << 20, b"one"), version(7 << 20, b"later"));
    assert_eq!(one.epoch, later.epoch);
    // Of their lives, that with the larger nonce prevails too.
    assert!(one < later);
}
