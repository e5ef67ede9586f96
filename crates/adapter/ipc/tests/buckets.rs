//! The client without its agent, and with one that answers by hand.

use ipc::buckets::BucketClient;
use ipc::{Connection, Listener};
use kernel::Revision;
use node::buckets::{Buckets, Target};
use std::path::Path;
use tokio::time::Instant;
use wire::bucket::{Answer, BucketError, Call, FromBuckets, HOLD_MAX, ToBuckets};

fn target() -> Target {
    Target {
        capability: "any".into(),
        binding: "log".into(),
    }
}

fn set() -> Call {
    Call::Set {
        key: "a".to_owned(),
        value: wire::bucket::Blob::default(),
    }
}

async fn hears(connection: &mut Connection) -> ToBuckets {
    let heard = connection.receive().await.expect("reads");
    heard.expect("a message").0
}

async fn number(connection: &mut Connection) -> (u64, u64) {
    match hears(connection).await {
        ToBuckets::Call { id, answered, .. } => (id, answered),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_held_five_seconds_and_then_refused() {
    let client = BucketClient::new(Path::new("/nowhere/buckets.sock")).expect("a client");
    let since = Instant::now();
    let refused = client
        .call(&target(), set())
        .await
        .expect_err("nobody there");
    assert_eq!(since.elapsed().as_secs(), HOLD_MAX.as_secs());
    let told = "buckets are not available: the agent did not answer within 5s";
    assert_eq!(refused.to_string(), told);
    assert_eq!(refused.hint(), Some("homeostat doctor"));
}

#[tokio::test]
async fn a_call_keeps_its_number_over_connections_and_what_is_answered_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("buckets.sock");
    let listener = Listener::bind(&path).await.expect("binds");
    let client = BucketClient::new(&path).expect("a client");
    let target = target();
    let agent = async {
        let mut first = listener.accept().await.expect("accepts");
        let ToBuckets::Hello { client, .. } = hears(&mut first).await else {
            panic!("no hello");
        };
        assert_eq!(number(&mut first).await, (1, 0));
        // Gone between the call and its answer.
        drop(first);
        let mut second = listener.accept().await.expect("accepts");
        let again = hears(&mut second).await;
        assert!(matches!(again, ToBuckets::Hello { client: same, .. } if same == client));
        for answered in [0, 1] {
            let (id, told) = number(&mut second).await;
            assert_eq!((id, told), (answered + 1, answered));
            let answer = Ok(Answer::Done(Revision(id)));
            let message = FromBuckets::Answer { id, answer };
            second.send(&message).await.expect("sends");
        }
        second
    };
    let calls = async {
        for revision in [1, 2] {
            let answer = client.call(&target, set()).await.expect("done");
            assert_eq!(answer, Answer::Done(Revision(revision)));
        }
    };
    let (_agent, ()) = tokio::join!(agent, calls);
    let long = Call::Get {
        key: "k".repeat(600),
    };
    let refused = client.call(&target, long).await;
    assert!(
        matches!(refused, Err(BucketError::Invalid(_))),
        "{refused:?}"
    );
}
