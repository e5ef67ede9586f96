//! Holders in this process: real stores behind streams that misbehave at will.

use content::{
    Content, ContentEvent, FetchError, FetchOptions, Fetched, Fetcher, Holder, HolderStream,
    ServeOptions, Server, Wanted,
};
use futures_util::future::BoxFuture;
use kernel::Hash;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

pub const PIECE: usize = 256 << 10;
const PIPE_BYTES: usize = 256 << 10;

/// What happens to what a holder sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Good,
    /// All its streams together end after so many bytes; then it is gone.
    GoneAfter(u64),
    /// It falls silent instead.
    SilentAfter(u64),
    /// The byte after so many is another one, of each stream.
    FlipsAfter(u64),
    /// Only noise.
    Noise,
    /// It hands out a little now and then.
    Slow,
}

pub struct Local {
    name: String,
    distance: Duration,
    server: Server,
    manner: Manner,
    pub opened: AtomicU64,
    sent: Arc<AtomicU64>,
}

pub struct Place {
    pub directory: TempDir,
    pub content: Content,
    events: Arc<Mutex<Vec<ContentEvent>>>,
}

impl Place {
    /// In memory where that is large enough: what is asked here is not how fast
    /// a disk syncs.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
        if free > 2 << 30 {
            return Self::within(memory);
        }
        Self::within(&std::env::temp_dir())
    }

    pub fn within(parent: &Path) -> Self {
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        let events: Arc<Mutex<Vec<ContentEvent>>> = Arc::default();
        let heard = Arc::clone(&events);
        let content = Content::open(directory.path().join("content"))
            .expect("opens")
            .reporting_to(move |event| heard.lock().expect("not poisoned").push(event));
        Self {
            directory,
            content,
            events,
        }
    }

    pub fn events(&self) -> Vec<ContentEvent> {
        self.events.lock().expect("not poisoned").clone()
    }

    pub fn file(&self, bytes: &[u8]) -> Hash {
        let path = self.directory.path().join("file");
        fs::write(&path, bytes).expect("writes");
        self.content.ingest_file(&path, false).expect("ingests")
    }

    pub fn site(&self) -> PathBuf {
        let site = self.directory.path().join("site");
        fs::create_dir_all(&site).expect("creates");
        site
    }

    pub fn tree(&self, files: &[(String, Vec<u8>)]) -> Hash {
        for (name, bytes) in files {
            fs::write(self.site().join(name), bytes).expect("writes");
        }
        let ingested = self.content.ingest_tree(&self.site(), &mut |_| {});
        ingested.expect("ingests").tree
    }

    pub fn fetcher(&self) -> Fetcher {
        self.fetcher_with(FetchOptions::default())
    }

    /// None of its deadlines comes within a test: what passes waited for none.
    pub fn patient(&self) -> Fetcher {
        self.fetcher_with(FetchOptions {
            piece_within: Duration::from_hours(1),
            patience: Duration::from_millis(50),
            ..FetchOptions::default()
        })
    }

    pub fn fetcher_with(&self, options: FetchOptions) -> Fetcher {
        Fetcher::new(self.content.clone(), options)
    }

    pub fn holder(&self, name: &str, manner: Manner) -> Arc<Local> {
        self.holder_at(name, 1, manner)
    }

    pub fn holder_at(&self, name: &str, distance_ms: u64, manner: Manner) -> Arc<Local> {
        Arc::new(Local {
            distance: Duration::from_millis(distance_ms),
            manner,
            ..self.holder_with(name, ServeOptions::default())
        })
    }

    pub fn holder_with(&self, name: &str, options: ServeOptions) -> Local {
        Local {
            name: name.to_owned(),
            distance: Duration::from_millis(1),
            server: Server::new(self.content.clone(), options),
            manner: Manner::Good,
            opened: AtomicU64::new(0),
            sent: Arc::default(),
        }
    }

    /// Changes one byte of a chunk on the disk.
    pub fn damage(&self, hash: Hash, at: usize) {
        let path = self.content.path(hash);
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        let mut bytes = fs::read(&path).expect("reads");
        bytes[at] ^= 1;
        fs::write(&path, bytes).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    pub fn temporary(&self) -> Vec<String> {
        let listed = fs::read_dir(self.directory.path().join("content/tmp")).expect("lists");
        let names = listed.map(|entry| entry.expect("an entry").file_name());
        names
            .map(|name| name.to_string_lossy().into_owned())
            .collect()
    }
}

pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub fn fetch(
    fetcher: &Fetcher,
    wanted: Wanted,
    holders: &[&Arc<Local>],
) -> impl Future<Output = Result<Fetched, FetchError>> + use<> {
    let (fetcher, holders) = (fetcher.clone(), all(holders));
    async move { fetcher.fetch(wanted, &holders, &mut |_| {}).await }
}

pub fn fetch_tree(
    fetcher: &Fetcher,
    tree: Hash,
    holders: &[&Arc<Local>],
) -> impl Future<Output = Result<Fetched, FetchError>> + use<> {
    let (fetcher, holders) = (fetcher.clone(), all(holders));
    async move { fetcher.fetch_tree(tree, &holders, &mut |_| {}).await }
}

pub fn all(holders: &[&Arc<Local>]) -> Vec<Arc<dyn Holder>> {
    let each = holders.iter().map(|&holder| {
        let holder: Arc<dyn Holder> = Arc::clone(holder) as Arc<dyn Holder>;
        holder
    });
    each.collect()
}

impl Holder for Local {
    fn name(&self) -> &str {
        &self.name
    }

    fn distance(&self) -> Duration {
        self.distance
    }

    fn open(&self) -> BoxFuture<'_, io::Result<HolderStream>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            if let Manner::GoneAfter(limit) = self.manner
                && self.sent.load(Ordering::Relaxed) >= limit
            {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (client, ours) = duplex(PIPE_BYTES);
            let (theirs, far_end) = duplex(PIPE_BYTES);
            let server = self.server.clone();
            tokio::spawn(async move {
                let (reader, mut writer) = split(far_end);
                let _ = server.serve(reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
            let wire = Wire {
                manner: self.manner,
                sent: Arc::clone(&self.sent),
            };
            tokio::spawn(wire.carry(ours, theirs));
            let (reader, writer) = split(client);
            Ok(HolderStream {
                reader: Box::new(reader),
                writer: Box::new(writer),
            })
        })
    }
}

struct Wire {
    manner: Manner,
    sent: Arc<AtomicU64>,
}

impl Wire {
    async fn carry(self, client: DuplexStream, server: DuplexStream) {
        let (mut from_client, mut to_client) = split(client);
        let (mut from_server, mut to_server) = split(server);
        let request = async {
            let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            let _ = to_server.shutdown().await;
            std::future::pending::<()>().await;
        };
        let answer = async {
            let mut buffer = vec![0; 64 << 10];
            let mut position = 0;
            loop {
                let read = from_server.read(&mut buffer).await.unwrap_or(0);
                if read == 0 {
                    return;
                }
                let sent = self.sent.fetch_add(read as u64, Ordering::Relaxed);
                match self.manner {
                    Manner::GoneAfter(limit) if sent >= limit => return,
                    Manner::SilentAfter(limit) if sent >= limit => {
                        std::future::pending::<()>().await;
                    }
                    Manner::FlipsAfter(limit) => {
                        let at = usize::try_from(limit).expect("small");
                        if (position..position + read).contains(&at) {
                            buffer[at - position] ^= 0x10;
                        }
                    }
                    Manner::Noise => buffer[..read].copy_from_slice(&noise(read, sent)),
                    Manner::Slow => tokio::time::sleep(Duration::from_millis(100)).await,
                    _ => {}
                }
                position += read;
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = request => {}
            () = answer => {}
        }
        let _ = to_client.shutdown().await;
    }
}
