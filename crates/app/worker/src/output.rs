//! What guests print, line by line, on the worker's own outputs, where the node
//! keeps it as it keeps any replica's.
//!
//! Holds: a guest is never held up by who reads its output: what does not fit
//! the queue is dropped, and that is said.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use wasm::{Line, OutputSink};

const LINES_MAX: usize = 1_000;
/// A longer one is broken.
const LINE_BYTES_MAX: usize = 16 << 10;

type Pieces = [Vec<u8>; 2];
type Whole = (Line, Vec<u8>);

pub struct Lines {
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

struct Shared {
    queue: Mutex<Option<SyncSender<Whole>>>,
    /// What has no end of line yet.
    begun: Mutex<Pieces>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    pub fn start() -> Self {
        Self::to(|line, bytes| match line {
            Line::Out => io::stdout().lock().write_all(bytes),
            Line::Error => io::stderr().lock().write_all(bytes),
        })
    }

    fn to(write: impl Fn(Line, &[u8]) -> io::Result<()> + Send + 'static) -> Self {
        let (queue, came) = sync_channel(LINES_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let told = Arc::clone(&dropped);
        let writer = std::thread::spawn(move || write_all(&came, &told, write));
        let shared = Shared {
            queue: Mutex::new(Some(queue)),
            begun: Mutex::default(),
            dropped,
        };
        Self {
            shared: Arc::new(shared),
            writer,
        }
    }

    pub fn sink(&self) -> OutputSink {
        let shared = Arc::clone(&self.shared);
        Arc::new(move |line, bytes| shared.take(line, bytes))
    }

    /// Writes what is there still, and what has no end.
    pub fn finish(self) {
        self.shared.end();
        let _ = self.writer.join();
    }
}

fn write_all(
    came: &Receiver<Whole>,
    dropped: &AtomicU64,
    write: impl Fn(Line, &[u8]) -> io::Result<()>,
) {
    for (line, bytes) in came {
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let told = format!("homeostat: {lost} lines of output were dropped\n");
            let _ = write(Line::Error, told.as_bytes());
        }
        let _ = write(line, &bytes);
    }
}

impl Shared {
    fn take(&self, line: Line, bytes: &[u8]) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = &mut begun[index(line)];
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            for chunk in part.chunks(LINE_BYTES_MAX) {
                piece.extend_from_slice(chunk);
                if piece.last() == Some(&b'\n') || piece.len() >= LINE_BYTES_MAX {
                    self.send(line, std::mem::take(piece));
                }
            }
        }
    }

    fn send(&self, line: Line, mut bytes: Vec<u8>) {
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = queue.as_ref().map(|queue| queue.try_send((line, bytes)));
        if matches!(sent, Some(Err(TrySendError::Full(_)))) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn end(&self) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        for line in [Line::Out, Line::Error] {
            let piece = std::mem::take(&mut begun[index(line)]);
            if !piece.is_empty() {
                self.send(line, piece);
            }
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        *queue = None;
    }
}

fn index(line: Line) -> usize {
    usize::from(line == Line::Error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    type Written = Arc<Mutex<Vec<(Line, String)>>>;

    fn taken(written: &Written) -> Vec<(Line, String)> {
        written.lock().expect("not poisoned").clone()
    }

    #[test]
    fn pieces_become_lines_and_the_last_one_needs_no_end() {
        let written = Written::default();
        let to = Arc::clone(&written);
        let lines = Lines::to(move |line, bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            to.lock().expect("not poisoned").push((line, text));
            Ok(())
        });
        let sink = lines.sink();
        sink(Line::Out, b"on");
        sink(Line::Error, b"wrong\n");
        sink(Line::Out, b"e\ntwo\nthr");
        sink(Line::Out, b"ee");
        lines.finish();
        let expected = [
            (Line::Error, "wrong\n"),
            (Line::Out, "one\n"),
            (Line::Out, "two\n"),
            (Line::Out, "three\n"),
        ];
        assert_eq!(
            taken(&written),
            expected.map(|(line, text)| (line, text.to_owned()))
        );
        // Too late: nobody takes it.
        sink(Line::Out, b"four\n");
    }

    #[test]
    fn a_line_without_an_end_is_broken() {
        let written = Written::default();
        let to = Arc::clone(&written);
        let lines = Lines::to(move |line, bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            to.lock().expect("not poisoned").push((line, text));
            Ok(())
        });
        lines.sink()(Line::Out, &vec![b'x'; LINE_BYTES_MAX * 3 + 1]);
        lines.finish();
        let lengths: Vec<usize> = taken(&written).iter().map(|(_, text)| text.len()).collect();
        let whole = LINE_BYTES_MAX + 1;
        assert_eq!(lengths, [whole, whole, whole, 2]);
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_told() {
        let written = Written::default();
        let to = Arc::clone(&written);
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let lines = Lines::to(move |line, bytes| {
            // Nothing is written until the gate is open.
            let _ = gate.lock().expect("not poisoned").recv();
            let text = String::from_utf8_lossy(bytes).into_owned();
            to.lock().expect("not poisoned").push((line, text));
            Ok(())
        });
        let sink = lines.sink();
        for _ in 0..LINES_MAX * 2 {
            sink(Line::Out, b"line\n");
        }
        drop(open);
        lines.finish();
        let (told, kept): (Vec<_>, Vec<_>) = taken(&written)
            .into_iter()
            .partition(|(line, _)| *line == Line::Error);
        // One more than the queue holds may be in the writer's hand.
        assert!(kept.len() <= LINES_MAX + 1, "{}", kept.len());
        // The writer may begin while lines are dropped, and tells of each time.
        let dropped: usize = told
            .iter()
            .map(|(_, text)| {
                let count = text.strip_prefix("homeostat: ");
                let count =
                    count.and_then(|text| text.strip_suffix(" lines of output were dropped\n"));
                count
                    .and_then(|count| count.parse::<usize>().ok())
                    .expect("a count")
            })
            .sum();
        assert_eq!(kept.len() + dropped, LINES_MAX * 2);
    }
}
