//! Tokens: made, listed, revoked.

use super::Context;
use super::inspect::clock;
use crate::arguments::cluster::CreateToken;
use crate::arguments::{Format, Role, Token};
use crate::failure::{Failure, USAGE};
use crate::output::{self, data, say};
use client::segment;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;
use wire::api::{JoinTokenReply, JoinTokenRequest, TokenReply, TokenRequest, TokenView};

pub async fn run(context: &Context, what: &Token) -> Result<ExitCode, Failure> {
    match what {
        Token::Create(asked) => match asked.role {
            Some(role) => create(context, role, asked).await?,
            None => create_join(context, asked).await?,
        },
        Token::Ls => list(context).await?,
        Token::Revoke { id } => {
            let path = format!("/v1/tokens/{}", segment(id));
            let _: BTreeMap<String, String> = context.client.delete(&path).await?;
            say(&format!("the token {id} is good for nothing now"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn life(ttl: Option<&str>, usual: &str) -> Result<Duration, Failure> {
    kernel::parse_duration(ttl.unwrap_or(usual)).map_err(|error| {
        let example = format!("homeostat token create --ttl {usual}");
        Failure::new(USAGE, error.to_string(), Some(&example))
    })
}

fn as_sent(role: Role) -> wire::api::Role {
    match role {
        Role::Viewer => wire::api::Role::Viewer,
        Role::Operator => wire::api::Role::Operator,
        Role::Admin => wire::api::Role::Admin,
    }
}

/// For one machine that joins.
async fn create_join(context: &Context, asked: &CreateToken) -> Result<(), Failure> {
    let request = JoinTokenRequest {
        zone: asked.zone.clone(),
        owner: as_sent(asked.owner),
        life_seconds: Some(life(asked.ttl.as_deref(), "15m")?.as_secs()),
        no_vote: asked.no_vote,
        witness: asked.witness,
    };
    let made: JoinTokenReply = context.client.post("/v1/nodes/tokens", &request).await?;
    match context.output {
        Format::Table | Format::Name => data(&made.token)?,
        format => output::json(&made, format)?,
    }
    say(&format!(
        "join token {}: one machine, in zone {}, until {}; it is not shown again",
        made.id,
        made.zone,
        clock(made.expires_unix_ms)
    ));
    say("on the other machine: homeostat up --join TOKEN");
    Ok(())
}

async fn create(context: &Context, role: Role, asked: &CreateToken) -> Result<(), Failure> {
    let life = life(asked.ttl.as_deref(), "30d")?;
    let project = asked.project.as_deref();
    let request = TokenRequest {
        role: as_sent(role),
        project: project.map(str::to_owned),
        life_seconds: Some(life.as_secs()),
    };
    let made: TokenReply = context.client.post("/v1/tokens", &request).await?;
    match context.output {
        // Without it, what was made would be of no use.
        Format::Table | Format::Name => data(&made.token)?,
        format => output::json(&made, format)?,
    }
    let whose = project.map_or_else(String::new, |name| format!(" of project `{name}`"));
    say(&format!(
        "token {}: {}{whose} until {}; it is not shown again",
        made.id,
        request.role,
        clock(made.expires_unix_ms)
    ));
    say("use it: HOMEOSTAT_TOKEN=… homeostat get services, or --token-file FILE");
    Ok(())
}

async fn list(context: &Context) -> Result<(), Failure> {
    let tokens: Vec<TokenView> = context.client.get("/v1/tokens").await?;
    let head = ["ID", "ROLE", "PROJECT", "STATE", "EXPIRES"];
    let rows = tokens.iter().map(|token| {
        let state = if token.expired { "expired" } else { "good" };
        [
            token.id.clone(),
            token.role.to_string(),
            token.project.clone().unwrap_or_else(|| "(all)".to_owned()),
            state.to_owned(),
            clock(token.expires_unix_ms),
        ]
    });
    output::list(&tokens, context.output, |it| it.id.clone(), (head, rows))
}
