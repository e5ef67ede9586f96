//! A network namespace for each node, with one device that the relay holds.
//!
//! Holds: a namespace has its device, its loopback and nothing else; there is
//! no way out of the lab but to this machine's own addresses in it.

use super::Port;
use super::tool;
use crate::LabError;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tun_rs::{DeviceBuilder, SyncDevice};
use wire::lab::{LabNode, LabPlan};

/// Where `ip netns` keeps them by name.
const NAMED: &str = "/run/netns";
/// A node's device, inside.
const DEVICE: &str = "wan0";
const MTU: u16 = 1_500;
const QUEUE_PACKETS: u32 = 2_000;

pub fn name(id: u8, node: &LabNode) -> String {
    let number = node.name.as_str().trim_start_matches('n');
    format!("hs-{id}-{number}")
}

/// This machine's own device into the lab.
pub fn host_device(id: u8) -> String {
    format!("hs-{id}")
}

pub fn path(id: u8, node: &LabNode) -> PathBuf {
    Path::new(NAMED).join(name(id, node))
}

/// Moves the calling thread into a node's network.
pub fn join(id: u8, node: &LabNode) -> std::io::Result<()> {
    let file = File::open(path(id, node))?;
    Ok(move_into_link_name_space(
        file.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

fn device(name: &str) -> std::io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(name)
        .mtu(MTU)
        .tx_queue_len(QUEUE_PACKETS)
        .packet_information(false)
        .enable(false)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

/// One address in each zone; who does not choose is in the first.
pub fn host_port(plan: &LabPlan) -> Result<Port, LabError> {
    let name = host_device(plan.id);
    let device =
        device(&name).map_err(|source| LabError::io(format!("make the device {name}"), source))?;
    let clients = plan.clients.iter();
    let mut batch: Vec<String> = clients
        .map(|client| format!("addr add {}/24 dev {name}", client.address))
        .collect();
    batch.push(format!("link set {name} up\n"));
    let batch = batch.join("\n");
    tool::run_with("ip", &["-batch", "-"], &batch)?;
    let first = plan.nodes.len();
    let ends = plan.clients.iter().enumerate();
    Ok(Port {
        device,
        ends: ends
            .filter_map(|(at, client)| Some((v4(client.address)?, first + at)))
            .collect(),
    })
}

/// A node's namespace with its device.
pub fn make(plan: &LabPlan, end: usize) -> Result<Port, LabError> {
    let node = &plan.nodes[end];
    let namespace = name(plan.id, node);
    unmake(plan, node)?;
    tool::run("ip", &["netns", "add", &namespace])?;
    let id = plan.id;
    // A device is of the namespace that its maker's thread is in.
    let made = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            join(id, node)?;
            device(DEVICE)
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("its maker died")))
    });
    let device =
        made.map_err(|source| LabError::io(format!("make a device in {namespace}"), source))?;
    let batch = format!(
        "link set lo up\naddr add {}/24 dev {DEVICE}\nlink set {DEVICE} up\n",
        node.address
    );
    tool::run_with("ip", &["-n", &namespace, "-batch", "-"], &batch)?;
    Ok(Port {
        device,
        ends: v4(node.address)
            .map(|address| (address, end))
            .into_iter()
            .collect(),
    })
}

pub fn unmake(plan: &LabPlan, node: &LabNode) -> Result<(), LabError> {
    if path(plan.id, node).exists() {
        tool::run("ip", &["netns", "delete", &name(plan.id, node)])?;
    }
    Ok(())
}
