//! Decides by what names and addresses services find each other on a node, and
//! who may call whom.
//!
//! In: manifests, and who runs here. Out: for each caller its resolver, the
//! services that it may call, and the address of each.
//! Holds: a caller has no address for what it may not call; an address stays
//! what it was for as long as it is wanted; no two have the same.
//! Never: opens a socket, or knows where a replica is.

mod book;
mod names;
mod policy;

pub use book::Book;
pub use names::{Found, PORT, RESOLVER_PORT, ZONE, domain, environment, find};
pub use policy::{Callee, admits, callees};

use kernel::{Name, ScopedName};
use manifest::{Manifest, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use wire::edge::{CallerView, Callers, LinkView};

/// All that is applied, by project.
pub type Projects<'a> = BTreeMap<Name, &'a Manifest>;

/// What each caller of this node is told.
///
/// * `here`: services and jobs that run on this node, or are about to.
pub fn callers(projects: &Projects<'_>, here: &BTreeSet<ScopedName>, book: &mut Book) -> Callers {
    let found: BTreeMap<&ScopedName, _> = here
        .iter()
        .map(|caller| (caller, callees(projects, caller)))
        .filter(|(_, callees)| !callees.is_empty())
        .collect();
    let resolvers = found.keys().map(|caller| resolver_key(caller));
    let links = found.iter().flat_map(|(caller, callees)| {
        let key = |(name, callee)| link_key(caller, name, callee);
        callees.iter().map(key)
    });
    let wanted = resolvers.chain(links).collect();
    book.keep(&wanted);
    let view = |(caller, callees): (&ScopedName, BTreeMap<ScopedName, Callee<'_>>)| {
        let resolver = book.address(&resolver_key(caller))?;
        let links = callees.iter().filter_map(|(name, callee)| {
            let address = book.address(&link_key(caller, name, callee))?;
            let port = callee.service.port.unwrap_or(PORT);
            let link = LinkView {
                address: at(address, port),
                requests: matches!(callee.service.run, Run::Wasm(_)),
            };
            Some((name.clone(), link))
        });
        let view = CallerView {
            resolver: at(resolver, RESOLVER_PORT),
            links: links.collect(),
        };
        Some((caller.clone(), view))
    };
    found.into_iter().filter_map(view).collect()
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

fn resolver_key(caller: &ScopedName) -> String {
    caller.to_string()
}

/// Those that all services of a project may call have one address for all.
fn link_key(caller: &ScopedName, name: &ScopedName, to: &Callee<'_>) -> String {
    if to.to_all {
        return format!("{}/*>{name}", caller.project);
    }
    format!("{caller}>{name}")
}

#[cfg(test)]
mod tests;
