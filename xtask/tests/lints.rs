//! What the committed lints and Clippy files refuse, shown on small crates.

use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace's root")
}

/// What Clippy says about one source, judged by the given file of ours.
fn verdict(clippy_file: &str, source: &str) -> (bool, String) {
    let home = tempfile::tempdir().expect("a directory");
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    let ours: toml::Table = read("Cargo.toml").parse().expect("our manifest");
    let mut lints = toml::Table::new();
    lints.insert("lints".into(), ours["workspace"]["lints"].clone());
    let manifest = format!("[package]\nname = \"small\"\nedition = \"2024\"\n[workspace]\n{lints}");
    std::fs::create_dir(home.path().join("src")).expect("a folder");
    std::fs::write(home.path().join("Cargo.toml"), manifest).expect("a file");
    std::fs::write(home.path().join("clippy.toml"), read(clippy_file)).expect("a file");
    std::fs::write(home.path().join("src/lib.rs"), source).expect("a file");
    let output = Command::new(env!("CARGO"))
        .args(["clippy", "--quiet", "--offline", "--color", "never"])
        .args(["--", "-D", "warnings"])
        .current_dir(home.path())
        .env("CARGO_TARGET_DIR", home.path().join("target"))
        .env_remove("CLIPPY_CONF_DIR")
        .env_remove("CARGO_MANIFEST_DIR")
        .output()
        .expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), said)
}

#[test]
fn pure_layers_refuse_clocks_threads_locks_files_and_unordered_maps() {
    let (passed, said) = verdict(
        "crates/core/clippy.toml",
        "//! Impure.\n\
         pub fn acts() {\n\
             let _ = std::time::Instant::now();\n\
             let _ = std::time::SystemTime::now();\n\
             std::thread::sleep(std::time::Duration::from_secs(1));\n\
             let _ = std::thread::spawn(|| ());\n\
             let _ = std::fs::read(\"a\");\n\
             let _ = std::env::var(\"A\");\n\
             let _: Option<std::collections::HashMap<u8, u8>> = None;\n\
             let _: Option<std::collections::HashSet<u8>> = None;\n\
             let _: Option<std::sync::Mutex<u8>> = None;\n\
             let _: Option<std::net::TcpStream> = None;\n\
         }\n",
    );
    assert!(!passed, "{said}");
    for banned in [
        "method `std::time::Instant::now`",
        "method `std::time::SystemTime::now`",
        "method `std::thread::sleep`",
        "method `std::thread::spawn`",
        "method `std::fs::read`",
        "method `std::env::var`",
        "type `std::collections::HashMap`",
        "type `std::collections::HashSet`",
        "type `std::sync::Mutex`",
        "type `std::net::TcpStream`",
    ] {
        assert!(
            said.contains(&format!("disallowed {banned}")),
            "{banned}: {said}"
        );
    }
    // A path that names nothing bans nothing.
    assert!(!said.contains("does not refer to"), "{said}");
}

#[test]
fn a_function_may_be_as_long_as_its_budget_and_no_longer() {
    let source = |lines: usize| {
        let body = "    let _ = 1;\n".repeat(lines);
        format!("//! Long.\n\n/// Long.\npub fn long() {{\n{body}}}\n")
    };
    for file in ["clippy.toml", "crates/core/clippy.toml"] {
        let (passed, said) = verdict(file, &source(70));
        assert!(passed, "{said}");
        let (passed, said) = verdict(file, &source(71));
        assert!(!passed && said.contains("(71/70)"), "{said}");
    }
}

#[test]
fn unwritten_code_unwraps_and_stray_output_are_refused() {
    for (line, lint) in [
        ("todo!()", "`todo`"),
        ("unimplemented!()", "`unimplemented`"),
        ("dbg!(());", "`dbg!`"),
        ("Some(1).unwrap();", "`unwrap()`"),
        ("println!(\"a\");", "`println!`"),
        ("eprintln!(\"a\");", "`eprintln!`"),
    ] {
        let source = format!("//! One line.\npub fn one() {{ {line} }}\n");
        let (passed, said) = verdict("clippy.toml", &source);
        assert!(!passed && said.contains(lint), "{line}: {said}");
    }
}
