//! Reads the frame of a program: one `SELECT … FROM children [WHERE …]`.
//!
//! Holds: each part of sqlparser's tree is looked at; what we do not know is
//! refused, never passed over.

use super::tokens::Children;
use super::{Place, Read, Reader, Wrong, quoted};
use crate::program::plan::{Expression, Plan};
use sqlparser::ast::{
    Expr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, Spanned, TableFactor,
    TableWithJoins,
};
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};
use wire::attributes::AttributeName;

/// Levels of the parser's own recursion.
const RECURSION_MAX: usize = 48;

const FORM: &str = "SELECT … AS name, … FROM children [WHERE …]";

pub(super) fn parse(tokens: Vec<TokenWithSpan>) -> Read<Box<Select>> {
    let mut parser = Parser::new(&Children)
        .with_recursion_limit(RECURSION_MAX)
        .with_tokens_with_locations(tokens);
    let query = parser.parse_query().map_err(|error| wrong(&parser, error))?;
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        let what = format!("{} after the end", quoted(&rest.token.to_string()));
        return Err(Wrong::span(rest.span, what).write(FORM));
    }
    let Query {
        with: None,
        body,
        order_by: None,
        limit_clause: None,
        fetch: None,
        locks,
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators,
    } = *query
    else {
        return Err(Wrong::at(Location::new(1, 1), "a clause that is not part of the language")
            .write("ORDER BY within FIRST(n, x ORDER BY key)"));
    };
    match *body {
        SetExpr::Select(select) if locks.is_empty() && pipe_operators.is_empty() => Ok(select),
        _ => Err(Wrong::at(Location::new(1, 1), "not one SELECT").write(FORM)),
    }
}

fn wrong(parser: &Parser, error: ParserError) -> Wrong {
    let at = parser.peek_token().span.start;
    match error {
        ParserError::RecursionLimitExceeded => Wrong::at(at, "too many levels of operators"),
        ParserError::ParserError(what) | ParserError::TokenizerError(what) => {
            // The place is told once, by us.
            let end = what.find(" at Line:").unwrap_or(what.len());
            let what: String = what[..end].chars().take(200).filter(|c| !c.is_control()).collect();
            Wrong::at(at, what)
        }
    }
}

impl Reader<'_> {
    pub(super) fn select(mut self, select: Select) -> Read<Plan> {
        frame(&select)?;
        let Select {
            projection,
            selection,
            from,
            ..
        } = select;
        from_children(&from)?;
        if projection.len() > self.limits.outputs {
            let most = self.limits.outputs;
            let span = projection.last().map_or(Span::empty(), Spanned::span);
            return Err(Wrong::span(span, format!("more than {most} values are selected")));
        }
        let filter = match &selection {
            Some(filter) => Some(self.expression(filter, Place::Row, 1)?),
            None => None,
        };
        let mut outputs: Vec<(AttributeName, Expression)> = Vec::new();
        for item in &projection {
            let (expr, alias) = named(item)?;
            let name = attribute(alias)?;
            if outputs.iter().any(|(known, _)| *known == name) {
                return Err(Wrong::span(alias.span, format!("`{name}` is selected twice")));
            }
            outputs.push((name, self.expression(expr, Place::End, 1)?));
        }
        Ok(Plan {
            columns: self.columns,
            filter,
            aggregates: self.aggregates,
            outputs,
        })
    }
}

fn frame(select: &Select) -> Read<()> {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(by, with) if by.is_empty() && with.is_empty());
    if grouped {
        return Err(Wrong::span(select.span(), "GROUP BY is not part of the language")
            .write("COUNT(*) FILTER (WHERE x = 'a') for each group"));
    }
    let plain = select.distinct.is_none()
        && select.optimizer_hints.is_empty()
        && select.select_modifiers.is_none()
        && select.top.is_none()
        && select.exclude.is_none()
        && select.into.is_none()
        && select.lateral_views.is_empty()
        && select.prewhere.is_none()
        && select.connect_by.is_empty()
        && select.cluster_by.is_empty()
        && select.distribute_by.is_empty()
        && select.sort_by.is_empty()
        && select.having.is_none()
        && select.named_window.is_empty()
        && select.qualify.is_none()
        && select.value_table_mode.is_none();
    if plain {
        return Ok(());
    }
    Err(Wrong::span(select.span(), "a clause that is not part of the language").write(FORM))
}

fn from_children(from: &[TableWithJoins]) -> Read<()> {
    let span = from.first().map_or(Span::empty(), Spanned::span);
    let wrong = |what: &str| Err(Wrong::span(span, what).write("FROM children"));
    let [TableWithJoins { relation, joins }] = from else {
        return wrong(if from.is_empty() { "no FROM" } else { "several tables" });
    };
    let TableFactor::Table {
        name, alias, args, ..
    } = relation
    else {
        return wrong("no plain table");
    };
    let is_children = name.to_string().eq_ignore_ascii_case("children");
    if !is_children {
        return wrong(&format!("there is no table {}", quoted(&name.to_string())));
    }
    if alias.is_some() || args.is_some() || !joins.is_empty() {
        return wrong("`children` stands alone");
    }
    Ok(())
}

fn named(item: &SelectItem) -> Read<(&Expr, &Ident)> {
    match item {
        SelectItem::ExprWithAlias { expr, alias } => Ok((expr, alias)),
        SelectItem::UnnamedExpr(expr) => {
            Err(Wrong::span(expr.span(), "a value without a name").write("AS name behind it"))
        }
        other => Err(Wrong::span(other.span(), "all attributes at once")
            .write("each value with its name, such as MAX(load) AS load")),
    }
}

/// As SQL reads a name without quotes: its case does not count.
pub(super) fn attribute(ident: &Ident) -> Read<AttributeName> {
    let name = ident.value.to_ascii_lowercase().parse();
    name.map_err(|_| {
        Wrong::span(ident.span, format!("{} is no name of an attribute", quoted(&ident.value)))
            .write("up to 64 letters, digits and `_`, a letter first")
    })
}
