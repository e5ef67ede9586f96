//! Decides which words and signs reach the parser.

use super::{Read, Wrong, quoted};
use crate::program::functions;
use crate::program::limits::Limits;
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word};

/// What the parser may do for us beyond the standard: nothing but this.
#[derive(Debug)]
pub(super) struct Children;

impl Dialect for Children {
    fn is_identifier_start(&self, c: char) -> bool {
        c.is_ascii_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_ascii_alphanumeric() || c == '_'
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }
}

/// The words that mean something; all others are names.
const WORDS: [Keyword; 26] = [
    Keyword::SELECT,
    Keyword::FROM,
    Keyword::WHERE,
    Keyword::AS,
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::IS,
    Keyword::NULL,
    Keyword::TRUE,
    Keyword::FALSE,
    Keyword::BETWEEN,
    Keyword::IN,
    Keyword::LIKE,
    Keyword::CASE,
    Keyword::WHEN,
    Keyword::THEN,
    Keyword::ELSE,
    Keyword::END,
    Keyword::INTERVAL,
    Keyword::ORDER,
    Keyword::BY,
    Keyword::ASC,
    Keyword::DESC,
    Keyword::FILTER,
    Keyword::DISTINCT,
];

/// Tokens for the parser, without comments and spaces.
pub(super) fn read(text: &str, limits: &Limits) -> Read<Vec<TokenWithSpan>> {
    let start = Location::new(1, 1);
    if text.len() > limits.text_bytes {
        let (long, most) = (text.len(), limits.text_bytes);
        return Err(Wrong::at(
            start,
            format!("{long} bytes are over the limit of {most}"),
        ));
    }
    let tokens = Tokenizer::new(&Children, text)
        .tokenize_with_location()
        .map_err(|error| Wrong::at(error.location, error.message))?;
    let mut kept: Vec<TokenWithSpan> = Vec::new();
    let mut open = 0_usize;
    for mut token in tokens {
        let at = token.span.start;
        let prior = kept.last().map(|prior| &prior.token);
        match &mut token.token {
            Token::Whitespace(_) => continue,
            Token::Word(word) => {
                let before = kept.len().checked_sub(2).map(|index| &kept[index].token);
                word_is_allowed(word, prior, before, at)?;
            }
            Token::SingleQuotedString(_) if matches!(prior, Some(Token::SingleQuotedString(_))) => {
                return Err(Wrong::at(at, "two texts side by side").write("`||` between them"));
            }
            Token::LParen => {
                function_is_known(kept.last())?;
                open += 1;
                if open > limits.depth {
                    let most = limits.depth;
                    return Err(Wrong::at(at, format!("more than {most} parentheses open")));
                }
            }
            Token::RParen => open = open.saturating_sub(1),
            known if is_allowed(known) => {}
            other => {
                let sign = other.to_string();
                return Err(Wrong::at(
                    at,
                    format!("{} is not part of the language", quoted(&sign)),
                )
                .with_nearest(instead(other)));
            }
        }
        kept.push(token);
        if kept.len() > limits.tokens {
            let most = limits.tokens;
            return Err(Wrong::at(at, format!("more than {most} words and signs")));
        }
    }
    Ok(kept)
}

fn word_is_allowed(
    word: &mut Word,
    prior: Option<&Token>,
    before: Option<&Token>,
    at: Location,
) -> Read<()> {
    if word.quote_style.is_some() {
        return Err(
            Wrong::at(at, format!("{} is a quoted name", quoted(&word.value)))
                .write("names without quotes, and texts in single ones"),
        );
    }
    match word.keyword {
        Keyword::SELECT if prior.is_some() => {
            return Err(Wrong::at(at, "a second SELECT")
                .write("one SELECT over the children; its parts are merged level by level"));
        }
        Keyword::INTERVAL => {}
        // Elsewhere, `DISTINCT(x)` is a function of its own.
        Keyword::DISTINCT if !(opens_count(prior, before) || is_is(prior)) => {
            word.keyword = Keyword::NoKeyword;
        }
        known if WORDS.contains(&known) => {}
        _ => word.keyword = Keyword::NoKeyword,
    }
    Ok(())
}

fn opens_count(prior: Option<&Token>, before: Option<&Token>) -> bool {
    let is_count =
        matches!(before, Some(Token::Word(word)) if word.value.eq_ignore_ascii_case("count"));
    is_count && prior == Some(&Token::LParen)
}

/// `IS DISTINCT FROM`, `IS NOT DISTINCT FROM`.
fn is_is(prior: Option<&Token>) -> bool {
    matches!(prior, Some(Token::Word(word)) if matches!(word.keyword, Keyword::IS | Keyword::NOT))
}

/// A name before a parenthesis is a function's: told here, since the parser may
/// stumble over its arguments first.
fn function_is_known(prior: Option<&TokenWithSpan>) -> Read<()> {
    let Some(TokenWithSpan {
        token: Token::Word(word),
        span,
    }) = prior
    else {
        return Ok(());
    };
    let name = word.value.to_ascii_uppercase();
    let known = functions::function(&name).is_some() || functions::gatherer(&name).is_some();
    if known || word.keyword != Keyword::NoKeyword {
        return Ok(());
    }
    let wrong = Wrong::at(
        span.start,
        format!("there is no function {}", quoted(&name)),
    );
    Err(wrong.with_nearest(functions::nearest(&name)))
}

fn is_allowed(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(_, false)
            | Token::SingleQuotedString(_)
            | Token::Comma
            | Token::SemiColon
            | Token::Eq
            | Token::Neq
            | Token::Lt
            | Token::Gt
            | Token::LtEq
            | Token::GtEq
            | Token::Plus
            | Token::Minus
            | Token::Mul
            | Token::Div
            | Token::Mod
            | Token::StringConcat
            | Token::EOF
    )
}

fn instead(token: &Token) -> Option<&'static str> {
    match token {
        Token::DoubleEq => Some("`=`"),
        Token::Period => Some("names of attributes alone"),
        Token::DoubleColon => Some("INT(x), FLOAT(x) or TEXT(x)"),
        Token::DoubleQuotedString(_) => Some("texts in single quotes"),
        Token::ExclamationMark => Some("NOT"),
        Token::Ampersand | Token::Pipe => Some("AND, OR"),
        _ => None,
    }
}

impl Wrong {
    fn with_nearest(self, nearest: Option<&str>) -> Self {
        match nearest {
            Some(nearest) => self.write(nearest),
            None => self,
        }
    }
}
