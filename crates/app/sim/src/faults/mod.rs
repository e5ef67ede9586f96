//! Random clusters to which anything happens, and which must be as wished again
//! once they are left in peace.
//!
//! In: a seed. Out: a script, and what came of it; of one that did not hold, the
//! fewest steps that still do not.
//! Holds: one seed, one history. What may be asked of a cluster is asked: a
//! majority of those that keep the store comes back, and what is lost for good is
//! at most a third, one after the other.

mod cluster;
mod shrink;
pub mod singletons;

use crate::play::{Options, Report, play_with};
use control::repair::Parameters;
use kernel::Rng;
use node::script::Script;

pub use shrink::shrink;

/// One history.
#[derive(Clone, Debug)]
pub struct Faults {
    pub seed: u64,
    pub script: Script,
    pub options: Options,
}

impl Faults {
    pub fn seeded(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed ^ 0x7265_7061_6972);
        let script = cluster::script(&mut rng);
        // With the usual limit it would hardly ever be reached.
        let moves_max = [64, 64, 4, 8][usize::try_from(rng.below(4)).unwrap_or_default()];
        Self {
            seed,
            script,
            options: Options {
                repair: Parameters {
                    moves_max,
                    ..Parameters::default()
                },
                ends_early: true,
            },
        }
    }

    pub fn play(&self) -> Report {
        play_with(&self.script, self.seed, &self.options)
    }
}
