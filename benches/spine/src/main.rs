//! Measures one node against named peers, and says each figure in one line.
//!
//! In: `--quick`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error, such as
//! one wrong answer, ends all without its figures.

mod conditions;
mod goals;
mod lives;
mod peers;
mod serving;
mod site;
mod writes;

use bench_common::machine::Cores;
use bench_common::node::Node;
use bench_common::{Failure, beside, say};
use site::Site;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const PARTS: [&str; 3] = ["lives", "serving", "writes"];
const USAGE: &str = "usage: bench-spine [--quick] [lives] [serving] [writes]";

/// How often and how long each thing is done.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub rounds: u32,
    pub seconds: u64,
    pub paced: Duration,
    pub writes_seconds: u64,
    pub kills: u32,
    pub restarts: u32,
    pub between_restarts: Duration,
    pub idle: Duration,
}

const FULL: Lengths = Lengths {
    rounds: 5,
    seconds: 10,
    paced: Duration::from_secs(10),
    writes_seconds: 5,
    kills: 10,
    restarts: 100,
    between_restarts: Duration::from_millis(400),
    idle: Duration::from_secs(30),
};

const QUICK: Lengths = Lengths {
    rounds: 3,
    seconds: 2,
    paced: Duration::from_secs(2),
    writes_seconds: 1,
    kills: 3,
    restarts: 20,
    between_restarts: Duration::from_millis(150),
    idle: Duration::from_secs(10),
};

/// What was built and is measured.
pub struct Programs {
    pub homeostat: PathBuf,
    pub service: PathBuf,
    pub writes: PathBuf,
}

/// What all parts share.
pub struct Spine {
    pub lengths: Lengths,
    pub programs: Programs,
    pub cores: Cores,
    pub site: Site,
    pub scratch: PathBuf,
}

impl Spine {
    /// A fresh directory of a part.
    pub fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.scratch.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// A node with the site and so many replicas of a service; not started.
    pub fn node(
        &self,
        home: &Path,
        replicas: u32,
        cores: Option<&[usize]>,
    ) -> Result<Node, Failure> {
        let site = &self.site.directory;
        let text = manifest(site, &self.programs.service, replicas)?;
        let written = site.with_file_name(home.file_name().ok_or("no home")?);
        let written = written.with_extension("toml");
        fs::write(&written, text)?;
        Node::new(&self.programs.homeostat, home, written, cores)
    }
}

fn manifest(site: &Path, service: &Path, replicas: u32) -> Result<String, Failure> {
    let site = site.file_name().ok_or("the site has no name")?;
    Ok(format!(
        r#"[project]
name = "spine"

[site.web]
root = "{site}"
hosts = ["localhost"]

[service.echo]
run = {{ process = ["{service}"] }}
replicas = {replicas}
routes = [{{ host = "localhost", path = "/echo" }}]
deadline = "10s"
stop_grace = "1s"

[service.echo.probes]
startup = {{ http = "/", every = "50ms", timeout = "1s", failures = 100 }}
readiness = {{ http = "/", every = "1s", timeout = "1s", failures = 2 }}
"#,
        site = site.display(),
        service = service.display(),
    ))
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (flags, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.starts_with('-'));
    let known = flags.iter().all(|flag| *flag == "--quick")
        && parts.iter().all(|part| PARTS.contains(&part.as_str()));
    if !known {
        say(USAGE);
        return ExitCode::from(2);
    }
    let lengths = if flags.is_empty() { FULL } else { QUICK };
    match run(lengths, &parts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&format!("bench spine: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run(lengths: Lengths, parts: &[&String]) -> Result<(), Failure> {
    // Short, for sockets; readable by the servers' own users.
    let scratch = tempfile::Builder::new().prefix("hs").tempdir()?;
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    let spine = Spine {
        lengths,
        programs: Programs {
            homeostat: beside("homeostat")?,
            service: beside("black-box-service")?,
            writes: beside("examples/writes")?,
        },
        cores: Cores::split()?,
        site: Site::make(&scratch.path().join("site"))?,
        scratch: scratch.path().to_owned(),
    };
    refuse_memory(&spine.scratch)?;
    bench_common::conditions::tell(conditions::all(&spine)?)?;
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| *word == part);
    bench_common::report(|tell| {
        let mut report = |figure| tell(figure);
        if wanted("lives") {
            lives::measure(&spine, &mut report)?;
        }
        if wanted("serving") {
            serving::measure(&spine, &mut report)?;
        }
        if wanted("writes") {
            writes::measure(&spine, &mut report)?;
        }
        Ok(())
    })
}

/// Durable writes to memory would measure nothing.
fn refuse_memory(place: &Path) -> Result<(), Failure> {
    const TMPFS: i64 = 0x0102_1994;
    let found = rustix::fs::statfs(place)?;
    if found.f_type == TMPFS {
        return Err(format!(
            "{} is in memory: set TMPDIR to a short path on a disk",
            place.display()
        )
        .into());
    }
    Ok(())
}
