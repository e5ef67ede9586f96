//! Before each handler: who asks, and whether they may ask that at all.
//!
//! Holds: no route is without this; a token that is wrong is refused, also where
//! the socket alone would do.

use super::{Refused, forward};
use crate::apply::api_error;
use crate::auth::{Act, Denied, Of, Who, authorize};
use crate::cluster::group::{LEAD_MAX, Lead};
use crate::shared::Shared;
use crate::tokens;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use kernel::{Name, NodeId};
use std::sync::Arc;
use std::time::Duration;
use wire::api::Role;

/// Who looks is answered by what is known here, rather than late.
const LOOK_LEAD_MAX: Duration = Duration::from_millis(500);

/// Who asks for which act; handlers ask it about projects.
#[derive(Clone, Debug)]
pub struct Caller {
    pub who: Who,
    act: Act,
    door: Door,
}

impl Caller {
    pub fn act(&self) -> Act {
        self.act
    }

    /// Whether the paths it names are this machine's.
    pub fn is_local(&self) -> bool {
        self.door == Door::Owner
    }

    /// The node that passed it on.
    pub fn via(&self) -> Option<NodeId> {
        match self.door {
            Door::Node { id, .. } => Some(id),
            Door::Owner | Door::Port => None,
        }
    }

    pub fn may(&self, project: &Name) -> Result<(), Refused> {
        self.authorized(Of::Project(project))
    }

    pub fn may_node(&self) -> Result<(), Refused> {
        self.authorized(Of::Node)
    }

    fn authorized(&self, of: Of<'_>) -> Result<(), Refused> {
        authorize(&self.who, self.act, of).map_err(|denied| refused(&denied))
    }
}

fn refused(denied: &Denied) -> Refused {
    let help = denied.hint();
    Refused(api_error("denied", denied.to_string(), Some(&help)))
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let found = parts.extensions.get::<Self>().cloned();
        // Only a route that went around the table.
        found.ok_or_else(|| refused(&Denied::Unknown))
    }
}

/// How somebody without a token is taken, by where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The Unix socket, which only the node's user can use.
    Owner,
    /// Another node's agent: as far as its record lets it, or with a token.
    Node { id: NodeId, role: Role },
    /// A port: a token is needed.
    Port,
}

#[derive(Clone)]
struct Guarded {
    shared: Arc<Shared>,
    act: Act,
    door: Door,
}

/// A handler behind its guard.
pub fn guarded(
    shared: &Arc<Shared>,
    door: Door,
    act: Act,
    handler: MethodRouter<Arc<Shared>>,
) -> MethodRouter<Arc<Shared>> {
    let guarded = Guarded {
        shared: Arc::clone(shared),
        act,
        door,
    };
    handler.route_layer(axum::middleware::from_fn_with_state(guarded, guard))
}

async fn guard(State(guarded): State<Guarded>, mut request: Request, next: Next) -> Response {
    if !guarded.act.is_local() && !is_asked_by_leader(&guarded) {
        let patience = if guarded.act.is_look() {
            LOOK_LEAD_MAX
        } else {
            LEAD_MAX
        };
        match guarded.shared.cluster.lead_within(patience).await {
            Lead::Here => {}
            Lead::At(_) if is_passed_on(&guarded) => return nobody_leads(&guarded.shared),
            Lead::At(leader) => {
                let act = guarded.act;
                let is_local = guarded.door == Door::Owner;
                let passed = forward::pass_on(&guarded.shared, leader, (act, is_local), request);
                return tokio::select! {
                    passed = passed => {
                        passed.unwrap_or_else(|error| Refused(error).into_response())
                    }
                    () = guarded.shared.cluster.led_by_another(leader) => leader_lost(),
                };
            }
            // What this node knows is better than nothing.
            Lead::Unknown if guarded.act.is_look() => {}
            Lead::Unknown => return nobody_leads(&guarded.shared),
        }
    }
    let who = match who(&guarded, request.headers().clone()).await {
        Ok(who) => who,
        Err(refused) => return refused.into_response(),
    };
    let (act, door) = (guarded.act, guarded.door);
    if let Err(denied) = authorize(&who, act, Of::Anyone) {
        return refused(&denied).into_response();
    }
    request.extensions_mut().insert(Caller { who, act, door });
    next.run(request).await
}

/// What another node's agent asks for goes no further.
fn is_passed_on(guarded: &Guarded) -> bool {
    matches!(guarded.door, Door::Node { .. })
}

/// The leader asks each node for its part of an answer.
fn is_asked_by_leader(guarded: &Guarded) -> bool {
    let lead = guarded.shared.cluster.lead().node();
    matches!(guarded.door, Door::Node { id, .. } if lead == Some(id))
}

fn leader_lost() -> Response {
    let message = "the node that led was lost while it was asked, and another one leads: \
                   whether it was done is not known";
    Refused(api_error(
        "unreachable",
        message,
        Some("look, and ask again"),
    ))
    .into_response()
}

fn nobody_leads(shared: &Shared) -> Response {
    if let Some(url) = shared.control.kept_in() {
        let message = format!(
            "nobody leads, by what is known of {url}; what runs runs on, and nothing was changed"
        );
        let help = Some("homeostat store status; etcdctl endpoint status");
        return Refused(api_error("no_quorum", message, help)).into_response();
    }
    let message = "no majority of the nodes that keep the cluster's state can be reached; \
                   what runs runs on, and nothing was changed";
    let help =
        Some("homeostat store status; where they are lost for good: homeostat store force-leader");
    Refused(api_error("no_quorum", message, help)).into_response()
}

async fn who(guarded: &Guarded, headers: HeaderMap) -> Result<Who, Refused> {
    let without = || {
        let help = Some("set HOMEOSTAT_TOKEN, or give --token-file FILE");
        Refused(api_error("unauthenticated", "a token is needed here", help))
    };
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let token = match (given.next(), given.next(), guarded.door) {
        (None, _, Door::Owner) => return Ok(Who::Owner),
        (None, _, Door::Node { id, role }) => {
            let nodes = guarded.shared.cluster.nodes.borrow();
            let record = nodes.get(&id).ok_or_else(without)?;
            let name = record.name.clone();
            return Ok(Who::Node { name, role });
        }
        (Some(only), None, _) => only
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim()),
        _ => None,
    };
    let token = token.ok_or_else(without)?;
    tokens::check(&guarded.shared, token).await.map_err(Refused)
}
