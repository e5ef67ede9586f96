//! What plans say to people: the thing, the number, the next step.

use crate::plan::{Choice, Constraint, Failed, Lack, Leaving, Near, Reached, Refusal};
use crate::score::Score;
use std::fmt;

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pin { node } => write!(f, "it is not node `{node}`"),
            Self::Zone { zone } => write!(f, "it is not in zone {zone}"),
            Self::Reachable => f.write_str("it cannot be reached"),
            Self::Draining => f.write_str("it is draining"),
            Self::Architecture { need } => write!(f, "it does not run `{need}`"),
            Self::Device { name, need, free } => {
                write!(f, "{free} of device `{name}` free, {need} needed")
            }
            Self::AntiAffinity { with } => write!(f, "`{with}` is there, to keep apart from"),
            Self::SoleHolder => f.write_str("it can only call out, and would be the sole holder"),
            Self::OtherNode => f.write_str("it has a copy already"),
            Self::Cpu { need, free } => {
                write!(f, "{} cores free, {} needed", cores(*free), cores(*need))
            }
            Self::Memory { need, free } => write!(f, "{free} of memory free, {need} needed"),
            Self::Disk { need, free } => write!(f, "{free} of disk free, {need} needed"),
        }
    }
}

fn cores(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pin => "the named node",
            Self::Zone => "the named zone",
            Self::Reachable => "being reachable",
            Self::Draining => "not draining",
            Self::Architecture => "architecture",
            Self::Device => "devices",
            Self::AntiAffinity => "anti-affinity",
            Self::SoleHolder => "a holder that can be called",
            Self::OtherNode => "a node without a copy",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
        })
    }
}

impl fmt::Display for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it is gone"),
            Self::Unfit(lack) => write!(f, "{lack}"),
            Self::SoleHolder => f.write_str("only nodes that cannot be called had the service"),
            Self::Surplus => f.write_str("more run than are wanted"),
            Self::NotWanted => f.write_str("the service is wanted no longer"),
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.total())?;
        let terms = self.terms().into_iter().filter(|(_, value)| *value != 0);
        terms.enumerate().try_for_each(|(at, (name, value))| {
            let open = if at == 0 { " =" } else { "" };
            write!(f, "{open} {name} {value:+}")
        })
    }
}

impl<P: fmt::Display> fmt::Display for Choice<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` on {}: {}", self.service, self.place, self.score)?;
        match &self.runner_up {
            Some(next) => write!(f, "; next {}: {}", next.place, next.score)?,
            None => f.write_str("; no other could take it")?,
        }
        match &self.from {
            Some((place, why)) => write!(f, "; from {place}: {why}"),
            None => Ok(()),
        }
    }
}

impl<P: fmt::Display> fmt::Display for Near<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        self.lacks.iter().enumerate().try_for_each(|(at, lack)| {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{lack}")
        })
    }
}

/// One line: what has no place, and which constraint left none. What came
/// closest is [`Refusal::closest`]'s to show, the next step [`Refusal::hint`]'s.
impl<P: fmt::Display> fmt::Display for Refusal<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no place for {} of `{}`: ", self.missing, self.service)?;
        match self.deciding() {
            None => f.write_str("there are no nodes"),
            Some(constraint) => {
                let Failed { places, only } =
                    self.failed.get(&constraint).copied().unwrap_or_default();
                write!(
                    f,
                    "{places} of {} lack {constraint}, {only} of them nothing else",
                    self.places
                )
            }
        }
    }
}

impl<P> Refusal<P> {
    /// What the reader can do next.
    pub fn hint(&self) -> &'static str {
        match self.deciding() {
            None => "join a node with `homeostat token create`",
            Some(Constraint::Pin) => "correct `node`, or make room on the named node",
            Some(Constraint::Zone) => "correct `zone`, or join a node there",
            Some(Constraint::Reachable) => "see `homeostat node ls` for nodes that are silent",
            Some(Constraint::Draining) => "join a node, or end a drain",
            Some(Constraint::Architecture) => {
                "build for the nodes' architecture, or join such a node"
            }
            Some(Constraint::Device) => "free such a device, or join a node that has one",
            Some(Constraint::AntiAffinity | Constraint::OtherNode) => {
                "lower `replicas`, or join a node"
            }
            Some(Constraint::SoleHolder) => "join a node that can be called",
            Some(Constraint::Cpu) => "lower `cpu`, or join a node",
            Some(Constraint::Memory) => "lower `memory`, or join a node",
            Some(Constraint::Disk) => "free disk, or join a node",
        }
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} copies reach {:.6} of {}",
            self.copies, self.reached, self.goal
        )
    }
}
