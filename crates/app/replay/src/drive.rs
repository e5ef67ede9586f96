//! Lets each request leave at its moment, and gathers what came of it.
//!
//! In: a plan, a pace, a way to send. Out: a report. Holds: at most
//! `concurrency` requests are in flight; one that is due while there is no room
//! is held, not dropped, and its latency still counts from when it was due.

use crate::client::{Job, Outcome};
use crate::plan::Plan;
use crate::report::{ReplayReport, Tally};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

const PROGRESS_EVERY: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// 0 keeps no times.
    pub speed: f64,
    pub concurrency: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub planned: u64,
    pub sent: u64,
    /// Answered or failed.
    pub ended: u64,
    pub failed: u64,
    pub elapsed: Duration,
}

/// A request that ended.
pub struct Ended {
    pub index: usize,
    /// When it should have left, since the start.
    pub due: Duration,
    /// From then to its end.
    pub took: Duration,
    pub outcome: Outcome,
}

struct Driver<P> {
    begun: Instant,
    tally: Tally,
    tasks: JoinSet<Ended>,
    progress: P,
    planned: u64,
    stopped: bool,
}

pub async fn drive<S, F, P>(plan: &Plan, pace: Pace, send: S, progress: P) -> ReplayReport
where
    S: Fn(Job) -> F,
    F: Future<Output = Outcome> + Send + 'static,
    P: FnMut(&Progress) -> ControlFlow<()>,
{
    let mut driver = Driver {
        begun: Instant::now(),
        tally: Tally::default(),
        tasks: JoinSet::new(),
        progress,
        planned: plan.requests.len() as u64,
        stopped: false,
    };
    let mut ticker = tokio::time::interval(PROGRESS_EVERY);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (index, request) in plan.requests.iter().enumerate() {
        let due = due(request.at, pace.speed);
        let moment = driver.begun + due.unwrap_or_default();
        if due.is_some() {
            driver.until(moment, &mut ticker, plan).await;
        }
        driver
            .room(pace.concurrency, due.is_some(), moment, &mut ticker, plan)
            .await;
        if driver.stopped {
            break;
        }
        let job = Job {
            method: request.method.clone(),
            path: plan.targets[request.target].clone(),
        };
        driver.launch(index, due.map(|_| moment), send(job));
    }
    while !driver.tasks.is_empty() {
        driver.step(None, &mut ticker, plan).await;
    }
    let elapsed = driver.begun.elapsed();
    driver.tell();
    driver
        .tally
        .report(driver.planned, elapsed, pace.speed, driver.stopped)
}

/// When a request leaves since the start; `None` as soon as there is room.
fn due(at: Duration, speed: f64) -> Option<Duration> {
    // A moment so far away that it has no number is never reached.
    (speed > 0.0).then(|| {
        let scaled = Duration::try_from_secs_f64(at.as_secs_f64() / speed);
        scaled.unwrap_or(FAR).min(FAR)
    })
}

const FAR: Duration = Duration::from_hours(24 * 365);

impl<P: FnMut(&Progress) -> ControlFlow<()>> Driver<P> {
    /// Waits for `moment`, gathering what ends meanwhile.
    async fn until(&mut self, moment: Instant, ticker: &mut tokio::time::Interval, plan: &Plan) {
        while !self.stopped && Instant::now() < moment {
            self.step(Some(moment), ticker, plan).await;
        }
    }

    /// Waits until another request may be in flight.
    async fn room(
        &mut self,
        concurrency: usize,
        timed: bool,
        moment: Instant,
        ticker: &mut tokio::time::Interval,
        plan: &Plan,
    ) {
        // What has ended already makes room without a wait.
        while let Some(ended) = self.tasks.try_join_next() {
            self.gather(ended, plan);
        }
        if self.tasks.len() < concurrency {
            return;
        }
        while !self.stopped && self.tasks.len() >= concurrency {
            self.step(None, ticker, plan).await;
        }
        if timed {
            self.tally.held(moment.elapsed());
        }
    }

    /// One thing that happens: an end, a tick, or the moment.
    async fn step(
        &mut self,
        moment: Option<Instant>,
        ticker: &mut tokio::time::Interval,
        plan: &Plan,
    ) {
        let wake = async {
            match moment {
                Some(moment) => tokio::time::sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = wake => {}
            Some(ended) = self.tasks.join_next() => self.gather(ended, plan),
            _ = ticker.tick() => self.tell(),
        }
    }

    fn launch(
        &mut self,
        index: usize,
        moment: Option<Instant>,
        sending: impl Future<Output = Outcome> + Send + 'static,
    ) {
        let now = Instant::now();
        let moment = moment.unwrap_or(now);
        let due = moment - self.begun;
        self.tally.sent(now - moment);
        self.tasks.spawn(async move {
            let outcome = sending.await;
            Ended {
                index,
                due,
                took: moment.elapsed(),
                outcome,
            }
        });
        self.tally.in_flight(self.tasks.len());
    }

    fn gather(&mut self, ended: Result<Ended, tokio::task::JoinError>, plan: &Plan) {
        match ended {
            Ok(ended) => {
                let request = &plan.requests[ended.index];
                self.tally.ended(&ended, &plan.targets[request.target]);
            }
            // A send neither panics nor is cancelled; were it so, it failed.
            Err(error) => self.tally.lost(&error.to_string()),
        }
    }

    fn tell(&mut self) {
        let progress = Progress {
            planned: self.planned,
            sent: self.tally.sent_so_far(),
            ended: self.tally.ended_so_far(),
            failed: self.tally.failed_so_far(),
            elapsed: self.begun.elapsed(),
        };
        if (self.progress)(&progress).is_break() {
            self.stopped = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Planned;
    use http::Method;
    use http::uri::PathAndQuery;
    use std::sync::{Arc, Mutex};

    fn every(gap: Duration, count: u32) -> Plan {
        let requests = (0..count).map(|index| Planned {
            at: gap * index,
            target: 0,
            method: Method::GET,
        });
        Plan {
            requests: requests.collect(),
            targets: vec![PathAndQuery::from_static("/")],
            ..Plan::default()
        }
    }

    /// A server that takes each request after the time it is given for it, and
    /// notes when it came.
    #[derive(Clone)]
    struct Server {
        begun: Instant,
        came: Arc<Mutex<Vec<Duration>>>,
        times: fn(usize) -> Duration,
    }

    impl Server {
        fn new(times: fn(usize) -> Duration) -> Self {
            Self {
                begun: Instant::now(),
                came: Arc::default(),
                times,
            }
        }

        fn send(&self) -> impl Future<Output = Outcome> + use<> {
            let mut came = self.came.lock().expect("lock");
            let takes = (self.times)(came.len());
            came.push(self.begun.elapsed());
            async move {
                tokio::time::sleep(takes).await;
                Outcome::Answered {
                    status: 200,
                    bytes: 1,
                    mismatch: false,
                }
            }
        }

        fn came(&self) -> Vec<u128> {
            let came = self.came.lock().expect("lock");
            came.iter().map(Duration::as_millis).collect()
        }
    }

    async fn run(plan: &Plan, speed: f64, concurrency: usize, server: &Server) -> ReplayReport {
        let pace = Pace { speed, concurrency };
        drive(plan, pace, |_| server.send(), |_| ControlFlow::Continue(())).await
    }

    fn near(millis: f64, expected: f64) -> bool {
        (millis - expected).abs() <= 2.0 + expected / 500.0
    }

    #[tokio::test(start_paused = true)]
    async fn requests_leave_at_their_scaled_moments_whatever_becomes_of_the_earlier_ones() {
        let plan = every(Duration::from_secs(1), 5);
        let server = Server::new(|_| Duration::from_mins(1));
        let report = run(&plan, 10.0, 100, &server).await;
        assert_eq!(server.came(), [0, 100, 200, 300, 400]);
        assert_eq!((report.answered, report.held.in_flight_most), (5, 5));
        assert_eq!(report.held.requests, 0);
        assert!(near(report.latency.max, 60_000.0), "{:?}", report.latency);
        assert!(near(report.lag.max, 0.0), "{:?}", report.lag);
    }

    #[tokio::test(start_paused = true)]
    async fn slower_than_recorded_is_slower() {
        let plan = every(Duration::from_secs(1), 3);
        let server = Server::new(|_| Duration::ZERO);
        run(&plan, 0.5, 1, &server).await;
        assert_eq!(server.came(), [0, 2_000, 4_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_shows_in_all_that_it_delayed() {
        let plan = every(Duration::from_millis(100), 10);
        let stall = |index| Duration::from_secs(u64::from(index == 0));
        let server = Server::new(stall);
        let report = run(&plan, 1.0, 1, &server).await;
        // Nine were due within the stall; the first of them waited longest.
        assert_eq!(report.held.requests, 9);
        assert!(near(report.held.longest_ms, 900.0), "{:?}", report.held);
        assert!(near(report.latency.max, 1_000.0), "{:?}", report.latency);
        assert!(near(report.latency.p50, 500.0), "{:?}", report.latency);
        assert!(near(report.lag.max, 900.0), "{:?}", report.lag);
    }

    #[tokio::test(start_paused = true)]
    async fn without_times_as_many_are_in_flight_as_may_be() {
        let plan = every(Duration::from_hours(1), 12);
        let server = Server::new(|_| Duration::from_millis(10));
        let report = run(&plan, 0.0, 4, &server).await;
        assert_eq!(report.held.in_flight_most, 4);
        assert_eq!((report.answered, report.held.requests), (12, 0));
        assert!(near(report.latency.max, 10.0), "{:?}", report.latency);
        assert!(near(report.seconds * 1e3, 30.0), "{}", report.seconds);
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_can_be_ended_early_and_what_is_in_flight_still_counts() {
        let plan = every(Duration::from_secs(1), 1_000);
        let server = Server::new(|_| Duration::from_secs(5));
        let pace = Pace {
            speed: 1.0,
            concurrency: 10,
        };
        let enough = |progress: &Progress| {
            if progress.sent >= 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let report = drive(&plan, pace, |_| server.send(), enough).await;
        assert!(report.interrupted);
        assert_eq!(
            (report.planned, report.sent, report.answered),
            (1_000, 3, 3)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_beyond_all_numbers_does_not_panic() {
        assert_eq!(due(Duration::MAX, 1e-300), Some(FAR));
        assert_eq!(due(Duration::MAX, 1.0), Some(FAR));
        assert_eq!(due(Duration::MAX, 0.0), None);
    }
}
