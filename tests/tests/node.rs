//! One node, from the outside: it serves, survives, explains.

use black_box::{TestNode, kill, until};
use std::fs;

const MANIFEST: &str = r#"
[project]
name = "paper"

[site.paper]
root = "site"

[service.echo]
run = { process = ["python3", "-u", "-m", "http.server", "--bind", "127.0.0.1"] }
routes = [{ path = "/echo" }]
"#;

fn site(node: &TestNode, manifest: &str) -> String {
    let directory = node.scratch().join("paper");
    fs::create_dir_all(directory.join("site")).expect("made");
    fs::write(directory.join("site/index.html"), "<h1>today</h1>").expect("written");
    fs::write(directory.join("homeostat.toml"), manifest).expect("written");
    directory.display().to_string()
}

fn static_manifest() -> &'static str {
    MANIFEST.split("[service").next().expect("the site's part")
}

#[test]
fn a_site_is_up_with_one_command_and_a_second_run_changes_nothing() {
    let node = TestNode::new();
    let paper = site(&node, static_manifest());
    let addresses = node.ok(&["up", &paper]);
    assert!(addresses.contains("http://localhost:"), "{addresses}");
    let answer = node.get("/").expect("served");
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, &b"<h1>today</h1>"[..])
    );
    let again = node.run(&["up", &paper]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing changed"));
    assert_eq!(node.run(&["plan", &paper]).status.code(), Some(0));
    fs::write(
        node.scratch().join("paper/site/index.html"),
        "<h1>tomorrow</h1>",
    )
    .expect("written");
    assert_eq!(node.run(&["plan", &paper]).status.code(), Some(8));
    node.ok(&["apply", &paper]);
    assert_eq!(node.get("/").expect("served").body, b"<h1>tomorrow</h1>");
    node.ok(&["rollback", "paper"]);
    assert_eq!(node.get("/").expect("served").body, b"<h1>today</h1>");
}

#[test]
fn killing_agent_edge_or_supervisor_leaves_the_site_served() {
    let node = TestNode::new();
    let paper = site(&node, static_manifest());
    node.ok(&["up", &paper]);
    let (supervisor, agent, edge) = node.pids();
    kill(agent);
    assert_eq!(node.get("/").expect("served without its agent").status, 200);
    until("a new agent", || {
        node.run(&["get", "sites"]).status.success().then_some(())
    });
    kill(edge);
    until("a new edge", || {
        node.get("/").ok().filter(|answer| answer.status == 200)
    });
    kill(supervisor);
    assert_eq!(
        node.get("/").expect("served without its supervisor").status,
        200
    );
    node.ok(&["up"]);
    let (new_supervisor, ..) = node.pids();
    assert_ne!(new_supervisor, supervisor);
    assert_eq!(node.get("/").expect("served").status, 200);
}

#[test]
fn a_manifest_with_mistakes_is_refused_whole_with_their_places() {
    let node = TestNode::new();
    let paper = site(&node, static_manifest());
    node.ok(&["up", &paper]);
    let wrong = static_manifest().replace("root =", "rot =");
    site(&node, &wrong);
    let output = node.run(&["apply", &paper]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("rot") && text.contains("root"), "{text}");
    assert_eq!(node.get("/").expect("still served").status, 200);
}

#[test]
fn a_port_in_use_is_named_with_the_next_step() {
    let node = TestNode::new();
    let _taken = std::net::TcpListener::bind(node.http).expect("taken");
    let output = node.run(&["up"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        text.contains(&node.http.to_string()) && text.contains("--http"),
        "{text}"
    );
}
