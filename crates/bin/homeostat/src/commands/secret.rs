//! Secrets: set from standard input or a prompt, listed, removed.
//!
//! Never: takes a value as an argument, where other users see it, or shows one.

use super::Context;
use super::inspect::clock;
use crate::arguments::{Project, Secret};
use crate::failure::{FAILED, Failure, INTERRUPTED, USAGE};
use crate::output::{self, say};
use client::segment;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Read, Write, stderr, stdin};
use std::path::Path;
use std::process::ExitCode;
use wire::api::{Object, SecretReply, SecretRequest, SecretView};

/// One more than a value may have, so that a larger one is seen.
const READ_BYTES_MAX: u64 = (64 << 10) + 2;

pub async fn run(context: &Context, what: &Secret) -> Result<ExitCode, Failure> {
    match what {
        Secret::Set { name, project } => set(context, name, project).await?,
        Secret::Ls => list(context).await?,
        Secret::Rm { name, project } => {
            let project = project_name(context, project).await?;
            let path = path(&project, name);
            let _: SecretReply = context.client.delete(&path).await?;
            say(&format!("project `{project}` has no secret `{name}` now"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn path(project: &str, name: &str) -> String {
    format!("/v1/secrets/{}/{}", segment(project), segment(name))
}

async fn set(context: &Context, name: &str, project: &Project) -> Result<(), Failure> {
    let project = project_name(context, project).await?;
    let value = value(name)?;
    let request = SecretRequest { value };
    let reply: SecretReply = context.client.post(&path(&project, name), &request).await?;
    say(&format!("secret `{name}` of project `{project}` is set"));
    if reply.services.is_empty() {
        say(&format!(
            "next: name it in a service: secrets = {{ VARIABLE = \"{name}\" }}"
        ));
    } else {
        let services = reply.services.join(", ");
        say(&format!(
            "{services}: replicas are replaced one by one; see: homeostat get replicas"
        ));
    }
    Ok(())
}

/// From the flag, the manifest in this directory, or the node if it has one
/// project only.
pub async fn project_name(context: &Context, given: &Project) -> Result<String, Failure> {
    if let Some(given) = &given.project {
        return Ok(given.clone());
    }
    if let Ok(written) = super::apply::read(Path::new(".")) {
        return super::apply::project(&written);
    }
    let revisions: Vec<Object> = context.client.get("/v1/objects/revision").await?;
    let projects: BTreeSet<&str> = revisions
        .iter()
        .filter_map(|revision| revision.desired["manifest"]["project"].as_str())
        .collect();
    let mut projects = projects.into_iter();
    match (projects.next(), projects.next()) {
        (Some(only), None) => Ok(only.to_owned()),
        (found, _) => {
            let why = if found.is_some() {
                "the node has several projects"
            } else {
                "the node has no project yet"
            };
            Err(Failure::new(USAGE, why, Some("say which: --project NAME")))
        }
    }
}

fn value(name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    if stdin().is_terminal() {
        ask(name, &mut bytes)?;
    } else {
        stdin().take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(
            FAILED,
            "the value is not UTF-8 text, which an environment needs",
            Some("encode it, such as with base64"),
        )
    })
}

/// Reads a line that is not shown. Keys do not end the program meanwhile, which
/// would leave the terminal silent; Ctrl-C is a letter of the line.
fn ask(name: &str, line: &mut Vec<u8>) -> Result<(), Failure> {
    let before = tcgetattr(stdin()).map_err(std::io::Error::from)?;
    let mut silent = before.clone();
    silent.local_modes &= !(LocalModes::ECHO | LocalModes::ISIG);
    write!(stderr(), "value of `{name}` (not shown): ")?;
    tcsetattr(stdin(), OptionalActions::Flush, &silent).map_err(std::io::Error::from)?;
    let read = stdin().lock().read_until(b'\n', line);
    let restored = tcsetattr(stdin(), OptionalActions::Flush, &before);
    writeln!(stderr())?;
    read?;
    restored.map_err(std::io::Error::from)?;
    if line.contains(&3) {
        return Err(Failure::new(INTERRUPTED, "nothing was set", None));
    }
    Ok(())
}

async fn list(context: &Context) -> Result<(), Failure> {
    let secrets: Vec<SecretView> = context.client.get("/v1/secrets").await?;
    let name = |secret: &SecretView| format!("{}/{}", secret.project, secret.name);
    let head = ["NAME", "PROJECT", "SET", "NAMED BY"];
    let rows = secrets.iter().map(|secret| {
        [
            secret.name.clone(),
            secret.project.clone(),
            clock(secret.set_unix_ms),
            secret.services.join(", "),
        ]
    });
    output::list(&secrets, context.output, name, (head, rows))
}
