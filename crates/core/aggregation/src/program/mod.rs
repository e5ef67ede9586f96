//! Computes a zone's row from its children's rows: one `SELECT` over them, the
//! same at each level.
//!
//! In: a program's text, once; the children's rows; the issue time. Out: values
//! by name, and the parts that the level above merges.
//! Holds: a tree gives what one zone of all its nodes would give, bit for bit:
//! nodes' rows are gathered into states in their leaf zone (there `WHERE`
//! applies), states are merged above, and what is selected is computed from
//! states, never from results. Any text is refused or evaluated within its
//! limits of fuel and memory; a value that cannot be had is NULL.
//! Never: panics on a program or a row; depends on order, on the machine or on
//! a clock.
//!
//! How a representative uses it: [`Program::compile`] when a program is
//! installed; [`Children::of`] all programs, then `put_node` or `put_zone` for
//! each row that comes; [`Program::evaluate`] when something changed, and
//! [`Program::write`] into the zone's new row.
//!
//! Source: van Renesse, Birman, Vogels, "Astrolabe", ACM TOCS 21(2), 2003. The
//! language is described in `docs/aggregates.md`.

mod cell;
mod children;
mod error;
mod evaluate;
mod functions;
mod gather;
mod lift;
mod limits;
mod plan;
mod read;
mod threshold;

pub use children::Children;
pub use error::{EvaluateError, Problem, ProgramError};
pub use limits::Limits;
pub use threshold::differs;

use error::{OutOfFuel, shown};
use evaluate::{Meter, Scope};
use gather::{Gathered, Growing};
use kernel::{NodeId, UnixMillis, ZonePath, fnv1a};
use lift::Lift;
use plan::Plan;
use wire::attributes::{AttributeName, COUNT_MAX, NAME_BYTES_MAX, Partial, Row, Value};

/// Changes when the same text gathers otherwise than before: parts of both
/// would not merge.
const LANGUAGE: u8 = 1;

/// Behind a program's name: the attribute with its parts.
const PARTS: &str = "_parts";

/// A program that was read and can be evaluated any number of times.
#[derive(Clone, Debug)]
pub struct Program {
    name: AttributeName,
    parts: AttributeName,
    plan: Plan,
    fingerprint: u64,
    limits: Limits,
}

/// Of one evaluation: what representatives agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Where the program applies: the same at each level below.
    pub zone: ZonePath,
    /// Of the program.
    pub version: u64,
    /// When the program was issued; with `zone` and `version`, `RANDOM`'s seed.
    pub issued_at: UnixMillis,
    /// The issue time of the row that is computed: `NOW()`.
    pub now: UnixMillis,
}

/// What one evaluation gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In the order of [`Program::names`]; `None` is NULL.
    pub values: Vec<Option<Value>>,
    pub partial: Partial,
    /// Units spent.
    pub fuel: u64,
    /// Zones that have no parts of this program, or broken ones.
    pub silent: usize,
    /// Zones whose parts are another program's.
    pub refused: usize,
}

impl Program {
    /// # Errors
    /// The first thing that is not part of the language, with its place.
    pub fn compile(name: &AttributeName, text: &str, limits: Limits) -> Result<Self, ProgramError> {
        let refused = |what: String, nearest: &str| ProgramError {
            program: name.clone(),
            line: 1,
            column: 1,
            problem: Problem {
                what,
                nearest: Some(nearest.to_owned()),
            },
        };
        let plan = read::plan(name, text, &limits)?;
        let parts = format!("{name}{PARTS}").parse::<AttributeName>();
        let parts = parts.map_err(|_| {
            let most = NAME_BYTES_MAX - PARTS.len();
            refused(
                format!("the name `{}` is too long", shown(name.as_str())),
                &format!("up to {most} characters"),
            )
        })?;
        if plan.outputs.iter().any(|(output, _)| *output == parts) {
            let what = format!("`{parts}` is where this program's parts are");
            return Err(refused(what, "another name for that value"));
        }
        let bytes: usize = plan.aggregates.iter().map(gather::bytes_at_most).sum();
        if bytes > limits.state_bytes {
            let most = limits.state_bytes;
            let what = format!("its states can come to {bytes} bytes, over the limit of {most}");
            return Err(refused(what, "fewer entries, or two programs"));
        }
        Ok(Self {
            name: name.clone(),
            parts,
            plan,
            fingerprint: gather::mix(fnv1a([LANGUAGE].into_iter().chain(text.bytes()))),
            limits,
        })
    }

    pub fn name(&self) -> &AttributeName {
        &self.name
    }

    /// The attribute of a zone's row that has what this program gathered.
    pub fn parts(&self) -> &AttributeName {
        &self.parts
    }

    /// The attributes that it computes.
    pub fn names(&self) -> impl Iterator<Item = &AttributeName> {
        self.plan.outputs.iter().map(|(name, _)| name)
    }

    /// The attributes that it reads of nodes' rows.
    pub fn columns(&self) -> &[AttributeName] {
        &self.plan.columns
    }

    /// # Errors
    /// Out of fuel, parts that no row can hold, or children that were gathered
    /// for other programs; the children are as they were.
    pub fn evaluate(
        &self,
        children: &Children,
        context: &Context,
    ) -> Result<Outcome, EvaluateError> {
        let columns = self.resolved(children)?;
        let mut meter = self.meter();
        let lift = self.lift(&columns, children, context);
        let mut growing: Vec<Growing> = Vec::with_capacity(self.plan.aggregates.len());
        growing.extend(
            self.plan
                .aggregates
                .iter()
                .map(|one| Growing::new(&one.kind)),
        );
        let spent = |OutOfFuel| self.out_of_fuel();
        let matching = lift.matching(&mut meter).map_err(spent)?;
        lift.gather(&matching, &mut growing, &mut meter)
            .map_err(spent)?;
        let mut partial = Partial {
            fingerprint: self.fingerprint,
            rows: count(children.nodes().len()),
            matched: count(matching.len()),
            ignored: meter.ignored.min(COUNT_MAX),
            states: Vec::new(),
        };
        let mut heard = 0;
        let mut refused = 0;
        for other in children.partials(&self.parts) {
            heard += 1;
            if self.is_ours(other, &growing) {
                merge(&mut partial, &mut growing, other, &mut meter).map_err(spent)?;
            } else {
                refused += 1;
            }
        }
        partial.states = growing.into_iter().map(Growing::state).collect();
        let bytes = partial.bytes_at_most();
        if bytes > self.limits.partial_bytes {
            return Err(EvaluateError::TooLarge {
                program: self.name.clone(),
                bytes,
                limit: self.limits.partial_bytes,
            });
        }
        let values = self
            .finish_with(&partial, context, &mut meter)
            .map_err(spent)?;
        Ok(Outcome {
            values,
            partial,
            fuel: self.limits.fuel - meter.fuel,
            silent: children.zones() - heard,
            refused,
        })
    }

    /// What was gathered comes to this, in the order of [`Program::names`];
    /// `None` when it is another program's.
    ///
    /// # Errors
    /// Out of fuel.
    pub fn finish(
        &self,
        partial: &Partial,
        context: &Context,
    ) -> Result<Option<Vec<Option<Value>>>, EvaluateError> {
        let fresh: Vec<Growing> = self
            .plan
            .aggregates
            .iter()
            .map(|one| Growing::new(&one.kind))
            .collect();
        if !partial.is_sound() || !self.is_ours(partial, &fresh) {
            return Ok(None);
        }
        let finished = self.finish_with(partial, context, &mut self.meter());
        finished.map(Some).map_err(|OutOfFuel| self.out_of_fuel())
    }

    /// Drill-down: the nodes whose rows `WHERE` lets through, ascending.
    ///
    /// # Errors
    /// As [`Program::evaluate`].
    pub fn rows_behind(
        &self,
        children: &Children,
        context: &Context,
    ) -> Result<Vec<NodeId>, EvaluateError> {
        let columns = self.resolved(children)?;
        let lift = self.lift(&columns, children, context);
        let matching = lift.matching(&mut self.meter());
        let matching = matching.map_err(|OutOfFuel| self.out_of_fuel())?;
        let nodes = children.nodes();
        let mut behind: Vec<NodeId> = matching
            .into_iter()
            .filter_map(|place| nodes.get(place).copied())
            .collect();
        behind.sort_unstable();
        Ok(behind)
    }

    /// Values and parts as attributes; what is NULL is removed.
    pub fn write(&self, outcome: Outcome, row: &mut Row) {
        for (name, value) in self.names().zip(outcome.values) {
            match value {
                Some(value) => row.0.insert(name.clone(), value),
                None => row.0.remove(name.as_str()),
            };
        }
        let partial = Value::Partial(Box::new(outcome.partial));
        row.0.insert(self.parts.clone(), partial);
    }

    fn resolved<'a>(
        &self,
        children: &'a Children,
    ) -> Result<Vec<&'a [Option<Value>]>, EvaluateError> {
        let columns = self.plan.columns.iter().map(|name| {
            children
                .column(name)
                .ok_or_else(|| EvaluateError::Unprepared {
                    program: self.name.clone(),
                    column: name.clone(),
                })
        });
        columns.collect()
    }

    fn lift<'a>(
        &'a self,
        columns: &'a [&'a [Option<Value>]],
        children: &'a Children,
        context: &Context,
    ) -> Lift<'a> {
        Lift {
            plan: &self.plan,
            scope: Scope {
                columns,
                row: 0,
                results: &[],
                now: context.now.0,
            },
            nodes: children.nodes(),
            seed: seed(context),
        }
    }

    fn finish_with(
        &self,
        partial: &Partial,
        context: &Context,
        meter: &mut Meter,
    ) -> Result<Vec<Option<Value>>, OutOfFuel> {
        let results: Vec<Gathered> = partial.states.iter().map(gather::gathered).collect();
        let scope = Scope {
            columns: &[],
            row: 0,
            results: &results,
            now: context.now.0,
        };
        let outputs = self.plan.outputs.iter();
        outputs
            .map(|(_, of)| Ok(scope.compute(of, meter)?.value()))
            .collect()
    }

    fn is_ours(&self, partial: &Partial, growing: &[Growing]) -> bool {
        let mut pairs = growing.iter().zip(&partial.states);
        partial.fingerprint == self.fingerprint
            && partial.states.len() == growing.len()
            && pairs.all(|(growing, state)| growing.fits(state))
    }

    fn meter(&self) -> Meter {
        Meter {
            fuel: self.limits.fuel,
            ignored: 0,
        }
    }

    fn out_of_fuel(&self) -> EvaluateError {
        EvaluateError::OutOfFuel {
            program: self.name.clone(),
            fuel: self.limits.fuel,
        }
    }
}

fn merge(
    partial: &mut Partial,
    growing: &mut [Growing],
    other: &Partial,
    meter: &mut Meter,
) -> Result<(), OutOfFuel> {
    let add = |own: u64, other: u64| own.saturating_add(other).min(COUNT_MAX);
    partial.rows = add(partial.rows, other.rows);
    partial.matched = add(partial.matched, other.matched);
    partial.ignored = add(partial.ignored, other.ignored);
    for (growing, state) in growing.iter_mut().zip(&other.states) {
        meter.spend(gather::cost(state))?;
        growing.merge(state);
    }
    Ok(())
}

fn seed(context: &Context) -> u64 {
    let zone = context.zone.to_string().into_bytes();
    let numbers = [context.version, context.issued_at.0];
    let numbers = numbers.into_iter().flat_map(u64::to_le_bytes);
    gather::mix(fnv1a(zone.into_iter().chain(numbers)))
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX).min(COUNT_MAX)
}
