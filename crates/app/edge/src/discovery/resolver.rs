//! Answers questions for names at one address, over UDP and TCP.
//!
//! Holds: nobody waits for another one's slow connection; each has a bound.

use super::answer::{Over, answer};
use super::until_bound;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::edge::CallerView;

type Names = watch::Receiver<Arc<CallerView>>;

const CONNECTIONS_MAX: usize = 64;
/// Between two questions of one connection.
const IDLE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);
const DATAGRAM_BYTES_MAX: usize = 4_096;

pub async fn run(address: SocketAddr, names: Names, mut leaving: watch::Receiver<bool>) {
    let both = async {
        tokio::join!(
            datagrams(address, names.clone()),
            connections(address, names)
        );
    };
    tokio::select! {
        () = both => {}
        _ = leaving.wait_for(|leaving| *leaving) => {}
    }
}

async fn datagrams(address: SocketAddr, names: Names) {
    let socket = until_bound(address, || UdpSocket::bind(address)).await;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let view = Arc::clone(&names.borrow());
        if let Some(answer) = answer(&buffer[..length], &view, Over::Datagram) {
            // Who asked may be gone; who lost the answer asks again.
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn connections(address: SocketAddr, names: Names) {
    let listener = until_bound(address, || TcpListener::bind(address)).await;
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if open.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => drop(open.spawn(converse(stream, names.clone()))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Each message after its length, two bytes.
async fn converse(mut stream: TcpStream, names: Names) -> io::Result<()> {
    loop {
        let question = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            Ok::<_, io::Error>(question)
        };
        let question = timeout(IDLE, question).await??;
        let view = Arc::clone(&names.borrow());
        let Some(answer) = answer(&question, &view, Over::Connection) else {
            return Ok(());
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let told = async {
            stream.write_u16(length).await?;
            stream.write_all(&answer).await
        };
        timeout(IDLE, told).await??;
    }
}
