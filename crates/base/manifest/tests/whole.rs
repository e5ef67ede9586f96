//! Good manifests, any text at all, and what is derived from the model.

use kernel::Name;
use manifest::{Action, Check, Manifest, diff, explain, parse, schema, suggest};
use proptest::prelude::*;

const GOOD: &str = include_str!("good.toml");

fn folder() -> Name {
    Name::new("folder").expect("a name")
}

fn good() -> Manifest {
    parse(GOOD, &folder()).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

#[test]
fn the_model_says_what_was_written() {
    let manifest = good();
    let search = &manifest.services[&Name::new("search").expect("a name")];
    let site = &manifest.sites[&Name::new("news").expect("a name")];
    assert_eq!((search.replicas, site.routes.len()), (2, 2));
    assert_eq!(site.goals.latency_p99_ms, Some(50.0));
    let liveness = search.probes.liveness.as_ref().expect("written");
    assert_eq!((&liveness.check, liveness.failures), (&Check::Tcp, 3));
}

#[test]
fn the_checked_model_reads_back_from_json() {
    let manifest = good();
    let json = serde_json::to_string(&manifest).expect("serializes");
    assert_eq!(
        serde_json::from_str::<Manifest>(&json).expect("reads back"),
        manifest
    );
}

#[test]
fn the_schema_names_every_key_and_refuses_others() {
    let schema = schema();
    let service = &schema["properties"]["service"]["additionalProperties"];
    assert_eq!(service["additionalProperties"], false);
    assert_eq!(service["properties"]["replicas"]["default"], 1);
    assert_eq!(service["properties"]["replicas"]["type"], "integer");
    let text = schema.to_string();
    assert!(
        !text.contains("null") && !text.contains("$ref") && !text.contains("anyOf"),
        "{text}"
    );
}

#[test]
fn every_field_of_the_schema_is_explained() {
    fn walk(path: &str, seen: &mut usize) {
        let explanation = explain(path).unwrap_or_else(|| panic!("`{path}` is known"));
        assert!(!explanation.description.is_empty(), "`{path}` has words");
        for field in &explanation.fields {
            let name = &field.name;
            assert!(
                !field.kind.is_empty() && !field.summary.is_empty(),
                "{path}.{name}"
            );
            *seen += 1;
            walk(format!("{path}.{name}").trim_start_matches('.'), seen);
        }
    }
    let mut seen = 0;
    walk("", &mut seen);
    assert!(seen > 50, "{seen}");
    let replicas = explain("service.replicas").expect("known");
    assert_eq!(replicas.kind, "a whole number, 1 to 1000");
    assert_eq!(replicas.default.as_deref(), Some("1"));
    assert_eq!(
        explain("service.search.replicas")
            .expect("known")
            .description,
        replicas.description
    );
}

#[test]
fn unknown_fields_are_answered_with_the_nearest() {
    assert_eq!(explain("service.replcas"), None);
    assert!(explain("service.search.environment.KEY").is_some());
    assert_eq!(suggest("service.replcas"), ["service.replicas"]);
    assert_eq!(suggest("servce.replicas"), ["service"]);
    assert_eq!(
        suggest("zzzzzz"),
        ["bucket", "job", "project", "service", "site"]
    );
}

#[test]
fn differences_are_told_by_object_and_field() {
    let old = good();
    assert_eq!(diff(Some(&old), &old), []);
    assert!(
        diff(None, &old)
            .iter()
            .all(|change| change.action == Action::Create)
    );
    let text = GOOD
        .replace("replicas = 2", "replicas = 3")
        .replace("256 MiB", "1 GiB")
        .replace("KEY = \"value\"", "KEY = \"secret\"")
        .replace("path = \"/search\"", "path = \"/find\"")
        .replace("probes.liveness", "# probes.liveness")
        .replace("[site.news]", "[site.new]")
        .replace("site/news", "site/new");
    let new = parse(&text, &folder()).expect("good");
    let told: Vec<String> = diff(Some(&old), &new)
        .iter()
        .map(|change| {
            let details = match change.action {
                Action::Update => format!("\n  {}", change.details.join("\n  ")),
                _ => String::new(),
            };
            format!("{} {}{details}", change.action, change.object)
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    create site/new
    remove site/news
    update service/search
      bindings.site.target.site: news -> new
      environment.KEY: changed
      limits.memory: 256 MiB -> 1 GiB
      probes.liveness.check: tcp -> unset
      probes.liveness.every: 2s -> unset
      probes.liveness.failures: 3 -> unset
      probes.liveness.successes: 1 -> unset
      probes.liveness.timeout: 1s -> unset
      replicas: 2 -> 3
      routes: news.localhost/search -> news.localhost/find
    update job/digest
      bindings.site.target.site: news -> new
    ");
}

fn holds(text: &str) {
    match parse(text, &folder()) {
        Ok(manifest) => {
            let json = serde_json::to_string(&manifest).expect("serializes");
            let back: Manifest = serde_json::from_str(&json).expect("reads back");
            assert_eq!(back, manifest);
            assert_eq!(diff(Some(&manifest), &back), []);
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            for mistake in mistakes {
                assert!(text.get(mistake.span.clone()).is_some(), "{mistake:?}");
                assert!(mistake.position(text).line >= 1);
            }
        }
    }
}

#[test]
fn every_truncation_is_good_or_has_a_place() {
    (0..=GOOD.len()).for_each(|end| holds(&GOOD[..end]));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn goals_and_limits_survive_the_store(
        cpu in 0.01..1024.0_f64,
        cost in 0.0..1e9_f64,
        percent in 0.001..99.99_f64,
        micros in 1..3_600_000_000_u64,
    ) {
        holds(&format!(
            "[service.a]\nrun.process = ['a']\nlimits.cpu = {cpu:?}\n\
             goals = {{ cost = {cost:?}, availability = '{percent}%', latency_p99 = '{micros}us' }}"
        ));
    }

    #[test]
    fn any_text_is_good_or_has_a_place(text: String) {
        holds(&text);
    }

    #[test]
    fn any_toml_like_text_is_good_or_has_a_place(
        text in "([\\[\\]{}=.,\"'# \n\r\\\\é]|site|service|root|run|a|1|-|inf|true){0,60}",
    ) {
        holds(&text);
    }

    #[test]
    fn mutated_manifests_are_good_or_have_a_place(
        edits in proptest::collection::vec(
            (0..GOOD.len(), 0..12_usize, "[\\[\\]{}=.,\"' \n0-9a-zé\u{feff}\0]{0,4}"),
            1..5,
        ),
    ) {
        let mut text = GOOD.to_owned();
        for (start, length, with) in edits {
            let start = text.floor_char_boundary(start);
            let end = text.floor_char_boundary(start + length);
            text.replace_range(start..end, &with);
        }
        holds(&text);
    }

    #[test]
    fn paths_never_panic(path: String) {
        let _ = explain(&path);
        let _ = suggest(&path);
    }
}
