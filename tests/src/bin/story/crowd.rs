//! Ten thousand requests, recorded or generated, sent while the acts go on.
//!
//! Holds: they leave when they are due, whatever became of the earlier ones.

use crate::stage::{Stage, expect};
use crate::{Told, say};
use black_box::PATIENCE;
use replay::{Generated, Lines, ReplayOptions, ReplayReport, Search, Source};
use std::fs::File;
use std::io::BufReader;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const REQUESTS: u64 = 10_000;
/// The least time for the acts; the recorded days are scaled to it.
const SECONDS: f64 = 80.0;
/// Of the requests, those that ask the service: it is a tenth of the story.
const SEARCHES: f64 = 0.1;

pub struct Crowd {
    ended: Arc<AtomicU64>,
    thread: JoinHandle<Result<ReplayReport, String>>,
}

impl Crowd {
    pub fn gather(stage: &Stage) -> Told<Self> {
        let options = options(stage)?;
        let ended = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|why| why.to_string())?;
            let sent = replay::replay(options, |progress| {
                counter.store(progress.ended, Ordering::Relaxed);
                ControlFlow::Continue(())
            });
            runtime.block_on(sent).map_err(|why| why.to_string())
        });
        Ok(Self { ended, thread })
    }

    /// Waits until this part of the crowd has been answered.
    pub fn reached(&self, part: f64) -> Told {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a part of ten thousand"
        )]
        let wanted = (part * REQUESTS as f64) as u64;
        let deadline = Instant::now() + Duration::from_secs_f64(SECONDS) + PATIENCE;
        while self.ended.load(Ordering::Relaxed) < wanted {
            if self.thread.is_finished() || Instant::now() > deadline {
                let ended = self.ended.load(Ordering::Relaxed);
                return Err(format!("the crowd stands still at {ended} requests"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// What it saw, once all are answered.
    pub fn judge(self) -> Told<String> {
        let report = self.thread.join().map_err(|_| "the crowd fell over")??;
        // The recorded ten thousand hold a few that only read in name.
        expect(report.planned >= REQUESTS * 99 / 100, || {
            format!("only {} requests were planned", report.planned)
        })?;
        expect(
            report.failed == 0 && report.answered == report.planned,
            || format!("requests failed\n{}", replay::render(&report)),
        )?;
        let good = report.statuses.get("2xx").copied().unwrap_or_default();
        expect(good == report.answered, || {
            format!("other answers than 200: {:?}", report.statuses)
        })?;
        Ok(format!(
            "{} answered, p50 {:.1} ms, p99 {:.1} ms, longest {:.0} ms",
            report.answered, report.latency.p50, report.latency.p99, report.latency.max
        ))
    }
}

fn options(stage: &Stage) -> Told<ReplayOptions> {
    let recorded = std::env::var_os("HOMEOSTAT_DATA")
        .map(|data| PathBuf::from(data).join("elastic_apache_logs.log"));
    #[expect(clippy::cast_precision_loss, reason = "ten thousand")]
    let (source, speed) = if let Some(log) = recorded {
        let seconds = recorded_seconds(&log)?;
        say(&format!(
            "the crowd is recorded: {REQUESTS} requests of {seconds:.0} s"
        ));
        (Source::Log(log), seconds / SECONDS)
    } else {
        say("HOMEOSTAT_DATA is not set: the crowd is generated");
        let per_second = REQUESTS as f64 / SECONDS;
        (Source::Generated(Generated { per_second }), 1.0)
    };
    let mut options = ReplayOptions::new(source, format!("http://{}", stage.node.http));
    options.speed = speed;
    options.limit = Some(REQUESTS);
    options.host = Some("localhost".to_owned());
    options.popularity = Some(stage.news.join("popularity.tsv"));
    options.search = Some(Search {
        path: "/search".to_owned(),
        share: SEARCHES,
    });
    Ok(options)
}

/// From the first to the last of the requests that will be sent.
fn recorded_seconds(log: &Path) -> Told<f64> {
    let file = File::open(log).map_err(|why| format!("{}: {why}", log.display()))?;
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for line in Lines::new(BufReader::new(file)) {
        let line = line.map_err(|why| format!("{}: {why}", log.display()))?;
        if let Ok(entry) = line.entry {
            first = first.min(entry.unix);
            last = last.max(entry.unix);
        }
    }
    expect(last > first, || {
        format!("{} holds no requests", log.display())
    })?;
    #[expect(clippy::cast_precision_loss, reason = "seconds within weeks")]
    let seconds = (last - first) as f64;
    Ok(seconds)
}
