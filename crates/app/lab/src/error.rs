//! What went wrong with a lab.

use std::io;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    #[error("the lab's options cannot be used: {why}")]
    Options { why: String },
    #[error("cannot {what}")]
    Io { what: String, source: io::Error },
    #[error("`{command}` failed: {said}")]
    Tool { command: String, said: String },
    #[error("`{program}` is not installed")]
    Missing {
        program: String,
        package: &'static str,
    },
    #[error("all 254 labs of this machine are taken")]
    NoNumber,
    #[error("the lab could not be made: {why}")]
    Keeper { why: String },
    #[error("{why}")]
    Refused { why: String, help: Option<String> },
    #[error("lab {id} is not there")]
    Unknown { id: u8 },
    #[error("lab {id}'s keeper has gone")]
    Gone { id: u8 },
    #[error(transparent)]
    Format(#[from] wire::lab::LabFormatError),
}

impl LabError {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        let what = what.into();
        Self::Io { what, source }
    }

    /// What the reader can do next, if we know it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { package, .. } => Some(format!("apt-get install {package}")),
            Self::NoNumber | Self::Unknown { .. } => Some("homeostat lab ls".to_owned()),
            Self::Gone { id } => Some(format!("homeostat lab down {id}")),
            Self::Refused { help, .. } => help.clone(),
            _ => None,
        }
    }
}
