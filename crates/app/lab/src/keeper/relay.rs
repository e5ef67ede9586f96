//! Carries packets between a lab's devices, each when its distance is over.
//!
//! In: packets from devices, shapes from the keeper. Out: packets to devices.
//! Holds: one thread; it sleeps when nothing flies; a packet is late by at most
//! [`SLACK`] for being gathered with its neighbours.
//! Never: decides when a packet arrives; the fabric does.

use crate::fabric::{Fabric, Packet};
use crate::machine::Port;
use crate::shape::Shape;
use crate::{LabError, clock};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fd::OwnedFd;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use rustix::time::{timerfd_create, timerfd_settime};
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::lab::PacketCounts;

/// Packets that are due within so long of each other are written together.
const SLACK: Duration = Duration::from_micros(100);
/// From one device before the others have their turn.
const BATCH: usize = 64;
const PACKET_BYTES_MAX: usize = 65_536;
const RESHAPE_MAX: Duration = Duration::from_secs(2);
const HEADER_BYTES: usize = 20;

const WAKE: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

enum Order {
    /// Answered once it is in force.
    Reshape(Arc<Shape>, Sender<()>),
    Stop,
}

pub struct Relay {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    counts: Arc<Mutex<PacketCounts>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub fn start(ports: Vec<Port>, shape: Arc<Shape>, seed: u64) -> Result<Self, LabError> {
        let failed = |source| LabError::io("start the relay", source);
        let (orders, inbox) = channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = Arc::new(wake.map_err(|errno| failed(errno.into()))?);
        let counts = Arc::new(Mutex::new(PacketCounts::default()));
        let mut carrier = Carrier {
            routes: routes(&ports),
            ports,
            fabric: Fabric::new(shape, seed),
            inbox,
            wake: Arc::clone(&wake),
            counts: Arc::clone(&counts),
            buffer: vec![0; PACKET_BYTES_MAX],
        };
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || {
                if let Err(error) = carrier.run() {
                    tracing::error!(%error, "the relay ended: nothing reaches anybody");
                }
            })
            .map_err(failed)?;
        Ok(Self {
            orders,
            wake,
            counts,
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        // One that has ended has said so in its log.
        if self.orders.send(order).is_ok() {
            let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        }
    }

    /// From its return on, packets meet the new shape.
    pub fn reshape(&self, shape: Arc<Shape>) {
        let (done, heard) = channel();
        self.order(Order::Reshape(shape, done));
        if heard.recv_timeout(RESHAPE_MAX).is_err() {
            tracing::error!("the relay does not change its shape");
        }
    }

    pub fn counts(&self) -> PacketCounts {
        self.counts
            .lock()
            .map_or_else(|_| PacketCounts::default(), |counts| *counts)
    }

    /// Its devices are gone once it has ended.
    pub fn stop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Which port and end an address is.
fn routes(ports: &[Port]) -> BTreeMap<Ipv4Addr, (usize, usize)> {
    let of_port = |(at, port): (usize, &Port)| {
        let ends = port.ends.clone().into_iter();
        ends.map(move |(address, end)| (address, (at, end)))
    };
    ports.iter().enumerate().flat_map(of_port).collect()
}

struct Carrier {
    ports: Vec<Port>,
    routes: BTreeMap<Ipv4Addr, (usize, usize)>,
    fabric: Fabric,
    inbox: Receiver<Order>,
    wake: Arc<OwnedFd>,
    counts: Arc<Mutex<PacketCounts>>,
    buffer: Vec<u8>,
}

impl Carrier {
    fn run(&mut self) -> io::Result<()> {
        let waiting = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let data = epoll::EventData::new_u64;
        epoll::add(&waiting, &*self.wake, data(WAKE), epoll::EventFlags::IN)?;
        epoll::add(&waiting, &timer, data(TIMER), epoll::EventFlags::IN)?;
        for (at, port) in (0_u64..).zip(&self.ports) {
            epoll::add(&waiting, &port.device, data(at), epoll::EventFlags::IN)?;
        }
        let mut events = Vec::with_capacity(self.ports.len() + 2);
        loop {
            self.deliver();
            self.set_timer(&timer)?;
            events.clear();
            match epoll::wait(&waiting, rustix::buffer::spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        if self.obey() {
                            return Ok(());
                        }
                    }
                    TIMER => {
                        let _ = rustix::io::read(&timer, &mut [0; 8]);
                    }
                    at => self.take_from(usize::try_from(at).unwrap_or(usize::MAX)),
                }
            }
            if let Ok(mut counts) = self.counts.try_lock() {
                *counts = self.fabric.counts();
            }
        }
    }

    /// Whether it is over.
    fn obey(&mut self) -> bool {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Reshape(shape, done) => {
                    self.fabric.reshape(shape);
                    // Who asked may have lost patience.
                    let _ = done.send(());
                }
                Order::Stop => return true,
            }
        }
        false
    }

    fn set_timer(&self, timer: &OwnedFd) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let after = self.fabric.next().map(|due| {
            let left = due.since(clock::now()).max(SLACK);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let at = Itimerspec {
            it_interval: zero,
            it_value: after.unwrap_or(zero),
        };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &at)?;
        Ok(())
    }

    fn take_from(&mut self, at: usize) {
        let Some(port) = self.ports.get(at) else {
            return;
        };
        let now = clock::now();
        for _ in 0..BATCH {
            let count = match port.device.recv(&mut self.buffer) {
                Ok(count) => count,
                Err(error) => {
                    if error.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(%error, "a device cannot be read");
                    }
                    return;
                }
            };
            let bytes = &self.buffer[..count];
            let ends = addresses(bytes).and_then(|(source, target)| {
                let from = self.routes.get(&source).filter(|(port, _)| *port == at);
                Some((from?.1, self.routes.get(&target)?.1))
            });
            match ends {
                Some((from, to)) => {
                    let bytes = bytes.to_vec();
                    self.fabric.send(Packet { from, to, bytes }, now);
                }
                None => self.fabric.count_foreign(),
            }
        }
    }

    fn deliver(&mut self) {
        let now = clock::now();
        while let Some(packet) = self.fabric.arrived(now) {
            let port = addresses(&packet.bytes)
                .and_then(|(_, target)| self.routes.get(&target))
                .and_then(|(port, _)| self.ports.get(*port));
            if let Some(port) = port {
                // A device that is down takes nothing, like a cable pulled out.
                let _ = port.device.send(&packet.bytes);
            }
        }
    }
}

/// Source and target of an IPv4 packet; of nothing else.
fn addresses(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header = packet.get(..HEADER_BYTES)?;
    let address = |at: usize| {
        let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    (header.first()? >> 4 == 4).then_some(())?;
    Some((address(12)?, address(16)?))
}
