//! Who may call whom.
//!
//! Holds: a project that denies lets its own call only what they are bound to;
//! nobody calls into another project without being bound to the service there
//! and named in its `allow_from`.

use crate::Projects;
use kernel::ScopedName;
use manifest::{BindingTarget, Reach, Run, Service};
use std::collections::BTreeMap;

/// A service that somebody may call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Callee<'a> {
    pub service: &'a Service,
    /// All services of the caller's project may.
    pub to_all: bool,
}

/// Whom a service or job may call; none for wasm, whose calls its host makes.
pub fn callees<'a>(
    projects: &Projects<'a>,
    caller: &ScopedName,
) -> BTreeMap<ScopedName, Callee<'a>> {
    let mut found = BTreeMap::new();
    let Some(own) = projects.get(&caller.project).copied() else {
        return found;
    };
    let service = own.services.get(&caller.name);
    let job = own.jobs.get(&caller.name);
    let bindings = match (service, job) {
        (
            Some(Service {
                run: Run::Process(_),
                bindings,
                ..
            }),
            _,
        ) => bindings,
        (None, Some(job)) => &job.bindings,
        _ => return found,
    };
    // A job is not placed ahead: that every node kept addresses for it, it must ask.
    let open = own.network == Reach::Allow && service.is_some();
    let scoped = |name| ScopedName::new(caller.project.clone(), name);
    if open {
        let all = own.services.iter().map(|(name, service)| {
            let to_all = true;
            (scoped(name.clone()), Callee { service, to_all })
        });
        found.extend(all);
    }
    for binding in bindings.values() {
        let (name, service) = match &binding.target {
            BindingTarget::Service(name) if !open => (scoped(name.clone()), own.services.get(name)),
            BindingTarget::Foreign(name) => {
                let project = projects.get(&name.project);
                let there = project.and_then(|project| project.services.get(&name.name));
                (
                    name.clone(),
                    there.filter(|service| admits(service, caller)),
                )
            }
            _ => continue,
        };
        let to_all = false;
        found.extend(service.map(|service| (name, Callee { service, to_all })));
    }
    found
}

/// Whether a service lets a caller of another project in.
pub fn admits(service: &Service, caller: &ScopedName) -> bool {
    let whole = caller.to_string();
    let mut named = service.allow_from.iter();
    named.any(|text| *text == whole || text == caller.project.as_str())
}
