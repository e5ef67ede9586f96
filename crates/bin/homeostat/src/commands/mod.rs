//! What each command does: asks the node, shows the answer.

mod alerts;
mod apply;
mod audit;
pub mod chaos;
mod cluster;
mod doctor;
mod init;
mod inspect;
mod job;
mod lab;
mod node;
mod project;
mod publish;
mod replay;
mod secret;
mod store;
mod token;
mod up;
mod zones;

use crate::arguments::lab::LabCommand;
use crate::arguments::{Arguments, Command, Down, Global, StoreCommand};
use crate::failure::Failure;
use crate::{output, roles};
use clap::CommandFactory;
use client::Client;
use std::path::PathBuf;
use std::process::ExitCode;
use wire::layout::Layout;

/// What every command has at hand.
pub struct Context {
    pub layout: Layout,
    pub output: crate::arguments::Format,
    pub client: Client,
}

/// The variable a token is taken from.
pub const TOKEN: &str = "HOMEOSTAT_TOKEN";

pub fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    match arguments.command {
        // These know nothing of a node.
        Command::Worker(worker) => return roles::worker(worker),
        Command::Version => return up::upgrade::version(arguments.global.output),
        _ => {}
    }
    let context = context(&arguments.global)?;
    match arguments.command {
        Command::Supervisor(listen) => return roles::supervisor(&context.layout, &listen),
        Command::Agent { admin_listen } => return roles::agent(&context.layout, admin_listen),
        Command::Edge => return Ok(roles::edge(&context.layout)),
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "homeostat", &mut script);
            output::data(String::from_utf8_lossy(&script).trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Schema => {
            output::json(&manifest::schema(), context.output)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Explain { field } => return inspect::explain(&context, &field),
        // Their nodes have runtimes; a lab is the keeper's.
        Command::Lab(LabCommand::Exec {
            node,
            which,
            command,
        }) => return lab::exec(&node, which, &command),
        Command::Lab(what) => return lab::run(&context, &what),
        Command::Down(Down { lab: Some(id) }) => return lab::down(id),
        Command::Up(ref given) => {
            if let Some(asked) = &given.lab {
                return lab::up(&context, given, asked);
            }
        }
        _ => {}
    }
    if !context.client.is_local() {
        is_for_afar(&arguments.command)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(ask(&context, arguments.command))
}

async fn ask(context: &Context, command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(up) => up::up(context, &up).await,
        Command::Down(_) => up::down(context).await,
        Command::Upgrade(upgrade) => up::upgrade::run(context, &upgrade).await,
        Command::Plan { path, without } => match without {
            Some(lost) => apply::without::run(context, &lost).await,
            None => apply::plan(context, &path.manifest).await,
        },
        Command::Apply(path) => apply::apply(context, &path.manifest).await,
        Command::Rollback { project, to } => {
            apply::rollback(context, &project, to.unwrap_or(0)).await
        }
        Command::Restart { service } => apply::restart(context, &service).await,
        Command::Get { object } => inspect::get(context, &object).await,
        Command::Why { object, limit } => inspect::why(context, &object, limit).await,
        Command::WhyNot { service, node } => inspect::why_not(context, &service, &node).await,
        Command::Logs {
            service,
            follow,
            tail,
        } => inspect::logs(context, &service, follow, tail).await,
        Command::Openapi => inspect::openapi(context).await,
        Command::Init { directory } => init::run(context, &directory).await,
        Command::Secret(what) => secret::run(context, &what).await,
        Command::Token(what) => token::run(context, &what).await,
        Command::Node(what) => node::run(context, &what).await,
        Command::Publish { set, remove } => publish::run(context, &set, remove).await,
        Command::Zones {
            what: None,
            watch,
            zone,
            fresh,
            at_least,
        } => {
            let path = zones::path(zone.as_deref(), fresh, at_least.as_deref());
            zones::tree(context, &path, watch).await
        }
        Command::Zones {
            what: Some(what), ..
        } => zones::change(context, &what).await,
        Command::Seats => zones::seats(context).await,
        Command::Ask(asked) => zones::ask(context, &asked).await,
        Command::Aggregates(what) => zones::aggregates(context, what).await,
        Command::Job(what) => job::run(context, what).await,
        Command::Rollout(what) => {
            apply::rollout::run(context, what).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Alerts(what) => alerts::run(context, what).await,
        Command::Audit(what) => audit::run(context, &what).await,
        Command::Store(what) => store::run(context, &what).await,
        Command::Project(what) => project::run(context, &what).await,
        Command::Doctor => doctor::run(context).await,
        Command::Replay(asked) => replay::run(context, asked).await,
        Command::Chaos(what) => chaos::run(context, &what).await,
        Command::Trust { to } => doctor::trust(context, to.as_deref()).await,
        // Handled before there was a runtime.
        Command::Supervisor(_)
        | Command::Agent { .. }
        | Command::Edge
        | Command::Worker(_)
        | Command::Version
        | Command::Completions { .. }
        | Command::Schema
        | Command::Lab(_)
        | Command::Explain { .. } => Ok(ExitCode::SUCCESS),
    }
}

fn context(global: &Global) -> Result<Context, Failure> {
    let root = match &global.data_dir {
        Some(directory) => std::path::absolute(directory)?,
        None => default_data_directory()?,
    };
    if !Layout::sockets_fit(&root) {
        return Err(Failure::new(
            crate::failure::USAGE,
            format!(
                "the data directory's path is too long for Unix sockets: {}",
                root.display()
            ),
            Some("give one of at most 40 bytes with --data-dir"),
        ));
    }
    let layout = Layout::new(root);
    let mut client = match &global.node {
        Some(node) => Client::over_tls(node, &authority(global)?)?,
        None => Client::new(layout.admin_socket()),
    };
    if let Some(token) = token(global)? {
        client = client.with_token(token.trim())?;
    }
    Ok(Context {
        client,
        layout,
        output: global.output,
    })
}

/// Of another machine's node nothing is believed that its own authority does
/// not certify.
fn authority(global: &Global) -> Result<Vec<u8>, Failure> {
    let usage = |message: String| {
        let help = "give --authority FILE; on the node: homeostat trust --to FILE";
        Failure::new(crate::failure::USAGE, message, Some(help))
    };
    let Some(path) = &global.authority else {
        return Err(usage("--node needs the authority of that node".to_owned()));
    };
    std::fs::read(path).map_err(|error| {
        usage(format!(
            "cannot read the authority in {}: {error}",
            path.display()
        ))
    })
}

/// What concerns this machine is not done to another by mistake.
fn is_for_afar(command: &Command) -> Result<(), Failure> {
    let here = match command {
        Command::Up(_) => "up",
        Command::Down(_) => "down",
        Command::Upgrade(upgrade) if !upgrade.all => "upgrade without --all",
        Command::Trust { .. } => "trust",
        Command::Store(StoreCommand::Restore { .. }) => "store restore",
        Command::Store(StoreCommand::ForceLeader { .. }) => "store force-leader",
        Command::Replay(replay) if replay.to.is_none() => "replay without --to",
        _ => return Ok(()),
    };
    Err(Failure::new(
        crate::failure::USAGE,
        format!("`{here}` concerns the machine that it is run on"),
        Some("run it on the node itself, without --node and HOMEOSTAT_NODE"),
    ))
}

/// The file before the variable. Never an argument, which other users see.
fn token(global: &Global) -> Result<Option<String>, Failure> {
    match &global.token_file {
        Some(path) => std::fs::read_to_string(path).map(Some).map_err(|error| {
            let message = format!("cannot read the token in {}: {error}", path.display());
            Failure::new(crate::failure::USAGE, message, None)
        }),
        None => Ok(std::env::var(TOKEN).ok()),
    }
}

fn default_data_directory() -> Result<PathBuf, Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/homeostat"));
    }
    if let Some(data) = std::env::var_os("XDG_DATA_HOME") {
        return Ok(PathBuf::from(data).join("homeostat"));
    }
    std::env::var_os("HOME")
        .map(|home| PathBuf::from(home).join(".local/share/homeostat"))
        .ok_or_else(|| {
            Failure::new(
                crate::failure::USAGE,
                "there is no home directory",
                Some("give --data-dir DIR"),
            )
        })
}
