//! The process driver: [`Driver`] over shims.
//!
//! Holds: at most one link, so one stream of events, per replica; a start with
//! no living shim first makes one. Never: is the parent that a replica depends
//! on; dropping the driver leaves all running.

use crate::group::{self, ControlGroups, control_groups};
use crate::link::{self, Link};
use crate::log::{LOG_BYTES_MAX, LOG_FILES_MAX, log_directory};
use crate::{probe, record};
use kernel::{ReplicaId, ScopedName, Time};
use manifest::Check;
use node::BoxFuture;
use node::driver::{
    Adopted, Driver, DriverError, DriverEvents, Found, ProbeOutcome, ReplicaSpec, ReplicaStats,
    Running, Work,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use wire::shim::{Secrets, ShimSpec, ShimState, ToShim};

/// Removed replicas of a service whose logs are kept.
const OLD_REPLICAS_MAX: usize = 10;
const SHIM_WAIT: Duration = Duration::from_secs(5);
const LEAVE_WAIT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(2);
/// `sockaddr_un` holds 107 bytes and a final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

#[derive(Clone, Debug)]
pub struct ProcessOptions {
    /// `DATA/replicas`.
    pub directory: PathBuf,
    /// Where the shims' sockets are.
    pub run_directory: PathBuf,
    /// Program and arguments before `DIRECTORY SOCKET`: what calls
    /// [`crate::run_shim`].
    pub shim_command: Vec<OsString>,
    /// Keeps the groups of nodes on one machine apart.
    pub cgroup_name: String,
}

pub struct ProcessDriver {
    options: ProcessOptions,
    events: DriverEvents,
    groups: ControlGroups,
    /// Held while a link is made, so that none is made twice.
    links: Mutex<BTreeMap<ReplicaId, Link>>,
    /// Until when each service's leased replicas may run, as was said last.
    leases: std::sync::Mutex<BTreeMap<ScopedName, Time>>,
}

impl ProcessDriver {
    /// # Errors
    /// When a directory cannot be made, or there is no shim command.
    pub fn new(mut options: ProcessOptions, events: DriverEvents) -> Result<Self, DriverError> {
        if options.shim_command.is_empty() {
            return Err(failed("no command for the shim", None));
        }
        for directory in [&mut options.directory, &mut options.run_directory] {
            std::fs::create_dir_all(&*directory)
                .and_then(|()| std::path::absolute(&*directory))
                .map(|absolute| *directory = absolute)
                .map_err(because("cannot make the driver's directories"))?;
        }
        Ok(Self {
            options,
            events,
            groups: control_groups(),
            links: Mutex::default(),
            leases: std::sync::Mutex::default(),
        })
    }

    /// The control groups in force when the driver was made.
    pub fn control_groups(&self) -> &ControlGroups {
        &self.groups
    }

    fn directory(&self, replica: &ReplicaId) -> PathBuf {
        self.options.directory.join(replica.to_string())
    }

    /// Long names are shortened to fit; the hash keeps them apart, also where
    /// somebody chose them to be alike.
    fn socket(&self, replica: &ReplicaId) -> PathBuf {
        let name = replica.to_string();
        let path = self.options.run_directory.join(format!("{name}.sock"));
        if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return path;
        }
        let hash = blake3::hash(name.as_bytes()).to_hex();
        self.options
            .run_directory
            .join(format!("{}.sock", &hash[..32]))
    }

    async fn prepare_replica(&self, spec: ReplicaSpec) -> Result<(), DriverError> {
        let name = spec.id.to_string();
        let Work::Process {
            command,
            directory: works_in,
        } = spec.work
        else {
            return Err(failed(format!("`{name}` is not a process"), None));
        };
        let directory = self.directory(&spec.id);
        let cannot = || because(format!("cannot prepare `{name}`"));
        self.prune(&spec.id);
        std::fs::create_dir_all(&directory).map_err(cannot())?;
        let node = &self.options.cgroup_name;
        let shim_spec = ShimSpec {
            control_groups: self.groups.make(node, &name, &spec.limits),
            replica: spec.id.clone(),
            command,
            directory: works_in,
            environment: spec.environment,
            open_files: spec.limits.open_files,
            log_directory: log_directory(&directory),
            log_bytes_max: LOG_BYTES_MAX,
            log_files_max: LOG_FILES_MAX,
            leased: spec.leased,
        };
        record::write_spec(&directory, &shim_spec).map_err(cannot())?;
        self.ensure_link(&spec.id).await.map(drop)
    }

    /// Lets go of the logs of a service's oldest removed replicas.
    fn prune(&self, replica: &ReplicaId) {
        let found = crate::replica_directories(&self.options.directory, &replica.service);
        let mut removed = found.unwrap_or_default();
        removed
            .retain(|path| !record::spec_path(path).exists() && *path != self.directory(replica));
        let surplus = removed.len().saturating_sub(OLD_REPLICAS_MAX);
        for path in removed.drain(..surplus) {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    /// A sender to a living shim, which is made if need be.
    async fn ensure_link(
        &self,
        replica: &ReplicaId,
    ) -> Result<tokio::sync::mpsc::Sender<ToShim>, DriverError> {
        let mut links = self.links.lock().await;
        if let Some(link) = links.get(replica).filter(|link| link.open()) {
            return Ok(link.sender());
        }
        let (directory, socket) = (self.directory(replica), self.socket(replica));
        if !record::spec_path(&directory).exists() {
            return Err(DriverError::Unknown(replica.clone()));
        }
        let found = link::connect(replica, &directory, &socket, &self.events).await;
        let link = if let Ok(link) = found {
            link
        } else {
            link::settle(&directory);
            let made = self.start_shim(replica, &directory, &socket).await;
            made.map_err(because(format!("cannot start the shim of `{replica}`")))?
        };
        let sender = link.sender();
        if let Some(until) = self.leases().get(&replica.service).copied() {
            link.lease(until);
        }
        links.insert(replica.clone(), link);
        Ok(sender)
    }

    async fn start_shim(
        &self,
        replica: &ReplicaId,
        directory: &Path,
        socket: &Path,
    ) -> io::Result<Link> {
        let (program, arguments) = self
            .options
            .shim_command
            .split_first()
            .ok_or(io::ErrorKind::NotFound)?;
        let complaints = std::fs::File::create(directory.join("shim.log"))?;
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .arg(directory)
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(complaints)
            .spawn()?;
        let begun = tokio::time::Instant::now();
        loop {
            let error = match link::connect(replica, directory, socket, &self.events).await {
                Ok(link) => {
                    // Its end is seen on the socket; this only collects it.
                    tokio::spawn(async move { child.wait().await });
                    return Ok(link);
                }
                Err(error) => error,
            };
            if let Some(status) = child.try_wait()? {
                let why = std::fs::read_to_string(directory.join("shim.log"));
                let why = why.unwrap_or_default();
                return Err(io::Error::other(format!("{status}: {}", why.trim())));
            }
            if begun.elapsed() > SHIM_WAIT {
                return Err(error);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<ScopedName, Time>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn extend_lease(&self, service: ScopedName, until: Time) {
        self.leases().insert(service.clone(), until);
        let links = self.links.lock().await;
        let its = links.iter().filter(|(id, _)| id.service == service);
        its.for_each(|(_, link)| link.lease(until));
    }

    async fn stop_replica(&self, replica: ReplicaId, grace: Duration) -> Result<(), DriverError> {
        if !record::spec_path(&self.directory(&replica)).exists() {
            return Err(DriverError::Unknown(replica));
        }
        let links = self.links.lock().await;
        if let Some(link) = links.get(&replica) {
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            // A lost shim has taken its replica with it.
            let _ = link.send(ToShim::Stop { grace_ms }).await;
        }
        Ok(())
    }

    async fn remove_replica(&self, replica: ReplicaId) -> Result<(), DriverError> {
        let directory = self.directory(&replica);
        let spec =
            record::read_spec(&directory).map_err(|_| DriverError::Unknown(replica.clone()))?;
        let mut links = self.links.lock().await;
        if let Some(link) = links.get(&replica).filter(|link| link.open()) {
            if matches!(*link.state.borrow(), ShimState::Running { .. }) {
                return Err(failed(format!("`{replica}` still runs"), None));
            }
            let _ = link.send(ToShim::Leave).await;
            let sender = link.sender();
            if tokio::time::timeout(LEAVE_WAIT, sender.closed())
                .await
                .is_err()
            {
                return Err(failed(
                    format!("the shim of `{replica}` does not leave"),
                    None,
                ));
            }
        }
        links.remove(&replica);
        drop(links);
        let begun = tokio::time::Instant::now();
        // It closes its socket a moment before it ends.
        let shim = record::read_state(&directory).and_then(|recorded| recorded.shim);
        while shim.as_ref().is_some_and(record::ProcessMark::alive) && begun.elapsed() < LEAVE_WAIT
        {
            tokio::time::sleep(POLL).await;
        }
        // Killed processes leave their group when they are collected.
        while !group::remove(&spec.control_groups) && begun.elapsed() < LEAVE_WAIT {
            tokio::time::sleep(POLL).await;
        }
        let leftovers = ["spec.json", "state.json", "shim.lock", "shim.log"];
        for path in leftovers.map(|name| directory.join(name)) {
            let _ = std::fs::remove_file(path);
        }
        let _ = std::fs::remove_file(self.socket(&replica));
        Ok(())
    }

    /// Lets the shims go whose replicas have ended, before the agent does: how they
    /// ended is on disk.
    pub async fn rest(&self) {
        let links = self.links.lock().await;
        for link in links.values().filter(|link| link.open()) {
            let runs = matches!(*link.state.borrow(), ShimState::Running { .. });
            if !runs {
                let _ = link.send(ToShim::Leave).await;
            }
        }
    }

    async fn adopt_all(&self) -> Result<Vec<Adopted>, DriverError> {
        let unreadable = || because("cannot list the replicas");
        let mut adopted = Vec::new();
        let mut links = self.links.lock().await;
        for entry in std::fs::read_dir(&self.options.directory).map_err(unreadable())? {
            let name = entry.map_err(unreadable())?.file_name();
            let Some(replica) = name
                .to_str()
                .and_then(|name| name.parse::<ReplicaId>().ok())
            else {
                continue;
            };
            let (directory, socket) = (self.directory(&replica), self.socket(&replica));
            if !record::spec_path(&directory).exists() {
                continue;
            }
            if let Some(link) = links.get(&replica).filter(|link| link.open()) {
                let state = found(&link.state.borrow());
                adopted.push(Adopted { replica, state });
                continue;
            }
            let state = match link::connect(&replica, &directory, &socket, &self.events).await {
                Ok(link) => {
                    let state = link.state.borrow().clone();
                    links.insert(replica.clone(), link);
                    state
                }
                Err(_) => link::settle(&directory),
            };
            let state = found(&state);
            adopted.push(Adopted { replica, state });
        }
        adopted.sort_by(|a, b| a.replica.cmp(&b.replica));
        Ok(adopted)
    }

    fn read_stats(&self, replica: &ReplicaId) -> Result<ReplicaStats, DriverError> {
        let directory = self.directory(replica);
        let spec =
            record::read_spec(&directory).map_err(|_| DriverError::Unknown(replica.clone()))?;
        let (cpu, mut stats) = group::stats(&spec.control_groups);
        let mark = record::read_state(&directory).and_then(|recorded| recorded.replica);
        if cpu.is_none()
            && let Some(mark) = mark.filter(record::ProcessMark::alive)
        {
            let fields = record::stat_fields(mark.pid).unwrap_or_default();
            let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
            let ticks = number(11).unwrap_or(0) + number(12).unwrap_or(0);
            let per_second = rustix::param::clock_ticks_per_second().max(1);
            stats.cpu = Duration::from_millis(ticks * 1000 / per_second);
            let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
            let resident = number(21).map(|pages| kernel::Bytes(pages * page));
            stats.memory = stats.memory.or(resident);
        }
        Ok(stats)
    }
}

impl Driver for ProcessDriver {
    fn prepare(&self, spec: &ReplicaSpec) -> BoxFuture<'_, Result<(), DriverError>> {
        let spec = spec.clone();
        Box::pin(self.prepare_replica(spec))
    }

    fn start(
        &self,
        replica: &ReplicaId,
        secrets: Secrets,
    ) -> BoxFuture<'_, Result<(), DriverError>> {
        let replica = replica.clone();
        Box::pin(async move {
            let sender = self.ensure_link(&replica).await?;
            let lost = |_| failed(format!("the shim of `{replica}` ended"), None);
            let start = if secrets.0.is_empty() {
                ToShim::Start
            } else {
                ToShim::StartWith { secrets }
            };
            sender.send(start).await.map_err(lost)
        })
    }

    fn probe(
        &self,
        address: SocketAddr,
        check: &Check,
        timeout: Duration,
    ) -> BoxFuture<'_, ProbeOutcome> {
        let check = check.clone();
        Box::pin(async move { probe::probe(address, &check, timeout).await })
    }

    fn stop(&self, replica: &ReplicaId, grace: Duration) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.stop_replica(replica.clone(), grace))
    }

    fn remove(&self, replica: &ReplicaId) -> BoxFuture<'_, Result<(), DriverError>> {
        Box::pin(self.remove_replica(replica.clone()))
    }

    fn adopt(&self) -> BoxFuture<'_, Result<Vec<Adopted>, DriverError>> {
        Box::pin(self.adopt_all())
    }

    fn stats(&self, replica: &ReplicaId) -> BoxFuture<'_, Result<ReplicaStats, DriverError>> {
        let stats = self.read_stats(replica);
        Box::pin(async move { stats })
    }

    fn lease(&self, service: &ScopedName, until: Time) -> BoxFuture<'_, ()> {
        Box::pin(self.extend_lease(service.clone(), until))
    }
}

fn found(state: &ShimState) -> Found {
    match *state {
        ShimState::Running {
            pid,
            address,
            since,
        } => Found::Running(Running {
            pid,
            address: Some(address),
            since,
        }),
        ShimState::Idle => Found::Ended(None),
        ShimState::Exited { exit, .. } => Found::Ended(Some(exit)),
    }
}

fn failed(what: impl Into<String>, source: Option<io::Error>) -> DriverError {
    DriverError::Failed {
        what: what.into(),
        source,
    }
}

fn because(what: impl Into<String>) -> impl FnOnce(io::Error) -> DriverError {
    let what = what.into();
    move |error| failed(what, Some(error))
}
