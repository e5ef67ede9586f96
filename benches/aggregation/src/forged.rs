//! Rows that nobody signed so: altered in one bit, signed by others, or not at
//! all.

use crate::{Bench, Report, goals};
use aggregation::tree::Event;
use bench_common::figure::Figure;
use bench_common::{Failure, conditions};
use kernel::{Rng, ZonePath};
use sim::tree::{Shape, TreeWorld, Ways, WorldStart, contact, id, settle, signature};
use std::time::Duration;
use wire::tree::{Part, SignedRow, Writer};

pub fn measure(bench: &Bench, report: Report) -> Result<(), Failure> {
    let mut world = TreeWorld::new(WorldStart::new(
        Shape::new(&[4], 4),
        Ways::Alike(Duration::from_millis(20)),
        1,
    ));
    settle(&mut world)?;
    let zone: ZonePath = "/z1".parse()?;
    let known = world.nodes[0]
        .tree
        .view(&zone)
        .ok_or("no row to forge")?
        .row;
    let mut row = known.row.clone();
    row.stamp.epoch += 1;
    let encoded = row.encode()?;
    let good = SignedRow::new(
        row.clone(),
        encoded.clone(),
        &signature(row.stamp.issuer, &encoded),
    );
    let before = world.nodes[0].tree.counts();
    let count = if bench.is_quick { 100_000 } else { 10_000_000 };
    let mut rng = Rng::seeded(1);
    for round in 0..count {
        let bytes = match round % 3 {
            0 => bent(good.bytes(), &mut rng),
            1 => {
                let other = id(usize::try_from(rng.below(1_000))? + 8);
                let signed = signature(other, &encoded);
                let signed = SignedRow::new(row.clone(), encoded.clone(), &signed);
                signed.bytes().to_vec()
            }
            _ => unsigned(good.bytes(), &mut rng),
        };
        let mut writer = Writer::new(0, &[]);
        writer.push(&Part::Row {
            asked: false,
            age_ms: 0,
            bytes: &bytes,
        });
        let payload = writer.into_bytes();
        let _ = world.tree(
            0,
            Event::Received {
                from: contact(4),
                payload,
            },
        );
    }
    let after = world.nodes[0].tree.counts();
    let refused = after.forged - before.forged + after.garbled - before.garbled;
    conditions::tell([(
        "forged rows",
        format!(
            "{count}: a third with one bit flipped, a third signed by another node, a third with a random signature; {} had no good signature, {} could not be read, {} others (older, of another zone, of the future)",
            after.forged - before.forged,
            after.garbled - before.garbled,
            count - refused
        ),
    )])?;
    #[expect(clippy::cast_precision_loss, reason = "few, if any")]
    let accepted = (after.accepted - before.accepted) as f64;
    report(Figure::alone(goals::FORGED, accepted));
    Ok(())
}

fn unsigned(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let from = bytes.len() - 64;
    let last = bytes[from..].iter_mut();
    last.for_each(|byte| *byte = rng.next_u64().to_le_bytes()[0]);
    bytes
}

fn bent(bytes: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap_or_default();
    bytes[at] ^= 1 << rng.below(8);
    bytes
}
