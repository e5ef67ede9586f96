//! Reads calls of aggregate functions.

use super::expression::{plain_arguments, unnamed};
use super::{Place, Read, Reader, Wrong};
use crate::program::functions::Gatherer;
use crate::program::plan::{Aggregate, Expression, Kind};
use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, OrderByExpr, OrderByOptions, Spanned,
};
use sqlparser::tokenizer::Span;
use wire::attributes::{HISTOGRAM_BOUNDS_MAX, KEYS_MAX, Value};

const BLOOM_ITEMS: i64 = 100;
const BLOOM_ITEMS_MAX: i64 = 800;

/// Ten bits an item and seven hashes: one false yes in a hundred.
const BLOOM_BITS_PER_ITEM: usize = 10;

impl Reader<'_> {
    pub(super) fn gather(
        &mut self,
        gatherer: Gatherer,
        call: &Function,
        span: Span,
    ) -> Read<Expression> {
        let filter = match &call.filter {
            Some(filter) => Some(self.expression(filter, Place::Row, 1)?),
            None => None,
        };
        let mut share = None;
        let (kind, arguments) = match gatherer {
            Gatherer::Count => self.count(call, span)?,
            Gatherer::Sum => (Kind::Sum, self.values(call, span, "SUM(x)", 1, 1)?),
            Gatherer::Min => (Kind::Min, self.values(call, span, "MIN(x)", 1, 1)?),
            Gatherer::Max => (Kind::Max, self.values(call, span, "MAX(x)", 1, 1)?),
            Gatherer::Average => (
                Kind::Average,
                self.values(call, span, "AVG(x, weight)", 1, 2)?,
            ),
            Gatherer::Distinct => (
                Kind::Distinct,
                self.values(call, span, "DISTINCT(x)", 1, 1)?,
            ),
            Gatherer::First => self.first(call, span, false)?,
            Gatherer::Top => self.first(call, span, true)?,
            Gatherer::Random => {
                let form = "RANDOM(n, x)";
                let all = plain_arguments(call, span)?;
                let [most, value] = all[..] else {
                    return Err(form_of(form, span));
                };
                let most = self.most(most, form)?;
                (
                    Kind::Random { most },
                    vec![self.expression(value, Place::Row, 1)?],
                )
            }
            Gatherer::Quantile => {
                let form = "QUANTILE(x, 0.99)";
                let all = plain_arguments(call, span)?;
                let [value, at] = all[..] else {
                    return Err(form_of(form, span));
                };
                let at = float(at).filter(|at| (0.0..=1.0).contains(at));
                share = Some(at.ok_or_else(|| form_of(form, span))?);
                (
                    Kind::Quantiles,
                    vec![self.expression(value, Place::Row, 1)?],
                )
            }
            Gatherer::Bloom => self.bloom(call, span)?,
            Gatherer::Histogram => self.histogram(call, span)?,
        };
        let aggregate = Aggregate {
            kind,
            arguments,
            filter,
        };
        let state = self.state(aggregate, span)?;
        Ok(match share {
            Some(share) => Expression::Quantile(state, share),
            None => Expression::State(state),
        })
    }

    fn count(&mut self, call: &Function, span: Span) -> Read<(Kind, Vec<Expression>)> {
        let wrong = || form_of("COUNT(*), COUNT(x) or COUNT(DISTINCT x)", span);
        let FunctionArguments::List(list) = &call.args else {
            return Err(wrong());
        };
        let [argument] = &list.args[..] else {
            return Err(wrong());
        };
        if !list.clauses.is_empty() {
            return Err(wrong());
        }
        let kind = match list.duplicate_treatment {
            None => Kind::Count,
            Some(DuplicateTreatment::Distinct) => Kind::Distinct,
            Some(DuplicateTreatment::All) => return Err(wrong()),
        };
        match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if kind == Kind::Count => {
                Ok((kind, Vec::new()))
            }
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                Ok((kind, vec![self.expression(expr, Place::Row, 1)?]))
            }
            _ => Err(wrong()),
        }
    }

    fn values(
        &mut self,
        call: &Function,
        span: Span,
        form: &str,
        least: usize,
        most: usize,
    ) -> Read<Vec<Expression>> {
        let all = plain_arguments(call, span)?;
        if !(least..=most).contains(&all.len()) {
            return Err(form_of(form, span));
        }
        all.into_iter()
            .map(|one| self.expression(one, Place::Row, 1))
            .collect()
    }

    /// `FIRST(n, x ORDER BY key)`: ascending, or by the value itself; `TOP`
    /// the same, descending.
    fn first(&mut self, call: &Function, span: Span, top: bool) -> Read<(Kind, Vec<Expression>)> {
        let form = if top {
            "TOP(n, x ORDER BY key)"
        } else {
            "FIRST(n, x ORDER BY key)"
        };
        let FunctionArguments::List(list) = &call.args else {
            return Err(form_of(form, span));
        };
        let ([most, value], None) = (&list.args[..], list.duplicate_treatment) else {
            return Err(form_of(form, span));
        };
        let most = self.most(unnamed(most, span)?, form)?;
        let value = self.expression(unnamed(value, span)?, Place::Row, 1)?;
        let mut arguments = vec![value];
        let mut descending = Vec::new();
        match &list.clauses[..] {
            [] => descending.push(top),
            [FunctionArgumentClause::OrderBy(keys)] if keys.len() <= KEYS_MAX => {
                for key in keys {
                    descending.push(direction(key, top, form)?);
                    arguments.push(self.expression(&key.expr, Place::Row, 1)?);
                }
            }
            _ => return Err(form_of(form, span)),
        }
        Ok((Kind::First { most, descending }, arguments))
    }

    fn most(&self, expr: &Expr, form: &str) -> Read<usize> {
        let most = int(expr).and_then(|most| usize::try_from(most).ok());
        let most = most.filter(|most| (1..=self.limits.kept).contains(most));
        most.ok_or_else(|| {
            let kept = self.limits.kept;
            Wrong::span(expr.span(), "how many is not said")
                .write(format!("{form} with a number from 1 to {kept}"))
        })
    }

    fn bloom(&mut self, call: &Function, span: Span) -> Read<(Kind, Vec<Expression>)> {
        let form = || form_of("BLOOM(x) or BLOOM(x, values expected, up to 800)", span);
        let all = plain_arguments(call, span)?;
        let (value, items) = match all[..] {
            [value] => (value, Some(BLOOM_ITEMS)),
            [value, items] => (value, int(items)),
            _ => return Err(form()),
        };
        let items = items.filter(|items| (1..=BLOOM_ITEMS_MAX).contains(items));
        let items = items
            .and_then(|items| usize::try_from(items).ok())
            .ok_or_else(form)?;
        let bytes = (items * BLOOM_BITS_PER_ITEM / 8)
            .next_power_of_two()
            .clamp(16, 1_024);
        Ok((
            Kind::Bloom { bytes },
            vec![self.expression(value, Place::Row, 1)?],
        ))
    }

    fn histogram(&mut self, call: &Function, span: Span) -> Read<(Kind, Vec<Expression>)> {
        let form = || form_of("HISTOGRAM(x, 1, 10, 100), bounds ascending, up to 32", span);
        let all = plain_arguments(call, span)?;
        let (value, bounds) = all.split_first().ok_or_else(form)?;
        let bounds: Option<Vec<f64>> = bounds.iter().map(|bound| float(bound)).collect();
        let bounds = bounds.ok_or_else(form)?;
        let fits = (1..=HISTOGRAM_BOUNDS_MAX).contains(&bounds.len());
        if !fits || !bounds.is_sorted_by(|one, next| one < next) {
            return Err(form());
        }
        Ok((
            Kind::Histogram { bounds },
            vec![self.expression(value, Place::Row, 1)?],
        ))
    }
}

fn direction(key: &OrderByExpr, top: bool, form: &str) -> Read<bool> {
    use sqlparser::ast::OrderBySort;
    let OrderByOptions { sort, nulls_first } = &key.options;
    if nulls_first.is_some() || key.with_fill.is_some() {
        return Err(form_of(form, key.span()));
    }
    match sort {
        None => Ok(top),
        Some(OrderBySort::Asc) => Ok(false),
        Some(OrderBySort::Desc) => Ok(true),
        _ => Err(form_of(form, key.span())),
    }
}

fn form_of(form: &str, span: Span) -> Wrong {
    Wrong::span(span, "arguments that do not fit").write(form)
}

fn int(expr: &Expr) -> Option<i64> {
    match constant(expr)? {
        Value::Int(int) => Some(int),
        _ => None,
    }
}

fn float(expr: &Expr) -> Option<f64> {
    match constant(expr)? {
        Value::Int(int) => Some(crate::program::cell::float_of(int)),
        Value::Float(float) => Some(float + 0.0),
        _ => None,
    }
}

fn constant(expr: &Expr) -> Option<Value> {
    let limits = crate::program::limits::Limits::default();
    match Reader::new(&limits).expression(expr, Place::End, 1).ok()? {
        Expression::Constant(value) => Some(value),
        _ => None,
    }
}
