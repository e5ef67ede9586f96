//! Turns sqlparser's expressions into ours.

use super::select::attribute;
use super::{Place, Read, Reader, Wrong, quoted};
use crate::program::functions;
use crate::program::limits::Limits;
use crate::program::plan::{Binary, Expression, Is};
use sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    InTarget, Interval, Spanned, UnaryOperator, Value as Literal,
};
use sqlparser::tokenizer::Span;
use wire::attributes::Value;

impl Reader<'_> {
    pub(super) fn expression(
        &mut self,
        expr: &Expr,
        place: Place,
        depth: usize,
    ) -> Read<Expression> {
        self.node(expr.span(), depth)?;
        let deeper = depth + 1;
        match expr {
            // Parentheses are bounded with the tokens.
            Expr::Nested(inner) => self.expression(inner, place, depth),
            Expr::Value(value) => literal(&value.value, value.span),
            Expr::Interval(interval) => duration(interval, expr.span()),
            Expr::Identifier(ident) => {
                let name = attribute(ident)?;
                if place == Place::End {
                    let what = format!("`{name}` stands outside an aggregate");
                    return Err(Wrong::span(ident.span, what)
                        .write(format!("MAX({name}), SUM({name}), FIRST(1, {name}), …")));
                }
                Ok(Expression::Column(self.column(name)))
            }
            Expr::UnaryOp { op, expr: of } => self.unary(*op, of, place, deeper),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right, place, deeper),
            Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..) => self.is(expr, place, deeper),
            Expr::Between { .. } | Expr::In { .. } | Expr::Like { .. } => {
                self.among(expr, place, deeper)
            }
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => self.case(
                operand.as_deref(),
                conditions,
                else_result.as_deref(),
                place,
                deeper,
            ),
            Expr::Function(function) => self.call(function, expr.span(), place, deeper),
            other => Err(refused(other)),
        }
    }

    /// Whether a value is between two, in a list, or like a pattern.
    fn among(&mut self, expr: &Expr, place: Place, deeper: usize) -> Read<Expression> {
        match expr {
            Expr::Between {
                expr: value,
                negated,
                low,
                high,
            } => {
                let value = self.boxed(value, place, deeper)?;
                let (low, high) = (
                    self.boxed(low, place, deeper)?,
                    self.boxed(high, place, deeper)?,
                );
                Ok(not(*negated, Expression::Between(value, low, high)))
            }
            Expr::In {
                expr: value,
                target: InTarget::List(list),
                negated,
                global: false,
            } => {
                let value = self.boxed(value, place, deeper)?;
                let list = list.iter().map(|one| self.expression(one, place, deeper));
                let list = list.collect::<Read<Vec<_>>>()?;
                Ok(not(*negated, Expression::In(value, list)))
            }
            Expr::Like {
                negated,
                any: false,
                expr: value,
                pattern,
                escape_char: None,
            } => {
                let value = self.boxed(value, place, deeper)?;
                let pattern = self.boxed(pattern, place, deeper)?;
                Ok(not(*negated, Expression::Like(value, pattern)))
            }
            other => Err(refused(other)),
        }
    }

    fn boxed(&mut self, expr: &Expr, place: Place, depth: usize) -> Read<Box<Expression>> {
        self.expression(expr, place, depth).map(Box::new)
    }

    fn unary(
        &mut self,
        op: UnaryOperator,
        of: &Expr,
        place: Place,
        depth: usize,
    ) -> Read<Expression> {
        // The smallest integer is written as the negative of what is none.
        if let (UnaryOperator::Minus, Expr::Value(value)) = (op, of)
            && let Literal::Number(digits, _) = &value.value
        {
            return number(&format!("-{digits}"), value.span);
        }
        let of_span = of.span();
        let of = self.boxed(of, place, depth)?;
        match op {
            UnaryOperator::Not => Ok(Expression::Not(of)),
            UnaryOperator::Minus => Ok(Expression::Negative(of)),
            UnaryOperator::Plus => Ok(*of),
            other => Err(Wrong::span(
                of_span,
                format!("{} is not part of the language", quoted(&other.to_string())),
            )),
        }
    }

    fn binary(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        place: Place,
        depth: usize,
    ) -> Read<Expression> {
        let span = left.span();
        let (left, right) = (
            self.boxed(left, place, depth)?,
            self.boxed(right, place, depth)?,
        );
        let binary = match op {
            BinaryOperator::And => return Ok(Expression::And(left, right)),
            BinaryOperator::Or => return Ok(Expression::Or(left, right)),
            BinaryOperator::Plus => Binary::Add,
            BinaryOperator::Minus => Binary::Subtract,
            BinaryOperator::Multiply => Binary::Multiply,
            BinaryOperator::Divide => Binary::Divide,
            BinaryOperator::Modulo => Binary::Remainder,
            BinaryOperator::StringConcat => Binary::Join,
            BinaryOperator::Eq => Binary::Equal,
            BinaryOperator::NotEq => Binary::Unequal,
            BinaryOperator::Lt => Binary::Less,
            BinaryOperator::LtEq => Binary::LessOrEqual,
            BinaryOperator::Gt => Binary::Greater,
            BinaryOperator::GtEq => Binary::GreaterOrEqual,
            other => {
                let what = format!("{} is not part of the language", quoted(&other.to_string()));
                return Err(Wrong::span(span, what));
            }
        };
        Ok(Expression::Binary(binary, left, right))
    }

    fn is(&mut self, expr: &Expr, place: Place, depth: usize) -> Read<Expression> {
        let (is, of, negated) = match expr {
            Expr::IsNull(of) => (Is::Null, of, false),
            Expr::IsNotNull(of) => (Is::Null, of, true),
            Expr::IsTrue(of) => (Is::True, of, false),
            Expr::IsNotTrue(of) => (Is::True, of, true),
            Expr::IsFalse(of) => (Is::False, of, false),
            Expr::IsNotFalse(of) => (Is::False, of, true),
            Expr::IsDistinctFrom(one, other) | Expr::IsNotDistinctFrom(one, other) => {
                let negated = matches!(expr, Expr::IsDistinctFrom(..));
                let (one, other) = (
                    self.boxed(one, place, depth)?,
                    self.boxed(other, place, depth)?,
                );
                return Ok(not(negated, Expression::Binary(Binary::Same, one, other)));
            }
            other => return Err(refused(other)),
        };
        let of = self.boxed(of, place, depth)?;
        Ok(not(negated, Expression::Is(is, of)))
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        otherwise: Option<&Expr>,
        place: Place,
        depth: usize,
    ) -> Read<Expression> {
        let operand = operand
            .map(|one| self.boxed(one, place, depth))
            .transpose()?;
        let mut branches = Vec::new();
        for CaseWhen { condition, result } in conditions {
            let condition = self.expression(condition, place, depth)?;
            branches.push((condition, self.expression(result, place, depth)?));
        }
        let otherwise = match otherwise {
            Some(otherwise) => self.expression(otherwise, place, depth)?,
            None => Expression::Null,
        };
        Ok(Expression::Case {
            operand,
            branches,
            otherwise: Box::new(otherwise),
        })
    }

    fn call(
        &mut self,
        call: &Function,
        span: Span,
        place: Place,
        depth: usize,
    ) -> Read<Expression> {
        let name = call.name.to_string().to_ascii_uppercase();
        if call.over.is_some()
            || call.null_treatment.is_some()
            || call.uses_odbc_syntax
            || !call.within_group.is_empty()
            || !matches!(call.parameters, FunctionArguments::None)
        {
            return Err(Wrong::span(
                span,
                format!("{} with windows or parameters", quoted(&name)),
            )
            .write("the function with its arguments alone"));
        }
        if let Some(gatherer) = functions::gatherer(&name) {
            if place == Place::Row {
                let what = format!("{} within WHERE or within an aggregate", quoted(&name));
                return Err(Wrong::span(span, what)
                    .write("aggregates side by side, such as SUM(a) / SUM(b)"));
            }
            return self.gather(gatherer, call, span);
        }
        let Some(signature) = functions::function(&name) else {
            let wrong = Wrong::span(span, format!("there is no function {}", quoted(&name)));
            return Err(match functions::nearest(&name) {
                Some(nearest) => wrong.write(nearest),
                None => wrong,
            });
        };
        if call.filter.is_some() {
            return Err(Wrong::span(span, "FILTER behind what is no aggregate"));
        }
        let arguments = plain_arguments(call, span)?;
        if !(signature.least..=signature.most).contains(&arguments.len()) {
            let (least, most, found) = (signature.least, signature.most, arguments.len());
            let wants = if least == most {
                format!("{least}")
            } else {
                format!("{least} to {most}")
            };
            let what = format!("{} takes {wants} arguments, not {found}", signature.name);
            return Err(Wrong::span(span, what));
        }
        let arguments = arguments
            .into_iter()
            .map(|one| self.expression(one, place, depth));
        Ok(Expression::Call(
            signature.function,
            arguments.collect::<Read<_>>()?,
        ))
    }
}

/// Of a function that orders nothing.
pub(super) fn plain_arguments(call: &Function, span: Span) -> Read<Vec<&Expr>> {
    let FunctionArguments::List(list) = &call.args else {
        return Err(Wrong::span(
            span,
            format!("{} without arguments", quoted(&call.name.to_string())),
        )
        .write("parentheses behind it"));
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return Err(Wrong::span(
            span,
            "ORDER BY or DISTINCT in a function that has none",
        ));
    }
    list.args.iter().map(|one| unnamed(one, span)).collect()
}

pub(super) fn unnamed(argument: &FunctionArg, span: Span) -> Read<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(Wrong::span(span, "`*` or a name where a value belongs")),
    }
}

pub(super) fn not(negated: bool, expression: Expression) -> Expression {
    if negated {
        Expression::Not(Box::new(expression))
    } else {
        expression
    }
}

fn refused(expr: &Expr) -> Wrong {
    let (what, nearest) = match expr {
        Expr::Subquery(_) | Expr::Exists { .. } => {
            ("a subquery", Some("one SELECT over the children"))
        }
        Expr::Like { .. } => ("LIKE with ESCAPE or ANY", Some("STARTS_WITH or INSTR")),
        Expr::Tuple(_) => ("several values in parentheses", Some("one value")),
        Expr::TypedString(_) => (
            "a text with a type",
            Some("INTERVAL '5m', or TIME(seconds)"),
        ),
        Expr::CompoundIdentifier(_) => ("a name with dots", Some("names of attributes alone")),
        _ => ("an expression that is not part of the language", None),
    };
    let wrong = Wrong::span(expr.span(), what);
    match nearest {
        Some(nearest) => wrong.write(nearest),
        None => wrong,
    }
}

fn literal(value: &Literal, span: Span) -> Read<Expression> {
    match value {
        Literal::Null => Ok(Expression::Null),
        Literal::Boolean(truth) => Ok(Expression::Constant(Value::Bool(*truth))),
        Literal::SingleQuotedString(text) if text.len() > Limits::LITERAL_BYTES_MAX => {
            let most = Limits::LITERAL_BYTES_MAX;
            Err(Wrong::span(
                span,
                format!("a text of more than {most} bytes"),
            ))
        }
        Literal::SingleQuotedString(text) => Ok(Expression::Constant(Value::Text(text.clone()))),
        Literal::Number(digits, false) => number(digits, span),
        _ => Err(
            Wrong::span(span, "a literal that is not part of the language")
                .write("numbers, texts in single quotes, TRUE, FALSE, NULL or INTERVAL '5m'"),
        ),
    }
}

fn number(digits: &str, span: Span) -> Read<Expression> {
    if let Ok(int) = digits.parse::<i64>() {
        return Ok(Expression::Constant(Value::Int(int)));
    }
    match digits.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(Expression::Constant(Value::Float(float))),
        _ => Err(Wrong::span(
            span,
            format!("{} is no number", quoted(digits)),
        )),
    }
}

fn duration(interval: &Interval, span: Span) -> Read<Expression> {
    let wrong = || Wrong::span(span, "an interval that cannot be read").write("INTERVAL '5m'");
    let Interval {
        value,
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    } = interval
    else {
        return Err(wrong());
    };
    let Expr::Value(value) = value.as_ref() else {
        return Err(wrong());
    };
    let Literal::SingleQuotedString(text) = &value.value else {
        return Err(wrong());
    };
    let span = kernel::parse_duration(text).map_err(|_| wrong())?;
    let nanos = i64::try_from(span.as_nanos()).map_err(|_| wrong())?;
    Ok(Expression::Constant(Value::Duration(nanos)))
}
