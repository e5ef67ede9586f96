//! Rows: what is written is read, in one spelling only, within the limits.

use super::*;
use kernel::UnixMillis;
use proptest::prelude::*;

fn name(text: &str) -> AttributeName {
    text.parse().expect("a name")
}

fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_map(Value::Float),
        ".{0,20}".prop_map(Value::Text),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes),
        any::<u64>().prop_map(|ms| Value::Time(UnixMillis(ms))),
        any::<i64>().prop_map(Value::Duration),
        prop::collection::btree_set(".{0,8}", 0..5).prop_map(Value::Set),
        prop::collection::vec(scalars(), 0..5).prop_map(Value::List),
        sketches(),
    ]
}

fn scalars() -> impl Strategy<Value = Scalar> {
    prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        any::<i64>().prop_map(Scalar::Int),
        ".{0,8}".prop_map(Scalar::Text),
        any::<u64>().prop_map(|ms| Scalar::Time(UnixMillis(ms))),
    ]
}

fn sketches() -> impl Strategy<Value = Value> {
    prop_oneof![
        (any::<i32>(), 0_u32..9).prop_map(|(sum, weight)| {
            let (sum, weight) = (f64::from(sum), f64::from(weight));
            Value::Average(Average { sum, weight })
        }),
        prop::collection::btree_set(any::<u64>(), 0..FEW_MAX)
            .prop_map(|all| Value::Distinct(Distinct::Few(all.into_iter().collect()))),
        prop::collection::vec(any::<u8>(), 128)
            .prop_map(|bits| { Value::Bloom(Bloom { hashes: 7, bits }) }),
        states().prop_map(|states| {
            Value::Partial(Box::new(Partial {
                fingerprint: 7,
                rows: 9,
                matched: 5,
                ignored: 1,
                states,
            }))
        }),
    ]
}

fn states() -> impl Strategy<Value = Vec<State>> {
    let state = prop_oneof![
        (0..COUNT_MAX).prop_map(State::Count),
        (any::<i64>(), prop::collection::vec(1_u8.., 0..20)).prop_map(|(whole, digits)| {
            let floats = Wide {
                negative: !digits.is_empty() && whole < 0,
                offset: u16::from(!digits.is_empty()),
                digits,
            };
            State::Sum(Total {
                count: 1,
                whole: i128::from(whole),
                floats: Some(floats),
            })
        }),
        prop::option::of(scalars()).prop_map(State::Extreme),
        prop::collection::vec((prop::option::of(scalars()), scalars()), 0..5).prop_map(|all| {
            let entries = all.into_iter().map(|(key, value)| Entry {
                keys: vec![key],
                value,
            });
            State::First(entries.collect())
        }),
        prop::collection::btree_map(-9_000..9_000, 1_u64..1 << 40, 1..50).prop_map(|all| {
            State::Quantiles(Some(Box::new(Quantiles {
                level: 3,
                smallest: -1.0,
                largest: 4.5,
                buckets: all.into_iter().collect(),
            })))
        }),
    ];
    prop::collection::vec(state, 0..4)
}

fn rows() -> impl Strategy<Value = Row> {
    let named = (
        "[a-z][a-z0-9_]{0,20}".prop_map(|text| name(&text)),
        values(),
    );
    prop::collection::vec(named, 0..12).prop_map(|all| Row(all.into_iter().collect()))
}

proptest! {
    #[test]
    fn what_is_written_is_read(row in rows()) {
        let bytes = row.encode().expect("small");
        let again = Row::decode(&bytes).expect("reads");
        prop_assert_eq!(again.encode().expect("small"), bytes);
    }

    #[test]
    fn what_is_read_has_one_spelling(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(row) = Row::decode(&bytes) {
            prop_assert_eq!(row.encode().expect("small"), bytes);
        }
    }
}

#[test]
fn limits_are_told() {
    let many = (0..=ATTRIBUTES_MAX).map(|i| (name(&format!("a{i}")), Value::Bool(true)));
    let error = Row(many.collect()).encode().expect_err("too many");
    assert_eq!(error, RowError::TooMany { count: 257 });
    let long = Value::Text("x".repeat(ROW_BYTES_MAX));
    let error = Row([(name("a"), long)].into())
        .encode()
        .expect_err("too long");
    assert_eq!(error, RowError::TooLong { bytes: 4_103 });
    for wrong in ["", "A", "1a", "a-b", "é", &"a".repeat(65)] {
        assert!(wrong.parse::<AttributeName>().is_err(), "{wrong}");
    }
}

/// Bytes of version 1: they are read for as long as it is spoken.
#[test]
fn version_1_stays() {
    let row = Row([
        (name("cpu"), Value::Float(0.5)),
        (name("up"), Value::Bool(true)),
        (name("zone"), Value::Text("/eu".to_owned())),
    ]
    .into());
    let hex: String = row
        .encode()
        .expect("small")
        .iter()
        .fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    assert_eq!(
        hex,
        "01030363707502000000000000e03f0275700001047a6f6e6503032f6575"
    );
}

proptest! {
    #[test]
    fn parts_take_no_more_than_was_said(states in states()) {
        let partial = Partial { fingerprint: u64::MAX, rows: COUNT_MAX, matched: 1, ignored: 1, states };
        let bound = partial.bytes_at_most();
        let row = Row([(name("p"), Value::Partial(Box::new(partial)))].into());
        if let Ok(bytes) = row.encode() {
            prop_assert!(bytes.len() <= bound + 6, "{} bytes, {bound} said", bytes.len());
        }
    }
}

/// What sorts, counts and sizes wrongly is not read.
#[test]
fn unsound_sketches_are_refused() {
    let quantiles = |buckets: &[(i32, u64)]| {
        Value::Quantiles(Box::new(Quantiles {
            level: 0,
            smallest: 0.0,
            largest: 1.0,
            buckets: buckets.to_vec(),
        }))
    };
    let wide = |digits: &[u8]| {
        let floats = Wide {
            negative: false,
            offset: 3,
            digits: digits.to_vec(),
        };
        let total = Total {
            count: 1,
            whole: 0,
            floats: Some(floats),
        };
        let states = vec![State::Sum(total)];
        Value::Partial(Box::new(Partial {
            fingerprint: 0,
            rows: 1,
            matched: 1,
            ignored: 0,
            states,
        }))
    };
    let unsound = [
        quantiles(&[]),
        quantiles(&[(2, 1), (1, 1)]),
        quantiles(&[(1, 0)]),
        quantiles(&[(1 << 20, 1)]),
        quantiles(&[(1, u64::MAX)]),
        Value::Distinct(Distinct::Few(vec![2, 1])),
        Value::Distinct(Distinct::Many(vec![0; 10])),
        Value::Bloom(Bloom {
            hashes: 7,
            bits: vec![0; 100],
        }),
        Value::Average(Average {
            sum: f64::NAN,
            weight: 1.0,
        }),
        wide(&[0, 1]),
        wide(&[1, 0]),
        wide(&[]),
        wide(&[1; 270]),
    ];
    for value in unsound {
        let bytes = Row([(name("p"), value.clone())].into())
            .encode()
            .expect("small");
        assert_eq!(Row::decode(&bytes), Err(RowError::Garbled), "{value:?}");
    }
}
