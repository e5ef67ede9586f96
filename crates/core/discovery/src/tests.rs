//! The book of addresses, names and the policy, as their rules say.

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn scoped(text: &str) -> ScopedName {
    text.parse().expect("a name")
}

fn manifest(text: &str) -> Manifest {
    manifest::parse(text, &name("p")).expect("a manifest")
}

const NEWS: &str = r#"
project = { name = "news" }
[service.web]
run = { process = ["web"] }
bindings = { db = { to = "service/db" }, till = { to = "service/shop/till" }, safe = { to = "service/shop/safe" } }
[service.db]
run = { process = ["db"] }
port = 5432
[service.page]
run = { wasm = "page.wasm" }
bindings = { db = { to = "service/db" } }
[job.dump]
run = { process = ["dump"] }
bindings = { db = { to = "service/db" } }
"#;

const SHOP: &str = r#"
project = { name = "shop" }
[service.till]
run = { process = ["till"] }
allow_from = ["news/web"]
[service.safe]
run = { process = ["safe"] }
allow_from = ["news/db", "bank"]
"#;

fn allowed(news: &Manifest, shop: &Manifest, caller: &str) -> Vec<String> {
    let projects = Projects::from([(name("news"), news), (name("shop"), shop)]);
    let found = callees(&projects, &scoped(caller));
    found.keys().map(ToString::to_string).collect()
}

#[test]
fn who_may_call_whom_is_what_both_sides_say() {
    let (open, shop) = (manifest(NEWS), manifest(SHOP));
    let closed = NEWS.replace(
        "name = \"news\"",
        "name = \"news\", network = { default = \"deny\" }",
    );
    let closed = manifest(&closed);
    assert_eq!(
        allowed(&open, &shop, "news/web"),
        ["news/db", "news/page", "news/web", "shop/till"]
    );
    assert_eq!(
        allowed(&open, &shop, "news/db"),
        ["news/db", "news/page", "news/web"]
    );
    assert_eq!(
        allowed(&closed, &shop, "news/web"),
        ["news/db", "shop/till"]
    );
    assert!(allowed(&closed, &shop, "news/db").is_empty());
    // Wasm has its own way; a job reaches what it is bound to.
    assert!(allowed(&open, &shop, "news/page").is_empty());
    assert_eq!(allowed(&open, &shop, "news/dump"), ["news/db"]);
    assert_eq!(
        allowed(&open, &shop, "shop/till"),
        ["shop/safe", "shop/till"]
    );
    assert!(allowed(&open, &shop, "gone/web").is_empty());
}

#[test]
fn callers_that_may_call_alike_share_an_address_and_others_do_not() {
    let closed = NEWS.replace(
        "name = \"news\"",
        "name = \"news\", network = { default = \"deny\" }",
    );
    let (open, closed, shop) = (manifest(NEWS), manifest(&closed), manifest(SHOP));
    let here = ["news/web", "news/db", "news/page", "news/dump"].map(scoped);
    let here = BTreeSet::from(here);
    let of = |news, book: &mut Book| {
        let projects = Projects::from([(name("news"), news), (name("shop"), &shop)]);
        callers(&projects, &here, book)
    };
    let mut book = Book::new(1);
    let shown = of(&open, &mut book);
    let link = |shown: &Callers, from: &str, to: &str| {
        shown[&scoped(from)].links.get(&scoped(to)).copied()
    };
    let db = link(&shown, "news/web", "news/db").expect("a link");
    assert_eq!(db.address.port(), 5432);
    assert!(
        !db.requests
            && link(&shown, "news/web", "news/page")
                .expect("a link")
                .requests
    );
    assert_eq!(link(&shown, "news/db", "news/db"), Some(db));
    assert_ne!(link(&shown, "news/dump", "news/db"), Some(db));
    assert_ne!(
        shown[&scoped("news/web")].resolver,
        shown[&scoped("news/db")].resolver
    );
    assert_eq!(of(&open, &mut book), shown, "nothing moves");

    let shown = of(&closed, &mut book);
    assert!(!shown.contains_key(&scoped("news/db")));
    assert_ne!(
        link(&shown, "news/web", "news/db"),
        Some(db),
        "the shared one is nobody's now"
    );
    let variables = environment(&scoped("news/web"), &shown[&scoped("news/web")]);
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "HOMEOSTAT_DNS",
            "HOMEOSTAT_SERVICE_DB",
            "HOMEOSTAT_SERVICE_SHOP__TILL"
        ]
    );
}
