//! A node without its agent: a supervisor's socket, a data directory with
//! content, and edges as processes of their own (this program again, as a role).

#![allow(dead_code, reason = "each test file uses a part")]

use ipc::{Connection, Listener, connect};
use kernel::{Hash, ReplicaId, Revision, ScopedName};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wire::edge::{
    EdgeSnapshot, Endpoint, FromEdge, RouteEntry, SNAPSHOT_VERSION, ServiceView, SiteView, Target,
    ToEdge,
};
use wire::layout::Layout;
use wire::rows::AccessRow;
use wire::supervise::{FromSupervisor, ListenerName, ToSupervisor};

/// Far beyond what anything here takes.
pub const BOUND: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
const ROOT: &str = "HOMEOSTAT_EDGE_ROOT";
const PEER: &str = "HOMEOSTAT_EDGE_PEER";

pub struct Node {
    pub layout: Layout,
    pub http: SocketAddr,
    pub https: SocketAddr,
    /// Nobody has it before the edge.
    pub peer: SocketAddr,
    sockets: [TcpListener; 2],
    folder: TempDir,
}

/// Answers on the supervisor's socket until dropped.
pub struct Supervisor(tokio::task::JoinHandle<()>, PathBuf);

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.abort();
        let _ = std::fs::remove_file(&self.1);
    }
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let layout = Layout::new(folder.path().join("d"));
        std::fs::create_dir_all(layout.run()).expect("creates");
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("binds"));
        let [http, https] = [0, 1].map(|at: usize| sockets[at].local_addr().expect("address"));
        let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
        Self {
            layout,
            http,
            https,
            peer: peer.local_addr().expect("address"),
            sockets,
            folder,
        }
    }

    pub async fn supervise(&self) -> Supervisor {
        let path = self.layout.supervisor_socket();
        let listener = Listener::bind(&path).await.expect("binds");
        let sockets = self
            .sockets
            .each_ref()
            .map(|socket| socket.try_clone().expect("clones"));
        let answering = async move {
            while let Ok(mut connection) = listener.accept().await {
                while let Ok(Some((ToSupervisor::TakeListeners, _))) = connection.receive().await {
                    let names = vec![ListenerName::Http, ListenerName::Https];
                    let answer = FromSupervisor::Listeners(names);
                    let descriptors = sockets.each_ref().map(AsFd::as_fd);
                    let sent = connection
                        .send_with_descriptors(&answer, &descriptors)
                        .await;
                    sent.expect("sends");
                }
            }
        };
        Supervisor(tokio::spawn(answering), path)
    }

    /// Starts an edge; its log goes to [`Node::log`].
    pub fn edge(&self) -> Edge {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("log");
        let started = Command::new(std::env::current_exe().expect("program"))
            .args(["role", "--exact", "--nocapture"])
            .env(ROOT, &self.layout.root)
            .env(PEER, self.peer.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Edge(started.expect("starts"))
    }

    /// Starts an edge and waits until it answers.
    pub async fn ready_edge(&self) -> Edge {
        let edge = self.edge();
        self.link_to(&edge).await;
        edge
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("log")
    }

    pub fn snapshot_file(&self) -> PathBuf {
        self.layout.root.join("edge/snapshot.json")
    }

    pub fn saved(&self) -> Option<EdgeSnapshot> {
        let text = std::fs::read(self.snapshot_file()).ok()?;
        Some(serde_json::from_slice(&text).expect("readable"))
    }

    pub fn save(&self, text: &[u8]) {
        let path = self.snapshot_file();
        std::fs::create_dir_all(path.parent().expect("parent")).expect("creates");
        std::fs::write(path, text).expect("writes");
    }

    pub fn save_snapshot(&self, snapshot: &EdgeSnapshot) {
        self.save(&serde_json::to_vec(snapshot).expect("encodes"));
    }

    pub fn content(&self) -> content::Content {
        content::Content::open(self.layout.content()).expect("opens")
    }

    /// Takes in a site whose files are these.
    pub fn ingest(&self, files: &[(&str, &[u8])]) -> Hash {
        let source = tempfile::tempdir().expect("folder");
        for (path, bytes) in files {
            let path = source.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("creates");
            std::fs::write(path, bytes).expect("writes");
        }
        let ingested = self.content().ingest_tree(source.path(), &mut |_| {});
        ingested.expect("ingests").tree
    }

    /// A snapshot that serves this text at `/` of any host.
    pub fn page(&self, version: u64, text: &str) -> EdgeSnapshot {
        let tree = self.ingest(&[("index.html", text.as_bytes())]);
        let mut snapshot = empty(version);
        add_site(&mut snapshot, "site", "*", tree);
        snapshot
    }

    /// A connection to the edge's socket; answered by this edge.
    pub async fn link_to(&self, edge: &Edge) -> Link {
        let deadline = Instant::now() + BOUND;
        loop {
            if let Ok(connection) = connect(&self.layout.edge_socket()).await {
                let mut link = Link(connection);
                if link.said().await == Some(FromEdge::Hello { pid: edge.0.id() }) {
                    return link;
                }
            }
            assert!(Instant::now() < deadline, "not in time: {}", self.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    pub fn get(&self, path: &str) -> String {
        request(self.http, "any.test", path, "").expect("answers")
    }
}

pub struct Link(pub Connection);

impl Link {
    pub async fn tell(&mut self, message: &ToEdge) {
        self.0.send(message).await.expect("sends");
    }

    /// What the edge says next; `None` once it has closed.
    pub async fn said(&mut self) -> Option<FromEdge> {
        let received = tokio::time::timeout(BOUND, self.0.receive()).await;
        received.expect("in time").ok()?.map(|(message, _)| message)
    }

    pub async fn said_when<T>(&mut self, wanted: impl Fn(FromEdge) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.said().await.expect("open")) {
                return found;
            }
        }
    }

    /// Sends a snapshot; the version applied, or why it was refused.
    pub async fn push(&mut self, snapshot: &EdgeSnapshot) -> Result<u64, String> {
        let snapshot = Box::new(snapshot.clone());
        self.tell(&ToEdge::Snapshot(snapshot)).await;
        self.said_when(|said| match said {
            FromEdge::Applied { version } => Some(Ok(version)),
            FromEdge::Refused { why, .. } => Some(Err(why)),
            _ => None,
        })
        .await
    }
}

pub struct Edge(pub Child);

impl Edge {
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id().try_into().expect("number")).expect("pid");
        kill_process(pid, signal).expect("signals");
    }

    pub fn kill(&mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("reaped");
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("waits")
    }

    pub fn ends(&mut self) -> ExitStatus {
        until("the edge ends", || self.has_ended())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(LOOK);
    }
}

pub fn name(text: &str) -> ScopedName {
    format!("test/{text}").parse().expect("name")
}

pub fn empty(version: u64) -> EdgeSnapshot {
    EdgeSnapshot {
        format: SNAPSHOT_VERSION,
        version,
        ..EdgeSnapshot::default()
    }
}

fn add_route(snapshot: &mut EdgeSnapshot, host: &str, target: Target) {
    snapshot.routes.push(RouteEntry {
        host: host.to_owned(),
        path: "/".to_owned(),
        target,
    });
}

pub fn add_site(snapshot: &mut EdgeSnapshot, site: &str, host: &str, tree: Hash) {
    let view = SiteView {
        tree,
        index: "index.html".to_owned(),
        not_found: None,
        max_age: Duration::ZERO,
        immutable: Vec::new(),
    };
    snapshot.sites.insert(name(site), view);
    add_route(snapshot, host, Target::Site(name(site)));
}

pub fn add_service(snapshot: &mut EdgeSnapshot, host: &str, addresses: &[SocketAddr]) {
    let endpoints = (0..).zip(addresses).map(|(index, address)| Endpoint {
        replica: ReplicaId {
            service: name("app"),
            generation: Revision(1),
            index,
        },
        address: Some(*address),
        node: None,
    });
    let view = ServiceView {
        deadline: BOUND,
        endpoints: endpoints.collect(),
    };
    snapshot.services = BTreeMap::from([(name("app"), view)]);
    add_route(snapshot, host, Target::Service(name("app")));
}

pub fn rows(node: &Node) -> Vec<AccessRow> {
    let Ok(entries) = std::fs::read_dir(node.layout.access_rows()) else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    for entry in entries {
        let path = entry.expect("entry").path();
        // One may be renamed between the listing and the reading.
        if let Ok(segment) = telemetry::read_segment(&path) {
            rows.extend(segment);
        }
    }
    rows
}

/// One request on a connection of its own: the whole answer, when it is whole.
pub fn request(address: SocketAddr, host: &str, path: &str, fields: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(BOUND)).ok()?;
    let text = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{fields}\r\n");
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.starts_with("HTTP/1.1 ").then_some(text)
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

/// What this program does when it is started as an edge.
pub fn play() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let peer = std::env::var(PEER).expect("said");
    let peer = peer.parse().expect("an address");
    let code = edge::run(std::path::Path::new(&root), peer);
    std::process::exit(i32::from(code != std::process::ExitCode::SUCCESS));
}
