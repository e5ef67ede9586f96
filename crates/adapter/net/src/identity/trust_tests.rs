//! Certificates of other clusters, times, kinds, nodes, zones and keys.

use super::*;
use crate::identity::{Authority, NodeKey};
use std::collections::BTreeMap;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR: u64 = 3_600_000;

#[expect(clippy::unnecessary_wraps, reason = "a table that knows everybody")]
fn any(_: &Identity) -> Result<(), Refusal> {
    Ok(())
}

fn trust_at(authority: &Authority, now: u64) -> Trust {
    let clock: Clock = Arc::new(move || UnixMillis(now));
    Trust::new(authority.root(), Arc::new(any), clock, Duration::ZERO)
}

fn authority() -> Authority {
    Authority::create(NOW).expect("an authority").0
}

fn chain(
    authority: &Authority,
    kind: Kind,
    node: u64,
    now: UnixMillis,
) -> Vec<CertificateDer<'static>> {
    let key = NodeKey::generate().expect("a key").public();
    let zone = "/eu/1".parse().expect("a zone");
    let identity = authority.identity(kind, NodeId(node), zone, &key);
    let issued = authority.issue(&identity, &key, now).expect("issues");
    issued.chain.into_iter().map(CertificateDer::from).collect()
}

fn agent(node: Option<u64>) -> Requirement {
    Requirement {
        kind: Kind::Agent,
        node: node.map(NodeId),
    }
}

fn judged(
    trust: &Trust,
    chain: &[CertificateDer<'_>],
    wanted: Requirement,
) -> Result<NodeId, Refusal> {
    let view = trust.verify(chain, wanted, Usage::Client)?;
    assert_eq!(
        trust.verify(chain, wanted, Usage::Server).as_ref(),
        Ok(&view)
    );
    Ok(view.identity.node)
}

#[test]
fn a_node_of_the_cluster_is_known() {
    let authority = authority();
    let chain = chain(&authority, Kind::Agent, 1, NOW);
    let trust = trust_at(&authority, NOW.0);
    assert_eq!(judged(&trust, &chain, agent(None)), Ok(NodeId(1)));
    assert_eq!(judged(&trust, &chain, agent(Some(1))), Ok(NodeId(1)));
    assert_eq!(judged(&trust, &chain, agent(Some(2))), Err(Refusal::Node));
}

#[test]
fn another_clusters_certificate_is_refused_even_when_it_names_ours() {
    let (ours, theirs) = (authority(), authority());
    let trust = trust_at(&ours, NOW.0);
    let foreign = chain(&theirs, Kind::Agent, 1, NOW);
    assert_eq!(judged(&trust, &foreign, agent(None)), Err(Refusal::Chain));

    // Their authority, with our cluster in the name and our intermediate shown.
    let mut mixed = foreign.clone();
    mixed.truncate(1);
    mixed.push(chain(&ours, Kind::Agent, 1, NOW)[1].clone());
    assert_eq!(judged(&trust, &mixed, agent(None)), Err(Refusal::Chain));
    // Their root beside it changes nothing.
    let mut rooted = foreign;
    rooted.push(CertificateDer::from(theirs.root().to_vec()));
    assert_eq!(judged(&trust, &rooted, agent(None)), Err(Refusal::Chain));
}

#[test]
fn an_edge_never_stands_in_for_an_agent_nor_an_agent_for_an_edge() {
    let authority = authority();
    let trust = trust_at(&authority, NOW.0);
    let edge = chain(&authority, Kind::Edge, 1, NOW);
    assert_eq!(judged(&trust, &edge, agent(Some(1))), Err(Refusal::Kind));
    let wants_edge = Requirement {
        kind: Kind::Edge,
        node: None,
    };
    assert_eq!(judged(&trust, &edge, wants_edge), Ok(NodeId(1)));
    let own = chain(&authority, Kind::Agent, 1, NOW);
    assert_eq!(judged(&trust, &own, wants_edge), Err(Refusal::Kind));
}

#[test]
fn a_node_certificate_signs_no_other() {
    let authority = authority();
    let key = NodeKey::generate().expect("a key");
    let holder = authority.identity(
        Kind::Edge,
        NodeId(1),
        "/eu".parse().expect("a zone"),
        &key.public(),
    );
    let issued = authority
        .issue(&holder, &key.public(), NOW)
        .expect("issues");

    let pair = rcgen::KeyPair::try_from(key.to_pkcs8().as_slice()).expect("a pair");
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, holder.to_string());
    let above = rcgen::Issuer::new(params, pair);
    let forged = NodeKey::generate().expect("a key").public();
    let name = authority.identity(
        Kind::Agent,
        NodeId(2),
        "/eu".parse().expect("a zone"),
        &forged,
    );
    let mut params = rcgen::CertificateParams::default();
    let uri = name.to_uri();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.as_str().try_into().expect("ascii"))];
    let leaf = params.signed_by(&forged, &above).expect("signs");

    let mut chain = vec![leaf.der().clone()];
    chain.extend(issued.chain.into_iter().map(CertificateDer::from));
    let trust = trust_at(&authority, NOW.0);
    assert_eq!(judged(&trust, &chain, agent(None)), Err(Refusal::Chain));
}

#[test]
fn clocks_two_hours_behind_harm_nobody_and_tolerance_widens_both_ends() {
    let authority = authority();
    let chain = chain(&authority, Kind::Agent, 1, NOW);
    let at = |now| judged(&trust_at(&authority, now), &chain, agent(None));
    assert_eq!(at(NOW.0 - HOUR), Ok(NodeId(1)));
    assert_eq!(at(NOW.0 - 2 * HOUR), Ok(NodeId(1)));
    assert_eq!(at(NOW.0 - 2 * HOUR - 1), Err(Refusal::NotYetValid));
    assert_eq!(at(NOW.0 + 24 * HOUR), Ok(NodeId(1)));
    assert_eq!(at(NOW.0 + 24 * HOUR + 1), Err(Refusal::Expired));
    let tolerant = |now: u64| {
        let clock: Clock = Arc::new(move || UnixMillis(now));
        let minute = Duration::from_mins(1);
        let trust = Trust::new(authority.root(), Arc::new(any), clock, minute);
        judged(&trust, &chain, agent(None))
    };
    assert_eq!(tolerant(NOW.0 - 2 * HOUR - 60_000), Ok(NodeId(1)));
    assert_eq!(tolerant(NOW.0 + 24 * HOUR + 60_000), Ok(NodeId(1)));
    assert_eq!(tolerant(NOW.0 + 24 * HOUR + 60_001), Err(Refusal::Expired));
}

#[test]
fn without_a_quorum_an_ended_certificate_lives_seven_days_more_unless_revoked() {
    let authority = authority();
    let chain = chain(&authority, Kind::Agent, 1, NOW);
    let end = NOW.0 + 24 * HOUR;
    let trust = trust_at(&authority, end + 7 * 24 * HOUR);
    assert_eq!(judged(&trust, &chain, agent(None)), Err(Refusal::Expired));
    trust.set_no_quorum(true);
    assert_eq!(judged(&trust, &chain, agent(None)), Ok(NodeId(1)));
    trust.set_no_quorum(false);
    assert_eq!(judged(&trust, &chain, agent(None)), Err(Refusal::Expired));
    let later = trust_at(&authority, end + 7 * 24 * HOUR + 1);
    later.set_no_quorum(true);
    assert_eq!(judged(&later, &chain, agent(None)), Err(Refusal::Expired));

    let revoked = |_: &Identity| Err(Refusal::Revoked);
    let clock: Clock = Arc::new(move || UnixMillis(end + 1));
    let trust = Trust::new(authority.root(), Arc::new(revoked), clock, Duration::ZERO);
    trust.set_no_quorum(true);
    assert_eq!(judged(&trust, &chain, agent(None)), Err(Refusal::Revoked));
}

#[test]
fn the_node_table_refuses_another_zone_another_key_and_one_key_under_two_names() {
    let authority = authority();
    let first = NodeKey::generate().expect("a key").public();
    let second = NodeKey::generate().expect("a key").public();
    let zone: kernel::ZonePath = "/eu/1".parse().expect("a zone");
    let table = BTreeMap::from([(NodeId(1), (first.fingerprint(), zone.clone()))]);
    let authorise = move |identity: &Identity| match table.get(&identity.node) {
        None => Err(Refusal::Unknown),
        Some((key, _)) if *key != identity.key => Err(Refusal::OtherKey),
        Some((_, zone)) if *zone != identity.zone => Err(Refusal::OtherZone),
        Some(_) => Ok(()),
    };
    let clock: Clock = Arc::new(|| NOW);
    let trust = Trust::new(authority.root(), Arc::new(authorise), clock, Duration::ZERO);
    let judge = |node, zone: &kernel::ZonePath, key| {
        let identity = authority.identity(Kind::Agent, NodeId(node), zone.clone(), key);
        let issued = authority.issue(&identity, key, NOW).expect("issues");
        let chain: Vec<_> = issued.chain.into_iter().map(CertificateDer::from).collect();
        judged(&trust, &chain, agent(None))
    };
    assert_eq!(judge(1, &zone, &first), Ok(NodeId(1)));
    assert_eq!(judge(1, &zone, &second), Err(Refusal::OtherKey));
    assert_eq!(judge(2, &zone, &first), Err(Refusal::Unknown));
    let elsewhere = "/us/1".parse().expect("a zone");
    assert_eq!(judge(1, &elsewhere, &first), Err(Refusal::OtherZone));
}

#[test]
fn a_pin_believes_its_root_alone() {
    let (ours, theirs) = (authority(), authority());
    let shown = |authority: &Authority, kind| {
        let mut chain = chain(authority, kind, 1, NOW);
        chain.push(CertificateDer::from(authority.root().to_vec()));
        chain
    };
    let pin = ours.root_hash();
    assert!(verify_pinned(pin, &shown(&ours, Kind::Agent), NOW).is_ok());
    // A machine that joins may believe that it is another year.
    assert!(verify_pinned(pin, &shown(&ours, Kind::Agent), UnixMillis(0)).is_ok());
    assert_eq!(
        verify_pinned(pin, &shown(&ours, Kind::Edge), NOW),
        Err(Refusal::Kind)
    );
    assert_eq!(
        verify_pinned(pin, &shown(&theirs, Kind::Agent), NOW),
        Err(Refusal::Chain)
    );
    let mut mixed = shown(&theirs, Kind::Agent);
    mixed.push(CertificateDer::from(ours.root().to_vec()));
    assert_eq!(verify_pinned(pin, &mixed, NOW), Err(Refusal::Chain));
    assert_eq!(
        verify_pinned(pin, &chain(&ours, Kind::Agent, 1, NOW), NOW),
        Err(Refusal::Chain)
    );
}

#[test]
fn no_chain_a_long_chain_and_garbage_are_refused() {
    let authority = authority();
    let trust = trust_at(&authority, NOW.0);
    assert_eq!(
        judged(&trust, &[], agent(None)),
        Err(Refusal::NoCertificate)
    );
    let mut long = chain(&authority, Kind::Agent, 1, NOW);
    long.extend(vec![long[1].clone(); CHAIN_MAX]);
    assert_eq!(
        judged(&trust, &long, agent(None)),
        Err(Refusal::Certificate)
    );
    let garbage = [CertificateDer::from(vec![0x30; 100])];
    assert_eq!(
        judged(&trust, &garbage, agent(None)),
        Err(Refusal::Certificate)
    );
    let huge = [CertificateDer::from(vec![0x30; CERTIFICATE_BYTES_MAX + 1])];
    assert_eq!(
        judged(&trust, &huge, agent(None)),
        Err(Refusal::Certificate)
    );
}
