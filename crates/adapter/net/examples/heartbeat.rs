//! Measures heartbeats beside bulk on a narrow link between network namespaces.
//!
//! `heartbeat [SECONDS] [SENDERS]`, as root: two or more namespaces, joined by a
//! bridge; the receiver's link has 100 Mbit/s (tbf), and 10 ms each way are
//! imposed in the transports' sockets. Prints the round trips of heartbeats,
//! idle and beside bulk, once in our way and once as a stream among others, and
//! the shares of the senders.

use kernel::NodeId;
use net::identity::wall_clock;
use net::transport::{Open, Priority};
use net::{
    Authority, Credentials, Identity, Impairment, Impairments, Incoming, Kind, NodeKey, Options,
    Transport,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Namespaces and a bridge, gone when dropped.
struct Lab {
    names: Vec<String>,
    bridge: String,
}

fn run(line: &str) -> Outcome<()> {
    let mut words = line.split_whitespace();
    let program = words.next().ok_or("no program")?;
    let output = Command::new(program).args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

impl Lab {
    /// Node 0 is the receiver, behind the narrow link.
    fn new(nodes: usize) -> Outcome<Self> {
        let id = std::process::id();
        let bridge = format!("hsb{id}");
        let lab = Self {
            names: (0..nodes).map(|node| format!("hsn{id}-{node}")).collect(),
            bridge: bridge.clone(),
        };
        // The bridge has a namespace of its own too.
        run(&format!("ip netns add {bridge}"))?;
        run(&format!("ip -n {bridge} link add br0 type bridge"))?;
        run(&format!("ip -n {bridge} link set br0 up"))?;
        for (node, name) in lab.names.iter().enumerate() {
            run(&format!("ip netns add {name}"))?;
            run(&format!(
                "ip -n {bridge} link add v{node} type veth peer name eth0 netns {name}"
            ))?;
            run(&format!("ip -n {bridge} link set v{node} master br0 up"))?;
            let address = Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1)?);
            run(&format!("ip -n {name} addr add {address}/24 dev eth0"))?;
            run(&format!("ip -n {name} link set eth0 up"))?;
        }
        let narrow = "root tbf rate 100mbit burst 16kb latency 100ms";
        run(&format!("tc -n {bridge} qdisc add dev v0 {narrow}"))?;
        run(&format!(
            "tc -n {} qdisc add dev eth0 {narrow}",
            lab.names[0]
        ))?;
        Ok(lab)
    }

    fn socket(&self, node: usize) -> Outcome<UdpSocket> {
        let name = self.names[node].clone();
        let address = Ipv4Addr::new(10, 77, 0, u8::try_from(node + 1)?);
        // A socket stays in the namespace where it was opened.
        let opening = std::thread::spawn(move || -> Outcome<UdpSocket> {
            let space = std::fs::File::open(format!("/var/run/netns/{name}"))?;
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(UdpSocket::bind((address, 0))?)
        });
        opening.join().map_err(|_| "the thread ended")?
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.bridge]) {
            let _ = run(&format!("ip netns del {name}"));
        }
    }
}

struct Node {
    transport: Transport,
    incoming: Incoming,
    address: SocketAddr,
}

fn node(lab: &Lab, authority: &Authority, at: usize) -> Outcome<Node> {
    let key = Arc::new(NodeKey::generate()?);
    let id = NodeId(u64::try_from(at)?);
    let identity = authority.identity(Kind::Agent, id, "/lab".parse()?, &key.public());
    let issued = authority.issue(&identity, &key.public(), wall_clock()())?;
    let credentials = Credentials {
        key,
        chain: issued.chain,
        root: authority.root().to_vec(),
    };
    let impairments = Impairments::new();
    for other in 1..=u8::try_from(lab.names.len())? {
        let far = Impairment::delayed(Duration::from_millis(10));
        impairments.set_ip(Ipv4Addr::new(10, 77, 0, other).into(), far);
    }
    let any = |_: &Identity| Ok(());
    let socket = lab.socket(at)?;
    let address = socket.local_addr()?;
    let mut options = Options::new(address, credentials, Arc::new(any));
    options.impairments = Some(impairments);
    let (transport, incoming) = Transport::on(socket, options)?;
    Ok(Node {
        transport,
        incoming,
        address,
    })
}

/// Round trips of heartbeats from the receiver to sender 1 and back, sorted.
async fn heartbeats(receiver: &Transport, span: Duration) -> Vec<Duration> {
    let mut trips = Vec::new();
    let end = Instant::now() + span;
    while Instant::now() < end {
        let began = Instant::now();
        let answer = receiver.call(NodeId(1), 1, "beat", Duration::from_secs(10));
        trips.push(
            answer
                .await
                .map_or(Duration::from_secs(10), |_| began.elapsed()),
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    trips.sort();
    trips
}

fn line(name: &str, trips: &[Duration]) -> Outcome<()> {
    let at = |share: usize| trips[(trips.len() - 1) * share / 100].as_secs_f64() * 1e3;
    writeln!(
        std::io::stdout(),
        "{name:<28} {:>5} beats  p50 {:>6.1} ms  p99 {:>6.1} ms  max {:>6.1} ms",
        trips.len(),
        at(50),
        at(99),
        at(100)
    )?;
    Ok(())
}

/// Each sender sends without end; returns what each has sent so far.
async fn bulk(
    senders: &[Node],
    priority: Priority,
) -> Outcome<(Vec<tokio::task::JoinHandle<()>>, Arc<Vec<AtomicU64>>)> {
    let mut writing = Vec::new();
    let sent: Arc<Vec<AtomicU64>> = Arc::new(senders.iter().map(|_| AtomicU64::new(0)).collect());
    for (at, sender) in senders.iter().enumerate() {
        let open = Open {
            method: 2,
            head: bytes::Bytes::new(),
            priority,
            within: Duration::from_secs(5),
        };
        let (mut writer, recv) = sender.transport.open(NodeId(0), open).await?.split();
        let sent = sent.clone();
        writing.push(tokio::spawn(async move {
            let _recv = recv;
            let chunk = bytes::Bytes::from(vec![7; 64 << 10]);
            while writer.write_bytes(chunk.clone()).await.is_ok() {
                sent[at].fetch_add(64 << 10, Ordering::Relaxed);
            }
        }));
    }
    Ok((writing, sent))
}

async fn measure(span: Duration, senders: usize) -> Outcome<()> {
    let lab = Lab::new(senders + 1)?;
    let (authority, _) = Authority::create(wall_clock()())?;
    let mut receiver = node(&lab, &authority, 0)?;
    let mut nodes = Vec::new();
    for at in 1..=senders {
        let mut sender = node(&lab, &authority, at)?;
        let id = NodeId(u64::try_from(at)?);
        receiver.transport.set_peer(id, vec![sender.address.into()]);
        sender
            .transport
            .set_peer(NodeId(0), vec![receiver.address.into()]);
        let mut calls =
            std::mem::replace(&mut sender.incoming.calls, tokio::sync::mpsc::channel(1).1);
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                call.done("beat");
            }
        });
        nodes.push(sender);
    }
    tokio::spawn(async move {
        while let Some(mut incoming) = receiver.incoming.streams.recv().await {
            tokio::spawn(async move {
                while let Ok(Some(_)) = incoming.stream.recv.read_bytes(1 << 20).await {}
            });
        }
    });
    line("idle", &heartbeats(&receiver.transport, span).await)?;
    for (name, priority) in [
        ("beside bulk", Priority::Bulk),
        ("among the same streams", Priority::Low),
    ] {
        let (writing, sent) = bulk(&nodes, priority).await?;
        heartbeats(&receiver.transport, Duration::from_secs(2)).await;
        let before: Vec<u64> = sent
            .iter()
            .map(|sent| sent.load(Ordering::Relaxed))
            .collect();
        let trips = heartbeats(&receiver.transport, span).await;
        let shares: Vec<u64> = sent
            .iter()
            .zip(before)
            .map(|(sent, before)| (sent.load(Ordering::Relaxed) - before) * 8 / 1_000_000)
            .map(|megabits| megabits / span.as_secs().max(1))
            .collect();
        line(name, &trips)?;
        writeln!(std::io::stdout(), "{:<28} {shares:?} Mbit/s", "  senders")?;
        for one in writing {
            one.abort();
        }
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let seconds = numbers.next().transpose()?.unwrap_or(10);
    let senders = numbers.next().transpose()?.unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(
        Duration::from_secs(seconds),
        usize::try_from(senders)?,
    ))
}
