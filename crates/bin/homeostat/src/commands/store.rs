//! The stores: backed up while the node runs, restored while it does not; led by
//! one node without the others.

use super::Context;
use crate::arguments::{Format, StoreCommand};
use crate::failure::{CONFLICT, DEADLINE, DENIED, FAILED, Failure};
use crate::output::{self, data, say};
use agent::backup::{RestoreError, restore};
use kernel::{error_chain, format_duration};
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use wire::api::{ForceLeaderReply, ForceLeaderRequest, GroupView, StoreView};

/// For its agent to start anew.
const LEADS_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

pub async fn run(context: &Context, what: &StoreCommand) -> Result<ExitCode, Failure> {
    match what {
        StoreCommand::Status => status(context).await?,
        StoreCommand::Backup { file } => backup(context, file).await?,
        StoreCommand::Restore {
            file,
            replace,
            alone,
        } => put_back(context, file, (*replace, *alone))?,
        StoreCommand::ForceLeader { yes } => force_leader(context, *yes).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "-".to_owned(),
        names => names.join(" "),
    }
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
    let behind = |group: &GroupView| {
        let all = group.behind.iter().filter(|(_, entries)| **entries > 0);
        let all: Vec<String> = all
            .map(|(name, entries)| format!("{name} {entries}"))
            .collect();
        listed(&all)
    };
    let row = |group: &GroupView| {
        if group.kept_in.is_some() {
            let name = group.group.clone();
            let leader = group.leader.clone().unwrap_or_else(|| "nobody".to_owned());
            let none = || "-".to_owned();
            return [name, leader, none(), none(), none(), none(), none()];
        }
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
    notices(&view);
    Ok(())
}

/// What a person should know beside the numbers.
fn notices(view: &StoreView) {
    let leaderless: Vec<&str> = (view.groups.iter())
        .filter(|group| group.leader.is_none() && !group.voters.is_empty())
        .map(|group| group.group.as_str())
        .collect();
    if !leaderless.is_empty() {
        say(&format!(
            "nobody leads {}: what runs runs on, and nothing can be changed; where the others are \
             lost for good: homeostat store force-leader",
            leaderless.join(" and ")
        ));
    }
    for group in view.groups.iter().filter(|group| group.degraded) {
        say(&format!(
            "degraded: what `{}` acknowledges is on one node alone; join a witness: \
             homeostat token create --witness",
            group.group
        ));
    }
    if view.generation > 0 {
        say(&format!(
            "generation {}: a node was made to lead without the others",
            view.generation
        ));
    }
    for group in &view.groups {
        let Some(fault) = &group.fault else { continue };
        match &group.kept_in {
            Some(url) => say(&format!("{url} is not heard: {fault}")),
            None => say(&format!("stopped: {fault}")),
        }
    }
    for group in &view.groups {
        let Some(url) = &group.kept_in else { continue };
        say(&format!("`{}` is in {url}", group.group));
        if group.leader.is_none() {
            say("nobody leads: what runs runs on, and nothing can be changed");
        }
    }
    let is_here = |group: &&GroupView| group.kept_in.is_none();
    let mut here = view.groups.iter().filter(is_here);
    if here.any(|group| group.voters.is_empty()) {
        say(&format!(
            "`{}` keeps no state itself; the voters are {}",
            view.node,
            listed(&view.wanted_voters)
        ));
    }
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
    let view: StoreView = context.client.get("/v1/store").await?;
    for url in view
        .groups
        .iter()
        .filter_map(|group| group.kept_in.as_ref())
    {
        say(&format!(
            "what is wished is not in it, but in {url}: etcdctl snapshot save"
        ));
    }
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

/// Asks first, unless `yes`.
async fn force_leader(context: &Context, yes: bool) -> Result<(), Failure> {
    let path = "/v1/store/force-leader";
    let ask = |confirmed| ForceLeaderRequest { confirmed };
    let told: ForceLeaderReply = context.client.post(path, &ask(false)).await?;
    let listed = |names: &[String]| match names {
        [] => "nobody".to_owned(),
        names => names.join(", "),
    };
    let since = told.leaderless_ms.map(Duration::from_millis);
    let since = since.map_or_else(
        || "nobody was known to lead since its agent started".to_owned(),
        |since| {
            format!(
                "for {} nobody has been known to lead",
                format_duration(since)
            )
        },
    );
    say(&format!(
        "`{}` knows the cluster's state up to entry {}; {since}",
        told.node, told.entries
    ));
    say(&format!(
        "not reached: {}; what they acknowledged and this node did not hear of is lost, and \
         they follow when they come back",
        listed(&told.unreached)
    ));
    if !told.reached.is_empty() {
        say(&format!(
            "reached, and will follow: {}",
            listed(&told.reached)
        ));
    }
    if !yes {
        confirm(&told.node)?;
    }
    let done: ForceLeaderReply = context.client.post(path, &ask(true)).await?;
    let until = Instant::now() + LEADS_MAX;
    while Instant::now() < until {
        let view: Result<StoreView, _> = context.client.get("/v1/store").await;
        let leads = |view: &StoreView| {
            let mut groups = view.groups.iter();
            view.generation == done.generation
                && groups.all(|group| group.leader.as_ref() == Some(&done.node))
        };
        if view.as_ref().is_ok_and(leads) {
            say(&format!(
                "`{}` leads, in generation {}",
                done.node, done.generation
            ));
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    let message = format!("`{}` does not lead yet", done.node);
    Err(Failure::new(DEADLINE, message, Some("homeostat doctor")))
}

fn confirm(node: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        let why = "nobody is there to be asked whether the others are lost for good";
        let help = "homeostat store force-leader --yes, if they are";
        return Err(Failure::new(DENIED, why, Some(help)));
    }
    say(&format!(
        "if the others are lost for good, type the node's name, `{node}`, to have it lead:"
    ));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    if line.trim() == node {
        return Ok(());
    }
    Err(Failure::new(DENIED, "that is not the node's name", None))
}
