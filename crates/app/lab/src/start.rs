//! A lab as its users hold it: started, asked, changed, ended.
//!
//! Holds: a lab that was started as bound is gone once its holder is dropped or
//! its process has ended; another one stays until [`Lab::down`].

use crate::directory::{Directory, labs_directory, lock_all, lock_machine, numbers};
use crate::keeper::READY;
use crate::machine;
use crate::{LabError, Options};
use kernel::Name;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use wire::lab::{Fault, FromKeeper, LabKind, LabNode, LabPlan, LabStatus, ToKeeper};

/// Clearing a large lab away takes a while.
const ANSWER_MAX: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub struct Lab {
    plan: LabPlan,
    directory: Directory,
    bound: bool,
}

impl Lab {
    /// Makes a lab, after clearing away what dead ones left.
    pub fn start(mut options: Options) -> Result<Self, LabError> {
        options.check()?;
        let kind = *options.kind.get_or_insert_with(|| {
            if machine::may_make_namespaces() {
                LabKind::Namespaces
            } else {
                LabKind::Loopback
            }
        });
        let all = lock_all()?;
        for id in numbers() {
            clear_if_dead(id)?;
        }
        let machine = (kind == LabKind::Namespaces)
            .then(lock_machine)
            .transpose()?;
        let (directory, plan, lock) = take_number(&options, kind)?;
        drop(all);
        let lab = Self {
            plan,
            directory,
            bound: options.bound,
        };
        lab.start_keeper(lock)?;
        drop(machine);
        Ok(lab)
    }

    fn start_keeper(&self, lock: File) -> Result<(), LabError> {
        let failed = |source| LabError::io("start the lab's keeper", source);
        let log = File::create(self.directory.log()).map_err(failed)?;
        let mut child = Command::new(&self.plan.program)
            .arg("lab-keeper")
            .arg(&self.directory.path)
            .stdin(lock)
            .stdout(Stdio::piped())
            .stderr(log)
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        // It outlives us, or ends when told; somebody has to look all the same.
        let reap = std::thread::Builder::new().name("keeper".to_owned());
        reap.spawn(move || child.wait()).map_err(failed)?;
        match line.trim() {
            READY => Ok(()),
            "" => Err(LabError::Keeper {
                why: format!("it ended: see {}", self.directory.log().display()),
            }),
            why => Err(LabError::Keeper {
                why: why.to_owned(),
            }),
        }
    }

    /// A lab that lives.
    pub fn open(id: u8) -> Result<Self, LabError> {
        let directory = Directory::of(id);
        if !directory.path.is_dir() {
            return Err(LabError::Unknown { id });
        }
        if !directory.is_live() {
            return Err(LabError::Gone { id });
        }
        Ok(Self {
            plan: directory.plan()?,
            directory,
            bound: false,
        })
    }

    /// Numbers of the labs that live, and of those that left something behind.
    pub fn all() -> (Vec<u8>, Vec<u8>) {
        numbers()
            .into_iter()
            .partition(|id| Directory::of(*id).is_live())
    }

    pub fn plan(&self) -> &LabPlan {
        &self.plan
    }

    pub fn id(&self) -> u8 {
        self.plan.id
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory.path
    }

    pub fn nodes(&self) -> &[LabNode] {
        &self.plan.nodes
    }

    /// By its place in the plan, from 0.
    pub fn name(&self, node: usize) -> &Name {
        &self.plan.nodes[node].name
    }

    /// A command that runs a program inside a node.
    pub fn command(&self, node: &Name, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.plan.program);
        command
            .arg("lab-enter")
            .arg(&self.directory.path)
            .arg(node.as_str())
            .arg(program);
        command
    }

    /// How many run in a node now.
    pub fn processes(&self, node: &Name) -> usize {
        let end = self.plan.node(node);
        end.map_or(0, |end| machine::processes::of(&self.plan, end).len())
    }

    pub fn status(&self) -> Result<LabStatus, LabError> {
        match self.ask(&ToKeeper::Status)? {
            FromKeeper::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Its number, to undo it sooner; none if there is nothing to undo.
    pub fn begin(&self, fault: Fault, span: Option<Duration>) -> Result<Option<u64>, LabError> {
        let for_ms = span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        match self.ask(&ToKeeper::Begin { fault, for_ms })? {
            FromKeeper::Begun { id } => Ok(id),
            other => Err(unexpected(&other)),
        }
    }

    /// How many were undone; all without a number.
    pub fn undo(&self, id: Option<u64>) -> Result<u64, LabError> {
        match self.ask(&ToKeeper::Undo { id })? {
            FromKeeper::Undone { count } => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    /// How a node is started when its power is back.
    pub fn restart_with(&self, node: &Name, command: &[String]) -> Result<(), LabError> {
        let request = ToKeeper::Restart {
            node: node.clone(),
            command: command.to_vec(),
        };
        self.ask(&request).map(drop)
    }

    /// A bound lab is from now on there until it is ended.
    pub fn keep(&mut self) -> Result<(), LabError> {
        self.ask(&ToKeeper::Keep)?;
        self.bound = false;
        Ok(())
    }

    /// Ends everything in it and takes it away.
    pub fn down(mut self) -> Result<(), LabError> {
        self.bound = false;
        self.take_away()
    }

    fn take_away(&self) -> Result<(), LabError> {
        match self.ask(&ToKeeper::Down) {
            Err(LabError::Gone { id } | LabError::Unknown { id }) => clear(id),
            other => other.map(drop),
        }
    }

    fn ask(&self, request: &ToKeeper) -> Result<FromKeeper, LabError> {
        let id = self.plan.id;
        let mut stream =
            UnixStream::connect(self.directory.socket()).map_err(|_| LabError::Gone { id })?;
        let failed = |source| LabError::io(format!("speak to lab {id}"), source);
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
        let mut line = serde_json::to_string(request).map_err(wire::lab::LabFormatError::from)?;
        line.push('\n');
        stream.write_all(line.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        let read = BufReader::new(stream)
            .read_line(&mut answer)
            .map_err(failed)?;
        if read == 0 {
            return Err(LabError::Gone { id });
        }
        match serde_json::from_str(&answer).map_err(wire::lab::LabFormatError::from)? {
            FromKeeper::Failed { why, help } => Err(LabError::Refused { why, help }),
            answer => Ok(answer),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.bound {
            let _ = self.take_away();
        }
    }
}

fn unexpected(answer: &FromKeeper) -> LabError {
    LabError::Refused {
        why: format!("the keeper answered {answer:?}"),
        help: None,
    }
}

/// Takes away what a lab left whose keeper has gone; a living one is asked.
pub fn take_down(id: u8) -> Result<(), LabError> {
    match Lab::open(id) {
        Ok(lab) => lab.down(),
        Err(LabError::Gone { .. }) => clear(id),
        Err(error) => Err(error),
    }
}

fn clear(id: u8) -> Result<(), LabError> {
    let _all = lock_all()?;
    clear_if_dead(id)
}

/// Under the lock of all.
fn clear_if_dead(id: u8) -> Result<(), LabError> {
    let directory = Directory::of(id);
    if !directory.path.is_dir() || directory.is_live() {
        return Ok(());
    }
    match directory.plan() {
        Ok(plan) => machine::tear_down(&plan, &directory),
        // Died before it wrote what it would make: it had made nothing.
        Err(_) => std::fs::remove_dir_all(&directory.path)
            .map_err(|source| LabError::io(format!("remove {}", directory.path.display()), source)),
    }
}

/// The first free number, with its directory, plan and lock.
fn take_number(options: &Options, kind: LabKind) -> Result<(Directory, LabPlan, File), LabError> {
    let taken = |id: u8| {
        let device = Path::new("/sys/class/net").join(machine::host_device(id));
        Directory::of(id).path.exists() || (kind == LabKind::Namespaces && device.exists())
    };
    let id = (1..=254).find(|id| !taken(*id)).ok_or(LabError::NoNumber)?;
    let directory = Directory::of(id);
    let failed = |source| LabError::io(format!("make {}", directory.path.display()), source);
    std::fs::create_dir(&directory.path).map_err(failed)?;
    let lock = directory.take().map_err(failed)?;
    let plan = options.plan(id, &labs_directory());
    directory.write_plan(&plan)?;
    Ok((directory, plan, lock))
}
