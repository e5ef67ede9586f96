//! Which modules can be actors, and what is said of the others.

use crate::bench::{Bench, ask, counting, module};
use wasm::ActorModuleError;

fn with(fields: &str) -> Vec<u8> {
    let handle = r#"(func (export "handle") (param i32 i32) (result i64) unreachable)"#;
    module(&format!("{handle} {fields}"))
}

#[tokio::test]
async fn what_is_no_core_module_is_refused_by_name() {
    let bench = Bench::new();
    let component = bench.refused(guests::PROBE);
    assert!(
        matches!(component, ActorModuleError::Component),
        "{component}"
    );
    let whole = counting("nop");
    for bytes in [&b""[..], b"text", &whole[..whole.len() / 2]] {
        let error = bench.refused(bytes);
        assert!(matches!(error, ActorModuleError::Invalid(_)), "{error}");
    }
}

#[tokio::test]
async fn an_import_that_nothing_provides_is_named_with_the_nearest_known() {
    let bench = Bench::new();
    let importing = |from: &str, name: &str, what: &str| {
        let text = format!(r#"(module (import "{from}" "{name}" {what}))"#);
        let error = bench.refused(&wat::parse_str(text).expect("a module"));
        (error.to_string(), error.hint())
    };
    let (said, hint) = importing("homeostat", "publsh", "(func)");
    assert!(said.contains("`homeostat.publsh`"), "{said}");
    let hint = hint.expect("a hint");
    assert!(hint.contains("`homeostat.publish`"), "{hint}");
    let (said, hint) = importing("env", "launch", "(func)");
    assert!(said.contains("`env.launch`"), "{said}");
    assert_eq!(hint, None);
    for what in ["(memory 1)", "(global (mut i32))", "(table 1 funcref)"] {
        let (said, _) = importing("env", "shared", what);
        assert!(said.contains("`env.shared`"), "{said}");
    }
    let (said, _) = importing("homeostat", "publish", "(func (param f32))");
    assert!(said.contains("publish"), "{said}");
}

#[tokio::test]
async fn what_an_actor_must_export_is_named() {
    let bench = Bench::new();
    let error = bench.refused(b"\0asm\x01\0\0\0");
    assert_eq!(error.to_string(), "the module does not export `memory`");
    let error = bench.refused(&module(""));
    assert_eq!(
        error.to_string(),
        "the module does not export `handle(i32, i32) -> i64`"
    );
    // The names are there, their types are others.
    let error = bench.refused(&module(r#"(func (export "handle"))"#));
    assert!(
        matches!(error, ActorModuleError::Export("handle(i32, i32) -> i64")),
        "{error}"
    );
}

#[tokio::test]
async fn state_that_no_checkpoint_holds_is_refused_by_name() {
    let bench = Bench::new();
    let table = "(table $t 1 funcref) (elem $e func $f) (func $f)";
    for (code, instruction) in [
        ("(table.set $t (i32.const 0) (ref.null func))", "table.set"),
        (
            "(drop (table.grow $t (ref.null func) (i32.const 1)))",
            "table.grow",
        ),
        (
            "(table.fill $t (i32.const 0) (ref.null func) (i32.const 1))",
            "table.fill",
        ),
        (
            "(table.copy $t $t (i32.const 0) (i32.const 0) (i32.const 0))",
            "table.copy",
        ),
        (
            "(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 1))",
            "table.init",
        ),
        ("(elem.drop $e)", "elem.drop"),
        ("(data.drop $d)", "data.drop"),
    ] {
        let error = bench.refused(&with(&format!(r#"{table} (data $d "a") (func {code})"#)));
        let expected =
            format!("function 10 uses `{instruction}`, which changes what no checkpoint holds");
        assert_eq!(error.to_string(), expected);
    }
    let error = bench.refused(&with("(global (mut funcref) (ref.null func))"));
    assert!(matches!(error, ActorModuleError::Reference(0)), "{error}");
    let error = bench.refused(&with("(memory $other 1)"));
    assert!(matches!(error, ActorModuleError::Invalid(_)), "{error}");
    let error = bench.refused(&with(r#"(export "homeostat:global:0" (func 0))"#));
    assert!(error.to_string().contains("homeostat:global:0"), "{error}");
}

#[tokio::test]
async fn compiled_modules_are_kept() {
    let bench = Bench::new();
    let module = counting("nop");
    let prepare = || bench.host.prepare(&bench.cache, &module);
    assert!(prepare().expect("compiles"));
    assert!(!prepare().expect("is kept"));
}

#[tokio::test]
async fn what_an_actor_logs_and_prints_is_taken() {
    let bench = Bench::new();
    let actor = bench.actor(&counting(
        "(i64.store (i32.const 512) (i64.const 0x0a7377656e))
        (i32.store (i32.const 600) (i32.const 512)) (i32.store (i32.const 604) (i32.const 5))
        (call $log (i32.const 1) (i32.const 512) (i32.const 4))
        (drop (call $write (i32.const 1) (i32.const 600) (i32.const 1) (i32.const 700)))
        (drop (call $write (i32.const 3) (i32.const 600) (i32.const 1) (i32.const 700)))",
    ));
    ask(&actor, "/b").await.expect("answers");
    assert_eq!(bench.said(), "warning: news\nnews\n");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_makes_it_panic(at: proptest::sample::Index, byte: u8) {
        let bench = Bench::new();
        let mut bytes = counting("nop");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = bench.host.prepare(&bench.cache, &bytes);
    }
}
