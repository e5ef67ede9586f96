//! Whether the store still serves, for all who must know at once.
//!
//! Holds: the first fault stays; a clean end is no fault; whoever waits is woken
//! by either.

use node::store::StoreError;
use tokio::sync::watch;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Serving,
    ShutDown,
    Failed(String),
}

#[derive(Debug)]
pub struct Health(watch::Sender<Standing>);

impl Default for Health {
    fn default() -> Self {
        Self(watch::Sender::new(Standing::Serving))
    }
}

impl Health {
    pub fn fail(&self, reason: &str) {
        let first = self.0.send_if_modified(|standing| {
            let serving = *standing == Standing::Serving;
            if serving {
                *standing = Standing::Failed(reason.to_owned());
            }
            serving
        });
        if first {
            tracing::error!(reason, "the store has stopped");
        }
    }

    pub fn shut_down(&self) {
        self.0.send_if_modified(|standing| {
            let serving = *standing == Standing::Serving;
            if serving {
                *standing = Standing::ShutDown;
            }
            serving
        });
    }

    pub fn fault(&self) -> Option<String> {
        match &*self.0.borrow() {
            Standing::Failed(reason) => Some(reason.clone()),
            Standing::Serving | Standing::ShutDown => None,
        }
    }

    /// What a call is told, if the store has stopped.
    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.0.borrow() {
            Standing::Serving => Ok(()),
            Standing::ShutDown => Err(StoreError::Stopped("it was shut down".into())),
            Standing::Failed(reason) => Err(StoreError::Stopped(reason.clone())),
        }
    }

    /// Waits until the store has stopped.
    pub async fn ended(&self) -> StoreError {
        let mut standing = self.0.subscribe();
        let _ = standing.wait_for(|now| *now != Standing::Serving).await;
        self.check()
            .err()
            .unwrap_or_else(|| StoreError::Stopped("it was shut down".into()))
    }
}
