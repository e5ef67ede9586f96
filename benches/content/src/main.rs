//! Measures how fast content comes to a node that lacks it.
//!
//! In: `--quick`. Out: conditions and figures on standard output, single runs on
//! standard error.
//! Holds: ours are nodes of the built program in a lab's namespaces; the peer's
//! programs run in the same namespaces, over the same links; a figure that is
//! short is said and is no failure; an error ends all without its figures.

mod goals;
mod ours;
mod place;
mod rsync;

use bench_common::figure::{Figure, median};
use bench_common::{Failure, conditions, note, say};
use place::Place;
use std::process::ExitCode;

/// How much and how often.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub bytes: u64,
    pub rounds: usize,
}

const FULL: Lengths = Lengths {
    bytes: 1_000_000_000,
    rounds: 3,
};

const QUICK: Lengths = Lengths {
    bytes: 200_000_000,
    rounds: 1,
};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let lengths = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => FULL,
        ["--quick"] => QUICK,
        _ => {
            say("usage: bench-content [--quick]");
            return ExitCode::from(2);
        }
    };
    match run(lengths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench content: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(lengths: Lengths) -> Result<(), Failure> {
    bench_common::report(|report| {
        let place = Place::new(lengths)?;
        let site = ours::begin(&place)?;
        place.narrow()?;
        let peer = rsync::Peer::start(&place)?;
        conditions::tell(place.conditions(peer.as_ref()))?;
        let (mut own, mut others) = (Vec::new(), Vec::new());
        for _ in 0..lengths.rounds {
            let seconds = ours::fetch(&place, &site)?;
            own.push(place.rate(seconds));
            let Some(peer) = &peer else { continue };
            others.push(place.rate(peer.fetch(&place)?));
        }
        note("content from three holders, Mbit/s", &own);
        note("rsync from one, Mbit/s", &others);
        report(Figure {
            goal: goals::FETCH_VS_RSYNC,
            ours: median(&own),
            peer: (!others.is_empty()).then(|| median(&others)),
        });
        Ok(())
    })
}
