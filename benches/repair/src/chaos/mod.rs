//! Random faults in a lab of real nodes, one after the other, each followed by
//! peace: then all must be as wished again. Told in the end: what users saw.
//!
//! In: `--count N`, `--seed SEED`. Out: a line a fault, a table, one figure.
//! Holds: users ask all the while; a fault after which all is not as wished is
//! told with what is not, and what its nodes said is kept.

mod draw;
mod seen;
mod wished;

use crate::cluster::{Cluster, ZONES, echo};
use crate::load::{Load, Seen};
use crate::singleton::Watched;
use crate::{HOST, goals};
use bench_common::figure::Figure;
use bench_common::node::until;
use bench_common::{Failure, data, say};
use draw::{Deed, Drawn, Struck};
use seen::{Counted, One, Report};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use wire::lab::Fault;
use wished::{Wished, lacks};

pub const USAGE: &str = "usage: cargo xtask chaos [--count N] [--seed SEED]";
const NODES: usize = 6;
const REPLICAS: usize = 3;
const COUNT: u64 = 1_000;
/// Requests a second, at the edges that are not struck and at those that are.
const PER_SECOND: [u32; 2] = [60, 20];
const BEFORE: Duration = Duration::from_millis(500);
/// At the end of each load, so that its last second is of good answers.
const AFTER: Duration = Duration::from_millis(1_500);
/// Later than this it is not as wished.
const PEACE: Duration = Duration::from_mins(2);
/// Whatever is not as wished by then is told.
const LONG: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    count: u64,
    seed: u64,
}

/// # Errors
/// The lab cannot be made, or did not become as wished at all any more.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = read(arguments).ok_or(USAGE)?;
    if !bench_common::labs::possible() {
        return Err(
            "chaos needs a lab with disks and networks of its own: root, and /dev/net/tun".into(),
        );
    }
    let mut chaos = Chaos::begin(options.seed)?;
    let mut report = Report::default();
    let mut played = Ok(());
    for number in 1..=options.count {
        // What was seen so far is told all the same.
        played = chaos.play(number, &mut report);
        if played.is_err() {
            break;
        }
    }
    data(&report.to_string())?;
    data(&format!(
        "seed {}, version {} in the end",
        options.seed, chaos.version
    ))?;
    data(&format!(
        "not answered well at edges that were not struck: {}",
        report.others()
    ))?;
    bench_common::report(|tell| {
        played?;
        #[expect(clippy::cast_precision_loss, reason = "a few")]
        let not_whole = report.not_whole() as f64;
        tell(Figure::alone(goals::NOT_WHOLE, not_whole));
        Ok(())
    })
}

struct Chaos {
    cluster: Cluster,
    nodes: Vec<Struck>,
    wished: Wished,
    singleton: Watched,
    twice: usize,
    version: u64,
    seed: u64,
}

impl Chaos {
    fn begin(seed: u64) -> Result<Self, Failure> {
        let cluster = Cluster::start(NODES)?;
        let struck = |at| Struck {
            name: cluster.name(at),
            zone: cluster.zone(at).clone(),
        };
        let mut chaos = Self {
            nodes: cluster.all().map(struck).collect(),
            wished: Wished::from([("echo", REPLICAS), ("one", 1)]),
            singleton: Watched::new()?,
            twice: 0,
            version: 0,
            cluster,
            seed,
        };
        chaos.cluster.whole()?;
        chaos.apply()?;
        until("all as wished", || {
            lacks(&chaos.cluster, &chaos.wished).is_none().then_some(())
        })?;
        say(&format!(
            "    {NODES} nodes in {} zones, {REPLICAS} replicas of one service, one singleton; seed {seed}",
            ZONES.len()
        ));
        Ok(chaos)
    }

    fn apply(&mut self) -> Result<(), Failure> {
        self.version += 1;
        let services = format!(
            "{}\n{}",
            echo(REPLICAS)?.replace(
                "replicas =",
                &format!(
                    "environment = {{ VERSION = \"{}\" }}\nreplicas =",
                    self.version
                )
            ),
            self.singleton.service()?
        );
        self.cluster.apply(&services)
    }

    fn play(&mut self, number: u64, report: &mut Report) -> Result<(), Failure> {
        let leader = self.cluster.leader()?;
        let running = self.cluster.ready_on(leader)?;
        let seed = self.seed.wrapping_add(number);
        let drawn = draw::draw(seed, &self.nodes, leader, &running);
        let others = self.cluster.all().filter(|at| !drawn.at.contains(at));
        let others = others.map(|at| self.cluster.target(at)).collect();
        let at = drawn.at.iter().map(|at| self.cluster.target(*at)).collect();
        let load = Load::begin(PER_SECOND[0], HOST, others)?;
        let struck = if drawn.at.is_empty() {
            None
        } else {
            Some(Load::begin(PER_SECOND[1], HOST, at)?)
        };
        std::thread::sleep(BEFORE);
        let begun = Instant::now();
        self.strike(&drawn)?;
        let over = Instant::now();
        let lacking = self.peace(over);
        let whole_after = lacking.is_none().then(|| over.elapsed());
        std::thread::sleep(AFTER);
        let others = load.end()?;
        let struck = struck.map_or(Ok(Seen::default()), Load::end)?;
        let one = One {
            kind: drawn.kind,
            whole_after,
            others: Counted::of(&others),
            well_after: others
                .well_again_after(begun)
                .unwrap_or_else(|_| begun.elapsed()),
            struck: Counted::of(&struck),
        };
        report.add(&one);
        tell(number, &drawn, leader, &one, &others);
        self.judge(number, &drawn, lacking)
    }

    /// Begins it, and waits until it is over.
    fn strike(&mut self, drawn: &Drawn) -> Result<(), Failure> {
        match &drawn.deed {
            Deed::Faults(faults) => {
                for fault in faults {
                    self.cluster.begin_for(fault.clone(), drawn.span)?;
                }
                std::thread::sleep(drawn.span.unwrap_or_default());
                while self.cluster.has_faults()? {
                    std::thread::sleep(LOOK);
                }
            }
            Deed::Apply => self.apply()?,
            Deed::Drain(node) => {
                let name = self.cluster.name(*node);
                let by = crate::cluster::other(*node);
                self.cluster.run(by, &["node", "drain", name.as_str()])?;
                std::thread::sleep(drawn.span.unwrap_or_default());
                self.cluster
                    .run(by, &["node", "drain", name.as_str(), "--end"])?;
            }
        }
        Ok(())
    }

    /// What is not as wished when the time is over. What was not so for long is told.
    fn peace(&self, since: Instant) -> Option<String> {
        let mut told = String::new();
        loop {
            let lacking = lacks(&self.cluster, &self.wished);
            let Some(why) = &lacking else { return None };
            let waited = since.elapsed();
            if waited > PEACE {
                return lacking;
            }
            if waited > LONG && told != *why {
                say(&format!("    {:.0} s later: {why}", waited.as_secs_f64()));
                told.clone_from(why);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// # Errors
    /// All is not as wished after a second span of peace either.
    fn judge(
        &mut self,
        number: u64,
        drawn: &Drawn,
        lacking: Option<String>,
    ) -> Result<(), Failure> {
        let twice = self.singleton.doubles();
        // One that stood still holds the lock that shows two, and runs not.
        let paused = matches!(&drawn.deed, Deed::Faults(faults)
            if faults.iter().any(|fault| matches!(fault, Fault::Pause { .. })));
        if twice > self.twice && !paused {
            let logs = self.keep_logs(number)?;
            return Err(format!("the singleton ran twice; logs are in {}", logs.display()).into());
        }
        self.twice = twice;
        let Some(why) = lacking else { return Ok(()) };
        let logs = self.keep_logs(number)?;
        say(&format!("    {why}; logs are in {}", logs.display()));
        match self.peace(Instant::now()) {
            None => Ok(()),
            Some(why) => Err(format!("not as wished any more: {why}").into()),
        }
    }

    /// The lab is taken away with this program.
    fn keep_logs(&self, number: u64) -> Result<PathBuf, Failure> {
        let to = std::env::temp_dir().join(format!("homeostat-chaos-{}-{number}", self.seed));
        for at in self.cluster.all() {
            let own = to.join(self.cluster.name(at).as_str());
            std::fs::create_dir_all(&own)?;
            for entry in std::fs::read_dir(self.cluster.logs(at))? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    std::fs::copy(entry.path(), own.join(entry.file_name()))?;
                }
            }
        }
        Ok(to)
    }
}

fn tell(number: u64, drawn: &Drawn, leader: usize, one: &One, others: &Seen) {
    let span = drawn.span.map_or_else(String::new, |span| {
        format!(" for {:.1} s", span.as_secs_f64())
    });
    let leads = if drawn.at.contains(&leader) {
        ", which leads"
    } else {
        ""
    };
    let whole = one.whole_after.map_or_else(
        || "NOT AS WISHED".to_owned(),
        |span| format!("as wished {:.1} s later", span.as_secs_f64()),
    );
    let wrong = if others.wrong.is_empty() {
        String::new()
    } else {
        format!(
            "; at others {} of {}: {:?}",
            one.others.bad, one.others.asked, others.wrong
        )
    };
    say(&format!(
        "    {number}: {}{span}{leads}: {whole}{wrong}",
        drawn.deed
    ));
}

fn read(arguments: &[String]) -> Option<Options> {
    // No two runs are alike unless it is asked for.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut options = Options {
        count: COUNT,
        seed: now.map_or(1, |now| now.as_secs()),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next()?.parse().ok()?;
        match word.as_str() {
            "--count" => options.count = value,
            "--seed" => options.seed = value,
            _ => return None,
        }
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            read(&words)
        };
        let options = Options { count: 7, seed: 3 };
        assert_eq!(read(&["--count", "7", "--seed", "3"]), Some(options));
        assert_eq!(read(&[]).map(|it| it.count), Some(COUNT));
        for wrong in [
            &["--count"][..],
            &["--count", "x"],
            &["7"],
            &["--quick", "1"],
        ] {
            assert!(read(wrong).is_none(), "{wrong:?}");
        }
    }
}
