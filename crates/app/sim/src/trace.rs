//! The hash of all that happened, in order.

use kernel::Time;

/// Each step mixes in one word; the same words in the same order give the same
/// hash on every machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    pub hash: u64,
    pub events: u64,
}

impl Trace {
    pub fn event(&mut self, at: Time, machine: usize, kind: u64) {
        self.events += 1;
        self.word(at.0);
        self.word((machine as u64) << 8 | kind);
    }

    pub fn word(&mut self, word: u64) {
        let mixed = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = mixed ^ (mixed >> 29);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let word = chunk.first_chunk::<8>().copied().unwrap_or_default();
            self.word(u64::from_le_bytes(word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(chunks.remainder()) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
    }
}
