//! What this node shows to clients over TLS, by the cluster's one authority.
//!
//! In: the hosts that its edge serves, the names of its admin port. Out:
//! certificates; on a node that was entrusted with the authority from that,
//! elsewhere asked for over the node's proven identity.
//! Holds: a private key stays on the node that made it; a new certificate is on
//! disk before it is shown; while nobody issues a node shows what it has.
//! Never: certifies for a node what the cluster does not serve; makes an
//! authority on a node that joined.

use super::observe;
use crate::shared::Shared;
use crate::tls::{self, Authority, Leaf, TlsError, write_private};
use kernel::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use wire::cluster::{ISSUE, IssueRequest, IssuedChain};
use wire::edge::CertificateView;

const LOOK: Duration = Duration::from_mins(5);
const RETRY: Duration = Duration::from_secs(1);
const CALL_MAX: Duration = Duration::from_secs(10);
/// Asked for again so long after: an authority that was made anew is followed
/// within a day.
const RENEW_AFTER: Duration = Duration::from_hours(24);

/// Where a certificate is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Sites,
    Admin,
}

impl Use {
    fn file(self) -> &'static str {
        match self {
            Self::Sites => "leaf.json",
            Self::Admin => "admin.json",
        }
    }
}

pub struct Certificates {
    directory: PathBuf,
    /// Where this node was entrusted with it.
    authority: OnceLock<Authority>,
    /// Elsewhere: what was issued last, and what is asked for.
    kept: Mutex<BTreeMap<Use, Leaf>>,
    wanted: watch::Sender<BTreeMap<Use, Vec<String>>>,
}

impl Certificates {
    /// * `has_authority`: whether this node has the cluster's authority, or makes it.
    pub fn open(directory: &Path, has_authority: bool) -> Result<Self, TlsError> {
        let mut kept = BTreeMap::new();
        let authority = if has_authority {
            OnceLock::from(Authority::open(directory)?)
        } else {
            fs::create_dir_all(directory).map_err(|source| TlsError::File {
                path: directory.to_owned(),
                source,
            })?;
            for of in [Use::Sites, Use::Admin] {
                let leaf = Leaf::read(&directory.join(of.file()));
                // One of this node's own, from before there was one authority,
                // is shown until another was issued.
                kept.extend(leaf.map(|leaf| (of, leaf)));
            }
            OnceLock::new()
        };
        Ok(Self {
            directory: directory.to_owned(),
            authority,
            kept: Mutex::new(kept),
            wanted: watch::Sender::default(),
        })
    }

    /// The certificate for `hosts` and this machine's own names. On a follower
    /// it is the last that was issued, and another is asked for if that does not
    /// fit; none before the first.
    pub fn show(
        &self,
        of: Use,
        hosts: &BTreeSet<String>,
    ) -> Result<Option<CertificateView>, TlsError> {
        if let Some(authority) = self.authority.get() {
            return match of {
                Use::Sites => authority.leaf(hosts).map(Some),
                Use::Admin => authority.passing_leaf(hosts.iter().cloned()).map(Some),
            };
        }
        let hosts = hosts.iter().filter(|host| *host != "*").cloned();
        let names = tls::names_with_own(hosts);
        self.wanted.send_if_modified(|wanted| {
            let news = wanted.get(&of) != Some(&names);
            wanted.insert(of, names);
            news
        });
        Ok(self.kept().get(&of).map(Leaf::view))
    }

    /// What clients are to trust; none on a follower before it was told.
    pub fn authority_pem(&self) -> Option<String> {
        fs::read_to_string(self.directory.join(tls::AUTHORITY)).ok()
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Use, Leaf>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self, of: Use, names: &[String]) -> Standing {
        match self.kept().get(&of) {
            Some(leaf) if leaf.issued && leaf.hosts == names => {
                let fresh = leaf.left() > tls::leaf_life().saturating_sub(RENEW_AFTER);
                if fresh { Standing::Fits } else { Standing::Old }
            }
            _ => Standing::Lacks,
        }
    }

    /// Keeps what was issued for the key that this node made.
    fn take(&self, of: Use, leaf: Leaf, authority_pem: &str) -> Result<(), TlsError> {
        let at = |name: &str| self.directory.join(name);
        let bytes = serde_json::to_vec(&leaf).unwrap_or_default();
        write_private(&at(of.file()), &bytes)?;
        let before = self.authority_pem();
        if before.as_deref() != Some(authority_pem) {
            if before.is_some() {
                tracing::warn!(
                    "the cluster has another authority than this node knew: clients must \
                     trust it anew (homeostat trust)"
                );
            }
            write_private(&at(tls::AUTHORITY), authority_pem.as_bytes())?;
        }
        let mut kept = self.kept();
        if self.authority.get().is_none() {
            // Of one of this node's own, which nothing uses any more.
            let _ = fs::remove_file(at(tls::AUTHORITY_KEY));
        }
        kept.insert(of, leaf);
        Ok(())
    }

    /// The authority's certificate and key, PEM, for a node that is to have them.
    pub fn entrusted(&self) -> Result<(String, String), TlsError> {
        let read = |name: &str| {
            let path = self.directory.join(name);
            fs::read_to_string(&path).map_err(|source| TlsError::File { path, source })
        };
        Ok((read(tls::AUTHORITY)?, read(tls::AUTHORITY_KEY)?))
    }

    /// Keeps the authority that another node has, and goes by it from now on.
    pub fn entrust(&self, authority_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        let at = |name: &str| self.directory.join(name);
        // Nobody takes the key away before it is gone by.
        let _kept = self.kept();
        write_private(&at(tls::AUTHORITY), authority_pem.as_bytes())?;
        write_private(&at(tls::AUTHORITY_KEY), key_pem.as_bytes())?;
        let authority = Authority::open(&self.directory)?;
        let _ = self.authority.set(authority);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Fits,
    /// Good, and to be renewed.
    Old,
    Lacks,
}

/// What a node may be certified for beside the cluster's hosts: its own name,
/// and where it says that it is reached.
pub fn own_names(shared: &Shared, node: NodeId) -> BTreeSet<String> {
    let cluster = &shared.cluster;
    let reports = cluster.reports.borrow();
    let said = reports.get(&node).and_then(|report| report.way.as_ref());
    let record = cluster.record(node);
    let written = record.as_ref().map(|record| &record.way);
    let ways = said.into_iter().chain(written);
    let addresses = ways.flat_map(|way| &way.addresses).map(SocketAddr::ip);
    let addresses = addresses.map(|ip: IpAddr| ip.to_canonical().to_string());
    let name = record.as_ref().map(|record| record.name.to_string());
    addresses.chain(name).collect()
}

/// The side that has the authority.
pub async fn issue(
    shared: &Shared,
    from: NodeId,
    request: &IssueRequest,
) -> Result<IssuedChain, String> {
    let certificates = &shared.certificates;
    let authority = certificates.authority.get();
    let authority = authority.ok_or("this node has no authority")?;
    let record = shared.cluster.record(from).ok_or("the node is not known")?;
    if !record.belongs() {
        return Err("the node was revoked".to_owned());
    }
    let desired = crate::apply::read_desired(&shared.store).await;
    let desired = desired.map_err(|error| error.to_string())?;
    let mut may = own_names(shared, from);
    let hosts = desired.hosts().filter(|host| host != "*");
    may.extend(tls::names_with_own(hosts));
    if let Some(name) = request.names.iter().find(|name| !may.contains(*name)) {
        return Err(format!(
            "`{name}` is no host of the cluster's, nor a name of that node"
        ));
    }
    let certified = authority.certify(request.names.clone(), &request.public_key);
    let (chain_pem, not_after_unix) = certified.map_err(|error| kernel::error_chain(&error))?;
    Ok(IssuedChain {
        chain_pem,
        not_after_unix,
        authority_pem: certificates.authority_pem().unwrap_or_default(),
    })
}

/// The side that has none; runs for ever.
pub async fn keep(shared: Arc<Shared>) {
    let mut wanted = shared.certificates.wanted.subscribe();
    loop {
        let mut wait = LOOK;
        let now = wanted.borrow_and_update().clone();
        for (of, names) in now {
            let standing = shared.certificates.standing(of, &names);
            if standing == Standing::Fits {
                continue;
            }
            match ask(&shared, of, names).await {
                Ok(()) => observe::publish(&shared).await,
                // What there is is good for weeks.
                Err(why) if standing == Standing::Old => {
                    tracing::debug!(?of, why, "not renewed yet");
                }
                Err(why) => {
                    tracing::warn!(?of, why, "no certificate for what is served now");
                    wait = RETRY;
                }
            }
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn ask(shared: &Shared, of: Use, names: Vec<String>) -> Result<(), String> {
    let leader = shared.cluster.lead_known().await.node();
    let leader = leader.ok_or("nobody is known to lead")?;
    let text = |error: TlsError| kernel::error_chain(&error);
    let key = tls::site_key().map_err(text)?;
    let request = IssueRequest {
        names,
        public_key: tls::public_point(&key),
    };
    let body = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
    let asked = shared
        .cluster
        .transport()
        .call(leader, ISSUE, body, CALL_MAX);
    let answer = asked.await.map_err(|error| match error {
        net::transport::CallError::Refused { error, .. } => {
            String::from_utf8_lossy(&error).into_owned()
        }
        other => other.to_string(),
    })?;
    let issued: IssuedChain = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    let key_pem = key.serialize_pem();
    // A pair that does not fit would take TLS away from this node's clients.
    crate::given::check(&issued.chain_pem, &key_pem).map_err(|error| error.to_string())?;
    let leaf = Leaf {
        hosts: request.names,
        not_after_unix: issued.not_after_unix,
        chain_pem: issued.chain_pem,
        key_pem,
        issued: true,
    };
    let (certificates, pem) = (&shared.certificates, issued.authority_pem);
    certificates.take(of, leaf, &pem).map_err(text)?;
    tracing::info!(?of, "certified by the cluster's authority");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What the holder answers, without the way there.
    fn certified(authority: &Authority, names: &[String]) -> Leaf {
        let key = tls::site_key().expect("a key");
        let signed = authority.certify(names.to_vec(), &tls::public_point(&key));
        let (chain_pem, not_after_unix) = signed.expect("certifies");
        Leaf {
            hosts: names.to_vec(),
            not_after_unix,
            chain_pem,
            key_pem: key.serialize_pem(),
            issued: true,
        }
    }

    #[test]
    fn a_follower_shows_what_it_was_issued_until_it_has_another() {
        let (here, there) = (tempfile::tempdir(), tempfile::tempdir());
        let (here, there) = (here.expect("a folder"), there.expect("a folder"));
        let holder = Certificates::open(there.path(), true).expect("opens");
        let follower = Certificates::open(here.path(), false).expect("opens");
        let wanted = hosts(&["a.example", "*"]);
        assert_eq!(follower.show(Use::Sites, &wanted).expect("none yet"), None);
        assert!(
            !here.path().join(tls::AUTHORITY).exists(),
            "it made its own"
        );

        let names = follower.wanted.borrow()[&Use::Sites].clone();
        assert_eq!(names, ["127.0.0.1", "::1", "a.example", "localhost"]);
        assert_eq!(follower.standing(Use::Sites, &names), Standing::Lacks);
        let authority = holder.authority.get().expect("the holder's");
        let leaf = certified(authority, &names);
        assert!(crate::given::check(&leaf.chain_pem, &leaf.key_pem).is_ok());
        let pem = holder.authority_pem().expect("the holder's");
        follower.take(Use::Sites, leaf, &pem).expect("keeps");
        assert_eq!(follower.standing(Use::Sites, &names), Standing::Fits);
        assert_eq!(follower.authority_pem(), holder.authority_pem());

        // Another host: what there is stays, after a restart too.
        let again = Certificates::open(here.path(), false).expect("opens");
        let shown = again.show(Use::Sites, &hosts(&["b.example"]));
        assert_eq!(shown.expect("shows").expect("one").hosts, names);
        let others = again.wanted.borrow()[&Use::Sites].clone();
        assert_eq!(again.standing(Use::Sites, &others), Standing::Lacks);
    }

    #[test]
    fn an_authority_of_a_followers_own_gives_way_once() {
        let (here, there) = (tempfile::tempdir(), tempfile::tempdir());
        let (here, there) = (here.expect("a folder"), there.expect("a folder"));
        let old = Certificates::open(here.path(), true).expect("opens");
        let mine = old.show(Use::Sites, &hosts(&[])).expect("shows");
        let follower = Certificates::open(here.path(), false).expect("opens");
        let names = tls::names_with_own([]);
        assert_eq!(follower.show(Use::Sites, &hosts(&[])).expect("shows"), mine);
        assert_eq!(follower.standing(Use::Sites, &names), Standing::Lacks);
        let holder = Certificates::open(there.path(), true).expect("opens");
        let leaf = certified(holder.authority.get().expect("there"), &names);
        let pem = holder.authority_pem().expect("there");
        follower.take(Use::Sites, leaf, &pem).expect("keeps");
        assert!(!here.path().join(tls::AUTHORITY_KEY).exists());
        assert_eq!(follower.authority_pem(), Some(pem));
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let holder = Certificates::open(folder.path(), true).expect("opens");
        let authority = holder.authority.get().expect("there");
        for key in [&b""[..], &[4; 64], &[2; 65], &[4; 1_000]] {
            assert!(authority.certify(tls::names_with_own([]), key).is_err());
        }
    }
}
