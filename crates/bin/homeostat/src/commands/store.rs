//! The stores: backed up while the node runs, restored while it does not.

use super::Context;
use crate::arguments::{Format, StoreCommand};
use crate::failure::{CONFLICT, FAILED, Failure};
use crate::output::{self, data, say};
use agent::backup::{RestoreError, restore};
use kernel::error_chain;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use wire::api::{GroupView, StoreView};

pub async fn run(context: &Context, what: &StoreCommand) -> Result<ExitCode, Failure> {
    match what {
        StoreCommand::Status => status(context).await?,
        StoreCommand::Backup { file } => backup(context, file).await?,
        StoreCommand::Restore {
            file,
            replace,
            alone,
        } => put_back(context, file, (*replace, *alone))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(context: &Context) -> Result<(), Failure> {
    let view: StoreView = context.client.get("/v1/store").await?;
    match context.output {
        Format::Table => {}
        Format::Name => {
            for group in &view.groups {
                data(&group.group)?;
            }
            return Ok(());
        }
        format => return output::json(&view, format),
    }
    let listed = |names: &[String]| match names {
        [] => "-".to_owned(),
        names => names.join(" "),
    };
    let behind = |group: &GroupView| {
        let all = group.behind.iter().filter(|(_, entries)| **entries > 0);
        let all: Vec<String> = all
            .map(|(name, entries)| format!("{name} {entries}"))
            .collect();
        listed(&all)
    };
    let row = |group: &GroupView| {
        [
            group.group.clone(),
            group.leader.clone().unwrap_or_else(|| "nobody".to_owned()),
            listed(&group.voters),
            listed(&group.learners),
            group.term.to_string(),
            group.entries.to_string(),
            behind(group),
        ]
    };
    let head = [
        "GROUP", "LEADER", "VOTERS", "LEARNERS", "TERM", "ENTRIES", "BEHIND",
    ];
    output::rows(head, view.groups.iter().map(row))?;
    for fault in view.groups.iter().filter_map(|group| group.fault.as_ref()) {
        say(&format!("stopped: {fault}"));
    }
    if view.groups.iter().any(|group| group.voters.is_empty()) {
        say(&format!(
            "`{}` keeps no state itself; the voters are {}",
            view.node,
            listed(&view.wanted_voters)
        ));
    }
    Ok(())
}

/// The file is there whole or not at all.
async fn backup(context: &Context, file: &Path) -> Result<(), Failure> {
    let bytes = context.client.post_for_bytes("/v1/store/backup").await?;
    let mut draft = file.as_os_str().to_owned();
    draft.push(format!(".new-{}", std::process::id()));
    let draft = Path::new(&draft);
    let kept = keep(draft, file, &bytes);
    let _ = fs::remove_file(draft);
    kept.map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::AlreadyExists {
            CONFLICT
        } else {
            FAILED
        };
        let help = "give another file; nothing was written over";
        Failure::new(exit, format!("{}: {error}", file.display()), Some(help))
    })?;
    say(&format!(
        "{} bytes in {}; keep the directory `keys` of the node's data with it, or its secrets stay sealed",
        bytes.len(),
        file.display()
    ));
    Ok(())
}

fn keep(draft: &Path, file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut writer = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    // Unlike a rename, a link never replaces what is there.
    fs::hard_link(draft, file)
}

fn put_back(context: &Context, file: &Path, over: (bool, bool)) -> Result<(), Failure> {
    let bytes = fs::read(file)
        .map_err(|error| Failure::new(FAILED, format!("{}: {error}", file.display()), None))?;
    let restored = restore(&context.layout, &bytes, over).map_err(|error| {
        let exit = match error {
            RestoreError::Running(_) | RestoreError::There(_) => CONFLICT,
            _ => FAILED,
        };
        Failure::new(exit, error_chain(&error), error.hint())
    })?;
    for (name, revision) in restored {
        say(&format!("{name}: as it was at revision {revision}"));
    }
    say("next: homeostat up");
    Ok(())
}
