//! Decides whether a step of a value is worth telling.
//!
//! Holds: parts are compared by what they come to, each state for itself: a
//! zone whose values stand still while its parts move would mislead the zone
//! above.

use super::gather::{Gathered, gathered, quantile};
use wire::attributes::{Histogram, Partial, Quantiles, Scalar, State, Value};

/// Whether numbers differ by more than `thousandths` of the larger one, or
/// anything else at all.
pub fn differs(old: Option<&Value>, new: Option<&Value>, thousandths: u16) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => values(old, new, thousandths),
        (old, new) => old.is_some() != new.is_some(),
    }
}

fn values(old: &Value, new: &Value, most: u16) -> bool {
    if old == new {
        return false;
    }
    match (old, new) {
        (Value::Partial(old), Value::Partial(new)) => partials(old, new, most),
        (Value::List(old), Value::List(new)) => lists(old, new, most),
        (Value::Average(old), Value::Average(new)) => {
            step(old.sum, new.sum, most) || step(old.weight, new.weight, most)
        }
        (Value::Quantiles(old), Value::Quantiles(new)) => quantiles(old, new, most),
        (Value::Histogram(old), Value::Histogram(new)) => histograms(old, new, most),
        _ => match (number(old), number(new)) {
            (Some(old), Some(new)) => step(old, new, most),
            _ => true,
        },
    }
}

fn partials(old: &Partial, new: &Partial, most: u16) -> bool {
    let counts = [
        (old.rows, new.rows),
        (old.matched, new.matched),
        (old.ignored, new.ignored),
    ];
    old.fingerprint != new.fingerprint
        || old.states.len() != new.states.len()
        || counts.iter().any(|(old, new)| counted(*old, *new, most))
        || old
            .states
            .iter()
            .zip(&new.states)
            .any(|(old, new)| states(old, new, most))
}

fn states(old: &State, new: &State, most: u16) -> bool {
    if old == new {
        return false;
    }
    match (old, new) {
        (
            State::Average { values, weights },
            State::Average {
                values: new_values,
                weights: new_weights,
            },
        ) => {
            let sum = |total: &wire::attributes::Total| State::Sum(total.clone());
            states(&sum(values), &sum(new_values), most)
                || states(&sum(weights), &sum(new_weights), most)
        }
        (State::First(old), State::First(new)) => {
            old.len() != new.len()
                || old.iter().zip(new).any(|(old, new)| {
                    let keys = old.keys.iter().zip(&new.keys);
                    scalars(&old.value, &new.value, most)
                        || old.keys.len() != new.keys.len()
                        || keys
                            .into_iter()
                            .any(|(old, new)| key(old.as_ref(), new.as_ref(), most))
                })
        }
        // A lower zone's bit that is not told would be a wrong "no".
        (State::Bloom(_), _) => true,
        _ => match (gathered(old), gathered(new)) {
            (Gathered::Value(old), Gathered::Value(new)) => values(&old, &new, most),
            (Gathered::Quantiles(old), Gathered::Quantiles(new)) => quantiles(&old, &new, most),
            _ => true,
        },
    }
}

fn key(old: Option<&Scalar>, new: Option<&Scalar>, most: u16) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => scalars(old, new, most),
        (old, new) => old.is_some() != new.is_some(),
    }
}

fn lists(old: &[Scalar], new: &[Scalar], most: u16) -> bool {
    let pairs = old.iter().zip(new);
    old.len() != new.len() || pairs.into_iter().any(|(old, new)| scalars(old, new, most))
}

fn scalars(old: &Scalar, new: &Scalar, most: u16) -> bool {
    values(&old.clone().into(), &new.clone().into(), most)
}

fn quantiles(old: &Quantiles, new: &Quantiles, most: u16) -> bool {
    let count = |all: &Quantiles| all.buckets.iter().map(|(_, count)| count).sum();
    let at = |all: &Quantiles, share| quantile(all, share).value();
    let shares = [0.0, 0.5, 0.9, 0.99, 1.0];
    counted(count(old), count(new), most)
        || shares
            .iter()
            .any(|share| differs(at(old, *share).as_ref(), at(new, *share).as_ref(), most))
}

fn histograms(old: &Histogram, new: &Histogram, most: u16) -> bool {
    let mut pairs = old.counts.iter().zip(&new.counts);
    old.bounds != new.bounds || pairs.any(|(old, new)| counted(*old, *new, most))
}

fn counted(old: u64, new: u64, most: u16) -> bool {
    old.abs_diff(new)
        > old.max(new) / 1_000 * u64::from(most) + old.max(new) % 1_000 * u64::from(most) / 1_000
}

fn step(old: f64, new: f64, most: u16) -> bool {
    (old - new).abs() > old.abs().max(new.abs()) * f64::from(most) / 1_000.0
}

/// Of what has a length.
fn number(value: &Value) -> Option<f64> {
    match super::cell::Cell::of(value) {
        super::cell::Cell::Int(number) | super::cell::Cell::Duration(number) => {
            Some(super::cell::float_of(number))
        }
        super::cell::Cell::Float(number) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::attributes::{Entry, Total};

    fn differ(old: &Value, new: &Value, most: u16) -> bool {
        differs(Some(old), Some(new), most)
    }

    #[test]
    fn steps_under_the_threshold_are_not_told() {
        assert!(!differ(&Value::Float(1.0), &Value::Float(1.04), 50));
        assert!(differ(&Value::Float(1.0), &Value::Float(1.06), 50));
        assert!(differ(&Value::Int(1), &Value::Int(2), 50));
        assert!(!differ(&Value::Int(1_000), &Value::Int(1_049), 50));
        assert!(differ(&Value::Int(7), &Value::Int(8), 0));
        assert!(differ(
            &Value::Text("a".into()),
            &Value::Text("b".into()),
            999
        ));
        assert!(differs(Some(&Value::Int(1)), None, 999));
        assert!(!differs(None, None, 0));
    }

    #[test]
    fn parts_are_told_though_their_value_stands_still() {
        let parts = |sum: i128| {
            let total = |whole| Total {
                count: 1,
                whole,
                floats: None,
            };
            let states = vec![State::Average {
                values: total(sum),
                weights: total(sum),
            }];
            Value::Partial(Box::new(Partial {
                fingerprint: 1,
                rows: 1,
                matched: 1,
                ignored: 0,
                states,
            }))
        };
        assert!(differ(&parts(100), &parts(200), 50));
        assert!(!differ(&parts(100), &parts(102), 50));
    }

    #[test]
    fn an_entry_whose_key_moves_is_told() {
        let first = |load| {
            let entry = Entry {
                keys: vec![Some(Scalar::Float(load))],
                value: Scalar::Text("a".into()),
            };
            State::First(vec![entry])
        };
        assert!(states(&first(1.0), &first(2.0), 50));
        assert!(!states(&first(1.0), &first(1.01), 50));
    }
}
