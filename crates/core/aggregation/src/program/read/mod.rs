//! Reads a program's text: tokens, then sqlparser's tree, then our plan.
//!
//! In: a text by anyone. Out: a plan, or the first thing that is wrong with it,
//! where it stands and what is right.
//! Holds: what is not listed is refused. Words that mean something to sqlparser
//! but not here are plain names by the time it sees them, so that `load`,
//! `value` or `version` are attributes like others, and most of that parser
//! cannot be reached.

mod aggregate;
mod expression;
mod select;
mod tokens;

use super::error::{Problem, ProgramError, shown};
use super::limits::Limits;
use super::plan::{Aggregate, Plan};
use sqlparser::tokenizer::{Location, Span};
use wire::attributes::AttributeName;

/// What is wrong and where; the program's name comes later.
pub(super) struct Wrong {
    at: Location,
    problem: Problem,
}

pub(super) type Read<T> = Result<T, Wrong>;

impl Wrong {
    fn at(at: Location, what: impl Into<String>) -> Self {
        Self {
            at,
            problem: Problem {
                what: what.into(),
                nearest: None,
            },
        }
    }

    fn span(span: Span, what: impl Into<String>) -> Self {
        Self::at(span.start, what)
    }

    fn write(mut self, nearest: impl Into<String>) -> Self {
        self.problem.nearest = Some(nearest.into());
        self
    }
}

pub(super) fn plan(
    program: &AttributeName,
    text: &str,
    limits: &Limits,
) -> Result<Plan, ProgramError> {
    let read = tokens::read(text, limits)
        .and_then(select::parse)
        .and_then(|select| Reader::new(limits).select(&select));
    read.map_err(|wrong| ProgramError {
        program: program.clone(),
        line: wrong.at.line.max(1),
        column: wrong.at.column.max(1),
        problem: wrong.problem,
    })
}

/// What was found so far, within the limits.
struct Reader<'a> {
    limits: &'a Limits,
    columns: Vec<AttributeName>,
    aggregates: Vec<Aggregate>,
    nodes: usize,
}

/// Where an expression stands decides what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Over one row: in `WHERE` and in aggregate functions.
    Row,
    /// Over the states: what is selected.
    End,
}

impl<'a> Reader<'a> {
    fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            columns: Vec::new(),
            aggregates: Vec::new(),
            nodes: 0,
        }
    }

    fn column(&mut self, name: AttributeName) -> usize {
        let known = self.columns.iter().position(|known| *known == name);
        known.unwrap_or_else(|| {
            self.columns.push(name);
            self.columns.len() - 1
        })
    }

    /// Calls that are the same share a state.
    fn state(&mut self, aggregate: Aggregate, span: Span) -> Read<usize> {
        if let Some(index) = self.aggregates.iter().position(|known| *known == aggregate) {
            return Ok(index);
        }
        if self.aggregates.len() == self.limits.states {
            let most = self.limits.states;
            return Err(Wrong::span(
                span,
                format!("more than {most} different aggregates"),
            ));
        }
        self.aggregates.push(aggregate);
        Ok(self.aggregates.len() - 1)
    }

    fn node(&mut self, span: Span, depth: usize) -> Read<()> {
        self.nodes += 1;
        if depth > self.limits.depth {
            let most = self.limits.depth;
            return Err(
                Wrong::span(span, format!("more than {most} levels of operators"))
                    .write("parentheses around halves of a long chain"),
            );
        }
        if self.nodes > self.limits.nodes {
            let most = self.limits.nodes;
            return Err(Wrong::span(
                span,
                format!("more than {most} operators and values"),
            ));
        }
        Ok(())
    }
}

fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}
