//! What a program is once it is read: what to gather from each row, and what to
//! make of it at the end.
//!
//! Holds: nothing here is larger or deeper than the limits it was read within;
//! columns, states and functions are numbers and enums by now, no names.

use super::functions::Function;
use wire::attributes::{AttributeName, Value};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    /// Attributes of nodes' rows that are read, as they come in the text.
    pub columns: Vec<AttributeName>,
    /// Which nodes' rows count.
    pub filter: Option<Expression>,
    pub aggregates: Vec<Aggregate>,
    pub outputs: Vec<(AttributeName, Expression)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Aggregate {
    pub kind: Kind,
    /// The value, then a weight or the keys of an order.
    pub arguments: Vec<Expression>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Expression>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Of rows without an argument, of values with one.
    Count,
    Sum,
    Average,
    Min,
    Max,
    /// `FIRST` and `TOP`; for each key whether it descends. Without keys among
    /// the arguments the value is the key.
    First {
        most: usize,
        descending: Vec<bool>,
    },
    Random {
        most: usize,
    },
    Quantiles,
    Distinct,
    Bloom {
        bytes: usize,
    },
    Histogram {
        bounds: Vec<f64>,
    },
}

/// Below: over one row. At the end: over the states.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Null,
    Constant(Value),
    Column(usize),
    /// What a state comes to.
    State(usize),
    /// At this share of all values, 0 to 1.
    Quantile(usize, f64),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Binary(Binary, Box<Expression>, Box<Expression>),
    Is(Is, Box<Expression>),
    Between(Box<Expression>, Box<Expression>, Box<Expression>),
    In(Box<Expression>, Vec<Expression>),
    Like(Box<Expression>, Box<Expression>),
    Case {
        operand: Option<Box<Expression>>,
        branches: Vec<(Expression, Expression)>,
        otherwise: Box<Expression>,
    },
    Call(Function, Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Join,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `IS NOT DISTINCT FROM`: NULL is like NULL.
    Same,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Null,
    True,
    False,
}
