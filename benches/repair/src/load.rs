//! Requests at a steady rate, each at its moment and on a connection of its own,
//! whatever became of the earlier ones.
//!
//! In: whom to ask in turn. Out: when each was due, and whether it was answered
//! well: 200, whole, within a second.

use bench_common::Failure;
use bench_common::ask::Ask;
use bench_common::http::Head;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// Later is not well.
const WITHIN: Duration = Duration::from_secs(1);
const GOOD_SHARE: f64 = 0.99;

/// An edge, and where its clients are.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub from: IpAddr,
    pub to: SocketAddr,
}

pub struct Load {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Seen, Failure>>,
}

impl Load {
    pub fn begin(per_second: u32, host: &str, targets: Vec<Target>) -> Result<Self, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let request: Arc<[u8]> = request(host).into();
        let runtime = runtime()?;
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            runtime.block_on(send(per_second, &request, &targets, &told))
        });
        Ok(Self { over, thread })
    }

    /// Waits for the last answers.
    pub fn end(self) -> Result<Seen, Failure> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the load panicked")?
    }
}

fn request(host: &str) -> Vec<u8> {
    let ask = Ask {
        host: host.to_owned(),
        ..Ask::new("/", 0)
    };
    ask.request()
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Whether it answers well now.
pub fn answers(target: Target, host: &str) -> bool {
    let answered = runtime().map(|runtime| {
        let request = request(host);
        runtime.block_on(async { tokio::time::timeout(WITHIN, ask(target, &request)).await })
    });
    matches!(answered, Ok(Ok(Ok(()))))
}

async fn send(
    per_second: u32,
    request: &Arc<[u8]>,
    targets: &[Target],
    over: &AtomicBool,
) -> Result<Seen, Failure> {
    let mut asked = JoinSet::new();
    let begun = Instant::now();
    for number in 0_u32.. {
        let due = begun + Duration::from_secs(1) * number / per_second;
        tokio::time::sleep_until(due.into()).await;
        if over.load(Ordering::Relaxed) {
            break;
        }
        let target = targets[number as usize % targets.len()];
        let request = Arc::clone(request);
        asked.spawn(async move {
            let answered = tokio::time::timeout_at((due + WITHIN).into(), ask(target, &request));
            let wrong = match answered.await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why.to_string()),
                Err(_) => Some("no answer within a second".to_owned()),
            };
            (due, wrong)
        });
    }
    let mut seen = Seen {
        per_second: per_second as usize,
        ..Seen::default()
    };
    let mut answers = asked.join_all().await;
    answers.sort_unstable();
    for (due, wrong) in answers {
        seen.answers.push((due, wrong.is_none()));
        if let Some(why) = wrong {
            *seen.wrong.entry(why).or_default() += 1;
        }
    }
    Ok(seen)
}

/// # Errors
/// No whole answer came, or no good one.
async fn ask(target: Target, request: &[u8]) -> Result<(), Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(target.from, 0))?;
    let mut stream = socket.connect(target.to).await?;
    stream.write_all(request).await?;
    let mut came = Vec::new();
    loop {
        if stream.read_buf(&mut came).await? == 0 {
            return Err("the connection ended within the answer".into());
        }
        if let Some(head) = Head::parse(&came)
            && let Some(body) = head.body(&came)?
        {
            let body = body.concat();
            let is_right = head.status == 200 && body.starts_with(b"{\"pid\":");
            return is_right
                .then_some(())
                .ok_or_else(|| format!("status {}", head.status).into());
        }
    }
}

/// What became of all, in the order in which they were due.
#[derive(Default)]
pub struct Seen {
    per_second: usize,
    answers: Vec<(Instant, bool)>,
    /// What came in the place of good answers, and how often.
    pub wrong: BTreeMap<String, usize>,
}

impl Seen {
    pub fn count(&self) -> usize {
        self.answers.len()
    }

    pub fn bad(&self) -> usize {
        self.answers.iter().filter(|(_, good)| !good).count()
    }

    pub fn good_before(&self, moment: Instant) -> f64 {
        let end = self
            .answers
            .partition_point(|(due, _)| *due + WITHIN < moment);
        share(&self.answers[..end])
    }

    /// How long after `moment` it took until, from then on, of each second's
    /// requests so many were answered well as is good.
    ///
    /// # Errors
    /// The last second was not good.
    pub fn well_again_after(&self, moment: Instant) -> Result<Duration, Failure> {
        let after = self.answers.partition_point(|(due, _)| *due < moment);
        let answers = &self.answers[after..];
        let seconds = answers.windows(self.per_second);
        let is_good = |second: &[(Instant, bool)]| share(second) >= GOOD_SHARE;
        match seconds.clone().rposition(|second| !is_good(second)) {
            None if seconds.len() > 0 => Ok(Duration::ZERO),
            Some(last) if last + 1 < seconds.len() => Ok(answers[last + 1].0 - moment),
            _ => Err("the edges did not answer well again".into()),
        }
    }
}

fn share(answers: &[(Instant, bool)]) -> f64 {
    let good = answers.iter().filter(|(_, good)| *good).count();
    #[expect(clippy::cast_precision_loss, reason = "there are thousands")]
    let share = good as f64 / answers.len().max(1) as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(bad: std::ops::Range<usize>, of: usize) -> (Seen, Instant) {
        let begun = Instant::now();
        let answers = (0..of).map(|at| {
            let due = begun + Duration::from_millis(10) * u32::try_from(at).expect("small");
            (due, !bad.contains(&at))
        });
        let seen = Seen {
            per_second: 100,
            answers: answers.collect(),
            ..Seen::default()
        };
        (seen, begun)
    }

    #[test]
    fn it_is_well_again_once_each_second_is() {
        let at = |at: u64| Duration::from_millis(10 * at);
        let (none, begun) = seen(0..0, 500);
        assert_eq!(none.well_again_after(begun).expect("well"), at(0));
        // With the last bad one but one behind: one in a hundred may be bad.
        let (some, begun) = seen(50..120, 500);
        assert_eq!(some.well_again_after(begun).expect("well"), at(119));
        assert!((some.good_before(begun + at(250)) - 80.0 / 150.0).abs() < 0.01);
        let (single, begun) = seen(50..51, 500);
        assert_eq!(single.well_again_after(begun).expect("well"), at(0));
        let (never, begun) = seen(50..500, 500);
        assert!(never.well_again_after(begun).is_err());
    }
}
