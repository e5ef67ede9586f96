//! The functions there are, by name: the whitelist.
//!
//! Holds: each is total and gives the same on every machine; none takes longer
//! than its fuel says.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Abs,
    Sign,
    Round,
    Floor,
    Ceil,
    Sqrt,
    Least,
    Greatest,
    Coalesce,
    NullIf,
    Int,
    Float,
    Text,
    Length,
    Lower,
    Upper,
    Substr,
    Trim,
    TrimLeft,
    TrimRight,
    Replace,
    Instr,
    StartsWith,
    EndsWith,
    SplitPart,
    Contains,
    Now,
    Time,
    UnixSeconds,
    Seconds,
    Duration,
    DatePart,
    DateTrunc,
}

/// Of one call: how many arguments at least and at most.
pub(super) struct Signature {
    pub name: &'static str,
    pub function: Function,
    pub least: usize,
    pub most: usize,
}

/// More arguments than that read no better.
const MANY: usize = 16;

const fn of(name: &'static str, function: Function, least: usize, most: usize) -> Signature {
    Signature {
        name,
        function,
        least,
        most,
    }
}

pub(super) const FUNCTIONS: [Signature; 37] = [
    of("ABS", Function::Abs, 1, 1),
    of("SIGN", Function::Sign, 1, 1),
    of("ROUND", Function::Round, 1, 2),
    of("FLOOR", Function::Floor, 1, 1),
    of("CEIL", Function::Ceil, 1, 1),
    of("SQRT", Function::Sqrt, 1, 1),
    of("LEAST", Function::Least, 1, MANY),
    of("GREATEST", Function::Greatest, 1, MANY),
    of("COALESCE", Function::Coalesce, 1, MANY),
    of("IFNULL", Function::Coalesce, 2, 2),
    of("NULLIF", Function::NullIf, 2, 2),
    of("INT", Function::Int, 1, 1),
    of("FLOAT", Function::Float, 1, 1),
    of("TEXT", Function::Text, 1, 1),
    of("LENGTH", Function::Length, 1, 1),
    of("LOWER", Function::Lower, 1, 1),
    of("UPPER", Function::Upper, 1, 1),
    of("SUBSTR", Function::Substr, 2, 3),
    of("SUBSTRING", Function::Substr, 2, 3),
    of("TRIM", Function::Trim, 1, 1),
    of("LTRIM", Function::TrimLeft, 1, 1),
    of("RTRIM", Function::TrimRight, 1, 1),
    of("REPLACE", Function::Replace, 3, 3),
    of("INSTR", Function::Instr, 2, 2),
    of("STRPOS", Function::Instr, 2, 2),
    of("STARTS_WITH", Function::StartsWith, 2, 2),
    of("ENDS_WITH", Function::EndsWith, 2, 2),
    of("SPLIT_PART", Function::SplitPart, 3, 3),
    of("CONTAINS", Function::Contains, 2, 2),
    of("NOW", Function::Now, 0, 0),
    of("TIME", Function::Time, 1, 1),
    of("UNIX_SECONDS", Function::UnixSeconds, 1, 1),
    of("SECONDS", Function::Seconds, 1, 1),
    of("DURATION", Function::Duration, 1, 1),
    of("DATE_PART", Function::DatePart, 2, 2),
    of("DATE_TRUNC", Function::DateTrunc, 2, 2),
    of("CEILING", Function::Ceil, 1, 1),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gatherer {
    Count,
    Sum,
    Average,
    Min,
    Max,
    First,
    Top,
    Random,
    Quantile,
    Distinct,
    Bloom,
    Histogram,
}

pub(super) const GATHERERS: [(&str, Gatherer); 12] = [
    ("COUNT", Gatherer::Count),
    ("SUM", Gatherer::Sum),
    ("AVG", Gatherer::Average),
    ("MIN", Gatherer::Min),
    ("MAX", Gatherer::Max),
    ("FIRST", Gatherer::First),
    ("TOP", Gatherer::Top),
    ("RANDOM", Gatherer::Random),
    ("QUANTILE", Gatherer::Quantile),
    ("DISTINCT", Gatherer::Distinct),
    ("BLOOM", Gatherer::Bloom),
    ("HISTOGRAM", Gatherer::Histogram),
];

pub(super) fn function(upper: &str) -> Option<&'static Signature> {
    FUNCTIONS.iter().find(|known| known.name == upper)
}

pub(super) fn gatherer(upper: &str) -> Option<Gatherer> {
    let found = GATHERERS.iter().find(|(name, _)| *name == upper);
    found.map(|(_, gatherer)| *gatherer)
}

/// What people write for it elsewhere, or what is spelt nearly the same.
pub(super) fn nearest(upper: &str) -> Option<&'static str> {
    let elsewhere = match upper {
        "CAST" | "CONVERT" | "TRY_CAST" => "INT(x), FLOAT(x) or TEXT(x)",
        "MEAN" | "AVERAGE" => "AVG(x)",
        "MEDIAN" => "QUANTILE(x, 0.5)",
        "PERCENTILE" | "PERCENTILE_CONT" | "PERCENTILE_DISC" | "APPROX_QUANTILE" => {
            "QUANTILE(x, 0.99)"
        }
        "APPROX_COUNT_DISTINCT" | "APPROX_DISTINCT" => "COUNT(DISTINCT x)",
        "LAST" => "TOP(n, x ORDER BY key)",
        "CONCAT" => "a || b",
        "IF" | "IIF" => "CASE WHEN a THEN b ELSE c END",
        "NVL" => "IFNULL(a, b)",
        "TOTAL" => "SUM(x)",
        "POSITION" => "INSTR(text, part)",
        "LEN" | "CHAR_LENGTH" => "LENGTH(text)",
        "EXTRACT" | "HOUR" | "STRFTIME" => "DATE_PART('hour', time)",
        "CURRENT_TIMESTAMP" => "NOW()",
        "LN" | "LOG" | "EXP" | "POWER" | "POW" | "SIN" | "COS" => {
            "no such function: they differ between machines"
        }
        _ => return spelt_nearly(upper),
    };
    Some(elsewhere)
}

fn spelt_nearly(upper: &str) -> Option<&'static str> {
    if upper.len() > 24 {
        return None;
    }
    let known = FUNCTIONS.iter().map(|known| known.name);
    let all = known.chain(GATHERERS.iter().map(|(name, _)| *name));
    let scored = all.map(|name| (edits(upper.as_bytes(), name.as_bytes()), name));
    let (distance, name) = scored.min()?;
    (distance <= 2 && distance < name.len()).then_some(name)
}

/// Levenshtein's distance.
fn edits(one: &[u8], other: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_told_what_is_near() {
        assert_eq!(nearest("CUONT"), Some("COUNT"));
        assert_eq!(nearest("LENGHT"), Some("LENGTH"));
        assert_eq!(nearest("MEDIAN"), Some("QUANTILE(x, 0.5)"));
        assert_eq!(nearest("LOAD_EXTENSION"), None);
    }
}
