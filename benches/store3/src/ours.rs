//! Three members of our store, each a process.

use crate::{MEMBERS, rate};
use bench_common::{Failure, beside};
use net::Authority;
use net::identity::wall_clock;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

struct Member {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// The first leads, as long as it lives.
pub struct Ours(Vec<Member>);

/// The first of as many free ports.
fn free_ports() -> Result<u16, Failure> {
    for _ in 0..100 {
        let first = UdpSocket::bind("127.0.0.1:0")?;
        let port = first.local_addr()?.port();
        let next = |at| UdpSocket::bind(("127.0.0.1", port.checked_add(at)?)).ok();
        let others: Vec<_> = (1..MEMBERS).map_while(next).collect();
        if others.len() + 1 == usize::from(MEMBERS) {
            return Ok(port);
        }
    }
    Err("no three free ports in a row".into())
}

impl Ours {
    pub fn start(home: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(home)?;
        let (authority, _) = Authority::create(wall_clock()())?;
        fs::write(home.join("authority"), &*authority.to_bytes())?;
        let (program, port) = (beside("examples/member")?, free_ports()?);
        let mut members = Self(Vec::new());
        for number in 1..=MEMBERS {
            let mut child = Command::new(&program)
                .arg(home)
                .args([MEMBERS, number, port].map(|word| word.to_string()))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let input = child.stdin.take().ok_or("no input")?;
            let output = BufReader::new(child.stdout.take().ok_or("no output")?);
            members.0.push(Member {
                child,
                input,
                output,
            });
        }
        for member in &mut members.0 {
            member.hear("ready")?;
        }
        members.0[0].ask("join")?;
        members.0[0].hear("joined")?;
        Ok(members)
    }

    pub fn writes(&mut self, clients: u32, seconds: u64) -> Result<f64, Failure> {
        let leader = &mut self.0[0];
        leader.ask(&format!("write {clients} {seconds}"))?;
        rate(&leader.line()?)
    }
}

impl Member {
    fn ask(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.input, "{line}")?;
        Ok(self.input.flush()?)
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn hear(&mut self, expected: &str) -> Result<(), Failure> {
        let line = self.line()?;
        if line.trim() == expected {
            return Ok(());
        }
        Err(format!("a member said `{line}` and not `{expected}`").into())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        for member in &mut self.0 {
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}
