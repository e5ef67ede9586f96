//! Descriptors pass, processes are watched, locks exclude.

use ipc::{Connection, Identity, IpcError, Listener, Watched, connect, lock_file};
use std::io::Read;
use std::os::fd::AsFd;

#[tokio::test]
async fn a_descriptor_arrives_with_its_message() {
    let (one, two) = tokio::net::UnixStream::pair().expect("pair");
    let (mut one, mut two) = (Connection::new(one), Connection::new(two));
    let (mut reader, writer) = std::io::pipe().expect("pipe");
    one.send_with_descriptors(&"take", &[writer.as_fd()])
        .await
        .expect("sends");
    drop((writer, one));
    let (text, mut passed) = two.receive::<String>().await.expect("reads").expect("one");
    assert_eq!((text.as_str(), passed.len()), ("take", 1));
    let mut file = std::fs::File::from(passed.remove(0));
    std::io::Write::write_all(&mut file, b"through").expect("writes");
    drop(file);
    let mut read = String::new();
    reader.read_to_string(&mut read).expect("reads");
    assert_eq!(read, "through");
    assert!(two.receive::<String>().await.expect("ends").is_none());
}

#[tokio::test]
async fn only_a_stale_socket_is_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.sock");
    let first = Listener::bind(&path).await.expect("binds");
    assert!(matches!(
        Listener::bind(&path).await,
        Err(IpcError::Taken { .. })
    ));
    drop(first);
    let _second = Listener::bind(&path).await.expect("replaces");
    connect(&path).await.expect("connects");
}

#[tokio::test]
async fn a_successor_gets_the_new_connections() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("a.sock");
    let first = Listener::replace(&path).expect("binds");
    let mut old = connect(&path).await.expect("connects");
    let mut served = first.accept().await.expect("accepts");
    let second = Listener::replace(&path).expect("replaces");
    let mut new = connect(&path).await.expect("connects");
    let mut accepted = second.accept().await.expect("accepts");
    served.send(&"first").await.expect("sends");
    accepted.send(&"second").await.expect("sends");
    let from_old = old.receive::<String>().await.expect("reads");
    let from_new = new.receive::<String>().await.expect("reads");
    assert_eq!(from_old.expect("one").0, "first");
    assert_eq!(from_new.expect("one").0, "second");
}

#[tokio::test]
async fn an_exit_is_seen_and_a_reused_number_is_not_adopted() {
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let identity = Identity::of(child.id()).expect("identity");
    let other = Identity {
        start_time: identity.start_time + 1,
        ..identity
    };
    assert!(Watched::open(other).is_err());
    let watched = Watched::open(identity).expect("watches");
    child.kill().expect("kills");
    watched.exited().await.expect("exits");
    child.wait().expect("reaped");
    assert!(Watched::open(identity).is_err());
}

#[test]
fn a_lock_excludes_a_second_holder() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("lock");
    let held = lock_file(&path).expect("takes");
    assert!(lock_file(&path).is_err());
    drop(held);
    lock_file(&path).expect("free again");
}

#[tokio::test]
async fn a_process_that_nobody_has_reaped_has_exited_all_the_same() {
    let mut child = std::process::Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let watched = Watched::open(Identity::of(child.id()).expect("lives")).expect("watched");
    assert!(!watched.has_exited());
    drop(child.stdin.take());
    watched.exited().await.expect("ends");
    let found = Watched::open(watched.identity()).expect("its number is still its own");
    assert!(found.has_exited());
    child.wait().expect("reaped");
}
