//! Reads the frame of a program: one `SELECT … [FROM children] [WHERE …]`.
//!
//! Holds: sqlparser is asked for expressions alone. What it would do for a whole
//! query takes a stack of three quarters of a megabyte, and a hundred clauses
//! to refuse.

use super::tokens::Children;
use super::{Place, Read, Reader, Wrong, quoted};
use crate::program::plan::{Expression, Plan};
use sqlparser::ast::{Expr, Ident};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use wire::attributes::AttributeName;

const FORM: &str = "SELECT … AS name, … FROM children [WHERE …]";

/// Of a name that is made for a value without one.
const MADE_CHARS_MAX: usize = 40;

/// Of the parser's own recursion: parentheses, calls, CASE, NOT and signs within
/// one another. Each takes some fifty kilobytes of stack where it is built
/// without optimising. Chains of operators side by side take none.
const LEVELS_MAX: usize = 16;

/// A program's text by its parts.
pub(super) struct Select {
    outputs: Vec<(Expr, Ident)>,
    filter: Option<Expr>,
}

pub(super) fn parse(tokens: Vec<TokenWithSpan>) -> Read<Select> {
    let mut parser = Parser::new(&Children)
        .with_recursion_limit(LEVELS_MAX)
        .with_tokens_with_locations(tokens);
    if !parser.parse_keyword(Keyword::SELECT) {
        return Err(unexpected(&parser).write(FORM));
    }
    let mut outputs: Vec<(Expr, Ident)> = Vec::new();
    loop {
        let (value, mut name) = output(&mut parser)?;
        // Two values alike, and neither with a name.
        let alike = |name: &str| outputs.iter().any(|(_, known)| known.value == name);
        if let Some(made) = &name.made
            && alike(made)
        {
            name.made = Some(format!("{made}_{}", outputs.len() + 1));
        }
        outputs.push((value, name.ident()));
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    if parser.parse_keyword(Keyword::FROM) {
        table(&mut parser)?;
    }
    let mut filter = None;
    if parser.parse_keyword(Keyword::WHERE) {
        filter = Some(expression(&mut parser)?);
    }
    while parser.consume_token(&Token::SemiColon) {}
    if parser.peek_token_ref().token == Token::EOF {
        return Ok(Select { outputs, filter });
    }
    Err(beyond(&parser))
}

/// There is one, so it need not be said.
fn table(parser: &mut Parser) -> Read<()> {
    let table = parser.peek_token();
    match &table.token {
        Token::Word(word) if word.value.eq_ignore_ascii_case("children") => {
            parser.next_token();
            Ok(())
        }
        other => {
            let what = format!("there is no table {}", quoted(&other.to_string()));
            Err(Wrong::span(table.span, what).write("FROM children"))
        }
    }
}

/// What a value is called.
struct Called {
    said: Option<Ident>,
    made: Option<String>,
    span: Span,
}

impl Called {
    fn ident(self) -> Ident {
        let made = self.made.unwrap_or_default();
        self.said
            .unwrap_or_else(|| Ident::with_span(self.span, made))
    }
}

/// `AVG(cpu)` is called `avg_cpu` where nobody says otherwise.
fn made(value: &Expr) -> String {
    let mut name = String::new();
    for letter in value.to_string().chars() {
        if letter.is_ascii_alphanumeric() {
            name.push(letter.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
        if name.len() >= MADE_CHARS_MAX {
            break;
        }
    }
    let name = name.trim_end_matches('_');
    if name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return name.to_owned();
    }
    format!("value_{name}").trim_end_matches('_').to_owned()
}

fn output(parser: &mut Parser) -> Read<(Expr, Called)> {
    let begins = parser.peek_token();
    if begins.token == Token::Mul {
        return Err(Wrong::span(begins.span, "all attributes at once")
            .write("each value with its name, such as MAX(load) AS load"));
    }
    let expr = expression(parser)?;
    let mut name = Called {
        said: None,
        made: None,
        span: begins.span,
    };
    if parser.parse_keyword(Keyword::AS) {
        let said = parser.parse_identifier();
        name.said = Some(said.map_err(|error| wrong(parser, error))?);
    } else if ends(&parser.peek_token_ref().token) {
        name.made = Some(made(&expr));
    } else {
        return Err(unexpected(parser).write("AS name behind a value"));
    }
    Ok((expr, name))
}

/// Whether what is selected is over, or its next value begins.
fn ends(token: &Token) -> bool {
    match token {
        Token::Comma | Token::SemiColon | Token::EOF => true,
        Token::Word(word) => matches!(word.keyword, Keyword::FROM | Keyword::WHERE),
        _ => false,
    }
}

fn expression(parser: &mut Parser) -> Read<Expr> {
    let expr = parser.parse_expr();
    expr.map_err(|error| wrong(parser, error))
}

fn unexpected(parser: &Parser) -> Wrong {
    let next = parser.peek_token_ref();
    let what = match &next.token {
        Token::EOF => "the text ends too early".to_owned(),
        other => format!("{} does not belong here", quoted(&other.to_string())),
    };
    Wrong::span(next.span, what)
}

/// What people expect behind the table.
fn beyond(parser: &Parser) -> Wrong {
    let next = parser.peek_token_ref();
    let word = next.token.to_string().to_ascii_uppercase();
    let nearest = match word.as_str() {
        "GROUP" | "HAVING" => "COUNT(*) FILTER (WHERE x = 'a') for each group",
        "ORDER" | "LIMIT" => "FIRST(n, x ORDER BY key)",
        "AND" | "OR" => "WHERE before it",
        "," | "JOIN" => "FROM children alone",
        _ => FORM,
    };
    let what = format!("{} is not part of the language here", quoted(&word));
    Wrong::span(next.span, what).write(nearest)
}

fn wrong(parser: &Parser, error: ParserError) -> Wrong {
    let at = parser.peek_token_ref().span;
    match error {
        ParserError::RecursionLimitExceeded => Wrong::span(at, "too many levels of operators"),
        ParserError::ParserError(what) | ParserError::TokenizerError(what) => {
            // The place is told once, by us.
            let end = what.find(" at Line:").unwrap_or(what.len());
            let what = what[..end].chars().take(200).filter(|c| !c.is_control());
            Wrong::span(at, what.collect::<String>())
        }
    }
}

impl Reader<'_> {
    pub(super) fn select(mut self, select: &Select) -> Read<Plan> {
        if let Some((_, name)) = select.outputs.get(self.limits.outputs) {
            let most = self.limits.outputs;
            return Err(Wrong::span(
                name.span,
                format!("more than {most} values are selected"),
            ));
        }
        let filter = match &select.filter {
            Some(filter) => Some(self.expression(filter, Place::Row, 1)?),
            None => None,
        };
        let mut outputs: Vec<(AttributeName, Expression)> = Vec::new();
        for (expr, alias) in &select.outputs {
            let name = attribute(alias)?;
            if outputs.iter().any(|(known, _)| *known == name) {
                return Err(Wrong::span(
                    alias.span,
                    format!("`{name}` is selected twice"),
                ));
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

/// As SQL reads a name without quotes: its case does not count.
pub(super) fn attribute(ident: &Ident) -> Read<AttributeName> {
    let name = ident.value.to_ascii_lowercase().parse();
    name.map_err(|_| {
        Wrong::span(
            ident.span,
            format!("{} is no name of an attribute", quoted(&ident.value)),
        )
        .write("up to 64 letters, digits and `_`, a letter first")
    })
}
