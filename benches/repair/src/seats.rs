//! How soon a zone's seat has another holder when its holder's power is cut, and the
//! same when the leader's is cut with it.
//!
//! Holds: a seat has moved when another holder is at work, as the leader that is left
//! says. Where the holder leads the two are one cut; else, for the second figure, the
//! leader's power is cut in the same moment, if that leaves a majority.

use crate::cluster::Cluster;
use crate::{Report, goals};
use bench_common::figure::{Figure, quantile};
use bench_common::node::until;
use bench_common::{Failure, note};
use serde_json::Value;
use std::time::Instant;

/// The seat of a zone, and who holds it.
struct Held {
    zone: String,
    holder: usize,
}

pub fn measure(cluster: &Cluster, cuts: usize, report: Report) -> Result<(), Failure> {
    let (mut alone, mut with_leader) = (Vec::new(), Vec::new());
    for _ in 0..cuts {
        if let Some(span) = cut(cluster, false)? {
            alone.push(span);
        }
        if let Some(span) = cut(cluster, true)? {
            with_leader.push(span);
        }
    }
    note("a seat's holder's power cut to another at work, s", &alone);
    note("the same with the leader's, s", &with_leader);
    report(Figure::alone(goals::SEAT, quantile(&alone, 1.0)));
    let with_leader = quantile(&with_leader, 1.0);
    report(Figure::alone(goals::SEAT_WITH_LEADER, with_leader));
    Ok(())
}

/// None where there is nothing of the kind to cut: with the leader's, the others must be
/// enough to go on.
fn cut(cluster: &Cluster, with_leader: bool) -> Result<Option<f64>, Failure> {
    cluster.whole()?;
    let leader = cluster.leader()?;
    let all = until("a zone's seat at work", || {
        let all = held(cluster, leader)?;
        (!all.is_empty()).then_some(all)
    })?;
    let voters = voters(cluster, leader)?;
    let is_fit = |held: &Held| {
        let leads = held.holder == leader;
        if with_leader {
            // Somebody must be left in its zone.
            let is_beside = cluster.zone(held.holder) == cluster.zone(leader);
            leads || !(is_beside || voters.contains(&held.holder))
        } else {
            !leads
        }
    };
    let Some(held) = all.into_iter().find(is_fit) else {
        return Ok(None);
    };
    let is_one = held.holder == leader;
    let moment = Instant::now();
    let mut faults = vec![cluster.cut(held.holder)?];
    if with_leader && !is_one {
        faults.push(cluster.cut(leader)?);
    }
    let gone = [Some(held.holder), with_leader.then_some(leader)];
    let by = cluster.all().find(|at| !gone.contains(&Some(*at)));
    let by = by.ok_or("nobody is left to ask")?;
    until("another holder", || {
        let seat = seat(cluster, by, &held.zone)?;
        let holder = seat["holder"].as_str()?;
        let moved = seat["at_work"] == true && holder != cluster.name(held.holder).as_str();
        moved.then_some(())
    })?;
    let span = moment.elapsed().as_secs_f64();
    for fault in faults {
        cluster.undo(fault)?;
    }
    Ok(Some(span))
}

fn seats(cluster: &Cluster, by: usize) -> Option<Vec<Value>> {
    cluster.asked(by, &["seats"]).ok()?.as_array().cloned()
}

fn seat(cluster: &Cluster, by: usize, zone: &str) -> Option<Value> {
    let mut seats = seats(cluster, by)?.into_iter();
    seats.find(|one| one["seat"] == zone)
}

/// Those that are at work.
fn held(cluster: &Cluster, by: usize) -> Option<Vec<Held>> {
    let seats = seats(cluster, by)?;
    let held = seats.iter().filter_map(|one| {
        let zone = one["seat"].as_str().filter(|seat| *seat != "root")?;
        let holder = one["holder"].as_str()?;
        let mut all = cluster.all();
        let holder = all.find(|at| cluster.name(*at).as_str() == holder)?;
        let zone = zone.to_owned();
        (one["at_work"] == true).then_some(Held { zone, holder })
    });
    Some(held.collect())
}

fn voters(cluster: &Cluster, by: usize) -> Result<Vec<usize>, Failure> {
    let status = cluster.asked(by, &["store", "status"])?;
    let voters = status["groups"][0]["voters"]
        .as_array()
        .ok_or("no voters")?;
    let names: Vec<&str> = voters.iter().filter_map(Value::as_str).collect();
    let is_voter = |at: &usize| names.contains(&cluster.name(*at).as_str());
    Ok(cluster.all().filter(is_voter).collect())
}
