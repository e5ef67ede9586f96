//! Errors as one line.

/// An error and all its causes: `cannot open a: permission denied`.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_duration;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the wait")]
    struct Outer(#[source] crate::DurationError);

    #[test]
    fn causes_follow_their_error() {
        let inner = parse_duration("soon").expect_err("no duration");
        let told = error_chain(&Outer(inner.clone()));
        assert_eq!(told, format!("cannot read the wait: {inner}"));
    }
}
