//! A replica whose every byte the test moves, and clients of the same kind.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Puppet {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Puppet {
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Self {
            address: listener.local_addr().expect("address"),
            listener,
        }
    }

    /// The next connection, with the head of its request read.
    pub async fn request(&self) -> (Wire, String) {
        let accepted = tokio::time::timeout(PATIENCE, self.listener.accept());
        let (stream, _) = accepted.await.expect("in time").expect("accepts");
        let mut wire = Wire { stream };
        let head = wire.until("\r\n\r\n").await;
        (wire, head)
    }
}

pub struct Wire {
    pub stream: TcpStream,
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("set");
        Self { stream }
    }

    pub async fn write(&mut self, text: &str) {
        self.stream
            .write_all(text.as_bytes())
            .await
            .expect("writes");
    }

    /// Reads byte by byte, so that nothing behind the end is taken.
    pub async fn until(&mut self, end: &str) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_u8());
            let byte = read.await.unwrap_or_else(|_| {
                panic!(
                    "no {end:?} in time after {:?}",
                    String::from_utf8_lossy(&seen)
                )
            });
            let byte = byte.unwrap_or_else(|error| {
                panic!(
                    "no {end:?} after {:?}: {error}",
                    String::from_utf8_lossy(&seen)
                )
            });
            seen.push(byte);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// What is still to come until the other side ends, however it does.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, read)
            .await
            .expect("ends in time");
        String::from_utf8_lossy(&rest).into_owned()
    }

    /// The head of an answer, or what comes instead of one.
    pub async fn rest_or_head(&mut self) -> String {
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let read = tokio::time::timeout(PATIENCE, self.stream.read_u8());
            let Ok(byte) = read.await.expect("in time") else {
                break;
            };
            seen.push(byte);
        }
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Writes until the other side takes no more and gives up; returns whether
    /// it did before `total` bytes.
    pub async fn flood(&mut self, total: usize) -> bool {
        let block = vec![b'x'; 64 * 1024];
        for _ in 0..total / block.len() {
            let write = tokio::time::timeout(PATIENCE, self.stream.write_all(&block));
            if write.await.expect("ends in time").is_err() {
                return true;
            }
        }
        false
    }
}
