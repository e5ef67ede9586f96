//! What a program reads and writes, and whether it can take another one's place.
//!
//! In: what `homeostat version -o json` says. Out: yes, or the format that does
//! not fit.
//! Holds: whoever can go over to another program can go back from it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

/// Between agents, and between edges: agreed on by each connection.
pub const AGENTS: &str = "agents";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    pub oldest: u32,
    pub newest: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "{}", self.newest);
        }
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

impl Span {
    pub fn only(version: u32) -> Self {
        Self {
            oldest: version,
            newest: version,
        }
    }

    pub fn has(self, version: u32) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    pub fn meets(self, other: Self) -> bool {
        self.oldest <= other.newest && other.oldest <= self.newest
    }
}

impl From<&RangeInclusive<u8>> for Span {
    fn from(range: &RangeInclusive<u8>) -> Self {
        Self {
            oldest: (*range.start()).into(),
            newest: (*range.end()).into(),
        }
    }
}

/// A format whose writer does not know who will read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub reads: Span,
    pub writes: u32,
}

/// What a program says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub version: String,
    /// By protocol: the versions it can agree on.
    pub speaks: BTreeMap<String, Span>,
    /// By format, on disks and between processes.
    pub keeps: BTreeMap<String, Kept>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    #[error("it does not know `{format}`, which this node has")]
    Unknown { format: String },
    #[error("it reads `{format}` of version {reads}, and this node has {has}")]
    CannotRead {
        format: String,
        reads: Span,
        has: u32,
    },
    #[error("it writes `{format}` of version {writes}, and the way back reads {reads}")]
    NoWayBack {
        format: String,
        writes: u32,
        reads: Span,
    },
    #[error("it speaks version {offered} of `{protocol}`, and {who} speaks {theirs}")]
    Silent {
        protocol: String,
        who: String,
        offered: Span,
        theirs: Span,
    },
}

impl Release {
    /// Of this program.
    pub fn of(version: &str, agents: &RangeInclusive<u8>) -> Self {
        let data = crate::layout::DATA_VERSION.parse().unwrap_or_default();
        let keeps = [
            ("data", data),
            ("sockets", crate::frame::VERSION.into()),
            ("snapshots", crate::edge::SNAPSHOT_VERSION),
            ("access-rows", crate::rows::ACCESS_ROW_VERSION.into()),
            ("attributes", crate::attributes::VERSION.into()),
            ("content", crate::exchange::VERSION.into()),
            ("gossip", crate::gossip::VERSION.into()),
            ("requests", crate::peer::VERSION.into()),
            ("tree", crate::tree::VERSION.into()),
        ];
        let keeps = keeps.map(|(format, version)| {
            let reads = Span::only(version);
            let kept = Kept {
                reads,
                writes: version,
            };
            (format.to_owned(), kept)
        });
        Self {
            version: version.to_owned(),
            speaks: [(AGENTS.to_owned(), Span::from(agents))].into(),
            keeps: keeps.into(),
        }
    }

    /// Whether it can take the place of `running`, and give it back.
    ///
    /// # Errors
    /// The first format that does not fit.
    pub fn can_follow(&self, running: &Self) -> Result<(), Unfit> {
        for (format, kept) in &running.keeps {
            let format = format.clone();
            let Some(own) = self.keeps.get(&format) else {
                return Err(Unfit::Unknown { format });
            };
            if !own.reads.has(kept.writes) {
                let (reads, has) = (own.reads, kept.writes);
                return Err(Unfit::CannotRead { format, reads, has });
            }
            if !kept.reads.has(own.writes) {
                let (writes, reads) = (own.writes, kept.reads);
                return Err(Unfit::NoWayBack {
                    format,
                    writes,
                    reads,
                });
            }
        }
        for (protocol, theirs) in &running.speaks {
            self.can_speak(protocol, *theirs, "this node")?;
        }
        Ok(())
    }

    /// Whether it and one who speaks `theirs` can agree.
    ///
    /// # Errors
    /// When they cannot.
    pub fn can_speak(&self, protocol: &str, theirs: Span, who: &str) -> Result<(), Unfit> {
        let format = || protocol.to_owned();
        let Some(offered) = self.speaks.get(protocol).copied() else {
            return Err(Unfit::Unknown { format: format() });
        };
        if offered.meets(theirs) {
            return Ok(());
        }
        Err(Unfit::Silent {
            protocol: format(),
            who: who.to_owned(),
            offered,
            theirs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kept(oldest: u32, newest: u32, writes: u32) -> Release {
        let mut release = Release::of("1", &(1..=2));
        let reads = Span { oldest, newest };
        let kept = Kept { reads, writes };
        release.keeps.insert("data".to_owned(), kept);
        release
    }

    #[test]
    fn a_format_is_first_read_and_written_a_release_later() {
        let (old, between, new) = (kept(1, 1, 1), kept(1, 2, 1), kept(1, 2, 2));
        assert_eq!(between.can_follow(&old), Ok(()));
        assert_eq!(new.can_follow(&between), Ok(()));
        let reads = Span::only(1);
        let format = || "data".to_owned();
        let unfit = Unfit::NoWayBack {
            format: format(),
            writes: 2,
            reads,
        };
        assert_eq!(new.can_follow(&old), Err(unfit));
        let unfit = Unfit::CannotRead {
            format: format(),
            reads,
            has: 2,
        };
        assert_eq!(old.can_follow(&new), Err(unfit));
    }

    #[test]
    fn who_lacks_a_format_or_a_protocol_is_refused() {
        let whole = Release::of("1", &(1..=2));
        let mut less = whole.clone();
        less.keeps.remove("tree");
        assert_eq!(whole.can_follow(&less), Ok(()));
        assert!(matches!(
            less.can_follow(&whole),
            Err(Unfit::Unknown { .. })
        ));
        let later = Release::of("3", &(3..=4));
        let refused = later.can_follow(&whole).expect_err("no common version");
        let said = refused.to_string();
        assert!(said.contains("3 to 4") && said.contains("1 to 2"), "{said}");
    }

    proptest! {
        #[test]
        fn who_can_go_there_can_go_back(
            one in (0..4_u32, 0..4_u32, 0..4_u32),
            other in (0..4_u32, 0..4_u32, 0..4_u32),
        ) {
            let release = |(oldest, more, write): (u32, u32, u32)| {
                kept(oldest, oldest + more, oldest + write % (more + 1))
            };
            let (one, other) = (release(one), release(other));
            prop_assert_eq!(one.can_follow(&other).is_ok(), other.can_follow(&one).is_ok());
        }
    }
}
