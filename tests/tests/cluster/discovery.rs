//! Services find each other by name and by address, wherever they run.

use super::members::until_voters;
use super::{good, join, text};
use black_box::callers::{project, until_repeated, variable};
use black_box::{TestNode, until};
use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// What `web` hears from an address.
fn call(node: &TestNode, called: &str, address: &str) -> String {
    let answer = good(node, &format!("/{called}/call?{address}"));
    String::from_utf8(answer.body).expect("UTF-8")
}

/// Asks as any resolver does: the code, and the address if there is one.
fn resolve(resolver: &str, name: &str) -> (u8, Option<Ipv4Addr>) {
    let mut question = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("short"));
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let resolver: SocketAddr = resolver.parse().expect("an address");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let wait = Duration::from_millis(500);
    socket.set_read_timeout(Some(wait)).expect("set");
    until("an answer", || {
        socket.send_to(&question, resolver).ok()?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        let answer = &answer[..length];
        // Of an answer of one address, that is its end.
        let address: [u8; 4] = answer[length - 4..].try_into().expect("four");
        let answers = u16::from_be_bytes([answer[6], answer[7]]);
        let address = (answers == 1).then(|| Ipv4Addr::from(address));
        Some((answer[3] & 0x0f, address))
    })
}

/// The node that runs a replica of the service, once it is ready.
fn runs_on(by: &TestNode, service: &str) -> String {
    until("it runs", || {
        let shown = by.run(&["get", "replicas", "-o", "json"]);
        let all: Vec<Value> = serde_json::from_slice(&shown.stdout).ok()?;
        let ready = all.iter().find(|one| {
            let name = one["name"].as_str().unwrap_or_default();
            name.contains(service) && one["state"] == "ready"
        });
        let text = ready?.to_string();
        let names = ["one", "two", "three"];
        let on = names
            .iter()
            .find(|name| text.contains(&format!("on {name}")))?;
        Some((*on).to_owned())
    })
}

#[test]
fn a_service_is_reached_by_name_and_by_address_wherever_it_runs_next() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, "two", &["--owner", "admin"]);
    let third = join(&first, "three", &["--owner", "admin"]);
    until_voters(&first, &["one", "two", "three"]);
    let nodes = [("one", &first), ("two", &second), ("three", &third)];
    let directory = project(&first, "shop", "", "replicas = 3", "");
    first.ok(&["apply", text(&directory)]);

    let there = runs_on(&first, "shop.db");
    let others = nodes.iter().filter(|it| it.0 != there);
    let others: Vec<&TestNode> = others.map(|it| it.1).collect();
    let asks = |node: &TestNode| {
        let address = variable(node, "shop", "HOMEOSTAT_SERVICE_DB");
        until_repeated(node, "shop", &address);
        let resolver = variable(node, "shop", "HOMEOSTAT_DNS");
        let (code, found) = resolve(&resolver, "db.shop.homeostat.internal");
        let found = found.expect("an address");
        assert_eq!((code, format!("{found}:5432")), (0, address.clone()));
        for (name, code) in [("no.shop.homeostat.internal", 3), ("example.com", 5)] {
            assert_eq!(resolve(&resolver, name), (code, None), "{name}");
        }
        address
    };
    let before: Vec<String> = others.iter().map(|node| asks(node)).collect();

    // Its node is lost: it runs elsewhere, and is where it was for those who call.
    let lost = nodes.iter().find(|it| it.0 == there).expect("known").1;
    lost.power_off();
    for (node, address) in others.iter().zip(&before) {
        until_repeated(node, "shop", address);
        assert_eq!(asks(node), *address);
    }
    // An edge that is replaced listens where the one before did.
    let (.., edge) = others[0].pids();
    black_box::kill(edge);
    until_repeated(others[0], "shop", &before[0]);
}

#[test]
fn who_denies_lets_its_services_call_only_what_they_are_bound_to() {
    let node = TestNode::new();
    node.ok(&["up"]);
    let deny = "network = { default = \"deny\" }";
    let bound = "bindings = { db = { to = \"service/db\" }, other = { to = \"service/open/db\" } }";
    let closed = project(&node, "closed", deny, "", "");
    let open = project(&node, "open", "", "", "allow_from = [\"bound\"]");
    let bound = project(&node, "bound", deny, bound, "");
    for directory in [&closed, &open, &bound] {
        node.ok(&["apply", text(directory)]);
    }
    // Bound to nothing, it is told of nothing.
    assert_eq!(variable(&node, "closed", "HOMEOSTAT_SERVICE_DB"), "");
    assert_eq!(variable(&node, "closed", "HOMEOSTAT_DNS"), "");
    // Of its own project it is told, of another one that allows it too.
    for (name, domain) in [
        ("HOMEOSTAT_SERVICE_DB", "db.bound.homeostat.internal"),
        ("HOMEOSTAT_SERVICE_OPEN__DB", "db.open.homeostat.internal"),
    ] {
        let address = variable(&node, "bound", name);
        until_repeated(&node, "bound", &address);
        let resolver = variable(&node, "bound", "HOMEOSTAT_DNS");
        let (_, found) = resolve(&resolver, domain);
        assert_eq!(format!("{}:5432", found.expect("an address")), address);
    }
    // What it is not bound to is not there for it.
    let resolver = variable(&node, "bound", "HOMEOSTAT_DNS");
    assert_eq!(
        resolve(&resolver, "web.bound.homeostat.internal"),
        (3, None)
    );
    let resolver = variable(&node, "open", "HOMEOSTAT_DNS");
    assert_eq!(resolve(&resolver, "db.bound.homeostat.internal"), (3, None));

    // The other project takes its word back: what was open closes.
    let address = variable(&node, "bound", "HOMEOSTAT_SERVICE_OPEN__DB");
    let manifest = open.join("homeostat.toml");
    let changed = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, changed.replace("allow_from", "# allow_from")).expect("a manifest");
    node.ok(&["apply", text(&open)]);
    until("it is refused", || {
        (call(&node, "bound", &address) == "failed: ConnectionRefused").then_some(())
    });
}
