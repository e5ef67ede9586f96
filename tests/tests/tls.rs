//! Certificates that a person gives the node.

use black_box::tls::{self, Authority, Issued};
use black_box::{Load, TestNode, kill, says, until};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

fn site(node: &TestNode) -> PathBuf {
    let directory = node.scratch().join("project");
    std::fs::create_dir_all(directory.join("site")).expect("a directory");
    std::fs::write(directory.join("site/index.html"), "one").expect("a page");
    let text = r#"[project]
name = "test"

[site.web]
root = "site"
hosts = ["localhost", "shop.example", "*.wide.example"]
"#;
    std::fs::write(directory.join("homeostat.toml"), text).expect("a manifest");
    directory
}

struct Files {
    chain: PathBuf,
    key: PathBuf,
}

fn write(node: &TestNode, name: &str, issued: &Issued) -> Files {
    let files = Files {
        chain: node.scratch().join(format!("{name}.pem")),
        key: node.scratch().join(format!("{name}.key")),
    };
    std::fs::write(&files.chain, &issued.chain).expect("writes");
    std::fs::write(&files.key, &issued.key).expect("writes");
    files
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn give(node: &TestNode, chain: &Path, key: &Path) -> Output {
    node.run(&["up", "--certificate", text(chain), "--key", text(key)])
}

/// This host is shown this certificate, by whom the client trusts.
fn shows(node: &TestNode, authority: &Authority, host: &str, issued: &Issued) -> bool {
    let (shown, answer) = tls::get(node, &authority.trusted(), host, "/").expect("accepted");
    answer.status == 200 && shown == issued.der()
}

#[test]
fn given_certificates_are_shown_for_their_hosts_and_renewed_without_a_restart() {
    let node = TestNode::new();
    let directory = site(&node);
    let authority = Authority::default();
    let shop = authority.issue(&["shop.example"], false);
    let wide = authority.issue(&["*.wide.example"], false);
    let files = write(&node, "shop", &shop);
    let (chain, key) = (text(&files.chain), text(&files.key));
    node.ok(&["up", text(&directory), "--certificate", chain, "--key", key]);
    let files = write(&node, "wide", &wide);
    assert!(give(&node, &files.chain, &files.key).status.success());
    assert!(shows(&node, &authority, "shop.example", &shop));
    assert!(shows(&node, &authority, "some.wide.example", &wide));
    // All others are the local authority's.
    let own = tls::trusting_node(&node);
    let (_, answer) = tls::get(&node, &own, "localhost", "/").expect("accepted");
    assert_eq!(answer.body, b"one");
    tls::get(&node, &own, "shop.example", "/").expect_err("not ours");

    let before = node.pids();
    let load = Load::of(node.http, "/");
    let renewed = authority.issue(&["shop.example"], false);
    let files = write(&node, "renewed", &renewed);
    assert!(give(&node, &files.chain, &files.key).status.success());
    assert!(shows(&node, &authority, "shop.example", &renewed));
    assert_eq!(node.pids(), before);
    let outcome = load.stop();
    assert!(outcome.good > 0 && outcome.bad.is_empty(), "{outcome:?}");

    // The files that were given are needed no more.
    for files in [&files.chain, &files.key] {
        std::fs::remove_file(files).expect("removes");
    }
    kill(before.1);
    until("another agent", || {
        node.run(&["get", "sites"]).status.success().then_some(())
    });
    assert!(shows(&node, &authority, "shop.example", &renewed));
    node.ok(&["down"]);
    node.ok(&["up"]);
    assert!(shows(&node, &authority, "shop.example", &renewed));
    assert!(shows(&node, &authority, "some.wide.example", &wide));
    for entry in std::fs::read_dir(node.layout.tls()).expect("lists") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
    }
}

#[test]
fn a_pair_that_does_not_fit_is_refused_before_anything_changes() {
    let node = TestNode::new();
    let directory = site(&node);
    let authority = Authority::default();
    let shop = authority.issue(&["shop.example"], false);
    let good = write(&node, "good", &shop);
    let other = write(&node, "other", &authority.issue(&["shop.example"], false));
    let page = directory.join("site/index.html");
    let missing = node.scratch().join("missing.pem");
    let cases: [(&Path, &Path, u8, &str); 4] = [
        (&other.chain, &good.key, 1, "another key"),
        (&page, &good.key, 1, "no certificate"),
        (&good.chain, &page, 1, "no private key"),
        (&missing, &good.key, 3, "missing.pem"),
    ];
    let refuse_all = || {
        for (chain, key, code, why) in cases {
            let refused = give(&node, chain, key);
            let said = says(&refused);
            assert_eq!(refused.status.code(), Some(i32::from(code)), "{said}");
            assert!(said.contains(why), "{said}, not {why}");
        }
    };
    refuse_all();
    assert!(!node.layout.root.exists(), "nothing was started");
    let alone = node.run(&["up", "--certificate", text(&good.chain)]);
    assert_eq!(alone.status.code(), Some(2));

    node.ok(&["up", text(&directory)]);
    assert!(give(&node, &good.chain, &good.key).status.success());
    refuse_all();
    assert!(shows(&node, &authority, "shop.example", &shop));
}

#[test]
fn an_expired_certificate_is_shown_with_a_warning() {
    let node = TestNode::new();
    node.ok(&["up", text(&site(&node))]);
    let issued = Authority::default().issue(&["shop.example"], true);
    let files = write(&node, "old", &issued);
    let given = give(&node, &files.chain, &files.key);
    let said = says(&given);
    assert!(given.status.success(), "{said}");
    assert!(
        said.contains("warning") && said.contains("2021-01-01"),
        "{said}"
    );
    let found = node.ok(&["doctor"]);
    assert!(
        found.contains("shop.example") && found.contains("2021-01-01"),
        "{found}"
    );
}
