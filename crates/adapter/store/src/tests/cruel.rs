//! A disk that keeps for certain only what was synced.
//!
//! In: what redb does to its file. Out: the file as a power cut may leave it,
//! and on demand a failing sync or no more room.
//! Holds: a cut keeps every synced step; of each later write any set of sectors
//! is kept, some of them torn; of later lengths any one.

use fastrand::Rng;
use redb::StorageBackend;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    SyncFails,
    Full,
    /// Nothing is written or synced any more.
    Off,
}

#[derive(Debug, Default)]
struct Inner {
    base: Vec<u8>,
    live: Vec<u8>,
    steps: Vec<Step>,
    /// Begins when so many steps are done.
    trouble: Option<(usize, Trouble)>,
    /// Each sync takes so long.
    sync: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

impl Disk {
    /// With this on it, synced.
    pub fn holding(image: Vec<u8>) -> Self {
        let inner = Inner {
            base: image.clone(),
            live: image,
            ..Inner::default()
        };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics with it")
    }

    pub fn slow_down(&self, sync: Duration) {
        self.lock().sync = sync;
    }

    pub fn fail_from(&self, step: usize, trouble: Trouble) {
        self.lock().trouble = Some((step, trouble));
    }

    /// How many steps are done.
    pub fn steps(&self) -> usize {
        self.lock().steps.len()
    }

    /// How many steps each has done, at one moment.
    pub fn steps_of_all(disks: &[Self]) -> Vec<usize> {
        let held: Vec<_> = disks.iter().map(Self::lock).collect();
        held.iter().map(|inner| inner.steps.len()).collect()
    }

    /// What a program sees, synced or not.
    pub fn live(&self) -> Vec<u8> {
        self.lock().live.clone()
    }

    /// What a power cut after `cut` steps may leave.
    pub fn after_cut(&self, cut: usize, rng: &mut Rng) -> Vec<u8> {
        self.lock().after_cut(cut, rng)
    }

    /// What a power cut just now leaves; whoever has it open still, finds it gone.
    pub fn lose_power(&self, rng: &mut Rng) -> Vec<u8> {
        let mut inner = self.lock();
        let cut = inner.steps.len();
        inner.trouble = Some((cut, Trouble::Off));
        inner.after_cut(cut, rng)
    }
}

impl Inner {
    fn after_cut(&self, cut: usize, rng: &mut Rng) -> Vec<u8> {
        let done = &self.steps[..cut];
        let is_sync = |step: &Step| matches!(step, Step::Sync);
        let synced = done.iter().rposition(is_sync).map_or(0, |last| last + 1);
        let mut image = self.base.clone();
        for step in &done[..synced] {
            apply(&mut image, step);
        }
        let chance = [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)];
        let mut lengths = vec![image.len()];
        for step in &done[synced..] {
            match step {
                Step::Write(at, bytes) => keep_some(&mut image, *at, bytes, chance, rng),
                Step::Length(length) => {
                    lengths.push(*length);
                    if image.len() < *length {
                        image.resize(*length, 0);
                    }
                }
                Step::Sync => {}
            }
        }
        image.resize(lengths[rng.usize(..lengths.len())], 0);
        image
    }
}

fn apply(image: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write(at, bytes) => image[*at..*at + bytes.len()].copy_from_slice(bytes),
        Step::Length(length) => image.resize(*length, 0),
        Step::Sync => {}
    }
}

fn keep_some(image: &mut [u8], at: usize, bytes: &[u8], chance: f64, rng: &mut Rng) {
    let mut from = 0;
    while from < bytes.len() {
        let end_of_sector = ((at + from) / SECTOR_BYTES + 1) * SECTOR_BYTES - at;
        let mut to = end_of_sector.min(bytes.len());
        let next = to;
        if rng.f64() < chance {
            if rng.u8(..16) == 0 {
                to = rng.usize(from..=to);
            }
            image[at + from..at + to].copy_from_slice(&bytes[from..to]);
        }
        from = next;
    }
}

impl Inner {
    fn check(&self, trouble: Trouble) -> Result<(), io::Error> {
        match self.trouble {
            Some((from, what))
                if (what == trouble || what == Trouble::Off) && self.steps.len() >= from =>
            {
                let kind = match what {
                    Trouble::SyncFails | Trouble::Off => io::Error::from_raw_os_error(5),
                    Trouble::Full => io::Error::from_raw_os_error(28),
                };
                Err(kind)
            }
            _ => Ok(()),
        }
    }

    fn step(&mut self, step: Step) {
        apply(&mut self.live, &step);
        self.steps.push(step);
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).expect("small")
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let at = position(offset);
        let inner = self.lock();
        let found = inner.live.get(at..at + out.len());
        let found = found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        let mut inner = self.lock();
        inner.check(Trouble::Full)?;
        inner.step(Step::Length(position(length)));
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let takes = self.lock().sync;
        std::thread::sleep(takes);
        let mut inner = self.lock();
        inner.check(Trouble::SyncFails)?;
        inner.step(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), io::Error> {
        let mut inner = self.lock();
        inner.check(Trouble::Full)?;
        inner.step(Step::Write(position(offset), bytes.to_vec()));
        Ok(())
    }
}
