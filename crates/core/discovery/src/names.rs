//! What a service is called: `NAME.PROJECT.homeostat.internal`, and in a
//! replica's environment.

use kernel::{Name, ScopedName};
use std::collections::BTreeMap;
use wire::edge::CallerView;

/// `internal` is set aside for names that no one else has.
pub const ZONE: &str = "homeostat.internal";
/// Of a service that states none.
pub const PORT: u16 = 7080;
/// No right is needed to listen there.
pub const RESOLVER_PORT: u16 = 7053;

const RESOLVER_VARIABLE: &str = "HOMEOSTAT_DNS";
const SERVICE_VARIABLE: &str = "HOMEOSTAT_SERVICE_";

pub fn domain(service: &ScopedName) -> String {
    format!("{}.{}.{ZONE}", service.name, service.project)
}

/// What a domain's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Service(ScopedName),
    /// There may be names below it.
    Project(Name),
    Zone,
    /// In the zone, but nothing can be called so.
    Nothing,
    /// Not ours to tell.
    Outside,
}

/// * `domain`: labels parted by dots, in any case, with or without a dot at its end.
pub fn find(domain: &str) -> Found {
    let lower = domain.to_ascii_lowercase();
    let lower = lower.strip_suffix('.').unwrap_or(&lower);
    if lower == ZONE {
        return Found::Zone;
    }
    let below = lower.strip_suffix(ZONE).and_then(|it| it.strip_suffix('.'));
    let Some(below) = below else {
        return Found::Outside;
    };
    let mut labels = below.split('.').map(Name::new);
    match (labels.next(), labels.next(), labels.next()) {
        (Some(Ok(project)), None, None) => Found::Project(project),
        (Some(Ok(name)), Some(Ok(project)), None) => Found::Service(ScopedName::new(project, name)),
        _ => Found::Nothing,
    }
}

/// What a caller's replicas find in their environment.
pub fn environment(caller: &ScopedName, view: &CallerView) -> BTreeMap<String, String> {
    let resolver = (RESOLVER_VARIABLE.to_owned(), view.resolver.to_string());
    // Last, the project's own: where two come to one text, they win.
    let (own, others): (Vec<_>, Vec<_>) = view
        .links
        .iter()
        .partition(|(name, _)| name.project == caller.project);
    let links = others.into_iter().chain(own);
    let links = links.map(|(name, link)| (variable(caller, name), link.address.to_string()));
    std::iter::once(resolver).chain(links).collect()
}

/// `HOMEOSTAT_SERVICE_DB`; of another project `HOMEOSTAT_SERVICE_SHOP__DB`.
fn variable(caller: &ScopedName, to: &ScopedName) -> String {
    let word = |name: &Name| name.as_str().to_ascii_uppercase().replace('-', "_");
    let name = word(&to.name);
    if to.project == caller.project {
        return format!("{SERVICE_VARIABLE}{name}");
    }
    format!("{SERVICE_VARIABLE}{}__{name}", word(&to.project))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scoped(text: &str) -> ScopedName {
        text.parse().expect("a name")
    }

    #[test]
    fn names_lead_back_to_what_they_were_made_of() {
        let db = scoped("news/my-db");
        assert_eq!(domain(&db), "my-db.news.homeostat.internal");
        for text in [
            "my-db.news.homeostat.internal",
            "MY-db.News.Homeostat.INTERNAL.",
        ] {
            assert_eq!(find(text), Found::Service(db.clone()));
        }
        assert_eq!(find("homeostat.internal."), Found::Zone);
        let project = Name::new("news").expect("a name");
        assert_eq!(find("news.homeostat.internal"), Found::Project(project));
        for text in [
            "a.b.c.homeostat.internal",
            "_x.news.homeostat.internal",
            ".homeostat.internal",
        ] {
            assert_eq!(find(text), Found::Nothing, "{text}");
        }
        for text in [
            "",
            ".",
            "internal",
            "nothomeostat.internal",
            "example.com",
            "homeostat.internal.example",
        ] {
            assert_eq!(find(text), Found::Outside, "{text}");
        }
    }

    #[test]
    fn variables_of_other_projects_say_whose_they_are() {
        let caller = scoped("news/web");
        assert_eq!(
            variable(&caller, &scoped("news/my-db")),
            "HOMEOSTAT_SERVICE_MY_DB"
        );
        assert_eq!(
            variable(&caller, &scoped("shop/db")),
            "HOMEOSTAT_SERVICE_SHOP__DB"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_find_panic(text: String) {
            let _ = find(&text);
        }
    }
}
