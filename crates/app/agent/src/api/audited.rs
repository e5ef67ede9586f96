//! Changes between their two lines in the audit log; and the log's own routes.
//!
//! Holds: nothing changes whose beginning is not on disk, except what ends
//! something (a replica, a token, the node), which a full disk must not stop; no
//! change is answered as done whose end is not; a client that leaves neither
//! stops a change nor loses its end.

use super::guard::Caller;
use super::{Agent, Refused, json_lines};
use crate::apply::api_error;
use crate::audit::{Entry, Outcome, Told, Verdict};
use crate::auth::Act;
use crate::shared::Shared;
use axum::Json;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use std::sync::Arc;
use tokio::sync::{OwnedRwLockReadGuard, mpsc};
use wire::api::{ApiError, Progress};

/// A change that was asked for, and is in the log as that.
pub struct Change {
    shared: Arc<Shared>,
    told: Told,
    /// Also when the log cannot be written.
    goes_on: bool,
    /// The agent does not close its store before.
    _open: OwnedRwLockReadGuard<()>,
}

/// A full disk must not stop these.
fn ends_something(act: Act) -> bool {
    matches!(
        act,
        Act::Down | Act::Restart | Act::RolloutAbort | Act::TokenRevoke
    )
}

impl Caller {
    pub async fn change(&self, shared: &Arc<Shared>, object: String) -> Result<Change, Refused> {
        let mut told = Told {
            who: self.who.to_string(),
            act: self.act().to_string(),
            object,
            outcome: Outcome::Asked,
            change: 0,
            why: None,
        };
        let goes_on = ends_something(self.act());
        let open = Arc::clone(&shared.changes).read_owned().await;
        match shared.audit.append(&shared.store, told.clone()).await {
            Ok(number) => told.change = number,
            Err(error) if goes_on => {
                tracing::error!(
                    error = error.message,
                    act = told.act,
                    "not in the audit log"
                );
            }
            Err(error) => return Err(Refused(error)),
        }
        Ok(Change {
            shared: Arc::clone(shared),
            told,
            goes_on,
            _open: open,
        })
    }
}

impl Change {
    /// Does it in a task of its own.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, Refused> {
        let task = tokio::spawn(async move {
            let outcome = work.await;
            let why = outcome.as_ref().err().map(|error| error.code.clone());
            self.end(why).await.and(outcome)
        });
        task.await
            .map_err(|error| Refused(api_error("internal", error.to_string(), None)))?
            .map_err(Refused)
    }

    /// Passes on what the work reports; its last word only once it is logged.
    pub fn progress(self, work: impl FnOnce(mpsc::Sender<Progress>)) -> Response {
        let (report, mut reported) = mpsc::channel(256);
        let (lines, answer) = mpsc::channel(256);
        work(report);
        tokio::spawn(async move {
            let mut last = None;
            while let Some(progress) = reported.recv().await {
                match progress {
                    Progress::Done { .. } | Progress::Failed { .. } => last = Some(progress),
                    // Nobody may be there to read it any more.
                    other => drop(lines.send(other).await),
                }
            }
            let why = match &last {
                Some(Progress::Done { .. }) => None,
                Some(Progress::Failed { error }) => Some(error.code.clone()),
                _ => Some("internal".to_owned()),
            };
            let last = match (self.end(why).await, last) {
                (Err(error), Some(Progress::Done { .. })) => Some(Progress::Failed { error }),
                (_, last) => last,
            };
            if let Some(last) = last {
                let _ = lines.send(last).await;
            }
        });
        json_lines(answer)
    }

    async fn end(mut self, why: Option<String>) -> Result<(), ApiError> {
        self.told.outcome = if why.is_some() {
            Outcome::Failed
        } else {
            Outcome::Done
        };
        self.told.why = why;
        let told = self.told.clone();
        let written = self.shared.audit.append(&self.shared.store, told).await;
        match written {
            Ok(_) => Ok(()),
            Err(mut error) => {
                tracing::error!(
                    error = error.message,
                    act = self.told.act,
                    "not in the audit log"
                );
                let told = format!("it is done, but: {}", error.message);
                error.message = told;
                if self.goes_on { Ok(()) } else { Err(error) }
            }
        }
    }
}

#[derive(Deserialize)]
pub struct AuditQuery {
    #[serde(default = "usual_lines")]
    limit: usize,
}

fn usual_lines() -> usize {
    100
}

/// The newest lines, oldest first.
#[utoipa::path(get, path = "/v1/audit", params(("limit" = Option<usize>, Query)),
    responses((status = 200, body = Vec<Entry>)))]
pub async fn list(
    State(shared): Agent,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Vec<Entry>>, Refused> {
    let newest = shared.audit.newest(query.limit).await;
    newest.map(Json).map_err(|error| {
        let message = format!("the audit log cannot be read: {error}");
        Refused(api_error("storage", message, Some("homeostat doctor")))
    })
}

/// Looks through the whole log.
#[utoipa::path(get, path = "/v1/audit/verify", responses((status = 200, body = Verdict)))]
pub async fn verify(State(shared): Agent) -> Result<Json<Verdict>, Refused> {
    let verdict = shared.audit.verify(&shared.store).await;
    verdict.map(Json).map_err(Refused)
}
