//! Every role at every endpoint of the API's document, with things of its own
//! project, of another one and of none, at the real router and store.

use super::{Document, Door, router};
use crate::auth::ROUTES;
use crate::shared::{Message, Settlement, Shared};
use crate::{apply, tokens};
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use http_body_util::BodyExt;
use kernel::{Name, Revision, UnixMillis};
use node::NodeEvent;
use node::desired::Applied;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tower::ServiceExt;
use utoipa::OpenApi;
use wire::api::Role;
use wire::layout::Layout;

/// How an endpoint treats a token of one project.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Not for it.
    Node,
    /// Only where the request names its project; else denied.
    Named,
    /// Another project's things are as unknown as none.
    Hidden,
    /// The answer holds nothing of others.
    Filtered,
}

/// What must hold, written apart from the table that the router is made of.
const EXPECTED: &[(&str, &str, Role, Kind)] = &[
    ("get", "/v1/status", Role::Viewer, Kind::Filtered),
    ("get", "/openapi.json", Role::Viewer, Kind::Filtered),
    ("get", "/v1/objects/{kind}", Role::Viewer, Kind::Filtered),
    (
        "get",
        "/v1/objects/{kind}/{name}",
        Role::Viewer,
        Kind::Hidden,
    ),
    ("get", "/v1/why/{kind}/{name}", Role::Viewer, Kind::Hidden),
    (
        "get",
        "/v1/why-not/{service}/{node}",
        Role::Viewer,
        Kind::Hidden,
    ),
    ("get", "/v1/logs/{service}", Role::Viewer, Kind::Hidden),
    ("post", "/v1/plan", Role::Operator, Kind::Named),
    ("post", "/v1/apply", Role::Operator, Kind::Named),
    (
        "post",
        "/v1/rollback/{project}",
        Role::Operator,
        Kind::Named,
    ),
    (
        "post",
        "/v1/restart/{service}",
        Role::Operator,
        Kind::Hidden,
    ),
    ("get", "/v1/rollouts/{service}", Role::Viewer, Kind::Hidden),
    (
        "post",
        "/v1/rollouts/{service}/pause",
        Role::Operator,
        Kind::Hidden,
    ),
    (
        "post",
        "/v1/rollouts/{service}/resume",
        Role::Operator,
        Kind::Hidden,
    ),
    (
        "post",
        "/v1/rollouts/{service}/promote",
        Role::Operator,
        Kind::Hidden,
    ),
    (
        "post",
        "/v1/rollouts/{service}/abort",
        Role::Operator,
        Kind::Hidden,
    ),
    ("post", "/v1/jobs/{job}/runs", Role::Operator, Kind::Hidden),
    (
        "post",
        "/v1/jobs/{job}/cancel",
        Role::Operator,
        Kind::Hidden,
    ),
    ("post", "/v1/certificates", Role::Admin, Kind::Node),
    ("post", "/v1/down", Role::Admin, Kind::Node),
    ("get", "/v1/secrets", Role::Viewer, Kind::Filtered),
    (
        "post",
        "/v1/secrets/{project}/{name}",
        Role::Operator,
        Kind::Named,
    ),
    (
        "delete",
        "/v1/secrets/{project}/{name}",
        Role::Operator,
        Kind::Named,
    ),
    ("get", "/v1/tokens", Role::Admin, Kind::Filtered),
    ("post", "/v1/tokens", Role::Admin, Kind::Named),
    ("delete", "/v1/tokens/{id}", Role::Admin, Kind::Hidden),
    ("get", "/v1/projects", Role::Viewer, Kind::Filtered),
    ("post", "/v1/projects/{project}", Role::Admin, Kind::Node),
    ("get", "/v1/store", Role::Viewer, Kind::Node),
    ("post", "/v1/store/backup", Role::Admin, Kind::Node),
    ("post", "/v1/store/force-leader", Role::Admin, Kind::Node),
    ("get", "/v1/seats", Role::Viewer, Kind::Node),
    ("get", "/v1/nodes", Role::Viewer, Kind::Node),
    ("get", "/v1/nodes/{node}", Role::Viewer, Kind::Node),
    ("post", "/v1/nodes/tokens", Role::Admin, Kind::Node),
    ("post", "/v1/nodes/{node}/revoke", Role::Admin, Kind::Node),
    ("post", "/v1/nodes/{node}/name", Role::Admin, Kind::Node),
    ("post", "/v1/nodes/{node}/drain", Role::Admin, Kind::Node),
    ("get", "/v1/nodes/{node}/upgrade", Role::Admin, Kind::Node),
    ("post", "/v1/nodes/{node}/upgrade", Role::Admin, Kind::Node),
    ("get", "/v1/without", Role::Viewer, Kind::Node),
    ("post", "/v1/nodes/{node}/zone", Role::Admin, Kind::Node),
    ("post", "/v1/zones/moves", Role::Admin, Kind::Node),
    ("post", "/v1/attributes", Role::Operator, Kind::Node),
    ("get", "/v1/zones", Role::Viewer, Kind::Node),
    ("post", "/v1/ask", Role::Viewer, Kind::Node),
    ("get", "/v1/aggregates", Role::Viewer, Kind::Node),
    ("post", "/v1/aggregates", Role::Admin, Kind::Node),
    ("delete", "/v1/aggregates/{name}", Role::Admin, Kind::Node),
    ("get", "/v1/alerts", Role::Viewer, Kind::Node),
    ("post", "/v1/alerts", Role::Admin, Kind::Node),
    ("delete", "/v1/alerts/{name}", Role::Admin, Kind::Node),
    ("post", "/v1/alerts/{name}/test", Role::Admin, Kind::Node),
    ("get", "/v1/audit", Role::Admin, Kind::Node),
    ("get", "/v1/audit/verify", Role::Admin, Kind::Node),
];
/// In answers and in the last line of those that go on.
const DENIED: &str = "\"code\":\"denied\"";
const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];

struct Bench {
    _home: tempfile::TempDir,
    shared: Arc<Shared>,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

impl Bench {
    /// Two projects of a service and a site each, and a service of the same name.
    async fn new() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(home.path());
        std::fs::create_dir_all(home.path().join("store")).expect("makes");
        let (messages, inbox) = mpsc::channel(64);
        let shared = crate::open(&layout, "/bin/true".into(), messages)
            .await
            .expect("opens");
        tokio::spawn(obey(Arc::clone(&shared), inbox));
        let bench = Self {
            _home: home,
            shared,
        };
        for project in ["own", "other"] {
            bench.apply(project).await;
        }
        bench
    }

    async fn apply(&self, project: &str) {
        let text = format!(
            "[project]\nname = \"{project}\"\n[service.{project}-api]\n\
             run = {{ process = [\"true\"] }}\nenvironment = {{ HINT = \"hidden-{project}\" }}\n\
             [service.same]\nrun = {{ process = [\"true\"] }}\n\
             [job.{project}-work]\nrun = {{ process = [\"true\"] }}\n\
             schedule = \"0 3 * * *\"\noverlap = \"allow\"\n\
             [site.{project}-site]\nroot = \"site\"\nhosts = [\"hidden-{project}.example\"]\n"
        );
        let manifest = manifest::parse(&text, &name(project)).expect("a manifest");
        let services = manifest.services.keys();
        let applied = Applied {
            number: 1,
            at_unix: UnixMillis(1),
            directory: "/nowhere".into(),
            trees: BTreeMap::from([(name(&format!("{project}-site")), kernel::Hash([7; 32]))]),
            programs: BTreeMap::new(),
            generations: services.map(|name| (name.clone(), Revision(1))).collect(),
            placements: BTreeMap::new(),
            epochs: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            origin: node::desired::FIRST_NODE,
            manifest,
        };
        apply::write_head_with(&self.shared, &applied, None, None, Vec::new())
            .await
            .expect("writes");
    }

    async fn token(&self, role: Role, project: Option<&str>) -> (String, String) {
        let made = tokens::create(
            &self.shared,
            role,
            project.map(name),
            Duration::from_mins(1),
        );
        let made = made.await.expect("a token");
        (made.id, made.token)
    }

    fn router(&self, door: Door) -> Router {
        router(Arc::clone(&self.shared), door)
    }

    async fn ask(&self, door: Door, asked: &Asked, token: Option<&str>) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(asked.method.to_uppercase().as_str())
            .uri(&asked.path)
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .body(Body::from(asked.body.to_string()))
            .expect("a request");
        let answer = self.router(door).oneshot(request).await.expect("answers");
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// A request to an endpoint for a thing of that project, or of none.
    async fn asked(&self, method: &'static str, path: &str, project: &str, kind: &str) -> Asked {
        let id = if path.contains("{id}") && project != "absent" {
            self.token(Role::Viewer, Some(project)).await.0
        } else {
            "absent00".to_owned()
        };
        // It is read, and then fails: nothing changes for the next request.
        let manifest = format!(
            "[project]\nname = \"{project}\"\n[site.x]\nroot = \"none\"\nhosts = [\"x.example\"]"
        );
        let body = match path {
            "/v1/plan" | "/v1/apply" => json!({ "manifest": manifest, "directory": "/nowhere" }),
            "/v1/certificates" => json!({ "chain_pem": "", "key_pem": "" }),
            "/v1/tokens" => json!({ "role": "viewer", "project": project }),
            "/v1/projects/{project}" => json!({ "trusted": true }),
            "/v1/nodes/tokens" => json!({ "zone": "/eu/1", "owner": "viewer" }),
            "/v1/ask" => json!({ "text": "SELECT COUNT(*)" }),
            "/v1/aggregates" => json!({ "name": "one", "text": "SELECT COUNT(*)" }),
            "/v1/alerts" => {
                json!({ "name": "one", "when": "COUNT(*) > 9", "command": ["/bin/true"] })
            }
            "/v1/attributes" => json!({ "set": { "rack": 7 } }),
            "/v1/store/force-leader" => json!({ "confirmed": true }),
            "/v1/nodes/{node}/drain" => json!({ "draining": true }),
            "/v1/nodes/{node}/upgrade" => json!({ "program": "/nowhere" }),
            "/v1/nodes/{node}/zone" => json!({ "zone": "/eu/2" }),
            "/v1/zones/moves" => json!({ "from": "/mars", "to": "/venus" }),
            "/v1/nodes/{node}/name" => json!({ "name": "another" }),
            _ => json!({ "value": "hidden-value" }),
        };
        let named = match path {
            "/v1/secrets/{project}/{name}" => "token".to_owned(),
            _ => format!("{project}-{}", if kind == "site" { "site" } else { "api" }),
        };
        let path = path
            .replace("{kind}", kind)
            .replace("{service}", &format!("{project}-api"))
            .replace("{job}", &format!("{project}-work"))
            .replace("{project}", project)
            .replace("{name}", &named)
            .replace("{node}", "nowhere")
            .replace("{id}", &id);
        Asked {
            method,
            path,
            body,
            names: [id, project.to_owned()],
        }
    }
}

#[derive(Debug)]
struct Asked {
    method: &'static str,
    path: String,
    body: Value,
    /// What the request itself says, and an answer may say again.
    names: [String; 2],
}

impl Asked {
    /// An answer without the words of the question.
    fn bare(&self, answer: &str) -> String {
        let [id, project] = &self.names;
        answer.replace(id, "ID").replace(project, "PROJECT")
    }
}

/// In the place of the loop that runs replicas: all it is told has happened.
async fn obey(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Message>) {
    while let Some(message) = inbox.recv().await {
        let settled = match message {
            Message::Node(NodeEvent::RestartRequested { service }) => Settlement::Restarted {
                service,
                failed: None,
            },
            Message::Down => Settlement::AllStopped,
            Message::Certificates(answer) => {
                let _ = answer.send(None);
                continue;
            }
            Message::Node(_) => continue,
        };
        let _ = shared.settlements.send(settled);
    }
}

fn endpoints() -> Vec<(String, String)> {
    let document = serde_json::to_value(Document::openapi()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut found = Vec::new();
    for (path, item) in paths {
        for method in item.as_object().expect("methods").keys() {
            found.push((method.clone(), path.clone()));
        }
    }
    found
}

#[test]
fn document_table_and_expectations_name_the_same_endpoints() {
    let mut documented = endpoints();
    let mut routed: Vec<(String, String)> = ROUTES
        .iter()
        .map(|route| {
            let method = format!("{:?}", route.method).to_lowercase();
            (method, route.path.to_owned())
        })
        .collect();
    let mut expected: Vec<(String, String)> = EXPECTED
        .iter()
        .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    for list in [&mut documented, &mut routed, &mut expected] {
        list.sort();
    }
    assert_eq!(documented, routed);
    assert_eq!(documented, expected);
}

/// What one asker with one role gets at one endpoint.
async fn cell(
    bench: &Bench,
    expected: &(&'static str, &str, Role, Kind),
    role: Role,
    scoped: bool,
) {
    let (method, path, least, kind) = *expected;
    let (_, token) = bench.token(role, scoped.then_some("own")).await;
    let kinds: &[&str] = if path.contains("{kind}") {
        &["service", "site", "job", "replica", "node", "revision"]
    } else {
        &["service"]
    };
    let door = Door::Port;
    for of in kinds {
        for project in ["own", "other", "absent"] {
            let asked = bench.asked(method, path, project, of).await;
            let (status, body) = bench.ask(door, &asked, Some(&token)).await;
            let what = format!("{role} scoped {scoped}: {asked:?} -> {status} {body}");
            if scoped {
                assert!(!body.contains("hidden-other"), "{what}");
            }
            let foreign = scoped && project != "own";
            if role < least || (scoped && kind == Kind::Node) || (foreign && kind == Kind::Named) {
                assert_eq!(status, StatusCode::FORBIDDEN, "{what}");
                assert!(body.contains(DENIED), "{what}");
                continue;
            }
            assert!(
                status != StatusCode::FORBIDDEN && status != StatusCode::UNAUTHORIZED,
                "{what}"
            );
            assert!(!body.contains(DENIED), "{what}");
            if foreign && kind == Kind::Hidden {
                assert_eq!(status, StatusCode::NOT_FOUND, "{what}");
                let absent = bench.asked(method, path, "absent", of).await;
                let (_, none) = bench.ask(door, &absent, Some(&token)).await;
                assert_eq!(asked.bare(&body), absent.bare(&none), "{what}");
            }
            if scoped && kind == Kind::Filtered {
                assert_eq!(status, StatusCode::OK, "{what}");
                assert!(
                    path == "/openapi.json" || !body.contains("other-"),
                    "{what}"
                );
            }
            // The test would say little if nothing were ever found.
            let there = project == "own" || (!scoped && project == "other");
            if kind == Kind::Hidden && there && matches!(*of, "service" | "site") {
                let found = path != "/v1/why/{kind}/{name}" || *of == "service";
                // It may be ended already.
                let found = found && path != "/v1/jobs/{job}/cancel";
                // Nothing is under way.
                let found = found && !path.starts_with("/v1/rollouts/");
                // No node has that name.
                let found = found && !path.starts_with("/v1/why-not/");
                assert!(!found || status == StatusCode::OK, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn every_role_gets_at_every_endpoint_what_the_table_says() {
    let bench = Bench::new().await;
    for expected in EXPECTED {
        for role in ROLES {
            for scoped in [false, true] {
                cell(&bench, expected, role, scoped).await;
            }
        }
    }
}

#[tokio::test]
async fn a_port_answers_nobody_without_a_token_and_the_socket_its_owner() {
    let bench = Bench::new().await;
    for (method, path, ..) in EXPECTED {
        let asked = bench.asked(method, path, "own", "service").await;
        let (status, body) = bench.ask(Door::Port, &asked, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{asked:?} {body}");
        let (status, body) = bench.ask(Door::Owner, &asked, None).await;
        assert!(!matches!(status.as_u16(), 401 | 403), "{asked:?} {body}");
    }
}

#[tokio::test]
async fn what_is_no_good_token_is_refused_on_the_socket_too() {
    let bench = Bench::new().await;
    let asked = bench.asked("get", "/v1/status", "own", "service").await;
    let (id, good) = bench.token(Role::Admin, None).await;
    let (_, other) = bench.token(Role::Admin, None).await;
    let (_, secret) = good.rsplit_once('_').expect("parts");
    let end = other.rsplit_once('_').expect("parts").1;
    let expired = tokens::create(&bench.shared, Role::Admin, None, Duration::from_millis(1));
    let expired = expired.await.expect("a token").token;
    let wrong = [
        String::new(),
        "hs_".to_owned(),
        id.clone(),
        secret.to_owned(),
        format!("hs_{id}_{end}"),
        format!("hs_{id}_"),
        format!("hs_00000000_{secret}"),
        good[..good.len() - 1].to_owned(),
        format!("{good}x"),
        good.to_uppercase(),
        format!("hs_../{secret}"),
    ];
    for door in [Door::Owner, Door::Port] {
        assert_eq!(bench.ask(door, &asked, Some(&good)).await.0, StatusCode::OK);
        for token in &wrong {
            let (status, body) = bench.ask(door, &asked, Some(token)).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{token} {body}");
            assert!(token.len() < 12 || !body.contains(token.as_str()), "{body}");
        }
    }
    loop {
        let (status, body) = bench.ask(Door::Owner, &asked, Some(&expired)).await;
        if status == StatusCode::UNAUTHORIZED {
            assert!(body.contains("expired at"), "{body}");
            break;
        }
    }
    tokens::revoke(&bench.shared, &id).await.expect("revokes");
    let (status, body) = bench.ask(Door::Owner, &asked, Some(&good)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "{body}");
}

#[tokio::test]
async fn a_name_that_two_projects_have_is_clear_to_each_and_not_to_who_sees_both() {
    let bench = Bench::new().await;
    let (_, scoped) = bench.token(Role::Operator, Some("own")).await;
    let (_, wide) = bench.token(Role::Operator, None).await;
    for (method, path) in [
        ("get", "/v1/objects/service/NAME"),
        ("get", "/v1/why/service/NAME"),
        ("get", "/v1/logs/NAME"),
        ("post", "/v1/restart/NAME"),
    ] {
        let ask = async |token: &str, name: &str| {
            let asked = Asked {
                method,
                path: path.replace("NAME", name),
                body: json!({}),
                names: [String::new(), String::new()],
            };
            bench.ask(Door::Port, &asked, Some(token)).await
        };
        for (token, name, wanted) in [
            (&scoped, "same", StatusCode::OK),
            (&scoped, "own%2Fsame", StatusCode::OK),
            (&scoped, "other%2Fsame", StatusCode::NOT_FOUND),
            (&wide, "same", StatusCode::CONFLICT),
            (&wide, "own%2Fsame", StatusCode::OK),
            (&wide, "other%2Fsame", StatusCode::OK),
        ] {
            let (status, body) = ask(token, name).await;
            assert_eq!(status, wanted, "{path} {name} {body}");
            let choices = "service/other/same, service/own/same";
            assert_eq!(status == StatusCode::CONFLICT, body.contains(choices));
        }
    }
}

#[tokio::test]
async fn a_route_of_another_project_is_refused_without_a_word_whose_it_is() {
    let bench = Bench::new().await;
    let (_, scoped) = bench.token(Role::Operator, Some("own")).await;
    let (_, wide) = bench.token(Role::Operator, None).await;
    let manifest = "[project]\nname = \"own\"\n[service.x]\nrun = { process = [\"true\"] }\n\
         routes = [{ host = \"hidden-other.example\", path = \"/\" }]";
    let asked = Asked {
        method: "post",
        path: "/v1/plan".to_owned(),
        body: json!({ "manifest": manifest, "directory": "/nowhere" }),
        names: [String::new(), String::new()],
    };
    let (status, body) = bench.ask(Door::Owner, &asked, Some(&scoped)).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(!body.contains("`other`"), "{body}");
    let (_, body) = bench.ask(Door::Owner, &asked, Some(&wide)).await;
    assert!(body.contains("`other`"), "{body}");
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_before_and_after_with_who_asked() {
    let bench = Bench::new().await;
    let (id, token) = bench.token(Role::Admin, None).await;
    let lines = async || bench.shared.audit.newest(1_000).await.expect("reads");
    for (method, path, ..) in EXPECTED {
        let before = lines().await.len();
        let asked = bench.asked(method, path, "own", "service").await;
        let (status, body) = bench.ask(Door::Owner, &asked, Some(&token)).await;
        let looks = ["/v1/plan", "/v1/ask"];
        let changes = *method != "get" && !looks.contains(path);
        // What cannot be a change: this certificate is none.
        let changes = changes && *path != "/v1/certificates";
        let added = lines().await.split_off(before);
        if !changes {
            assert!(added.is_empty(), "{asked:?} {added:?}");
            continue;
        }
        let [begun, ended] = added.as_slice() else {
            panic!("{asked:?} {status} {body}: {added:?}");
        };
        assert_eq!(begun.outcome, crate::audit::Outcome::Asked);
        assert_eq!((ended.change, &ended.object), (begun.number, &begun.object));
        let failed = !status.is_success() || body.contains("\"event\":\"failed\"");
        assert_eq!(ended.why.is_some(), failed, "{asked:?} {body} {ended:?}");
        for line in [begun, ended] {
            assert_eq!(line.who, format!("token/{id}"));
            let text = serde_json::to_string(line).expect("JSON");
            assert!(
                !text.contains("hidden-value") && !text.contains("hs_"),
                "{text}"
            );
        }
    }
    let verdict = bench.shared.audit.verify(&bench.shared.store).await;
    assert_eq!(verdict.expect("looks").fault, None);
}

#[tokio::test]
async fn what_cannot_be_logged_does_not_begin_unless_it_ends_something() {
    let bench = Bench::new().await;
    let audit = bench.shared.layout.audit();
    let _ = std::fs::remove_dir_all(&audit);
    std::fs::write(&audit, "in the way").expect("writes");
    let set = "/v1/secrets/{project}/{name}";
    let asked = bench.asked("post", set, "own", "service").await;
    let (status, body) = bench.ask(Door::Owner, &asked, None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body.contains("audit log"), "{body}");
    let kept = crate::secrets::list(&bench.shared).await.expect("lists");
    assert_eq!(kept, []);
    for path in ["/v1/restart/{service}", "/v1/tokens/{id}", "/v1/down"] {
        let method = if path.contains("tokens") {
            "delete"
        } else {
            "post"
        };
        let asked = bench.asked(method, path, "own", "service").await;
        let (status, body) = bench.ask(Door::Owner, &asked, None).await;
        assert_eq!(status, StatusCode::OK, "{asked:?} {body}");
    }
}
