//! Random worlds for as long as there is time: clusters and trees of zones to
//! which anything happens, and which must be whole again.
//!
//! In: `soak [--for SPAN] [--from SEED]`. Out: how far it is; at a failure the
//! seed, and the command that replays it.
//! Holds: the worlds are those of the tests, with seeds that the tests have not.

use crate::steps::{cargo_command, run as run_command, say, shown, step};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const USAGE: &str = "usage: cargo xtask soak [--for 10m] [--from SEED]
  SPAN is a number and `s`, `m` or `h`";

const SPAN: Duration = Duration::from_mins(10);

/// A test that takes seeds, and how many it is given at a time.
struct World {
    name: &'static str,
    target: &'static str,
    test: &'static str,
    seeds: u64,
}

const WORLDS: [World; 3] = [
    World {
        name: "clusters",
        target: "random",
        test: "a_cluster_left_in_peace_is_whole_again",
        seeds: 20,
    },
    World {
        name: "faults",
        target: "faults",
        test: "whatever_befell_it_a_cluster_in_peace_is_as_wished",
        seeds: 50,
    },
    World {
        name: "trees",
        target: "tree",
        test: "random::whatever_befell_it_a_tree_in_peace_is_whole_again",
        seeds: 500,
    },
];

/// # Errors
/// Names the seed that failed, and how to see it again.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let (span, from) = read(arguments)?;
    step("build, optimised", || {
        run_command(cargo_test("random").args(["--test", "faults", "--test", "tree", "--no-run"]))
    })?;
    let (began, mut rounds) = (Instant::now(), 0);
    while began.elapsed() < span {
        for world in &WORLDS {
            let first = from + rounds * world.seeds;
            play(world, first)?;
        }
        rounds += 1;
        let done = WORLDS.map(|world| format!("{} {}", rounds * world.seeds, world.name));
        say(&format!(
            "    {:.0} of {} s: {}",
            began.elapsed().as_secs_f64(),
            span.as_secs(),
            done.join(", ")
        ));
    }
    say(&format!(
        "soak: all are whole again, from seed {from} on; {} s",
        began.elapsed().as_secs()
    ));
    Ok(())
}

fn cargo_test(target: &str) -> Command {
    let mut command = cargo_command();
    command.args(["test", "--quiet", "--release", "--package", "sim"]);
    command.args(["--test", target]);
    command
}

fn seeded(world: &World) -> Command {
    let mut command = cargo_test(world.target);
    command.args(["--", "--exact", world.test]);
    command
}

fn play(world: &World, first: u64) -> Result<(), String> {
    let seeds = format!("{first}..{}", first + world.seeds);
    let mut command = seeded(world);
    let output = command.env("SIM_SEED", &seeds).output();
    let output = output.map_err(|why| format!("cargo did not start: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    say(&said.concat());
    let failed = named(&said.concat()).unwrap_or(seeds);
    Err(format!(
        "{} did not hold; this replays it:\n  SIM_SEED={failed} {}",
        world.name,
        shown(&seeded(world))
    ))
}

/// The seed that a failed test says.
fn named(said: &str) -> Option<String> {
    let (_, after) = said.split_once("SIM_SEED=")?;
    let digits = after.find(|c: char| !c.is_ascii_digit());
    let seed = &after[..digits.unwrap_or(after.len())];
    (!seed.is_empty()).then(|| seed.to_owned())
}

fn read(arguments: &[String]) -> Result<(Duration, u64), String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // No two soaks play the same.
    let (mut span, mut from) = (SPAN, now.map_or(1, |now| now.as_secs() * 1_000));
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "--for" => span = parse(value).ok_or(USAGE)?,
            "--from" => from = value.parse().map_err(|_| USAGE)?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok((span, from))
}

fn parse(text: &str) -> Option<Duration> {
    let (number, seconds) = match text.split_at_checked(text.len().checked_sub(1)?)? {
        (number, "s") => (number, 1),
        (number, "m") => (number, 60),
        (number, "h") => (number, 3_600),
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
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
        let hour = Duration::from_hours(1);
        assert_eq!(read(&["--for", "1h", "--from", "7"]), Ok((hour, 7)));
        assert_eq!(
            read(&["--for", "90s"]).map(|(span, _)| span.as_secs()),
            Ok(90)
        );
        for wrong in [&["--for"][..], &["--for", "1"], &["1h"], &["--for", "é"]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_seed_that_failed_is_found() {
        let said = "panicked at …:\nSIM_SEED=4711 replays this\n";
        assert_eq!(named(said), Some("4711".to_owned()));
        assert_eq!(named("error: no space left"), None);
    }
}
