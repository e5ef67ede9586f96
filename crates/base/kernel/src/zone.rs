//! Names in the zone tree.

use crate::Name;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A zone, `/eu/vienna/rack1`; the root is `/`. At most eight levels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ZonePath(Vec<Name>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a zone: write `/` and up to eight names, such as `/eu/vienna/rack1`")]
pub struct ZonePathError(pub String);

impl ZonePath {
    pub const DEPTH_MAX: usize = 8;

    pub fn root() -> Self {
        Self::default()
    }

    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.split_last()?;
        Some(Self(above.to_vec()))
    }

    /// How many names lead to it; 0 is the root's.
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// The zone that the first `depth` names lead to; itself when it has no more.
    #[must_use]
    pub fn ancestor(&self, depth: usize) -> Self {
        Self(self.0.iter().take(depth).cloned().collect())
    }

    /// Where this zone is once `from`, which contains it, is `to`.
    pub fn moved(&self, from: &Self, to: &Self) -> Result<Self, ZonePathError> {
        let rest = self.0.iter().skip(from.depth());
        let names: Vec<Name> = to.0.iter().chain(rest).cloned().collect();
        let moved = Self(names);
        if moved.depth() > Self::DEPTH_MAX {
            return Err(ZonePathError(moved.to_string()));
        }
        Ok(moved)
    }

    /// Whether `other` is this zone or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl FromStr for ZonePath {
    type Err = ZonePathError;

    fn from_str(text: &str) -> Result<Self, ZonePathError> {
        let wrong = || ZonePathError(text.to_owned());
        let rest = text.strip_prefix('/').ok_or_else(wrong)?;
        if rest.is_empty() {
            return Ok(Self::root());
        }
        let names: Result<Vec<Name>, _> = rest.split('/').map(Name::new).collect();
        let names = names.map_err(|_| wrong())?;
        if names.len() > Self::DEPTH_MAX {
            return Err(wrong());
        }
        Ok(Self(names))
    }
}

impl fmt::Display for ZonePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        self.0.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

impl Serialize for ZonePath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ZonePath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_relations() {
        let rack: ZonePath = "/eu/vienna/rack1".parse().expect("a zone");
        let eu: ZonePath = "/eu".parse().expect("a zone");
        assert!(eu.contains(&rack) && ZonePath::root().contains(&eu));
        assert!(!rack.contains(&eu));
        assert_eq!(eu.parent(), Some(ZonePath::root()));
        assert_eq!((rack.depth(), ZonePath::root().depth()), (3, 0));
        assert_eq!(
            (rack.ancestor(1), rack.ancestor(9)),
            (eu.clone(), rack.clone())
        );
        assert_eq!(rack.ancestor(0), ZonePath::root());
        assert_eq!(rack.to_string(), "/eu/vienna/rack1");
        for wrong in ["", "eu", "/eu/", "//", "/EU", "/a/b/c/d/e/f/g/h/i"] {
            assert!(wrong.parse::<ZonePath>().is_err(), "{wrong}");
        }
    }
    #[test]
    fn what_lies_below_follows() {
        let zone = |text: &str| text.parse::<ZonePath>().expect("a zone");
        let moved = |from: &str, to: &str| {
            let moved = zone("/eu/vienna/rack1").moved(&zone(from), &zone(to));
            moved.map(|moved| moved.to_string())
        };
        assert_eq!(moved("/eu/vienna", "/at"), Ok("/at/rack1".to_owned()));
        assert_eq!(moved("/", "/a"), Ok("/a/eu/vienna/rack1".to_owned()));
        assert_eq!(moved("/eu/vienna/rack1", "/"), Ok("/".to_owned()));
        assert!(moved("/", "/a/b/c/d/e/f").is_err());
    }
}
