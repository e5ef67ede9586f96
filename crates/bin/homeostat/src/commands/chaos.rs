//! Faults made on purpose, undone by themselves.

use super::lab::{find, none};
use super::{Context, up};
use crate::arguments::Format;
use crate::arguments::lab::{Chaos, Ends, Here, How, Span, Which};
use crate::failure::{CONFLICT, DENIED, FAILED, Failure, NOT_FOUND, USAGE};
use crate::output::{self, data, say};
use crate::roles;
use kernel::{Bytes, Name, format_duration};
use lab::Lab;
use serde::Serialize;
use std::io::{BufRead, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use wire::api::Status;
use wire::lab::{Between, Fault, Part, Place};

/// What a command that made a fault tells scripts.
#[derive(Serialize)]
struct Begun {
    lab: Option<u8>,
    /// For `chaos undo`; none if it is over already.
    id: Option<u64>,
    fault: Fault,
    for_ms: Option<u64>,
}

pub async fn run(context: &Context, what: &Chaos) -> Result<ExitCode, Failure> {
    match what {
        Chaos::Cut { ends, span } => in_lab(context, Fault::Cut(between(ends)), *span)?,
        Chaos::Slow { ends, how, span } => in_lab(context, slow(ends, *how)?, *span)?,
        Chaos::Loss {
            ends,
            percent,
            span,
        } => {
            if !(0.0..=100.0).contains(percent) {
                return Err(Failure::new(USAGE, "a percentage is 0 to 100", None));
            }
            let fault = Fault::Loss {
                between: between(ends),
                share: percent / 100.0,
            };
            in_lab(context, fault, *span)?;
        }
        Chaos::Poweroff { node, span } => {
            in_lab(context, Fault::PowerOff { node: node.clone() }, *span)?;
        }
        Chaos::Pause { node, span } => {
            in_lab(context, Fault::Pause { node: node.clone() }, *span)?;
        }
        Chaos::Kill {
            node,
            process,
            span,
            here,
        } => kill(context, node, (*process).into(), *span, here).await?,
        Chaos::Fill {
            node,
            leave,
            span,
            here,
        } => fill(context, node, *leave, *span, here).await?,
        Chaos::Ls(which) => list(context, *which)?,
        Chaos::Undo { id, which } => undo(context, *id, *which)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn between(ends: &Ends) -> Between {
    Between {
        from: ends.from.clone(),
        to: ends.to.clone(),
        one_way: ends.one_way,
    }
}

fn slow(ends: &Ends, how: How) -> Result<Fault, Failure> {
    if let Some(by) = how.by {
        return Ok(Fault::Slow {
            between: between(ends),
            by_ms: by.as_secs_f64() * 1e3,
        });
    }
    let (Place::Node(node), None) = (ends.from.clone(), &ends.to) else {
        let help = "homeostat chaos slow n2 --cpu 0.1";
        return Err(Failure::new(
            USAGE,
            "a node is slowed, not a zone",
            Some(help),
        ));
    };
    match (how.cpu, how.rate_mbit, how.disk_writes) {
        (Some(cores), _, _) if cores >= 0.01 => Ok(Fault::Cpu { node, cores }),
        (_, Some(mbit), _) if mbit > 0 => Ok(Fault::Rate {
            node,
            bits_per_s: mbit.saturating_mul(1_000_000),
        }),
        (_, _, Some(writes_per_s)) if writes_per_s > 0 => Ok(Fault::Disk { node, writes_per_s }),
        _ => Err(Failure::new(
            USAGE,
            "at least 0.01 cores, 1 Mbit/s, or 1 write a second",
            None,
        )),
    }
}

/// Refused outside labs: what it would cut is real.
fn in_lab(context: &Context, fault: Fault, span: Span) -> Result<(), Failure> {
    let lab = find(span.which)?.ok_or_else(|| {
        let mut failure = none();
        "this is done in labs only, and there is none".clone_into(&mut failure.message);
        failure
    })?;
    begin(context, &lab, fault, span.span)
}

fn begin(context: &Context, lab: &Lab, fault: Fault, span: Duration) -> Result<(), Failure> {
    let id = lab.begin(fault.clone(), Some(span))?;
    let when = match id {
        Some(id) => format!(
            "undone after {}, or with: homeostat chaos undo {id}",
            format_duration(span)
        ),
        None => "done".to_owned(),
    };
    tell(
        context,
        &Begun {
            lab: Some(lab.id()),
            id,
            fault,
            for_ms: id.and_then(|_| u64::try_from(span.as_millis()).ok()),
        },
        &when,
    )
}

fn tell(context: &Context, begun: &Begun, when: &str) -> Result<(), Failure> {
    say(&format!("{}: {when}", begun.fault));
    match context.output {
        Format::Table => Ok(()),
        Format::Name => begun.id.map_or(Ok(()), |id| data(&id.to_string())),
        format => output::json(begun, format),
    }
}

/// The lab, unless this machine's own node is meant.
fn lab_or_here(which: Which, here: &Here) -> Result<Option<Lab>, Failure> {
    if here.here { Ok(None) } else { find(which) }
}

async fn kill(
    context: &Context,
    node: &Name,
    part: Part,
    span: Span,
    here: &Here,
) -> Result<(), Failure> {
    let fault = Fault::Kill {
        node: node.clone(),
        part,
    };
    if let Some(lab) = lab_or_here(span.which, here)? {
        return begin(context, &lab, fault, span.span);
    }
    confirm(context, node, here).await?;
    let killed = lab::kill_part(&context.layout.root, part);
    if killed == 0 {
        let why = format!("{node} has no {} that runs", part.word());
        return Err(Failure::new(NOT_FOUND, why, None));
    }
    let begun = Begun {
        lab: None,
        id: None,
        fault,
        for_ms: None,
    };
    tell(context, &begun, "done")
}

async fn fill(
    context: &Context,
    node: &Name,
    leave: Bytes,
    span: Span,
    here: &Here,
) -> Result<(), Failure> {
    let fault = Fault::Fill {
        node: node.clone(),
        leave,
    };
    if let Some(lab) = lab_or_here(span.which, here)? {
        return begin(context, &lab, fault, span.span);
    }
    confirm(context, node, here).await?;
    let root = &context.layout.root;
    // Who will make room again is there before the room is taken.
    Command::new(roles::program()?)
        .arg("lab-unfill")
        .arg(root)
        .arg(span.span.as_millis().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    lab::fill(root, leave)?;
    let begun = Begun {
        lab: None,
        id: None,
        fault,
        for_ms: u64::try_from(span.span.as_millis()).ok(),
    };
    let when = format!(
        "undone after {}, or with: homeostat chaos undo",
        format_duration(span.span)
    );
    tell(context, &begun, &when)
}

/// The node's name, typed by who means it.
async fn confirm(context: &Context, node: &Name, here: &Here) -> Result<(), Failure> {
    if let Some(denied) = up::denied(context) {
        return Err(denied);
    }
    let status: Status = context.client.get("/v1/status").await?;
    if status.node != node.as_str() {
        let why = format!("the node here is `{}`, not `{node}`", status.node);
        return Err(Failure::new(NOT_FOUND, why, None));
    }
    let typed = match &here.confirm {
        Some(typed) => typed.clone(),
        None if std::io::stdin().is_terminal() => {
            say(&format!(
                "this is no lab: it harms the node `{node}`. Type its name to go on:"
            ));
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            line.trim().to_owned()
        }
        None => {
            let help = format!("--here --confirm {node}, if you mean it");
            let why = "this is no lab: it would harm a real node";
            return Err(Failure::new(DENIED, why, Some(&help)));
        }
    };
    if typed == node.as_str() {
        return Ok(());
    }
    Err(Failure::new(DENIED, "that is not the node's name", None))
}

fn list(context: &Context, which: Which) -> Result<(), Failure> {
    let lab = find(which)?.ok_or_else(none)?;
    let faults = lab.status()?.faults;
    let rows = faults.iter().map(|active| {
        let left = active.left_ms.map_or_else(
            || "until undone".to_owned(),
            |left| format!("{}s", left.div_ceil(1_000)),
        );
        [active.id.to_string(), active.fault.to_string(), left]
    });
    let table = (["ID", "FAULT", "LEFT"], rows);
    output::list(&faults, context.output, |it| it.id.to_string(), table)
}

fn undo(context: &Context, id: Option<u64>, which: Which) -> Result<(), Failure> {
    let Some(lab) = find(which)? else {
        if id.is_some() {
            return Err(none());
        }
        // Outside labs only a full disk is left to undo.
        lab::unfill(&context.layout.root)?;
        say("what filled the disk is gone");
        return Ok(());
    };
    let count = lab.undo(id)?;
    if let (0, Some(id)) = (count, id) {
        let help = "homeostat chaos ls";
        return Err(Failure::new(
            CONFLICT,
            format!("fault {id} is over already"),
            Some(help),
        ));
    }
    say(&format!("{count} undone"));
    Ok(())
}

/// Makes room again after a while: what `fill` leaves behind outside labs.
pub fn unfill(mut words: impl Iterator<Item = std::ffi::OsString>) -> ExitCode {
    let (Some(root), Some(millis)) = (words.next(), words.next()) else {
        return ExitCode::from(USAGE);
    };
    let Some(millis) = millis.to_str().and_then(|text| text.parse().ok()) else {
        return ExitCode::from(USAGE);
    };
    std::thread::sleep(Duration::from_millis(millis));
    match lab::unfill(root.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}
