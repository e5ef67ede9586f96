//! Says under what conditions the figures of any benchmark were measured.

use crate::machine::{Cores, cpu_model, first_line, said_by};
use crate::{Failure, data};
use std::path::Path;

pub type Line = (&'static str, String);

pub fn tell(lines: impl IntoIterator<Item = Line>) -> Result<(), Failure> {
    for (key, value) in lines {
        data(&format!("condition {key}: {value}"))?;
    }
    Ok(())
}

/// Others on the machine may have come meanwhile.
pub fn tell_end() -> Result<(), Failure> {
    tell([("load average at end", first_line("/proc/loadavg"))])
}

/// The machine, our program and the load generator.
pub fn machine(homeostat: &Path) -> Result<Vec<Line>, Failure> {
    let wrk = said_by(Path::new("wrk"), &["-v"]);
    let wrk = wrk.ok_or("wrk is not installed (Debian package wrk)")?;
    let mut lines = host(homeostat);
    lines.push(("wrk", wrk));
    Ok(lines)
}

/// The machine and our program.
pub fn host(homeostat: &Path) -> Vec<Line> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let profile = homeostat.parent().and_then(Path::file_name);
    let profile = profile.unwrap_or_default().to_string_lossy();
    let described = ["describe", "--always", "--dirty", "--abbrev=7"];
    let sources = said_by(Path::new("git"), &described)
        .filter(|said| !said.contains(' '))
        .unwrap_or_else(|| "unknown".to_owned());
    vec![
        ("cores", format!("{all}, {}", cpu_model())),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("load average at start", first_line("/proc/loadavg")),
        (
            "homeostat",
            said_by(homeostat, &["--version"]).unwrap_or_default()
                + &format!(
                    ", sources {sources}, cargo's `{profile}` profile, started by `homeostat up`"
                ),
        ),
    ]
}

/// Which cores servers and load have.
pub fn pinning(cores: &Cores, what: &str) -> Line {
    let said = if cores.are_shared() {
        "servers and load share the only core".to_owned()
    } else {
        format!(
            "{what}: servers on {:?}, load on {:?}, alike for all; else unpinned",
            cores.server, cores.load
        )
    };
    ("cores used", said)
}
