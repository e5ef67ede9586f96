//! A project whose services call each other, and what they find.

use crate::{TestNode, program, until};
use std::path::PathBuf;

/// `web`, which asks and is asked by HTTP, and `db`, which speaks none.
///
/// # Panics
/// When the directory cannot be written.
pub fn project(node: &TestNode, called: &str, more: &str, web: &str, db: &str) -> PathBuf {
    let directory = node.scratch().join(called);
    std::fs::create_dir_all(&directory).expect("a directory");
    let service = program("black-box-service");
    let service = service.display();
    let manifest = format!(
        r#"[project]
name = "{called}"
{more}

[service.web]
run = {{ process = ["{service}"] }}
routes = [{{ host = "localhost", path = "/{called}" }}]
{web}

[service.web.probes]
readiness = {{ http = "/", every = "200ms" }}

[service.db]
run = {{ process = ["{service}"] }}
environment = {{ REPEAT = "1" }}
port = 5432
{db}

[service.db.probes]
readiness = {{ tcp = true, every = "200ms" }}
"#
    );
    std::fs::write(directory.join("homeostat.toml"), manifest).expect("a manifest");
    directory
}

/// What `web` finds in its environment.
///
/// # Panics
/// When it is not answered, within the time of [`until`].
pub fn variable(node: &TestNode, called: &str, name: &str) -> String {
    let path = format!("/{called}/environment?{name}");
    let answer = until("its environment", || {
        node.get(&path).ok().filter(|answer| answer.status == 200)
    });
    String::from_utf8(answer.body).expect("UTF-8")
}

/// Until `web` hears from `db` at an address.
///
/// # Panics
/// When it does not, within the time of [`until`].
pub fn until_repeated(node: &TestNode, called: &str, address: &str) {
    until("it is reached", || {
        let asked = node.get(&format!("/{called}/call?{address}")).ok()?;
        asked.body.starts_with(b"repeated").then_some(())
    });
}
