//! The story: one node's whole promise in one run, judged by its clients.
//!
//! In: the built programs; `HOMEOSTAT_DATA` for recorded requests. Out: a line
//! an act, and the exit status.
//! Holds: a crowd reads throughout, and not one of its requests may fail.

mod acts;
mod calls;
mod crowd;
mod neighbours;
mod readers;
mod single;
mod stage;
mod stages;
mod upgrade;
mod work;
mod zone;

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

type Told<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    let began = Instant::now();
    let outcome = stage::Stage::set().and_then(|mut stage| {
        let told = tell(&mut stage);
        if told.is_err() {
            say(&stage.node.logs());
        }
        told
    });
    match outcome {
        Ok(()) => {
            say(&format!(
                "the story holds ({:.1} s)",
                began.elapsed().as_secs_f64()
            ));
            ExitCode::SUCCESS
        }
        Err(why) => {
            say(&format!("the story breaks: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn tell(stage: &mut stage::Stage) -> Told {
    act("a person starts a node on the news", || acts::up(stage))?;
    let crowd = crowd::Crowd::gather(stage)?;
    let within = |part: f64| crowd.reached(part);
    act("a bad manifest is refused", || {
        within(0.05)?;
        acts::bad_manifest(stage)
    })?;
    act("a deployment that does not start is taken back", || {
        within(0.10)?;
        acts::bad_deployment(stage)
    })?;
    act("a good one is rolled in", || {
        within(0.30)?;
        acts::good_deployment(stage)
    })?;
    act("the agent is killed and adopts what runs", || {
        within(0.50)?;
        acts::agent_killed(stage)
    })?;
    act("a service's replicas are killed, and why tells it", || {
        within(0.65)?;
        acts::service_killed(stage)
    })?;
    act("the supervisor is killed and brought back", || {
        within(0.80)?;
        acts::supervisor_killed(stage)
    })?;
    act("the crowd has lost nothing", || crowd.judge())?;
    act("readers see one another come and go", || {
        readers::visit(stage)
    })?;
    act(
        "they comment while agent, edge and worker are killed",
        || readers::comment(stage),
    )?;
    with_more_machines(stage)?;
    act("each decision replays to the same outcome", || {
        acts::replayed(stage)
    })?;
    act("the node goes down and nothing is left running", || {
        acts::down(stage)
    })
}

fn with_more_machines(stage: &stage::Stage) -> Told {
    let neighbours = neighbours::Neighbours::new();
    let told = among(stage, &neighbours);
    if told.is_err() {
        say(&neighbours.second.logs());
        say(&neighbours.third.logs());
    }
    told
}

fn among(stage: &stage::Stage, neighbours: &neighbours::Neighbours) -> Told {
    act("two more machines join, each with one line", || {
        neighbours.join(stage)
    })?;
    act(
        "any node is asked about all; one is silent, and is missed",
        || neighbours.questions(stage),
    )?;
    act("a zone gets another name while others read", || {
        neighbours.zones_move(stage)
    })?;
    act("all go over to another program while others read", || {
        upgrade::rolling(stage, neighbours)
    })?;
    act("the power of one is cut while others read", || {
        neighbours.power_cut(stage)
    })?;
    act(
        "the one that leads loses its power, and is missed by nobody",
        || neighbours.leader_cut(stage),
    )?;
    act("what must not run twice never does", || {
        single::frozen(stage, neighbours)
    })?;
    act("work is done in parts, whoever is killed", || {
        work::counted(stage, neighbours)
    })?;
    act("a service without HTTP is found, wherever it runs", || {
        calls::found(stage, neighbours)
    })?;
    act("a new version comes by stages, a worse one goes", || {
        stages::played(stage, neighbours)
    })?;
    act("a zone mends itself, and then loses all its power", || {
        zone::lost(stage, neighbours)
    })
}

fn act(title: &str, play: impl FnOnce() -> Told<String>) -> Told {
    let began = Instant::now();
    let seen = play().map_err(|why| format!("{title}: {why}"))?;
    say(&format!(
        "{title} ({:.1} s): {seen}",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
