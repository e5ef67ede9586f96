//! One call: who asks, whether it may, what the store is asked, what is said.

use super::rates::Ask;
use super::{BucketServer, ProjectLimits, bucket_prefix, lock, project_prefix};
use kernel::{Bytes, Revision};
use node::store::{Entry, Event, Store, StoreError, WatchEvent as StoreEvent};
use std::sync::Arc;
use std::time::Instant;
use store::{Bound, Change, ChangeError, ChangeRefusal, Changed, Once, Step, View};
use wire::bucket::{
    Answer, Blob, BucketError, Call, Change as Told, Fence, Grant, KeyPage, PAGE_KEYS_MAX, Value,
    WatchEvent, check_prefix,
};

/// Of all values of one answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Fail {
    Told(BucketError),
    /// The agent goes down: another one will answer.
    Leaving,
}

impl From<BucketError> for Fail {
    fn from(error: BucketError) -> Self {
        Self::Told(error)
    }
}

/// What a capability opens: a bucket and who opened it.
struct Opened {
    grant: Arc<Grant>,
    project: String,
    prefix: String,
    subject: String,
    bounds: [Bound; 2],
}

impl BucketServer {
    /// * `once`: by whom it was sent and as which; a call that writes is done
    ///   once at most under it.
    pub async fn call(
        &self,
        once: Option<Once>,
        capability: &str,
        binding: &str,
        call: Call,
    ) -> Result<Answer, Fail> {
        call.check()?;
        let opened = self.open_bucket(capability, binding, call.weight())?;
        if call.writes() {
            let keyed = written_key(&call);
            let change = opened.change(once, call);
            let changed = self.store.change(change).await;
            return self.changed(&opened, &keyed, changed);
        }
        if let Some(fence) = &opened.grant.fence {
            self.see(&opened, fence).await?;
        }
        let read = self.store.read(|view| opened.read(&view, &call)).await;
        Ok(read.map_err(|error| self.failed(&error))??)
    }

    pub(super) async fn watch(
        &self,
        capability: &str,
        binding: &str,
        prefix: &str,
        after: Revision,
    ) -> Result<Watching, Fail> {
        check_prefix(prefix)?;
        let opened = self.open_bucket(capability, binding, 1)?;
        if let Some(fence) = &opened.grant.fence {
            self.see(&opened, fence).await?;
        }
        let path = format!("{}{prefix}", opened.prefix);
        let watch = self.store.watch(&path, after).await;
        let watch = watch.map_err(|error| self.failed(&error))?;
        Ok(Watching { opened, watch })
    }

    /// The next event of a watch, so long as nobody newer has taken over.
    pub(super) async fn next(&self, watching: &mut Watching) -> Result<WatchEvent, Fail> {
        let event = watching.watch.next().await;
        let event = event.map_err(|error| self.failed(&error))?;
        if let Some(fence) = &watching.opened.grant.fence {
            self.see(&watching.opened, fence).await?;
        }
        Ok(match event {
            StoreEvent::Resync { oldest } => WatchEvent::Resync { oldest },
            StoreEvent::Changes { revision, events } => WatchEvent::Changes {
                revision,
                changes: events
                    .into_iter()
                    .map(|event| watching.opened.told(event))
                    .collect(),
            },
        })
    }

    fn open_bucket(
        &self,
        capability: &str,
        binding: &str,
        weight: u32,
    ) -> Result<Opened, BucketError> {
        let grant = self.believe(capability);
        let grant = grant.ok_or_else(|| BucketError::NotAllowed {
            why: "the capability has no mark of this node".to_owned(),
        })?;
        let no_such = |name: &str| BucketError::NoSuchBucket {
            name: name.to_owned(),
        };
        let granted = grant
            .bindings
            .get(binding)
            .ok_or_else(|| no_such(binding))?;
        let (mut quota, mut rate) = (granted.quota, granted.rate);
        let mut whole = ProjectLimits::default();
        if let Some(defined) = lock(&self.defined).get(&grant.project) {
            whole = defined.limits;
            if let Some(buckets) = &defined.buckets {
                let now = buckets.get(&granted.bucket);
                let now = now.ok_or_else(|| no_such(granted.bucket.as_str()))?;
                (quota, rate) = (now.quota, now.rate);
            }
        }
        let project = project_prefix(&grant.project);
        let prefix = bucket_prefix(&grant.project, &granted.bucket);
        let bound = |prefix: &str, quota: Bytes| Bound {
            prefix: prefix.to_owned(),
            bytes_max: quota.0,
        };
        let bounds = [bound(&prefix, quota), bound(&project, whole.quota)];
        let asks = [(&project, whole.rate), (&prefix, rate)];
        let asks = asks.map(|(subject, per_second)| Ask {
            subject: subject.clone(),
            per_second,
        });
        let opened = Opened {
            subject: format!("bucket/{}", granted.bucket),
            project,
            prefix,
            bounds,
            grant,
        };
        let taken = lock(&self.rates).take(&asks, weight, Instant::now());
        taken.map_err(|refused| BucketError::Rate {
            subject: opened.named(&asks[refused.which].subject),
            per_second: asks[refused.which].per_second,
            retry_after_ms: u64::try_from(refused.wait.as_millis()).unwrap_or(u64::MAX),
        })?;
        Ok(opened)
    }

    /// Refuses an epoch below the highest one; keeps one that is above it.
    async fn see(&self, opened: &Opened, fence: &Fence) -> Result<(), Fail> {
        let seen = self.store.read(|view| view.fenced(&fence.holder)).await;
        let seen = seen.map_err(|error| self.failed(&error))?;
        if seen == Some(fence.epoch) {
            return Ok(());
        }
        let change = Change {
            fence: store_fence(&opened.grant),
            ..Change::default()
        };
        let changed = self.store.change(change).await;
        self.changed(opened, "", changed).map(drop)
    }

    fn changed(
        &self,
        opened: &Opened,
        key: &str,
        changed: Result<Changed, ChangeError>,
    ) -> Result<Answer, Fail> {
        match changed {
            Ok(Changed::Done { sum: Some(sum), .. }) => Ok(Answer::Number(sum)),
            Ok(Changed::Done { revision, .. }) => Ok(Answer::Done(revision)),
            Ok(Changed::Differs { current }) => Ok(Answer::Differs(current.map(value))),
            Err(ChangeError::Refused(refusal)) => Err(opened.refused(key, refusal).into()),
            Err(ChangeError::Store(error)) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &StoreError) -> Fail {
        let may_be_done = match error {
            StoreError::Invalid(why) => return BucketError::Invalid(why.clone()).into(),
            StoreError::Stopped(_) if self.store.fault().is_none() => return Fail::Leaving,
            StoreError::Unknown | StoreError::Stopped(_) => true,
            _ => false,
        };
        let why = error.to_string();
        Fail::Told(BucketError::Unavailable { why, may_be_done })
    }
}

pub struct Watching {
    opened: Opened,
    watch: Box<dyn node::store::Watch>,
}

fn store_fence(grant: &Grant) -> Option<store::Fence> {
    let fence = grant.fence.as_ref()?;
    Some(store::Fence {
        holder: fence.holder.clone(),
        epoch: fence.epoch,
    })
}

fn value(entry: Entry) -> Value {
    Value {
        bytes: Blob(entry.value),
        revision: entry.modified,
    }
}

fn written_key(call: &Call) -> String {
    match call {
        Call::Add { key, .. } => key.clone(),
        _ => String::new(),
    }
}

impl Opened {
    fn path(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// What messages call a bounded prefix.
    fn named(&self, prefix: &str) -> String {
        if prefix == self.project {
            format!("project/{}", self.grant.project)
        } else {
            self.subject.clone()
        }
    }

    fn change(&self, once: Option<Once>, call: Call) -> Change {
        let steps = match call {
            Call::Set { key, value } => vec![Step::Put(self.path(&key), value.0)],
            Call::Delete { key } => vec![Step::Delete(self.path(&key))],
            Call::SetMany { entries } => entries
                .into_iter()
                .map(|(key, value)| Step::Put(self.path(&key), value.0))
                .collect(),
            Call::DeleteMany { keys } => keys
                .iter()
                .map(|key| Step::Delete(self.path(key)))
                .collect(),
            Call::CompareAndSet {
                key,
                expected,
                value,
            } => vec![Step::CompareAndSet {
                key: self.path(&key),
                expected,
                value: value.map(|value| value.0),
            }],
            Call::Add { key, delta } => vec![Step::Add(self.path(&key), delta)],
            Call::Get { .. } | Call::Exists { .. } | Call::GetMany { .. } | Call::List { .. } => {
                Vec::new()
            }
        };
        Change {
            fence: store_fence(&self.grant),
            once,
            bounds: self.bounds.to_vec(),
            steps,
        }
    }

    fn read(&self, view: &View<'_>, call: &Call) -> Result<Answer, BucketError> {
        if let Some(fence) = &self.grant.fence
            && let Some(highest) = view
                .fenced(&fence.holder)
                .filter(|seen| *seen > fence.epoch)
        {
            let holder = fence.holder.clone();
            return Err(self.refused("", ChangeRefusal::Fenced { holder, highest }));
        }
        match call {
            Call::Get { key } => Ok(Answer::Value(view.get(&self.path(key)).map(value))),
            Call::Exists { key } => Ok(Answer::Exists(view.has(&self.path(key)))),
            Call::GetMany { keys } => self.read_many(view, keys),
            Call::List {
                prefix,
                after,
                limit,
            } => Ok(Answer::Keys(self.page(
                view,
                prefix,
                after.as_deref(),
                *limit,
            ))),
            _ => Err(BucketError::Invalid("this call does not read".to_owned())),
        }
    }

    fn read_many(&self, view: &View<'_>, keys: &[String]) -> Result<Answer, BucketError> {
        let (mut bytes, mut values) = (0, Vec::with_capacity(keys.len()));
        for key in keys {
            let found = view.get(&self.path(key)).map(value);
            bytes += found.as_ref().map_or(0, |found| found.bytes.0.len());
            if bytes > ANSWER_BYTES_MAX {
                return Err(BucketError::Invalid(format!(
                    "the values are longer than {ANSWER_BYTES_MAX} bytes; ask for fewer keys at once"
                )));
            }
            values.push(found);
        }
        Ok(Answer::Values(values))
    }

    fn page(&self, view: &View<'_>, prefix: &str, after: Option<&str>, limit: u32) -> KeyPage {
        let limit = usize::try_from(limit.clamp(1, PAGE_KEYS_MAX)).unwrap_or(1);
        let after = after.map(|after| self.path(after));
        let mut keys = view.keys(&self.path(prefix), after.as_deref(), limit + 1);
        let more = keys.len() > limit;
        keys.truncate(limit);
        KeyPage {
            keys: keys.into_iter().map(|key| self.own(&key)).collect(),
            more,
            revision: view.revision(),
        }
    }

    /// The key as its users know it.
    fn own(&self, path: &str) -> String {
        path.strip_prefix(&self.prefix).unwrap_or(path).to_owned()
    }

    fn told(&self, event: Event) -> Told {
        match event {
            Event::Put(entry) => Told::Set {
                key: self.own(&entry.key),
                value: value(entry),
            },
            Event::Deleted(key) => Told::Deleted {
                key: self.own(&key),
            },
        }
    }

    fn refused(&self, key: &str, refusal: ChangeRefusal) -> BucketError {
        match refusal {
            ChangeRefusal::Fenced { holder, highest } => BucketError::Fenced {
                holder,
                epoch: self
                    .grant
                    .fence
                    .as_ref()
                    .map_or(kernel::FencingEpoch(0), |fence| fence.epoch),
                highest,
            },
            ChangeRefusal::Full {
                prefix,
                used,
                wanted,
                bytes_max,
            } => BucketError::Quota {
                subject: self.named(&prefix),
                used: Bytes(used),
                wanted: Bytes(wanted),
                quota: Bytes(bytes_max),
            },
            ChangeRefusal::NotANumber { .. } => {
                BucketError::Invalid(format!("the value of `{key}` is no number"))
            }
            ChangeRefusal::Overflow { .. } => {
                BucketError::Invalid(format!("the number in `{key}` would leave its range"))
            }
            ChangeRefusal::Answered { .. } => BucketError::Unavailable {
                why: "the call came after it was given up".to_owned(),
                may_be_done: false,
            },
        }
    }
}
