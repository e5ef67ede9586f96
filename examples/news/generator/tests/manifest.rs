//! The example's manifest says what the example is.

use kernel::Name;

#[test]
fn the_manifest_is_accepted_and_binds_search_to_the_site() {
    let project: Name = "fallback".parse().expect("a name");
    let text = include_str!("../../homeostat.toml");
    let news = manifest::parse(text, &project).expect("the example's manifest is right");
    assert_eq!(news.project.to_string(), "news");
    let search = news
        .services
        .iter()
        .find_map(|(name, service)| (name.as_str() == "search").then_some(service))
        .expect("the manifest has a service");
    assert_eq!(search.replicas, 2);
    assert_eq!(search.routes.len(), 3);
    assert!(search.probes.startup.is_some() && search.probes.liveness.is_some());
    let binding = search.bindings.values().next().expect("a binding");
    assert_eq!(binding.environment.as_deref(), Some("NEWS_SITE"));
    assert_eq!(binding.target.to_string(), "site/news");
    let site = news.sites.values().next().expect("the manifest has a site");
    assert_eq!(site.not_found.as_deref(), Some("404.html"));
}
