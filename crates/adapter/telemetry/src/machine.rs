//! What this machine has, and how busy it is, as its kernel tells it.
//!
//! In: the kernel's counters, read again and again. Out: readings since the
//! last time.
//! Holds: what a kernel does not tell (pressure, on some) is absent, never
//! zero; counters that go back (an interface that went) count as nothing.
//! Never: decides what is too much.

use procfs::prelude::*;
use std::path::PathBuf;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MachineReadings {
    pub cores: usize,
    /// Busy share of all cores since the last time, 0 to 1; absent at first.
    pub cpu: Option<f64>,
    pub memory_bytes: u64,
    /// What programs could take without swapping.
    pub memory_free_bytes: u64,
    /// Of the file system that has the data directory.
    pub disk_bytes: u64,
    /// What programs that are not root may write.
    pub disk_free_bytes: u64,
    /// Of all interfaces but loopback, since the last time; absent at first.
    pub received_bytes_per_s: Option<f64>,
    pub sent_bytes_per_s: Option<f64>,
    /// Share of the last ten seconds in which something waited, 0 to 1.
    pub cpu_pressure: Option<f64>,
    pub memory_pressure: Option<f64>,
    pub io_pressure: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    #[error("the kernel's counters cannot be read")]
    Counters(#[from] procfs::ProcError),
    #[error("the file system of {path} cannot be asked for its room")]
    Disk {
        path: PathBuf,
        source: std::io::Error,
    },
}

pub struct MachineSensor {
    data: PathBuf,
    last: Option<Sample>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// In ticks, of all cores together.
    busy: u64,
    idle: u64,
    received: u64,
    sent: u64,
}

impl MachineSensor {
    /// `data` is on the disk that counts.
    pub fn new(data: PathBuf) -> Self {
        Self { data, last: None }
    }

    pub fn read(&mut self) -> Result<MachineReadings, MachineError> {
        let sample = sample()?;
        let memory = procfs::Meminfo::current()?;
        let disk = rustix::fs::statvfs(&self.data).map_err(|error| MachineError::Disk {
            path: self.data.clone(),
            source: error.into(),
        })?;
        let mut readings = MachineReadings {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.mem_total,
            memory_free_bytes: memory.mem_available.unwrap_or(memory.mem_free),
            disk_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
            disk_free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            cpu_pressure: procfs::CpuPressure::current()
                .ok()
                .map(|it| share(&it.some)),
            memory_pressure: procfs::MemoryPressure::current()
                .ok()
                .map(|it| share(&it.some)),
            io_pressure: procfs::IoPressure::current().ok().map(|it| share(&it.some)),
            ..MachineReadings::default()
        };
        if let Some(last) = self.last {
            readings.since(&last, &sample);
        }
        self.last = Some(sample);
        Ok(readings)
    }
}

impl MachineReadings {
    #[expect(clippy::cast_precision_loss, reason = "shares and rates")]
    fn since(&mut self, last: &Sample, now: &Sample) {
        let span = now.at.saturating_duration_since(last.at);
        if span == Duration::ZERO {
            return;
        }
        let busy = now.busy.saturating_sub(last.busy);
        let all = busy + now.idle.saturating_sub(last.idle);
        self.cpu = (all > 0).then(|| busy as f64 / all as f64);
        let rate = |now: u64, last: u64| now.saturating_sub(last) as f64 / span.as_secs_f64();
        self.received_bytes_per_s = Some(rate(now.received, last.received));
        self.sent_bytes_per_s = Some(rate(now.sent, last.sent));
    }
}

fn sample() -> Result<Sample, MachineError> {
    let at = Instant::now();
    let cpu = procfs::KernelStats::current()?.total;
    let idle = cpu.idle + cpu.iowait.unwrap_or(0);
    let other = [cpu.irq, cpu.softirq, cpu.steal];
    let other: u64 = other.into_iter().flatten().sum();
    let busy = cpu.user + cpu.nice + cpu.system + other;
    let interfaces = procfs::net::dev_status()?;
    let counted = interfaces.values().filter(|one| one.name != "lo");
    let (received, sent) = counted.fold((0_u64, 0_u64), |(received, sent), one| {
        (
            received.saturating_add(one.recv_bytes),
            sent.saturating_add(one.sent_bytes),
        )
    });
    Ok(Sample {
        at,
        busy,
        idle,
        received,
        sent,
    })
}

/// The kernel tells hundredths.
fn share(record: &procfs::PressureRecord) -> f64 {
    f64::from(record.avg10) / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut sensor = MachineSensor::new(folder.path().to_path_buf());
        let first = sensor.read().expect("reads");
        assert!(first.cores > 0 && first.memory_free_bytes <= first.memory_bytes);
        assert!(first.disk_free_bytes <= first.disk_bytes && first.disk_bytes > 0);
        assert_eq!((first.cpu, first.sent_bytes_per_s), (None, None));
        // The kernel counts in hundredths of a second.
        let busy = loop {
            let next = sensor.read().expect("reads");
            if let Some(cpu) = next.cpu {
                break cpu;
            }
        };
        assert!((0.0..=1.0).contains(&busy), "{busy}");
    }

    #[test]
    fn a_missing_disk_is_named() {
        let mut sensor = MachineSensor::new(PathBuf::from("/nowhere/at/all"));
        let error = sensor.read().expect_err("nothing is there");
        assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
    }

    #[test]
    fn shares_and_rates_since_the_last_time() {
        let at = Instant::now();
        let sample = |seconds, busy, idle, sent| Sample {
            at: at + Duration::from_secs(seconds),
            busy,
            idle,
            received: 1_000 - sent,
            sent,
        };
        let mut readings = MachineReadings::default();
        readings.since(&sample(0, 100, 100, 0), &sample(2, 150, 250, 600));
        assert_eq!(readings.cpu, Some(0.25));
        assert_eq!(readings.sent_bytes_per_s, Some(300.0));
        // An interface went: its counters with it.
        assert_eq!(readings.received_bytes_per_s, Some(0.0));
    }
}
