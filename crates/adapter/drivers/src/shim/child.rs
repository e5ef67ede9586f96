//! One run of the replica, from spawn to exit status.
//!
//! Holds: whatever the replica leaves behind in its process group or its
//! control groups is killed before its exit is told.

use super::enter::{Limits, before_exec};
use crate::group;
use crate::log::Stream;
use crate::record::ProcessMark;
use kernel::Time;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use wire::shim::{Exit, Secrets, ShimSpec};

/// What a replica takes over from the agent's environment; the rest may hold
/// secrets that are not its own.
const INHERITED: [&str; 6] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR", "USER"];

pub struct Run {
    pub pid: u32,
    pub mark: Option<ProcessMark>,
    pub address: SocketAddr,
    /// When what is left is killed, once a stop was asked for.
    pub kill_at: Option<Time>,
    /// Whether it runs only as long as its lease.
    pub leased: bool,
    child: Child,
    handle: OwnedFd,
    outputs: [Option<OwnedFd>; 2],
    groups: Vec<PathBuf>,
    memory_kills_before: u64,
}

impl Run {
    pub fn start(spec: &ShimSpec, secrets: &Secrets) -> io::Result<Self> {
        let (program, arguments) = spec
            .command
            .split_first()
            .ok_or_else(|| io::Error::other("the command is empty"))?;
        let address = free_address()?;
        let inherited: Vec<(&str, OsString)> = INHERITED
            .iter()
            .filter_map(|name| Some((*name, std::env::var_os(name)?)))
            .collect();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(&spec.directory)
            .env_clear()
            .envs(inherited)
            .envs(&spec.environment)
            .envs(&secrets.0)
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let open = |group: &PathBuf| File::options().write(true).open(group.join("cgroup.procs"));
        let entrances = spec
            .control_groups
            .iter()
            .map(open)
            .collect::<Result<_, _>>()?;
        let limits = Limits {
            open_files: spec.open_files,
            // A dump would leave the secrets on a disk.
            no_core: !secrets.0.is_empty(),
        };
        before_exec(&mut command, entrances, limits);
        let memory_kills_before = group::out_of_memory_kills(&spec.control_groups);
        let mut child = command.spawn()?;
        let handle = match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        {
            Ok(handle) => handle,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        let outputs = [
            child.stdout.take().map(OwnedFd::from),
            child.stderr.take().map(OwnedFd::from),
        ];
        for output in outputs.iter().flatten() {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        Ok(Self {
            pid: child.id(),
            mark: i32::try_from(child.id()).ok().and_then(ProcessMark::of),
            address,
            kill_at: None,
            leased: spec.leased,
            child,
            handle,
            outputs,
            groups: spec.control_groups.clone(),
            memory_kills_before,
        })
    }

    /// Readable when the replica has exited.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    pub fn output(&self, stream: Stream) -> Option<BorrowedFd<'_>> {
        self.outputs[stream as usize].as_ref().map(AsFd::as_fd)
    }

    /// Reads once; `None` when there is nothing now, or never again.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> Option<usize> {
        let output = &mut self.outputs[stream as usize];
        match rustix::io::read(output.as_ref()?, buffer) {
            Ok(0) => {
                *output = None;
                None
            }
            Ok(read) => Some(read),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => None,
            Err(_) => {
                *output = None;
                None
            }
        }
    }

    pub fn terminate(&self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::TERM);
    }

    /// Kills all that the replica started. Safe until its status is collected:
    /// till then its pid, which names the process group, cannot be reused.
    pub fn kill(&self) {
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        group::kill_all(&self.groups);
    }

    /// Collects the status of a replica whose handle is readable.
    pub fn collect(&mut self) -> Exit {
        self.kill();
        let Ok(status) = self.child.wait() else {
            return Exit::Unknown;
        };
        let killed_for_memory = group::out_of_memory_kills(&self.groups) > self.memory_kills_before;
        match (status.code(), status.signal()) {
            (Some(0), _) => Exit::Code(0),
            _ if killed_for_memory => Exit::OutOfMemory,
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        }
    }
}

/// The kernel picks a port that is free now; another process may take it before
/// the replica does, which then fails to bind and is started again on another.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Reads what is there into `each`, at most `bytes_max`.
pub fn drain(run: &mut Run, stream: Stream, bytes_max: usize, mut each: impl FnMut(&[u8])) {
    let mut buffer = [0_u8; 16 << 10];
    let mut total = 0;
    while total < bytes_max {
        let Some(read) = run.read(stream, &mut buffer) else {
            return;
        };
        each(&buffer[..read]);
        total += read;
    }
}

/// Reads from a non-blocking peer; `None` when it is gone.
pub fn read_available(source: &mut impl Read, buffer: &mut [u8]) -> Option<usize> {
    match source.read(buffer) {
        Ok(0) => None,
        Ok(read) => Some(read),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Some(0),
            _ => None,
        },
    }
}
