//! A replica that can be killed and started again at its address, and that
//! remembers each request it read to its end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

pub enum Reply {
    Text(String),
    /// Closes without a word.
    Close,
    /// Holds the connection until it is killed.
    Never,
}

type Script = dyn Fn(&str) -> Reply + Send + Sync;

pub struct Mortal {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    script: Arc<Script>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Mortal {
    /// With an address of its own, and not yet running.
    pub async fn dead(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Self {
            address: listener.local_addr().expect("address"),
            heard: Arc::default(),
            script: Arc::new(script),
            running: None,
        }
    }

    pub async fn start(script: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let mut mortal = Self::dead(script).await;
        mortal.revive().await;
        mortal
    }

    pub async fn revive(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("bound again");
        let (stop, stopped) = oneshot::channel();
        let (heard, script) = (Arc::clone(&self.heard), Arc::clone(&self.script));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let accepting = async {
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(talk(stream, Arc::clone(&heard), Arc::clone(&script)));
                }
            };
            tokio::select! {
                () = accepting => {}
                _ = stopped => {}
            }
            drop(listener);
            connections.shutdown().await;
        });
        self.running = Some((stop, task));
    }

    /// All its connections are closed when this returns.
    pub async fn kill(&mut self) {
        if let Some((stop, task)) = self.running.take() {
            let _ = stop.send(());
            task.await.expect("ends");
        }
    }

    /// The requests read whole, with their bodies.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("lock").clone()
    }

    pub async fn has_heard(&self, count: usize) {
        eventually("the replica hears", || self.heard().len() >= count).await;
    }
}

async fn talk(mut stream: TcpStream, heard: Arc<Mutex<Vec<String>>>, script: Arc<Script>) {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(length) = request_length(&seen) {
            let request: String = seen.drain(..length).collect();
            heard.lock().expect("lock").push(request.clone());
            match script(&request) {
                Reply::Text(text) => {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
                Reply::Close => return,
                Reply::Never => std::future::pending().await,
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => seen.push_str(&String::from_utf8_lossy(&buffer[..read])),
        }
    }
}

/// Of the first request, once it is there whole.
fn request_length(seen: &str) -> Option<usize> {
    let head = seen.find("\r\n\r\n")? + 4;
    if seen[..head].contains("transfer-encoding: chunked") {
        return seen[head..].find("0\r\n\r\n").map(|end| head + end + 5);
    }
    let body = seen[..head]
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().expect("a number"));
    (seen.len() >= head + body).then_some(head + body)
}

pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
