//! Names and ids.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A name a person gives: 1 to 63 of `a-z 0-9 -`, no `-` at either end
/// (a DNS label, RFC 1123), so that it can stand in host and file names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name is 1 to 63 characters long, this one is {0}")]
    Length(usize),
    #[error("`{0}` cannot stand in a name: only a-z, 0-9 and `-`")]
    Character(char),
    #[error("a name neither starts nor ends with `-`")]
    Hyphen,
}

impl Name {
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        if text.is_empty() || text.len() > 63 {
            return Err(NameError::Length(text.len()));
        }
        let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-';
        if let Some(wrong) = text.chars().find(|c| !allowed(c)) {
            return Err(NameError::Character(wrong));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Hyphen);
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a project calls `name`: two projects may each have one.
///
/// As text `news/search`; where a `/` cannot stand, see [`ScopedName::file_name`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScopedName {
    pub project: Name,
    pub name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name within a project: PROJECT/NAME expected")]
pub struct ScopedNameError(pub String);

impl ScopedName {
    pub fn new(project: Name, name: Name) -> Self {
        Self { project, name }
    }

    /// `news.search`: safe in file, socket and control group names. No name has
    /// a dot, so that no two read alike.
    pub fn file_name(&self) -> String {
        format!("{}.{}", self.project, self.name)
    }

    fn split(text: &str, at: char) -> Option<Self> {
        let (project, name) = text.split_once(at)?;
        Some(Self {
            project: project.parse().ok()?,
            name: name.parse().ok()?,
        })
    }
}

impl fmt::Display for ScopedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}

impl FromStr for ScopedName {
    type Err = ScopedNameError;

    fn from_str(text: &str) -> Result<Self, ScopedNameError> {
        Self::split(text, '/').ok_or_else(|| ScopedNameError(text.to_owned()))
    }
}

impl Serialize for ScopedName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ScopedName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A node's identity: issued once, never reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in the store's history; the first write makes revision 1.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number that makes an old lease holder's writes fail. The high 16 bits
/// are the cluster's generation, so that a forced takeover outranks all before.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct FencingEpoch(pub u64);

/// A decision's number on its node; grows by one per decision.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct DecisionId(pub u64);

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// One running copy of a service. `generation` is the store revision at which
/// the service was last changed, so old and new copies of a rollout differ.
///
/// As text `news.search-g12-0`: safe in file and control group names; 160 bytes
/// at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId {
    pub service: ScopedName,
    pub generation: Revision,
    pub index: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a replica: PROJECT.SERVICE-gGENERATION-INDEX expected")]
pub struct ReplicaIdError(pub String);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service.project, self.short())
    }
}

impl ReplicaId {
    /// Within its project: `search-g12-0`.
    pub fn short(&self) -> String {
        let Self {
            service,
            generation,
            index,
        } = self;
        format!("{}-g{generation}-{index}", service.name)
    }
}

impl FromStr for ReplicaId {
    type Err = ReplicaIdError;

    fn from_str(text: &str) -> Result<Self, ReplicaIdError> {
        let wrong = || ReplicaIdError(text.to_owned());
        let (rest, index) = text.rsplit_once('-').ok_or_else(wrong)?;
        let (service, generation) = rest.rsplit_once("-g").ok_or_else(wrong)?;
        Ok(Self {
            service: ScopedName::split(service, '.').ok_or_else(wrong)?,
            generation: Revision(generation.parse().map_err(|_| wrong())?),
            index: index.parse().map_err(|_| wrong())?,
        })
    }
}

impl Serialize for ReplicaId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReplicaId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An object with its whole name: `service/news/search`,
/// `replica/news.search-g12-0`. The kind is free text here; whoever looks the
/// object up knows the kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    pub kind: String,
    pub name: String,
}

impl ObjectRef {
    pub fn new(kind: impl Into<String>, name: impl fmt::Display) -> Self {
        Self {
            kind: kind.into(),
            name: name.to_string(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_dns_labels() {
        assert!(Name::new("search-2").is_ok());
        assert_eq!(Name::new(""), Err(NameError::Length(0)));
        assert_eq!(Name::new("Web"), Err(NameError::Character('W')));
        assert_eq!(Name::new("-a"), Err(NameError::Hyphen));
    }

    fn scoped_names() -> impl Strategy<Value = ScopedName> {
        let name = || {
            let text = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
            text.prop_map(|text| Name::new(text).expect("matches the pattern"))
        };
        (name(), name()).prop_map(|(project, name)| ScopedName { project, name })
    }

    #[test]
    fn a_name_without_its_project_is_no_scoped_one() {
        for text in ["search", "/search", "news/", "a/b/c", "news.search", "A/b"] {
            assert!(text.parse::<ScopedName>().is_err(), "{text}");
        }
        for text in ["search-g12-0", "news/search-g12-0", "a.b.c-g1-0", ".b-g1-0"] {
            assert!(text.parse::<ReplicaId>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn replica_text_reads_back(
            service in scoped_names(),
            generation: u64,
            index: u32,
        ) {
            let id = ReplicaId {
                service,
                generation: Revision(generation),
                index,
            };
            prop_assert!(id.to_string().len() <= 160);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn scoped_text_reads_back(name in scoped_names()) {
            prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
            let json = serde_json::to_string(&name).expect("encodes");
            prop_assert_eq!(serde_json::from_str::<ScopedName>(&json).expect("reads"), name);
        }

        #[test]
        fn different_names_have_different_files(one in scoped_names(), other in scoped_names()) {
            prop_assert_eq!(one == other, one.file_name() == other.file_name());
        }

        #[test]
        fn replica_parser_never_panics(text: String) {
            let _ = text.parse::<ReplicaId>();
            let _ = text.parse::<ScopedName>();
        }
    }
}
