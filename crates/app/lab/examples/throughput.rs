//! How much a lab's relay carries: TCP from node to node, and small datagrams.
//!
//! Run as root: `cargo run --release -p lab --example throughput`. It needs the
//! program beside it that the tests use: build that first.

use lab::{Lab, LabError, Options};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(3);
const CHUNK: usize = 256 << 10;

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sink", address] => sink(address),
        ["source", address] => source(address),
        ["echo", address] => echo(address),
        ["ask", address] => ask(address),
        _ => measure(),
    };
    if let Err(error) = outcome {
        let _ = writeln!(std::io::stderr(), "error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn measure() -> Outcome {
    let own = std::env::current_exe()?;
    let helper = own
        .parent()
        .and_then(|examples| examples.parent())
        .ok_or("no program beside this one")?
        .join("lab-helper");
    for within in ["0ms", "10ms", "80ms"] {
        let mut options = Options::new(&helper);
        options.bound = true;
        options.nodes = 2;
        let text = format!("zones = ['/a', '/b']\nround_trips = [['/a', '/b', '{within}']]");
        let lab = Lab::start(options.read(&text)?)?;
        say(&format!("round trip {within}"));
        run(&lab, "sink", "source")?;
        run(&lab, "echo", "ask")?;
        report(&lab)?;
        lab.down()?;
    }
    Ok(())
}

fn report(lab: &Lab) -> Result<(), LabError> {
    let status = lab.status()?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", status.pid)).unwrap_or_default();
    let ticks: u64 = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2))
        .map_or(0, |fields| {
            fields.filter_map(|f| f.parse::<u64>().ok()).sum()
        });
    say(&format!(
        "  keeper: {} ms of processor, {:?}",
        ticks * 10,
        status.packets
    ));
    Ok(())
}

/// One role in the second node, the other in the first.
fn run(lab: &Lab, there: &str, here: &str) -> Outcome {
    let own = std::env::current_exe()?;
    let address = SocketAddr::new(lab.nodes()[1].address, 5001).to_string();
    let role = |node: usize, role: &str| -> Command {
        let mut command = lab.command(lab.name(node), &own);
        command.arg(role).arg(&address);
        command
    };
    let mut other = role(1, there).stdout(Stdio::piped()).spawn()?;
    let mut out = other.stdout.take().ok_or("no output")?;
    // It says that it listens.
    out.read_exact(&mut [0; 1])?;
    let status = role(0, here).status()?;
    other.kill()?;
    other.wait()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| here.to_owned().into())
}

fn listening() -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b"!")?;
    out.flush()
}

fn sink(address: &str) -> Outcome {
    let listener = TcpListener::bind(address)?;
    listening()?;
    let (mut stream, _) = listener.accept()?;
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    stream.write_all(&total.to_le_bytes())?;
    std::thread::park();
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn source(address: &str) -> Outcome {
    let mut stream = TcpStream::connect(address)?;
    let start = Instant::now();
    let block = vec![7; CHUNK];
    while start.elapsed() < SPAN {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let bits = u64::from_le_bytes(total) as f64 * 8.0;
    let rate = bits / start.elapsed().as_secs_f64() / 1e6;
    say(&format!("  one TCP connection: {rate:.0} Mbit/s"));
    Ok(())
}

fn echo(address: &str) -> Outcome {
    let socket = UdpSocket::bind(address)?;
    listening()?;
    let mut buffer = [0; 2_048];
    loop {
        let (count, from) = socket.recv_from(&mut buffer)?;
        socket.send_to(&buffer[..count], from)?;
    }
}

/// One datagram after the other: what the relay adds to the distance.
fn ask(address: &str) -> Outcome {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut spans = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        socket.send(b"where are you")?;
        socket.recv(&mut [0; 64])?;
        spans.push(start.elapsed());
    }
    spans.sort_unstable();
    say(&format!(
        "  datagram and back: median {:?}, 90th {:?}",
        spans[50], spans[90]
    ));
    Ok(())
}
