//! Decides who may do what on the admin API: the one place for it.
//!
//! In: who asks, which act, of whose project. Out: yes, or why not.
//! Holds: an act that is not in [`ROUTES`] has no route; a token never has more
//! rights than the socket it came on.
//! Never: reads a token, a clock or the store.

use kernel::Name;
use wire::api::Role;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The node's user, on the Unix socket.
    Owner,
    /// The user of another node, as far as the node table lets it.
    Node { name: Name, role: Role },
    Token {
        id: String,
        role: Role,
        /// `None`: all projects, and the node.
        project: Option<Name>,
    },
}

impl std::fmt::Display for Act {
    /// As the audit log names it: `secret-set`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, letter) in format!("{self:?}").char_indices() {
            if letter.is_uppercase() && index > 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", letter.to_ascii_lowercase())?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Owner => f.write_str("owner"),
            Self::Node { name, .. } => write!(f, "node/{name}"),
            Self::Token { id, .. } => write!(f, "token/{id}"),
        }
    }
}

impl Who {
    pub fn role(&self) -> Role {
        match self {
            Self::Owner => Role::Admin,
            Self::Node { role, .. } | Self::Token { role, .. } => *role,
        }
    }

    /// The only project they know of, if that is so.
    pub fn project(&self) -> Option<&Name> {
        match self {
            Self::Owner | Self::Node { .. } => None,
            Self::Token { project, .. } => project.as_ref(),
        }
    }
}

/// Whose things an act is on.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// Not known yet: whether it may be asked at all.
    Anyone,
    /// The node's, or all projects' together.
    Node,
    Project(&'a Name),
}

/// What can be asked, one for each route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Status,
    OpenApi,
    List,
    Show,
    Why,
    WhyNot,
    Logs,
    Plan,
    Apply,
    Rollback,
    Restart,
    RolloutShow,
    RolloutPause,
    RolloutResume,
    RolloutPromote,
    RolloutAbort,
    JobRun,
    JobCancel,
    Certificates,
    Down,
    SecretList,
    SecretSet,
    SecretRemove,
    TokenList,
    TokenCreate,
    TokenRevoke,
    AuditList,
    AuditVerify,
    ProjectList,
    ProjectSet,
    StoreStatus,
    StoreBackup,
    StoreForceLeader,
    SeatList,
    NodeList,
    NodeShow,
    JoinToken,
    NodeRevoke,
    NodeRename,
    NodeMove,
    NodeDrain,
    UpgradeShow,
    Upgrade,
    Without,
    ZoneMove,
    Publish,
    Zones,
    Ask,
    AggregateList,
    AggregateAdd,
    AggregateRemove,
    AlertList,
    AlertAdd,
    AlertRemove,
    AlertTest,
}

impl Act {
    /// Whether it is for the node that is asked; all others are for the
    /// leader. What is observed, each node sees for itself.
    pub fn is_local(self) -> bool {
        matches!(
            self,
            Self::Status
                | Self::OpenApi
                | Self::Certificates
                | Self::Down
                | Self::NodeList
                | Self::StoreStatus
                | Self::StoreForceLeader
                | Self::NodeShow
                | Self::UpgradeShow
                | Self::Upgrade
                | Self::Publish
                | Self::Zones
                | Self::Ask
                | Self::AggregateList
        )
    }
}

impl Act {
    /// Whether it only shows what runs, which each node knows of.
    pub fn is_look(self) -> bool {
        matches!(self, Self::List | Self::Show | Self::Why | Self::Logs)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Concerns the node: a project's token is no use for it.
    Node,
    /// Concerns one project, or answers with what the asker may see.
    Project,
}

#[derive(Debug)]
pub struct Route {
    pub act: Act,
    pub method: Method,
    pub path: &'static str,
    least: Role,
    scope: Scope,
}

const fn route(act: Act, method: Method, path: &'static str, least: Role, scope: Scope) -> Route {
    Route {
        act,
        method,
        path,
        least,
        scope,
    }
}

/// All there is.
pub const ROUTES: &[Route] = {
    use Method::{Delete, Get, Post};
    use Role::{Admin, Operator, Viewer};
    use Scope::{Node, Project};
    &[
        route(Act::Status, Get, "/v1/status", Viewer, Project),
        route(Act::OpenApi, Get, "/openapi.json", Viewer, Project),
        route(Act::List, Get, "/v1/objects/{kind}", Viewer, Project),
        route(Act::Show, Get, "/v1/objects/{kind}/{name}", Viewer, Project),
        route(Act::Why, Get, "/v1/why/{kind}/{name}", Viewer, Project),
        route(
            Act::WhyNot,
            Get,
            "/v1/why-not/{service}/{node}",
            Viewer,
            Project,
        ),
        route(Act::Logs, Get, "/v1/logs/{service}", Viewer, Project),
        route(Act::Plan, Post, "/v1/plan", Operator, Project),
        route(Act::Apply, Post, "/v1/apply", Operator, Project),
        route(
            Act::Rollback,
            Post,
            "/v1/rollback/{project}",
            Operator,
            Project,
        ),
        route(
            Act::Restart,
            Post,
            "/v1/restart/{service}",
            Operator,
            Project,
        ),
        route(
            Act::RolloutShow,
            Get,
            "/v1/rollouts/{service}",
            Viewer,
            Project,
        ),
        route(
            Act::RolloutPause,
            Post,
            "/v1/rollouts/{service}/pause",
            Operator,
            Project,
        ),
        route(
            Act::RolloutResume,
            Post,
            "/v1/rollouts/{service}/resume",
            Operator,
            Project,
        ),
        route(
            Act::RolloutPromote,
            Post,
            "/v1/rollouts/{service}/promote",
            Operator,
            Project,
        ),
        route(
            Act::RolloutAbort,
            Post,
            "/v1/rollouts/{service}/abort",
            Operator,
            Project,
        ),
        route(Act::JobRun, Post, "/v1/jobs/{job}/runs", Operator, Project),
        route(
            Act::JobCancel,
            Post,
            "/v1/jobs/{job}/cancel",
            Operator,
            Project,
        ),
        route(Act::Certificates, Post, "/v1/certificates", Admin, Node),
        route(Act::Down, Post, "/v1/down", Admin, Node),
        route(Act::SecretList, Get, "/v1/secrets", Viewer, Project),
        route(
            Act::SecretSet,
            Post,
            "/v1/secrets/{project}/{name}",
            Operator,
            Project,
        ),
        route(
            Act::SecretRemove,
            Delete,
            "/v1/secrets/{project}/{name}",
            Operator,
            Project,
        ),
        route(Act::TokenList, Get, "/v1/tokens", Admin, Project),
        route(Act::TokenCreate, Post, "/v1/tokens", Admin, Project),
        route(Act::TokenRevoke, Delete, "/v1/tokens/{id}", Admin, Project),
        route(Act::AuditList, Get, "/v1/audit", Admin, Node),
        route(Act::AuditVerify, Get, "/v1/audit/verify", Admin, Node),
        route(Act::ProjectList, Get, "/v1/projects", Viewer, Project),
        route(Act::ProjectSet, Post, "/v1/projects/{project}", Admin, Node),
        route(Act::StoreStatus, Get, "/v1/store", Viewer, Node),
        route(Act::StoreBackup, Post, "/v1/store/backup", Admin, Node),
        route(
            Act::StoreForceLeader,
            Post,
            "/v1/store/force-leader",
            Admin,
            Node,
        ),
        route(Act::SeatList, Get, "/v1/seats", Viewer, Node),
        route(Act::NodeList, Get, "/v1/nodes", Viewer, Node),
        route(Act::NodeShow, Get, "/v1/nodes/{node}", Viewer, Node),
        route(Act::JoinToken, Post, "/v1/nodes/tokens", Admin, Node),
        route(
            Act::NodeRevoke,
            Post,
            "/v1/nodes/{node}/revoke",
            Admin,
            Node,
        ),
        route(Act::NodeRename, Post, "/v1/nodes/{node}/name", Admin, Node),
        route(Act::NodeDrain, Post, "/v1/nodes/{node}/drain", Admin, Node),
        route(
            Act::UpgradeShow,
            Get,
            "/v1/nodes/{node}/upgrade",
            Admin,
            Node,
        ),
        route(Act::Upgrade, Post, "/v1/nodes/{node}/upgrade", Admin, Node),
        route(Act::Without, Get, "/v1/without", Viewer, Node),
        route(Act::NodeMove, Post, "/v1/nodes/{node}/zone", Admin, Node),
        route(Act::ZoneMove, Post, "/v1/zones/moves", Admin, Node),
        route(Act::Publish, Post, "/v1/attributes", Operator, Node),
        route(Act::Zones, Get, "/v1/zones", Viewer, Node),
        route(Act::Ask, Post, "/v1/ask", Viewer, Node),
        route(Act::AggregateList, Get, "/v1/aggregates", Viewer, Node),
        route(Act::AggregateAdd, Post, "/v1/aggregates", Admin, Node),
        route(
            Act::AggregateRemove,
            Delete,
            "/v1/aggregates/{name}",
            Admin,
            Node,
        ),
        route(Act::AlertList, Get, "/v1/alerts", Viewer, Node),
        route(Act::AlertAdd, Post, "/v1/alerts", Admin, Node),
        route(Act::AlertRemove, Delete, "/v1/alerts/{name}", Admin, Node),
        route(Act::AlertTest, Post, "/v1/alerts/{name}/test", Admin, Node),
    ]
};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    #[error("this needs the role {needs}; the token has {has}")]
    Role { needs: Role, has: Role },
    #[error("this concerns the whole node; the token is for project `{only}`")]
    Node { only: Name },
    #[error("the token is for project `{only}` only")]
    Project { only: Name },
    #[error("there is no such act")]
    Unknown,
}

impl Denied {
    /// What the reader can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Role { needs, .. } => {
                format!("ask an admin for: homeostat token create --role {needs}")
            }
            Self::Node { .. } | Self::Project { .. } => {
                "ask an admin for a token without, or with that, --project".to_owned()
            }
            Self::Unknown => "homeostat openapi".to_owned(),
        }
    }
}

pub fn authorize(who: &Who, act: Act, of: Of<'_>) -> Result<(), Denied> {
    let Some(route) = ROUTES.iter().find(|route| route.act == act) else {
        return Err(Denied::Unknown);
    };
    let (needs, has) = (route.least, who.role());
    if has < needs {
        return Err(Denied::Role { needs, has });
    }
    let Some(only) = who.project() else {
        return Ok(());
    };
    let only = only.clone();
    match (route.scope, of) {
        (Scope::Node, _) | (Scope::Project, Of::Node) => Err(Denied::Node { only }),
        (Scope::Project, Of::Project(project)) if *project != only => Err(Denied::Project { only }),
        (Scope::Project, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: Role, project: Option<&str>) -> Who {
        Who::Token {
            id: "t".to_owned(),
            role,
            project: project.map(|name| Name::new(name).expect("a name")),
        }
    }

    #[test]
    fn every_act_has_one_route_and_every_route_one_act() {
        for (index, one) in ROUTES.iter().enumerate() {
            for other in &ROUTES[index + 1..] {
                assert_ne!(one.act, other.act);
                assert!(one.method != other.method || one.path != other.path);
            }
        }
    }

    #[test]
    fn more_rights_never_mean_less() {
        let roles = [Role::Viewer, Role::Operator, Role::Admin];
        let own = Name::new("own").expect("a name");
        for route in ROUTES {
            for of in [Of::Anyone, Of::Node, Of::Project(&own)] {
                for pair in roles.windows(2) {
                    for project in [None, Some("own")] {
                        let less = authorize(&token(pair[0], project), route.act, of);
                        let more = authorize(&token(pair[1], project), route.act, of);
                        assert!(less.is_err() || more.is_ok(), "{route:?}");
                    }
                }
                for role in roles {
                    let narrow = authorize(&token(role, Some("own")), route.act, of);
                    let wide = authorize(&token(role, None), route.act, of);
                    assert!(narrow.is_err() || wide.is_ok(), "{route:?}");
                }
                assert_eq!(authorize(&Who::Owner, route.act, of), Ok(()));
            }
        }
    }

    #[test]
    fn a_projects_token_is_for_that_project_alone() {
        let (own, other) = (
            Name::new("own").expect("a name"),
            Name::new("other").expect("a name"),
        );
        for route in ROUTES {
            let who = token(Role::Admin, Some("own"));
            assert!(authorize(&who, route.act, Of::Project(&other)).is_err());
            assert!(authorize(&who, route.act, Of::Node).is_err());
            let mine = authorize(&who, route.act, Of::Project(&own));
            assert_eq!(mine.is_ok(), route.scope == Scope::Project, "{route:?}");
        }
    }
}
