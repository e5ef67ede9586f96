//! Starting and stopping the node.

pub mod upgrade;

use super::{Context, apply, cluster};
use crate::arguments::{Listen, Up};
use crate::failure::{AS_OWNER, CONFLICT, DEADLINE, DENIED, FAILED, Failure, NOT_FOUND};
use crate::output::say;
use crate::roles;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use wire::api::{CertificateReply, CertificateRequest, Status};
use wire::supervise::{FromSupervisor, SupervisorStatus, ToSupervisor};

const START_MAX: Duration = Duration::from_secs(20);
/// A start that takes longer has a reason.
const START_USUAL: Duration = Duration::from_secs(2);
const PROBE_BYTES: usize = 64 << 10;
const LOOK: Duration = Duration::from_millis(10);
/// An agent that ended so often will not come up by itself.
const AGENT_ENDS_MAX: usize = 3;
const LOG_BYTES_MAX: u64 = 1 << 20;
/// An agent that was killed is back by then.
const AGENT_BACK_MAX: Duration = Duration::from_secs(5);

/// When a node is here that this user may not speak to.
pub fn denied(context: &Context) -> Option<Failure> {
    let socket = context.layout.supervisor_socket();
    let error = UnixStream::connect(&socket).err()?;
    (error.kind() == ErrorKind::PermissionDenied).then(|| {
        let message = format!("cannot speak to the node on {}: {error}", socket.display());
        Failure::new(DENIED, message, Some(AS_OWNER))
    })
}

/// A node that listens elsewhere is not what was asked for.
fn listens_there(status: &Status, listen: &Listen) -> Result<(), Failure> {
    for (flag, asked, has) in [
        ("http", listen.http, &status.http),
        ("https", listen.https, &status.https),
    ] {
        let (Some(asked), Some(has)) = (asked.filter(|asked| asked.port() != 0), has) else {
            continue;
        };
        if asked.to_string() != *has {
            return Err(Failure::new(
                CONFLICT,
                format!("the node is running already and listens on {has}, not on {asked}"),
                Some(&format!("homeostat down && homeostat up --{flag} {asked}")),
            ));
        }
    }
    Ok(())
}

/// What else is up stays so.
fn has_admin_port(status: &Status, listen: &Listen, was_running: bool) -> Result<(), Failure> {
    let Some(asked) = listen.admin_listen else {
        return Ok(());
    };
    let again = format!("homeostat down && homeostat up --admin-listen {asked}");
    let Some(port) = &status.admin_port else {
        let message = "the node is running already, without an admin port";
        return Err(Failure::new(CONFLICT, message, Some(&again)));
    };
    if asked.port() != 0 && asked.to_string() != port.address {
        let message = format!(
            "the node is running already and has its admin port on {}, not on {asked}",
            port.address
        );
        return Err(Failure::new(CONFLICT, message, Some(&again)));
    }
    let Some(fault) = &port.fault else {
        if !was_running {
            say(&format!("the admin API is on https://{}", port.address));
        }
        return Ok(());
    };
    let message = format!("the node is up, but its admin port {asked} is not: {fault}");
    let help = "free that address, which is tried again, or take another with --admin-listen";
    Err(Failure::new(CONFLICT, message, Some(help)))
}

pub async fn up(context: &Context, up: &Up) -> Result<ExitCode, Failure> {
    // A manifest that cannot be read starts nothing.
    let written = up.manifest.as_deref().map(apply::read).transpose()?;
    // Nor does a certificate that cannot be shown.
    let certificate = certificate(up)?;
    if up.foreground {
        cluster::prepare(context, &up.join).await?;
        let outcome = roles::exec_supervisor(&context.layout, &up.listen);
        return Err(Failure::new(FAILED, outcome.to_string(), None));
    }
    if let Some(denied) = denied(context) {
        return Err(denied);
    }
    let was_running = supervisor_status(context).await.is_some();
    let log_start = std::fs::metadata(agent_log_path(context)).map_or(0, |log| log.len());
    if was_running && up.join.join.is_some() {
        let message = "a node is running here already: it does not join another cluster";
        let help = "give another directory with --data-dir, and other ports";
        return Err(Failure::new(CONFLICT, message, Some(help)));
    }
    if !was_running {
        make_private(context)?;
        let prepared = cluster::prepare(context, &up.join).await;
        // Whichever write failed first, the disk is what to mend.
        prepared.map_err(|failure| full_disk(context).unwrap_or(failure))?;
        start(context, &up.listen).await?;
    }
    let status = wait_ready(context, log_start).await?;
    if was_running {
        listens_there(&status, &up.listen)?;
        cluster::runs_as_asked(context, &up.join)?;
    }
    cluster::show_root_key(context)?;
    if up.join.join.is_some() {
        cluster::serves(context).await?;
    }
    has_admin_port(&status, &up.listen, was_running)?;
    say(&format!(
        "node {} is {} (state in {})",
        status.node,
        if was_running { "running already" } else { "up" },
        context.layout.root.display()
    ));
    if let Some(request) = certificate {
        give(context, &request).await?;
    }
    if let Some(written) = written {
        let lines = context.client.post_lines("/v1/apply", &written.request);
        let done = apply::follow(lines, Some(&written)).await?;
        done.show(context)?;
        say("next: homeostat get services, homeostat trust (for https without warnings)");
    } else {
        say("next: homeostat apply DIR");
    }
    Ok(ExitCode::SUCCESS)
}

/// The files that were named, checked.
fn certificate(up: &Up) -> Result<Option<CertificateRequest>, Failure> {
    let (Some(chain), Some(key)) = (&up.certificate, &up.key) else {
        return Ok(None);
    };
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| {
            Failure::new(
                NOT_FOUND,
                format!("cannot read {}: {error}", path.display()),
                None,
            )
        })
    };
    let request = CertificateRequest {
        chain_pem: read(chain)?,
        key_pem: read(key)?,
    };
    agent::given::check(&request.chain_pem, &request.key_pem).map_err(|error| {
        let message = format!(
            "cannot use {} with {}: {error}",
            chain.display(),
            key.display()
        );
        Failure::new(FAILED, message, error.hint())
    })?;
    Ok(Some(request))
}

async fn give(context: &Context, request: &CertificateRequest) -> Result<(), Failure> {
    let reply: CertificateReply = context.client.post("/v1/certificates", request).await?;
    let hosts = reply.hosts.join(", ");
    if let Some(warning) = reply.warning {
        say(&format!("warning: the certificate for {hosts}: {warning}"));
    }
    say(&format!("the certificate for {hosts} is shown"));
    Ok(())
}

fn refused(error: &std::io::Error) -> u8 {
    if error.kind() == ErrorKind::PermissionDenied {
        DENIED
    } else {
        FAILED
    }
}

/// What a node keeps is its owner's alone.
fn make_private(context: &Context) -> Result<(), Failure> {
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(context.layout.logs()).map_err(|error| {
        Failure::new(
            refused(&error),
            format!(
                "cannot use the data directory {}: {error}",
                context.layout.root.display()
            ),
            Some("give another one with --data-dir"),
        )
    })
}

async fn start(context: &Context, listen: &Listen) -> Result<(), Failure> {
    let path = context.layout.logs().join("supervisor.log");
    let opened = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&path);
    let log = opened.map_err(|error| {
        Failure::new(
            refused(&error),
            format!("cannot write {}: {error}", path.display()),
            Some("give another directory with --data-dir"),
        )
    })?;
    let mut command = Command::new(roles::program()?);
    command
        .arg("supervisor")
        .arg("--data-dir")
        .arg(&context.layout.root)
        .args(listen.words())
        .env_remove(super::TOKEN)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .process_group(0);
    let mut child = command.spawn()?;
    // It stays; this notices an early end, such as a port in use. A killed
    // one's socket is still there, so only an answer tells that it is in place.
    let deadline = Instant::now() + START_MAX;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Err(early_end(context, status));
        }
        if supervisor_status(context).await.is_some() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// What ends on a full disk cannot write why.
fn full_disk(context: &Context) -> Option<Failure> {
    let root = &context.layout.root;
    let probe = root.join("room.probe");
    let written = std::fs::write(&probe, vec![0; PROBE_BYTES]);
    let _ = std::fs::remove_file(&probe);
    let kind = written.err()?.kind();
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded).then(|| {
        Failure::new(
            FAILED,
            format!("the disk of the data directory {} is full", root.display()),
            Some("free space on it, then: homeostat up"),
        )
    })
}

fn early_end(context: &Context, status: std::process::ExitStatus) -> Failure {
    if let Some(full) = full_disk(context) {
        return full;
    }
    let path = context.layout.logs().join("supervisor.log");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let (_, mut failure) = last_error(&text);
    failure.exit = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(FAILED);
    failure
        .help
        .get_or_insert_with(|| format!("see {}", path.display()));
    failure
}

/// How often a role's log tells of its end, and the last time's words.
fn last_error(log: &str) -> (usize, Failure) {
    let ends: Vec<(usize, &str)> = log
        .lines()
        .enumerate()
        .filter_map(|(at, line)| Some((at, line.strip_prefix("error: ")?)))
        .collect();
    let Some((at, cause)) = ends.last() else {
        return (0, Failure::new(FAILED, "it ended at once", None));
    };
    let help = log
        .lines()
        .nth(at + 1)
        .and_then(|line| line.trim_start().strip_prefix("help   "));
    (ends.len(), Failure::new(FAILED, *cause, help))
}

async fn wait_ready(context: &Context, agent_log_start: u64) -> Result<Status, Failure> {
    let deadline = Instant::now() + START_MAX;
    let suspicious = Instant::now() + START_USUAL;
    loop {
        match context.client.get::<Status>("/v1/status").await {
            Ok(status)
                if status.edge_connected
                    && status.http.is_some()
                    && status
                        .follows
                        .as_ref()
                        .is_none_or(|it| it.connected || it.before) =>
            {
                return Ok(status);
            }
            Ok(_)
            | Err(client::ClientError::NotRunning { .. } | client::ClientError::Broken(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (ends, mut failure) = last_error(&agent_log(context, agent_log_start));
        if ends >= AGENT_ENDS_MAX {
            // Whichever write failed first, the disk is what to mend.
            if let Some(full) = full_disk(context) {
                return Err(full);
            }
            failure.message = format!("the agent does not start: {}", failure.message);
            failure.help.get_or_insert_with(|| {
                "the node keeps trying; mend the cause, or stop it with: homeostat down".to_owned()
            });
            return Err(failure);
        }
        if Instant::now() >= suspicious
            && let Some(full) = full_disk(context)
        {
            return Err(full);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(
                DEADLINE,
                "the node did not come up within 20s",
                Some(&format!("see {}", context.layout.logs().display())),
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn agent_log_path(context: &Context) -> PathBuf {
    context.layout.logs().join("agent.log")
}

/// What the agent has said since its log was that long.
fn agent_log(context: &Context, start: u64) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(agent_log_path(context)) {
        let read = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.take(LOG_BYTES_MAX).read_to_string(&mut text));
        if read.is_err() {
            text.clear();
        }
    }
    text
}

/// What the supervisor says, if one answers.
pub async fn supervisor_status(context: &Context) -> Option<SupervisorStatus> {
    let mut connection = ipc::connect(&context.layout.supervisor_socket())
        .await
        .ok()?;
    connection.send(&ToSupervisor::Status).await.ok()?;
    match connection.receive().await {
        Ok(Some((FromSupervisor::Status(status), _))) => Some(status),
        _ => None,
    }
}

/// Asks the agent, which may be on its way back.
async fn stop_replicas(context: &Context) -> Result<(), Failure> {
    let deadline = Instant::now() + AGENT_BACK_MAX;
    let reply: BTreeMap<String, bool> = loop {
        match context.client.post("/v1/down", &()).await {
            Ok(reply) => break reply,
            // With a token that may not, nothing is to happen.
            Err(client::ClientError::Api(error)) => {
                return Err(Failure::from_api(error, None));
            }
            Err(error) if Instant::now() >= deadline => {
                let mut failure = Failure::from(error);
                failure.message = format!(
                    "the node is down, but its replicas may run on: {}",
                    failure.message
                );
                return Err(failure);
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    if reply.get("stopped") == Some(&true) {
        return Ok(());
    }
    Err(Failure::new(
        CONFLICT,
        "the node is down, but some replicas did not stop",
        Some("homeostat up && homeostat get replicas"),
    ))
}

async fn tell_shutdown(context: &Context) -> Result<(), ipc::IpcError> {
    let mut connection = ipc::connect(&context.layout.supervisor_socket()).await?;
    connection.send(&ToSupervisor::Shutdown).await
}

pub async fn down(context: &Context) -> Result<ExitCode, Failure> {
    if let Some(denied) = denied(context) {
        return Err(denied);
    }
    let Some(supervisor) = supervisor_status(context).await else {
        say("no node is running here");
        return Ok(ExitCode::SUCCESS);
    };
    let watched = ipc::Identity::of(supervisor.pid).and_then(ipc::Watched::open);
    say("stopping replicas");
    let stopped = stop_replicas(context).await;
    if let Err(failure) = &stopped
        && failure.exit == DENIED
    {
        return stopped.map(|()| ExitCode::SUCCESS);
    }
    tell_shutdown(context)
        .await
        .map_err(|error| Failure::new(FAILED, error.to_string(), None))?;
    // Its end, not its silence: what it held is free then.
    if let Ok(watched) = watched
        && tokio::time::timeout(START_MAX, watched.exited())
            .await
            .is_err()
    {
        return Err(Failure::new(
            DEADLINE,
            "the node is still going down",
            Some("homeostat doctor"),
        ));
    }
    stopped?;
    say("the node is down; its state stays");
    Ok(ExitCode::SUCCESS)
}
