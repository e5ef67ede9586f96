//! Measures one node against named peers, and says each figure in one line.
//!
//! In: `--quick`, and names of parts to measure alone. Out: conditions and
//! figures on standard output, single runs on standard error.
//! Holds: a figure that is short is said and is no failure; an error, such as
//! one wrong answer, ends all without its figures.

mod closed;
mod conditions;
mod figure;
mod goals;
mod http;
mod lives;
mod machine;
mod node;
mod paced;
mod peers;
mod serving;
mod site;
mod writes;

use figure::Figure;
use machine::Cores;
use node::Programs;
use site::Site;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

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

    /// Tells people of single runs, on standard error.
    pub fn note(&self, what: &str, values: &[f64]) {
        let words: Vec<String> = values.iter().map(|value| format!("{value:.3}")).collect();
        say(&format!("    {what}: {}", words.join(" ")));
    }
}

pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub fn data(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
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
        programs: Programs::find()?,
        cores: Cores::split()?,
        site: Site::make(&scratch.path().join("site"))?,
        scratch: scratch.path().to_owned(),
    };
    refuse_memory(&spine.scratch)?;
    conditions::tell(&spine)?;
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| *word == part);
    let mut told = Ok(());
    let mut report = |figure: Figure| {
        if told.is_ok() {
            told = data(&figure.to_string());
        }
    };
    if wanted("lives") {
        lives::measure(&spine, &mut report)?;
    }
    if wanted("serving") {
        serving::measure(&spine, &mut report)?;
    }
    if wanted("writes") {
        writes::measure(&spine, &mut report)?;
    }
    told?;
    conditions::tell_end()
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
