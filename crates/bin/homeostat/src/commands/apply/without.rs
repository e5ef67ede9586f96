//! What would come of a loss.

use crate::arguments::Format;
use crate::commands::Context;
use crate::failure::{Failure, PENDING};
use crate::output::{self, data, say};
use client::segment;
use std::process::ExitCode;
use wire::api::WithoutReply;

pub async fn run(context: &Context, of: &str) -> Result<ExitCode, Failure> {
    let path = format!("/v1/without?of={}", segment(of));
    let reply: WithoutReply = context.client.get(&path).await?;
    match context.output {
        Format::Table => show(&reply)?,
        Format::Name => {
            for service in reply.lost.keys() {
                data(service)?;
            }
        }
        format => output::json(&reply, format)?,
    }
    if reply.lost.is_empty() && reply.has_majority() {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(PENDING))
}

fn show(reply: &WithoutReply) -> Result<(), Failure> {
    let moves = reply.moves.iter();
    let rows = moves.map(|one| [one.service.clone(), one.to.clone(), one.why.clone()]);
    if reply.moves.is_empty() {
        say("no replica would run elsewhere");
    } else {
        output::rows(["SERVICE", "WOULD RUN ON", "SCORE"], rows)?;
    }
    for (service, why) in &reply.lost {
        say(&format!("{service} would run nowhere: {why}"));
    }
    for service in &reply.wait {
        say(&format!("{service} would wait for it to come back"));
    }
    let (left, all) = (reply.voters_left, reply.voters);
    say(&if reply.has_majority() {
        format!("{left} of {all} voters would be left: the cluster can be changed")
    } else {
        format!("{left} of {all} voters would be left: nothing could be changed")
    });
    Ok(())
}
