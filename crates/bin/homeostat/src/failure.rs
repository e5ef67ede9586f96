//! What went wrong, the next step, and the exit code that says it to scripts.

use client::ClientError;
use kernel::error_chain;
use miette::{LabeledSpan, MietteDiagnostic, NamedSource, Report};
use std::io::Write;
use std::process::ExitCode;
use wire::api::ApiError;

/// Exit codes of the contract.
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const NOT_FOUND: u8 = 3;
pub const DENIED: u8 = 4;
pub const CONFLICT: u8 = 5;
pub const DEADLINE: u8 = 6;
pub const PENDING: u8 = 8;
/// As shells say it of one that was ended by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

/// The next step of who may not speak to a node.
pub const AS_OWNER: &str = "ask as the user who ran `homeostat up`";

#[derive(Debug)]
pub struct Failure {
    pub exit: u8,
    pub message: String,
    pub help: Option<String>,
    /// Findings in a manifest, drawn already.
    pub drawn: Vec<String>,
}

impl Failure {
    pub fn new(exit: u8, message: impl Into<String>, help: Option<&str>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: help.map(str::to_owned),
            drawn: Vec::new(),
        }
    }

    /// Everything to standard error.
    pub fn report(&self) -> ExitCode {
        let mut out = std::io::stderr().lock();
        for finding in &self.drawn {
            let _ = writeln!(out, "{finding}");
        }
        let _ = writeln!(out, "error: {}", self.message);
        if let Some(help) = &self.help {
            let _ = writeln!(out, "  help   {help}");
        }
        ExitCode::from(self.exit)
    }

    pub fn from_api(error: ApiError, manifest: Option<(&str, &str)>) -> Self {
        let exit = match error.code.as_str() {
            "not_found" => NOT_FOUND,
            "denied" | "unauthenticated" => DENIED,
            "conflict" => CONFLICT,
            "deadline" => DEADLINE,
            "ambiguous" => USAGE,
            _ => FAILED,
        };
        let drawn = match manifest {
            None => Vec::new(),
            Some((name, text)) => error
                .diagnostics
                .iter()
                .map(|finding| {
                    let mut diagnostic = MietteDiagnostic::new(finding.message.clone())
                        .with_label(LabeledSpan::at(finding.start..finding.end, "here"));
                    diagnostic.help.clone_from(&finding.help);
                    let source = NamedSource::new(name, text.to_owned());
                    format!("{:?}", Report::new(diagnostic).with_source_code(source))
                })
                .collect(),
        };
        Self {
            exit,
            message: error.message,
            help: error.help,
            drawn,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => Self::from_api(error, None),
            ClientError::NotRunning { ref source, .. }
                if source.kind() == std::io::ErrorKind::PermissionDenied =>
            {
                Self::new(DENIED, error_chain(&error), Some(AS_OWNER))
            }
            ClientError::Token => {
                let help = "ask an admin for: homeostat token create";
                Self::new(DENIED, error.to_string(), Some(help))
            }
            ClientError::Unreachable { .. } => {
                let help =
                    "on the node: homeostat doctor; see that --node and --authority are its own";
                Self::new(FAILED, error_chain(&error), Some(help))
            }
            ClientError::Address { .. } => {
                let help =
                    "give --node https://HOST:PORT, as `homeostat up --admin-listen` says it";
                Self::new(USAGE, error.to_string(), Some(help))
            }
            ClientError::Authority(_) => {
                let help = "write it on the node: homeostat trust --to authority.pem";
                Self::new(USAGE, error.to_string(), Some(help))
            }
            ClientError::NotRunning { .. } => {
                Self::new(FAILED, error.to_string(), Some("homeostat up"))
            }
            _ => Self::new(FAILED, error_chain(&error), Some("homeostat doctor")),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(FAILED, error.to_string(), None)
    }
}
