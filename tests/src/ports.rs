//! Ports that stay a test's own while its node is down and comes back.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// Below those that the kernel gives out: a program that binds to no port in
/// particular, or only connects, gets none of these while a node is down.
const FIRST: u16 = 10_240;
const COUNT: u16 = 20_480;

/// Locked by this process, and by it only, until it ends.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port on the loopback that nobody has, for streams and for datagrams, and that
/// no other test gets before this process ends.
///
/// # Panics
/// When there is none.
pub fn free() -> SocketAddr {
    let locks = std::env::temp_dir().join("homeostat-test-ports");
    std::fs::create_dir_all(&locks).expect("a directory for locks");
    let from = u16::try_from(std::process::id() % u32::from(COUNT)).expect("less");
    let found = (0..COUNT).find_map(|step| {
        // Far from those of the processes that were started with this one.
        let port = FIRST + (from.wrapping_mul(61) % COUNT + step) % COUNT;
        let lock = File::create(locks.join(port.to_string())).ok()?;
        lock.try_lock().ok()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpListener::bind(address).ok()?;
        UdpSocket::bind(address).ok()?;
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        held.push(lock);
        Some(address)
    });
    found.expect("a free port")
}
