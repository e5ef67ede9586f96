//! What `up` does about other nodes: where this one listens, who it is, and
//! the key of a new cluster's root.

use super::Context;
use crate::arguments::cluster::Others;
use crate::failure::{CONFLICT, DENIED, FAILED, Failure, USAGE};
use crate::output::say;
use agent::cluster::group::control::outside::{self, OutsideError};
use agent::cluster::{self, JoinError, Kept, ListenError, Wanted};
use kernel::{Name, ZonePath, error_chain};
use std::io::ErrorKind;
use std::time::{Duration, Instant};
use wire::api::Status;
use wire::cluster::EtcdAccess;
use wire::net::JoinToken;

const LOOK: Duration = Duration::from_millis(10);
const SAY_AFTER: Duration = Duration::from_secs(1);
const SERVES_MAX: Duration = Duration::from_mins(10);

fn parsed<T: std::str::FromStr>(text: &str, example: &str) -> Result<T, Failure>
where
    T::Err: std::fmt::Display,
{
    text.parse::<T>()
        .map_err(|error| Failure::new(USAGE, error.to_string(), Some(example)))
}

/// Before the node starts: a fresh directory becomes a node of some cluster.
pub async fn prepare(context: &Context, asked: &Others) -> Result<(), Failure> {
    let wanted = Wanted {
        agent: asked.agent_listen,
        edge: asked.edge_listen,
        advertise: asked.advertise.clone(),
        outbound_only: asked.outbound_only,
    };
    let name = asked.name.as_deref();
    let name = name.map(|name| parsed::<Name>(name, "homeostat up --name vienna-1"));
    let name = name.transpose()?;
    let Some(token) = &asked.join else {
        return begin(context, asked, name, &wanted);
    };
    let token: JoinToken = token.parse().map_err(|error: wire::net::TokenError| {
        Failure::new(USAGE, error.to_string(), error.hint())
    })?;
    say("joining");
    let name = name.unwrap_or_else(agent::node_name);
    let own = cluster::join(&context.layout, token, Some(name), &wanted).await;
    let own = own.map_err(|error| refused(&error))?;
    say(&format!("joined as node {} in zone {}", own.name, own.zone));
    Ok(())
}

fn refused(error: &JoinError) -> Failure {
    let exit = match error {
        JoinError::Already { .. } => CONFLICT,
        JoinError::Net(net::join::JoinError::Refused { .. }) => DENIED,
        _ => FAILED,
    };
    Failure::new(exit, error_chain(error), error.hint())
}

fn begin(
    context: &Context,
    asked: &Others,
    name: Option<Name>,
    wanted: &Wanted,
) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error, help: Option<&str>| {
        Failure::new(FAILED, error_chain(error), help)
    };
    let listen = |error: ListenError| failed(&error, Some("homeostat up --agent-listen ADDR"));
    let zone = asked.zone.as_deref();
    let zone = zone.map(|zone| parsed::<ZonePath>(zone, "homeostat up --zone /eu/1"));
    let zone = zone.transpose()?;
    let kept = Kept::new(&context.layout);
    let own = kept.own().map_err(|error| failed(&error, error.hint()))?;
    let holds = own.as_ref().is_none_or(|own| own.holder.is_none());
    if holds && wanted.outbound_only == Some(true) {
        let message = "the node that holds the store must be one that others can call";
        let help = "leave out --outbound-only; or join another node's cluster with --join";
        return Err(Failure::new(CONFLICT, message, Some(help)));
    }
    if let Some(store) = store(asked)? {
        outside::choose(&context.layout, &store).map_err(|error| not_there(&error))?;
    }
    cluster::listen(&context.layout, wanted).map_err(listen)?;
    let Some(own) = own else {
        let name = name.unwrap_or_else(agent::node_name);
        let begun = kept.begin(name, zone.unwrap_or_default(), agent::unix_now());
        return begun
            .map(drop)
            .map_err(|error| failed(&error, error.hint()));
    };
    if zone.is_some_and(|zone| zone != own.zone) {
        let message = format!("this machine's node is in zone {} already", own.zone);
        return Err(Failure::new(CONFLICT, message, None));
    }
    Ok(())
}

fn store(asked: &Others) -> Result<Option<EtcdAccess>, Failure> {
    let Some(url) = &asked.store else {
        return Ok(None);
    };
    let access = outside::access(url, asked.store_tls.as_deref());
    access.map(Some).map_err(|error| not_there(&error))
}

fn not_there(error: &OutsideError) -> Failure {
    let exit = match error {
        OutsideError::Url { .. } => USAGE,
        OutsideError::Elsewhere { .. } => CONFLICT,
        _ => FAILED,
    };
    Failure::new(exit, error_chain(error), error.hint())
}

/// A node that runs already keeps its cluster's state where it was started to, and
/// is reached by others as it was.
pub fn runs_as_asked(context: &Context, asked: &Others) -> Result<(), Failure> {
    if let Some(store) = store(asked)? {
        outside::choose(&context.layout, &store).map_err(|error| not_there(&error))?;
    }
    let Ok(kept) = cluster::read_listen(&context.layout) else {
        return Ok(());
    };
    let again = |words: String| {
        let message = "the node is running already, and others reach it otherwise";
        let help = format!("homeostat down && homeostat up {words}");
        Err(Failure::new(CONFLICT, message, Some(&help)))
    };
    for (flag, asked, has) in [
        ("agent", asked.agent_listen, kept.agent),
        ("edge", asked.edge_listen, kept.edge),
    ] {
        if let Some(asked) = asked.filter(|it| it.port() != 0 && *it != has) {
            return again(format!("--{flag}-listen {asked}"));
        }
    }
    if let Some(asked) = asked.outbound_only.filter(|it| *it != kept.outbound_only) {
        return again(format!("--outbound-only={asked}"));
    }
    if !asked.advertise.is_empty() && asked.advertise != kept.advertise {
        let all: Vec<String> = asked.advertise.iter().map(ToString::to_string).collect();
        return again(format!("--advertise {}", all.join(",")));
    }
    Ok(())
}

/// Waits until a node that joined serves what the others do.
pub async fn serves(context: &Context) -> Result<(), Failure> {
    let said = Instant::now() + SAY_AFTER;
    let deadline = Instant::now() + SERVES_MAX;
    let mut silent = true;
    loop {
        let status: Status = context.client.get("/v1/status").await?;
        if status.follows.is_none_or(|follows| follows.current) {
            return Ok(());
        }
        if silent && Instant::now() >= said {
            say("fetching content");
            silent = false;
        }
        if Instant::now() >= deadline {
            say("content is still being fetched; the node goes on with it");
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Shows the root's key once, and forgets it.
pub fn show_root_key(context: &Context) -> Result<(), Failure> {
    let path = Kept::new(&context.layout).root_key();
    let key = match std::fs::read_to_string(&path) {
        Ok(key) => key,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    say("the key of this cluster's root, shown this once: keep it where no machine of the");
    say("cluster is. Nothing needs it until the authority on the first node is lost.");
    for line in key.lines() {
        say(&format!("  {line}"));
    }
    std::fs::remove_file(&path)?;
    Ok(())
}
