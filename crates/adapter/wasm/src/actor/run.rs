//! The one task that an actor is run by: who gets the next call, when it is put
//! away, woken, or started afresh.
//!
//! Holds: before each request the actor knows of every join and leave; what was
//! read from disk is gone from it before the actor's next call.

use super::ActorSpec;
use super::channels::Hub;
use super::error::{ActorError, WakeError};
use super::host::ActorModule;
use super::http::{ActorBody, answer, stream, stream_headers};
use super::imports::{Inside, OwnClock};
use super::instance::{Instance, Saved};
use super::keep::Keep;
use http::Response;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use wire::actor::{Call, Change, Reply, Request};

type Answer = Result<Response<ActorBody>, ActorError>;

pub(super) enum Ask {
    Request(Request, oneshot::Sender<Answer>),
    PutAway(oneshot::Sender<io::Result<bool>>),
    Stop(oneshot::Sender<io::Result<bool>>),
}

pub(super) struct Runner {
    module: ActorModule,
    spec: ActorSpec,
    environment: Arc<[String]>,
    hub: Arc<Hub>,
    keep: Option<Keep>,
    life: Life,
}

enum Life {
    /// The next request starts it.
    Absent,
    Awake(Box<Instance>),
    /// On disk.
    Away,
}

impl Runner {
    pub(super) fn new(module: ActorModule, spec: ActorSpec) -> io::Result<Self> {
        let keep = spec.state.as_deref();
        let keep = keep.map(|state| Keep::open(state, spec.seal.clone()));
        let keep = keep.transpose()?;
        let is_there = keep.as_ref().is_some_and(Keep::is_there);
        let environment = spec.environment.iter();
        let environment = environment.map(|(name, value)| format!("{name}={value}"));
        Ok(Self {
            environment: environment.collect(),
            hub: Hub::new(module.host.random()?, spec.subscribers_max),
            life: if is_there { Life::Away } else { Life::Absent },
            module,
            spec,
            keep,
        })
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(super) async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let hub = Arc::clone(&self.hub);
        loop {
            let may_leave = matches!(self.life, Life::Awake(_)) && self.keep.is_some();
            tokio::select! {
                biased;
                ask = asks.recv() => match ask {
                    None => break,
                    // Nobody waits for it any more, and it has not begun.
                    Some(Ask::Request(_, give)) if give.is_closed() => {}
                    Some(Ask::Request(request, give)) => {
                        let answer = self.request(request).await;
                        let _ = give.send(answer);
                    }
                    Some(Ask::PutAway(give)) => {
                        let _ = give.send(self.put_away().await);
                    }
                    Some(Ask::Stop(give)) => {
                        asks.close();
                        let _ = give.send(self.stop().await);
                        break;
                    }
                },
                () = hub.changed.notified() => self.news().await,
                () = tokio::time::sleep(self.spec.idle), if may_leave => {
                    let _ = self.put_away().await;
                }
            }
        }
        hub.close();
    }

    async fn request(&mut self, request: Request) -> Answer {
        self.tell().await?;
        let bytes = self.call(&Call::Request(request)).await?;
        match Reply::decode(&bytes)? {
            Reply::Answer {
                status,
                headers,
                body,
            } => answer(status, &headers, body),
            Reply::Subscribe { channel, headers } => {
                let headers = stream_headers(&headers)?;
                let events = self.hub.join(channel)?;
                // The client has its stream whatever the actor makes of it.
                let _ = self.tell().await;
                Ok(stream(headers, events))
            }
        }
    }

    /// Joins and leaves outside of requests: an actor that is gone is not
    /// started for them.
    async fn news(&mut self) {
        if !matches!(self.life, Life::Absent) {
            let _ = self.tell().await;
        }
    }

    /// Brings what the actor knows of its subscribers up to date.
    async fn tell(&mut self) -> Result<(), ActorError> {
        let mut told = self.awake().await?.told.clone();
        let there = self.hub.channels();
        let left: Vec<u64> = told
            .keys()
            .filter(|subscriber| !there.contains_key(subscriber))
            .copied()
            .collect();
        for subscriber in left {
            if let Some(channel) = told.remove(&subscriber) {
                let change = change(&told, subscriber, channel);
                self.tell_one(Call::Left(change), &told).await?;
            }
        }
        for (subscriber, channel) in there {
            if told.insert(subscriber, channel.clone()).is_none() {
                let change = change(&told, subscriber, channel);
                self.tell_one(Call::Joined(change), &told).await?;
            }
        }
        Ok(())
    }

    async fn tell_one(
        &mut self,
        call: Call,
        told: &BTreeMap<u64, String>,
    ) -> Result<(), ActorError> {
        self.awake().await?.told.clone_from(told);
        self.call(&call).await.map(drop)
    }

    async fn call(&mut self, call: &Call) -> Result<Vec<u8>, ActorError> {
        let called = self.awake().await?.handle(&call.encode()).await;
        if let Err(error) = &called
            && error.ends()
        {
            tracing::warn!(actor = self.spec.name, %error, "an actor was ended");
            self.life = Life::Absent;
        }
        called
    }

    async fn awake(&mut self) -> Result<&mut Instance, ActorError> {
        if matches!(self.life, Life::Away) {
            self.life = Life::Absent;
            match self.wake().await {
                Ok(instance) => self.life = Life::Awake(Box::new(instance)),
                Err(error) => self.refuse(&error).await,
            }
        }
        if matches!(self.life, Life::Absent) {
            let inside = self.inside(0);
            let started = Instance::fresh(&self.module, inside).await;
            let instance = started.inspect_err(|error| {
                tracing::warn!(actor = self.spec.name, %error, "an actor does not start");
            })?;
            self.life = Life::Awake(Box::new(instance));
        }
        match &mut self.life {
            Life::Awake(instance) => Ok(instance),
            Life::Absent | Life::Away => Err(ActorError::Stopped),
        }
    }

    fn inside(&self, clock_ns: u64) -> Inside {
        Inside {
            limits: self.spec.limits,
            exceeded: None,
            deadline: Instant::now(),
            output: Arc::clone(&self.spec.output),
            environment: Arc::clone(&self.environment),
            hub: Arc::clone(&self.hub),
            entropy: Arc::clone(&self.module.host.entropy),
            clock: OwnClock::from(clock_ns),
            buckets: self.spec.buckets.clone(),
            waited: Duration::ZERO,
        }
    }

    async fn wake(&mut self) -> Result<Instance, WakeError> {
        let saved = self.on_disk(Keep::read).await??;
        let state = &saved.0;
        if state.module != self.module.checked.hash {
            let found = state.module.short();
            return Err(WakeError::Module { found });
        }
        if state.abi != wire::actor::VERSION {
            return Err(WakeError::Abi { found: state.abi });
        }
        let inside = self.inside(state.monotonic_ns);
        let instance = Instance::woken(&self.module, inside, &saved).await?;
        self.on_disk(Keep::remove).await??;
        Ok(instance)
    }

    async fn refuse(&mut self, error: &WakeError) {
        let keep = self.keep.as_ref();
        let path = keep.map(Keep::path).unwrap_or_default();
        tracing::warn!(
            actor = self.spec.name,
            path = %path.display(),
            %error,
            "an actor starts afresh: what was put away is not taken"
        );
        if let Ok(Err(error)) = self.on_disk(Keep::refuse).await {
            tracing::warn!(actor = self.spec.name, %error, "it cannot be moved out of the way");
        }
    }

    async fn put_away(&mut self) -> io::Result<bool> {
        let Life::Awake(instance) = &mut self.life else {
            return Ok(false);
        };
        if self.keep.is_none() {
            return Ok(false);
        }
        let saved: Saved = instance.save(&self.module);
        let written = self.on_disk(move |keep| keep.write(&saved)).await;
        if let Err(error) = written.and_then(|written| written) {
            tracing::warn!(actor = self.spec.name, %error, "an actor cannot be put away");
            return Err(error);
        }
        self.life = Life::Away;
        Ok(true)
    }

    async fn stop(&mut self) -> io::Result<bool> {
        self.hub.close();
        // What it has never heard of, it need not hear the end of.
        if matches!(&self.life, Life::Awake(instance) if !instance.told.is_empty()) {
            let _ = self.tell().await;
        }
        self.put_away().await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Keep) -> T + Send + 'static,
    ) -> io::Result<T> {
        let keep = self.keep.clone();
        let keep = keep.ok_or_else(|| io::Error::other("it has no place"))?;
        let done = tokio::task::spawn_blocking(move || work(&keep)).await;
        done.map_err(io::Error::other)
    }
}

fn change(told: &BTreeMap<u64, String>, subscriber: u64, channel: String) -> Change {
    let subscribers = told.values().filter(|other| **other == channel).count();
    Change {
        subscribers: u32::try_from(subscribers).unwrap_or(u32::MAX),
        channel,
        subscriber,
    }
}
