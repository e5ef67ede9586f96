//! Connections of services, carried to replicas here and on other nodes.

use crate::support::lines::{State, nodes};
use crate::support::{World, name};
use ingress::Limits;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const DEADLINE: Duration = Duration::from_secs(10);
/// More than waits anywhere on the way.
const MUCH: usize = 8 << 20;

/// A replica that sends back what came, once all has come, and then `word`.
async fn repeats(word: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut came = Vec::new();
                stream.read_to_end(&mut came).await?;
                stream.write_all(&came).await?;
                stream.write_all(word).await
            });
        }
    });
    address
}

/// One that says `word` and then waits for the sign to break off.
async fn breaks(word: &'static [u8]) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let sign = Arc::new(Notify::new());
    let waiting = Arc::clone(&sign);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("accepted");
        stream.write_all(word).await.expect("written");
        waiting.notified().await;
        stream.set_zero_linger().expect("set");
    });
    (address, sign)
}

/// One that is not there.
async fn gone() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    listener.local_addr().expect("an address")
}

/// Where a caller on this node connects to reach `app`.
async fn call(world: &World) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let ingress = Arc::clone(&world.ingress);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("accepted");
        ingress.link(stream, &name("app")).await;
    });
    TcpStream::connect(address).await.expect("connected")
}

async fn exchange(world: &World, said: &[u8]) -> Vec<u8> {
    let mut stream = call(world).await;
    stream.write_all(said).await.expect("written");
    stream.shutdown().await.expect("ended");
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.expect("read");
    heard
}

async fn error_of(stream: &mut TcpStream) -> ErrorKind {
    let mut heard = Vec::new();
    let error = stream.read_to_end(&mut heard).await;
    error.expect_err("no end").kind()
}

#[tokio::test]
async fn a_side_that_ends_may_still_hear_and_nothing_is_lost_on_the_way() {
    let [mut one, mut two] = nodes(Limits::default()).await;
    let replica = repeats(b"!").await;
    for world in [&mut one, &mut two] {
        world.replicas(&[(2, replica)], DEADLINE);
    }
    let said = vec![b'x'; MUCH];
    for world in [&one, &two] {
        let heard = exchange(world, &said).await;
        assert!(heard.len() == MUCH + 1 && heard.ends_with(b"x!"));
    }
}

#[tokio::test]
async fn replicas_here_come_first_and_those_that_are_gone_are_passed_over() {
    let [mut one, mut two] = nodes(Limits::default()).await;
    let (here, there) = (repeats(b"here").await, repeats(b"there").await);
    for world in [&mut one, &mut two] {
        world.replicas(&[(2, there), (1, here)], DEADLINE);
    }
    assert_eq!(exchange(&one, b"").await, b"here");
    for world in [&mut one, &mut two] {
        world.replicas(&[(2, there), (1, gone().await)], DEADLINE);
    }
    assert_eq!(exchange(&one, b"").await, b"there");
    assert_eq!(one.evidence().len(), 1);
}

#[tokio::test]
async fn nobody_there_breaks_the_connection_at_once() {
    let [mut one, mut two] = nodes(Limits::default()).await;
    assert_eq!(
        error_of(&mut call(&one).await).await,
        ErrorKind::ConnectionReset
    );
    for world in [&mut one, &mut two] {
        world.replicas(&[(2, gone().await)], DEADLINE);
    }
    assert_eq!(
        error_of(&mut call(&one).await).await,
        ErrorKind::ConnectionReset
    );
    // The node is there: nothing is held against it.
    assert!(one.evidence().is_empty());
}

#[tokio::test]
async fn what_breaks_is_not_taken_for_an_end() {
    let [mut one, mut two] = nodes(Limits::default()).await;
    let (replica, sign) = breaks(b"half").await;
    for world in [&mut one, &mut two] {
        world.replicas(&[(1, replica)], DEADLINE);
    }
    let mut stream = call(&one).await;
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.expect("read");
    sign.notify_one();
    assert_eq!(error_of(&mut stream).await, ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_lost_node_breaks_its_connections_and_others_are_called() {
    let [mut one, mut two, mut three] = nodes(Limits::default()).await;
    let (replica, _sign) = breaks(b"half").await;
    for world in [&mut one, &mut two, &mut three] {
        world.replicas(&[(2, replica)], DEADLINE);
    }
    let mut stream = call(&one).await;
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.expect("read");
    one.lines.set(2, State::Lost);
    assert_eq!(error_of(&mut stream).await, ErrorKind::ConnectionReset);
    let other = repeats(b"other").await;
    for world in [&mut one, &mut three] {
        world.replicas(&[(2, replica), (3, other)], DEADLINE);
    }
    assert_eq!(exchange(&one, b"").await, b"other");
    assert_eq!(one.evidence().len(), 1);
}
