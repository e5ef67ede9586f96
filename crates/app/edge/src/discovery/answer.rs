//! Answers one question for a name.
//!
//! In: a message's bytes, whoever sent them. Out: the answer's bytes, or none.
//! Holds: of a service that the caller may call, the address; of one that it may
//! not, the same as of one that is not there; of other zones, nothing. An answer
//! is never answered, and never much longer than its question.

use discovery::{Found, ZONE, find};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;
use std::str::FromStr;
use wire::edge::CallerView;

/// Services come and go: a name that was refused may be there soon.
const TTL_SECONDS: u32 = 1;
/// What a datagram may be without EDNS, and what we say we take with it.
const PLAIN_BYTES_MAX: usize = 512;
const EDNS_BYTES: u16 = 1_232;
const HEAD_BYTES: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Datagram,
    Connection,
}

pub fn answer(question: &[u8], view: &CallerView, over: Over) -> Option<Vec<u8>> {
    // An answer to an answer could go to and fro for ever.
    if question.len() < HEAD_BYTES || question[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([question[0], question[1]]);
    let said = match Message::from_vec(question) {
        Ok(asked) => reply(&asked, view),
        Err(_) => Message::error_msg(id, OpCode::Query, ResponseCode::FormErr),
    };
    let bytes = said.to_vec().ok()?;
    if over == Over::Datagram && bytes.len() > PLAIN_BYTES_MAX {
        return said.truncate().to_vec().ok();
    }
    Some(bytes)
}

fn reply(asked: &Message, view: &CallerView) -> Message {
    let mut said = Message::new(
        asked.metadata.id,
        MessageType::Response,
        asked.metadata.op_code,
    );
    said.metadata.recursion_desired = asked.metadata.recursion_desired;
    let code = match (asked.metadata.op_code, asked.queries.as_slice()) {
        (OpCode::Query, [query]) => {
            said.queries.push(query.clone());
            find_out(query, view, &mut said)
        }
        (OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    said.metadata.response_code = code;
    if let Some(edns) = &asked.edns {
        let mut own = Edns::new();
        own.set_max_payload(EDNS_BYTES);
        said.set_edns(own);
        if edns.version() > 0 {
            said.answers.clear();
            said.metadata.response_code = ResponseCode::BADVERS;
        }
    }
    said
}

fn find_out(query: &Query, view: &CallerView, said: &mut Message) -> ResponseCode {
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return ResponseCode::Refused;
    }
    let known = match find(&query.name().to_ascii()) {
        Found::Outside => return ResponseCode::Refused,
        Found::Service(service) => view.links.get(&service).map(Some),
        Found::Project(project) => {
            let mut names = view.links.keys();
            names.any(|name| name.project == project).then_some(None)
        }
        Found::Zone => Some(None),
        Found::Nothing => None,
    };
    said.metadata.authoritative = true;
    let wants_address = matches!(query.query_type(), RecordType::A | RecordType::ANY);
    if let Some(Some(link)) = known
        && let IpAddr::V4(address) = link.address.ip()
        && wants_address
    {
        let record = Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::A(A(address)));
        said.answers.push(record);
        return ResponseCode::NoError;
    }
    // How long an answer of nothing is believed, only an authority can say.
    said.authorities.extend(authority());
    match known {
        Some(_) => ResponseCode::NoError,
        None => ResponseCode::NXDomain,
    }
}

fn authority() -> Option<Record> {
    let zone = Name::from_str(&format!("{ZONE}.")).ok()?;
    let keeper = Name::from_str(&format!("homeostat.{ZONE}.")).ok()?;
    let ttl = i32::try_from(TTL_SECONDS).unwrap_or(1);
    let soa = SOA::new(zone.clone(), keeper, 1, ttl, ttl, ttl, TTL_SECONDS);
    Some(Record::from_rdata(zone, TTL_SECONDS, RData::SOA(soa)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use wire::edge::LinkView;

    fn view() -> CallerView {
        let link = LinkView {
            address: SocketAddr::from(([127, 77, 1, 2], 5432)),
            requests: false,
        };
        CallerView {
            resolver: SocketAddr::from(([127, 77, 0, 1], 7053)),
            links: BTreeMap::from([("news/db".parse().expect("a name"), link)]),
        }
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut asked = Message::query();
        let name = Name::from_ascii(name).expect("a name");
        asked.queries.push(Query::query(name, kind));
        asked.to_vec().expect("encodes")
    }

    fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<RData>, usize) {
        let bytes = answer(&question(name, kind), &view(), Over::Datagram).expect("an answer");
        let said = Message::from_vec(&bytes).expect("decodes");
        let data = said.answers.into_iter().map(|record| record.data);
        let code = said.metadata.response_code;
        (code, data.collect(), said.authorities.len())
    }

    #[test]
    fn a_service_has_an_address_of_one_kind() {
        let address = RData::A(A::new(127, 77, 1, 2));
        for name in ["db.news.homeostat.internal.", "DB.News.HOMEOSTAT.internal."] {
            let (code, data, _) = ask(name, RecordType::A);
            assert_eq!((code, data), (ResponseCode::NoError, vec![address.clone()]));
        }
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::SRV] {
            let nothing = (ResponseCode::NoError, Vec::new(), 1);
            assert_eq!(ask("db.news.homeostat.internal.", kind), nothing);
        }
    }

    #[test]
    fn what_is_not_there_and_what_is_not_ours_are_told_apart() {
        let missing = (ResponseCode::NXDomain, Vec::new(), 1);
        for name in ["other.news", "db.shop", "a.db.news", "shop"] {
            let name = format!("{name}.homeostat.internal.");
            assert_eq!(ask(&name, RecordType::A), missing, "{name}");
        }
        let nothing = (ResponseCode::NoError, Vec::new(), 1);
        for name in ["news.homeostat.internal.", "homeostat.internal."] {
            assert_eq!(ask(name, RecordType::A), nothing, "{name}");
        }
        let refused = (ResponseCode::Refused, Vec::new(), 0);
        for name in ["example.com.", "internal.", "."] {
            assert_eq!(ask(name, RecordType::A), refused, "{name}");
        }
    }

    #[test]
    fn who_asks_otherwise_is_told_so_and_an_answer_is_not_answered() {
        let mut asked = question("db.news.homeostat.internal.", RecordType::A);
        asked[2] |= 0x80;
        assert_eq!(answer(&asked, &view(), Over::Datagram), None);
        asked[2] = 0x28; // Update.
        let said = answer(&asked, &view(), Over::Datagram).expect("an answer");
        assert_eq!(said[3] & 0x0f, ResponseCode::NotImp.low());
        let broken = &question("db.news.homeostat.internal.", RecordType::A)[..20];
        let said = answer(broken, &view(), Over::Datagram).expect("an answer");
        assert_eq!(said[3] & 0x0f, ResponseCode::FormErr.low());
        assert_eq!(said[..2], broken[..2]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_say_much(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
            flips in proptest::collection::vec((0..60_usize, any::<u8>()), 0..8),
            plain: bool,
        ) {
            if plain {
                bytes = question("db.news.homeostat.internal.", RecordType::A);
                for (at, byte) in flips {
                    if let Some(there) = bytes.get_mut(at) {
                        *there = byte;
                    }
                }
            }
            for over in [Over::Datagram, Over::Connection] {
                if let Some(said) = answer(&bytes, &view(), over) {
                    prop_assert_eq!(&said[..2], &bytes[..2]);
                    prop_assert!(said[2] & 0x80 != 0);
                    prop_assert!(over == Over::Connection || said.len() <= PLAIN_BYTES_MAX);
                    prop_assert!(said.len() < usize::from(u16::MAX));
                }
            }
        }
    }
}
