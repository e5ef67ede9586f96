//! Golden texts, limits, hostile bytes.

use super::*;
use proptest::prelude::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn grant() -> Grant {
    let comments = BucketGrant {
        bucket: name("comments"),
        quota: Bytes::mebibytes(16),
        rate: 1_000,
    };
    Grant {
        project: name("news"),
        service: name("visitors"),
        replica: "visitors-g12-0".to_owned(),
        bindings: BTreeMap::from([("log".to_owned(), comments)]),
        fence: Some(Fence {
            holder: "news/visitors/0".to_owned(),
            epoch: FencingEpoch(3),
        }),
    }
}

fn as_text<M: Serialize>(message: &M) -> String {
    serde_json::to_string(message).expect("encodes")
}

#[test]
fn golden_messages_of_version_1() {
    let call = |call| ToBuckets::Call {
        id: 7,
        answered: 5,
        capability: "hb1.e30.AA".to_owned(),
        binding: "log".to_owned(),
        call,
    };
    let value = Value {
        bytes: Blob(b"hello".to_vec()),
        revision: Revision(9),
    };
    let told = [
        as_text(&ToBuckets::Hello {
            version: VERSION,
            client: "c1".to_owned(),
        }),
        as_text(&call(Call::Set {
            key: "a/b".to_owned(),
            value: Blob(vec![0, 255]),
        })),
        as_text(&call(Call::CompareAndSet {
            key: "a".to_owned(),
            expected: None,
            value: Some(Blob::default()),
        })),
        as_text(&FromBuckets::Answer {
            id: 7,
            answer: Ok(Answer::Value(Some(value.clone()))),
        }),
        as_text(&FromBuckets::Answer {
            id: 8,
            answer: Err(BucketError::Quota {
                subject: "bucket/comments".to_owned(),
                used: Bytes(10),
                wanted: Bytes(20),
                quota: Bytes(16),
            }),
        }),
        as_text(&FromBuckets::Watched {
            id: 1,
            event: Ok(WatchEvent::Changes {
                revision: Revision(9),
                changes: vec![Change::Set {
                    key: "a".to_owned(),
                    value,
                }],
            }),
        }),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"hello":{"version":1,"client":"c1"}}
    {"call":{"id":7,"answered":5,"capability":"hb1.e30.AA","binding":"log","call":{"set":{"key":"a/b","value":"AP8"}}}}
    {"call":{"id":7,"answered":5,"capability":"hb1.e30.AA","binding":"log","call":{"compare_and_set":{"key":"a","expected":null,"value":""}}}}
    {"answer":{"id":7,"answer":{"Ok":{"value":{"bytes":"aGVsbG8","revision":9}}}}}
    {"answer":{"id":8,"answer":{"Err":{"quota":{"subject":"bucket/comments","used":10,"wanted":20,"quota":16}}}}}
    {"watched":{"id":1,"event":{"Ok":{"changes":{"revision":9,"changes":[{"set":{"key":"a","value":{"bytes":"aGVsbG8","revision":9}}}]}}}}}
    "#);
}

#[test]
fn golden_capability_of_version_1() {
    let made = Capability::new(grant(), |_| [7; MARK_BYTES]);
    assert_eq!(Capability::read(&made.text()), Ok(made.clone()));
    insta::assert_snapshot!(String::from_utf8_lossy(&made.marked), @r#"{"project":"news","service":"visitors","replica":"visitors-g12-0","bindings":{"log":{"bucket":"comments","quota":16777216,"rate":1000}},"fence":{"holder":"news/visitors/0","epoch":3}}"#);
}

#[test]
fn what_is_no_capability_is_refused() {
    let made = Capability::new(grant(), |_| [7; MARK_BYTES]).text();
    let other_kind = made.replace("hb1", "hb2");
    let longer = format!("{made}.AA");
    let shorter = &made[..made.len() - 2];
    for text in ["", "hb1", "hb1.e30.AA", &other_kind, &longer, shorter] {
        assert_eq!(Capability::read(text), Err(CapabilityError), "{text}");
    }
}

#[test]
fn limits_are_named_with_their_numbers() {
    let set = |key: usize, value: usize| Call::Set {
        key: "k".repeat(key),
        value: Blob(vec![0; value]),
    };
    set(KEY_BYTES_MAX, VALUE_BYTES_MAX).check().expect("fits");
    for (call, told) in [
        (set(0, 1), "a key is empty"),
        (set(513, 1), "a key has 513 bytes; at most 512 are allowed"),
        (
            set(1, VALUE_BYTES_MAX + 1),
            "a value has 1048577 bytes; at most 1048576 are allowed",
        ),
        (
            Call::GetMany {
                keys: vec!["k".to_owned(); 257],
            },
            "a batch has 257 keys; at most 256 are allowed",
        ),
        (
            Call::SetMany {
                entries: vec![("k".to_owned(), Blob(vec![0; VALUE_BYTES_MAX])); 5],
            },
            "a batch has 5242885 bytes; at most 4194304 are allowed",
        ),
    ] {
        assert_eq!(call.check().expect_err("refused").to_string(), told);
    }
}

#[test]
fn errors_say_their_numbers_and_the_next_step() {
    let full = BucketError::Quota {
        subject: "bucket/comments".to_owned(),
        used: Bytes::mebibytes(15),
        wanted: Bytes::mebibytes(17),
        quota: Bytes::mebibytes(16),
    };
    assert_eq!(
        full.to_string(),
        "bucket/comments is full: 15 MiB of 16 MiB are used, and this would make it 17 MiB"
    );
    assert!(full.hint().expect("a hint").contains("delete"));
    let fenced = BucketError::Fenced {
        holder: "news/visitors/0".to_owned(),
        epoch: FencingEpoch(2),
        highest: FencingEpoch(3),
    };
    assert_eq!(
        fenced.to_string(),
        "a newer `news/visitors/0` has taken over: epoch 3 was seen, this one has 2"
    );
}

proptest! {
    #[test]
    fn bytes_survive_their_text(bytes: Vec<u8>) {
        let text = as_text(&Blob(bytes.clone()));
        prop_assert_eq!(serde_json::from_str::<Blob>(&text).expect("reads").0, bytes);
    }

    #[test]
    fn hostile_texts_never_panic(text: String) {
        let _ = Capability::read(&text);
        let _ = Capability::read(&format!("hb1.{text}.{text}"));
        let _ = serde_json::from_str::<ToBuckets>(&text);
    }
}
