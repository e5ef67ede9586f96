//! The server by its own client, over the real socket, on a real file; killed
//! where it hurts.

use super::*;
use ipc::buckets::BucketClient;
use node::buckets::{BucketAccess, Compared};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use wire::bucket::{BucketError, Change as Told, WatchEvent};

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

async fn open(layout: &Layout) -> Arc<BucketServer> {
    let opened = BucketServer::open(layout, NodeId(1), store::Group::Alone).await;
    Arc::new(opened.expect("opens"))
}

/// A data directory, and what is served from it for now.
pub struct Place {
    directory: tempfile::TempDir,
    pub layout: Layout,
}

pub struct Serving {
    server: Arc<BucketServer>,
    task: tokio::task::JoinHandle<()>,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        for folder in ["store", "run"] {
            std::fs::create_dir(directory.path().join(folder)).expect("a folder");
        }
        Self { directory, layout }
    }

    pub async fn serve(&self) -> Serving {
        let server = open(&self.layout).await;
        let (serving, layout) = (Arc::clone(&server), self.layout.clone());
        let task = tokio::spawn(async move {
            let _ = serving.run(&layout).await;
        });
        Serving { server, task }
    }

    pub fn client(&self) -> Arc<BucketClient> {
        Arc::new(BucketClient::new(&self.layout.buckets_socket()).expect("a client"))
    }
}

impl Serving {
    pub async fn end(self) {
        self.server.store.shutdown().await;
        self.task.abort();
        let _ = self.task.await;
    }

    fn capability(&self, project: &str, quota: u64, rate: u32, epoch: Option<u64>) -> String {
        let replica = format!("{project}.notes-g1-0").parse().expect("a replica");
        let grant = BucketGrant {
            bucket: name("comments"),
            quota: Bytes(quota),
            rate,
        };
        let bindings = BTreeMap::from([(name("log"), grant)]);
        self.server
            .grant(&replica, &bindings, epoch.map(FencingEpoch))
    }

    pub fn access(&self, client: &Arc<BucketClient>) -> BucketAccess {
        let text = self.capability("news", 1 << 20, 100_000, None);
        BucketAccess::new(client.clone(), &text).expect("a capability")
    }
}

fn with(client: &Arc<BucketClient>, capability: &str) -> node::buckets::Bucket {
    let access = BucketAccess::new(client.clone(), capability).expect("a capability");
    access.open("log").expect("bound")
}

#[tokio::test]
async fn every_operation_does_what_it_says() {
    let place = Place::new();
    let serving = place.serve().await;
    let bucket = serving.access(&place.client()).open("log").expect("bound");
    assert_eq!(bucket.get("a").await, Ok(None));
    let first = bucket.set("a", "one").await.expect("set");
    let found = bucket.get("a").await.expect("got").expect("there");
    assert_eq!(
        (found.bytes.0.as_slice(), found.revision),
        (&b"one"[..], first)
    );
    assert_eq!(bucket.exists("a").await, Ok(true));
    let lost = bucket.compare_and_set("a", None, Some(b"two".into())).await;
    assert_eq!(lost, Ok(Compared::Differs(Some(found))));
    let won = bucket
        .compare_and_set("a", Some(first), Some(b"two".into()))
        .await;
    assert!(
        matches!(won, Ok(Compared::Done(revision)) if revision > first),
        "{won:?}"
    );
    assert_eq!(bucket.increment("n", 5).await, Ok(5));
    assert_eq!(bucket.increment("n", -7).await, Ok(-2));
    let wrong = bucket.increment("a", 1).await.expect_err("no number");
    assert_eq!(wrong.to_string(), "the value of `a` is no number");
    let entries = ["b/1", "b/2", "b/3"].map(|key| (key.to_owned(), key.as_bytes().to_vec()));
    bucket.set_many(entries.to_vec()).await.expect("set");
    let page = bucket.list("b/", None, 2).await.expect("listed");
    assert_eq!(
        (page.keys, page.more),
        (vec!["b/1".to_owned(), "b/2".to_owned()], true)
    );
    let page = bucket
        .list("b/", Some("b/2".to_owned()), 2)
        .await
        .expect("listed");
    assert_eq!((page.keys, page.more), (vec!["b/3".to_owned()], false));
    let keys = vec!["b/3".to_owned(), "none".to_owned()];
    let values = bucket.get_many(keys.clone()).await.expect("got");
    assert_eq!(
        values.iter().map(Option::is_some).collect::<Vec<_>>(),
        [true, false]
    );
    bucket.delete_many(keys).await.expect("deleted");
    bucket.delete("a").await.expect("deleted");
    assert_eq!(bucket.exists("a").await, Ok(false));
    let page = bucket.list("", None, 100).await.expect("listed");
    assert_eq!(page.keys, ["b/1", "b/2", "n"]);
    serving.end().await;
}

#[tokio::test]
async fn what_a_capability_does_not_name_is_not_there() {
    let place = Place::new();
    let serving = place.serve().await;
    let client = place.client();
    let access = serving.access(&client);
    let error = access.open("other").err().expect("not bound");
    assert!(matches!(error, BucketError::NoSuchBucket { .. }), "{error}");
    access
        .open("log")
        .expect("bound")
        .set("a", "ours")
        .await
        .expect("set");
    let theirs = serving.capability("shop", 1 << 20, 1_000, None);
    assert_eq!(with(&client, &theirs).get("a").await, Ok(None));

    // Another project's name under our mark; a mark of another node; none.
    let ours = wire::bucket::Capability::read(&theirs).expect("reads");
    let mut grant = ours.grant.clone();
    grant.project = name("news");
    let edited = wire::bucket::Capability::new(grant.clone(), |_| ours.mark).text();
    let elsewhere = Place::new();
    let other = elsewhere.serve().await;
    let foreign = other.capability("news", 1 << 20, 1_000, None);
    let made_up = wire::bucket::Capability::new(grant, |_| [0; 32]).text();
    for text in [edited, foreign, made_up] {
        let refused = with(&client, &text).get("a").await;
        assert!(
            matches!(refused, Err(BucketError::NotAllowed { .. })),
            "{refused:?}"
        );
    }
    // A bucket that the project has no more.
    serving
        .server
        .define(&name("shop"), BTreeMap::new(), ProjectLimits::default());
    let gone = with(&client, &theirs).get("a").await;
    assert!(
        matches!(gone, Err(BucketError::NoSuchBucket { .. })),
        "{gone:?}"
    );
    other.end().await;
    serving.end().await;
}

#[tokio::test]
async fn a_full_bucket_says_its_numbers_and_still_deletes_also_after_a_restart() {
    let place = Place::new();
    let serving = place.serve().await;
    let client = place.client();
    let text = serving.capability("news", 1_000, 100_000, None);
    let bucket = with(&client, &text);
    bucket.set("a", vec![0; 700]).await.expect("fits");
    let used = serving
        .server
        .used(&name("news"), &name("comments"))
        .await
        .expect("read");
    let full = BucketError::Quota {
        subject: "bucket/comments".to_owned(),
        used,
        wanted: Bytes(used.0 + store::weight("/bucket/news/comments/b", &[0; 300])),
        quota: Bytes(1_000),
    };
    assert_eq!(bucket.set("b", vec![0; 300]).await, Err(full.clone()));
    serving.end().await;
    let serving = place.serve().await;
    assert_eq!(bucket.set("b", vec![0; 300]).await, Err(full));
    bucket.delete("a").await.expect("deletes");
    bucket.set("b", vec![0; 300]).await.expect("fits again");
    let limits = ProjectLimits {
        quota: Bytes(500),
        ..ProjectLimits::default()
    };
    let wide = Bucket {
        quota: Bytes(1 << 20),
        rate: 1_000,
    };
    let buckets = BTreeMap::from([(name("comments"), wide)]);
    serving.server.define(&name("news"), buckets, limits);
    let refused = bucket.set("c", vec![0; 100]).await;
    let Err(BucketError::Quota { subject, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(subject, "project/news");
    serving.end().await;
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_again() {
    let place = Place::new();
    let serving = place.serve().await;
    let text = serving.capability("news", 1 << 20, 3, None);
    let bucket = with(&place.client(), &text);
    let mut refused = None;
    for _ in 0..100 {
        refused = bucket.exists("a").await.err();
        if refused.is_some() {
            break;
        }
    }
    let Some(BucketError::Rate {
        subject,
        per_second: 3,
        retry_after_ms,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(subject, "bucket/comments");
    assert!(retry_after_ms <= 334, "{retry_after_ms}");
    serving.end().await;
}

#[tokio::test]
async fn a_lower_epoch_is_refused_for_reads_writes_and_watches_and_after_a_restart() {
    let place = Place::new();
    let serving = place.serve().await;
    let client = place.client();
    let epoch = serving.server.next_epoch().await.expect("a number");
    let later = serving.server.next_epoch().await.expect("a number");
    assert!(later > epoch);
    let capability =
        |epoch: FencingEpoch| serving.capability("news", 1 << 20, 1_000, Some(epoch.0));
    let (old, new) = (
        with(&client, &capability(epoch)),
        with(&client, &capability(later)),
    );
    let start = old.set("a", "old").await.expect("nobody newer yet");
    let mut watch = old.watch("", start).await.expect("watches");
    // Seen by a read already.
    new.get("a").await.expect("newer");
    let fenced = |error: &BucketError| matches!(error, BucketError::Fenced { .. });
    assert!(old.set("a", "late").await.is_err_and(|e| fenced(&e)));
    assert!(old.get("a").await.is_err_and(|e| fenced(&e)));
    new.set("a", "new").await.expect("newer");
    assert!(watch.next().await.is_err_and(|e| fenced(&e)));
    serving.end().await;
    let serving = place.serve().await;
    assert!(old.get("a").await.is_err_and(|e| fenced(&e)));
    new.delete("a").await.expect("newer");
    serving.end().await;
}

#[tokio::test]
async fn a_watch_goes_on_over_a_restart_and_skips_nothing() {
    let place = Place::new();
    let serving = place.serve().await;
    let client = place.client();
    let bucket = serving.access(&client).open("log").expect("bound");
    let start = bucket.list("", None, 1).await.expect("listed").revision;
    let mut watch = bucket.watch("w/", start).await.expect("watches");
    let mut serving = Some(serving);
    for round in 0..200 {
        if round % 50 == 25 {
            serving.take().expect("serves").end().await;
            serving = Some(place.serve().await);
        }
        bucket.set(format!("w/{round}"), "x").await.expect("set");
        bucket.set("beside", "x").await.expect("set");
    }
    for round in 0..200 {
        let event = watch.next().await.expect("watches");
        let WatchEvent::Changes { changes, .. } = event else {
            panic!("{event:?}");
        };
        let [Told::Set { key, .. }] = changes.as_slice() else {
            panic!("{changes:?}");
        };
        assert_eq!(*key, format!("w/{round}"));
    }
    serving.take().expect("serves").end().await;
}

const SERVE_IN: &str = "SERVE_BUCKETS_IN";

/// The agent's side of the test below, in a process of its own.
#[tokio::test]
#[ignore = "a child of the test below"]
async fn serve_until_killed() {
    let Some(root) = std::env::var_os(SERVE_IN) else {
        return;
    };
    let layout = Layout::new(root);
    let _ = open(&layout).await.run(&layout).await;
}

fn serve_in_a_child(root: &Path) -> Child {
    let itself = std::env::current_exe().expect("a path");
    Command::new(itself)
        .args(["--exact", "--ignored", "buckets::tests::serve_until_killed"])
        .env(SERVE_IN, root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_acknowledged_increment_is_done_once_however_often_the_agent_is_killed() {
    const WORKERS: usize = 8;
    const ROUNDS: i64 = 300;
    let place = Place::new();
    let serving = place.serve().await;
    let access = serving.access(&place.client());
    serving.end().await;
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let bucket = access.open("log").expect("bound");
            tokio::spawn(async move {
                for round in 1..=ROUNDS {
                    // Held while nobody is there; nobody stays away so long.
                    let own = bucket.increment(format!("own/{worker}"), 1).await;
                    assert_eq!(own.expect("done"), round);
                    bucket.increment("all", 1).await.expect("done");
                }
            })
        })
        .collect();
    let mut killed = 0;
    while !workers.iter().all(tokio::task::JoinHandle::is_finished) {
        let mut child = serve_in_a_child(place.directory.path());
        while std::os::unix::net::UnixStream::connect(place.layout.buckets_socket()).is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Killed at any moment of its work.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..200))).await;
        child.kill().expect("kills");
        child.wait().expect("reaped");
        killed += 1;
    }
    for worker in workers {
        worker.await.expect("no increment was done twice or lost");
    }
    assert!(killed > 1, "it was never killed under way");
    let serving = place.serve().await;
    let bucket = access.open("log").expect("bound");
    let all = bucket.increment("all", 0).await.expect("done");
    assert_eq!(all, i64::try_from(WORKERS).expect("few") * ROUNDS);
    serving.end().await;
}
