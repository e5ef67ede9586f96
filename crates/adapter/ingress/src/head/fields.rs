//! The fields of heads on their way: what ends at this hop, what a client may
//! not say of itself, and what we say of it.

use crate::log::Account;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Version};
use hyper::body::Incoming;
use wire::peer::PREFIX;

/// The protocol an HTTP/1.1 client wants to change to. A change to another HTTP
/// or to TLS is passed over: behind it requests would reach the replica unseen.
pub fn upgrade_of(request: &Request<Incoming>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let wanted =
        connection_options(request.headers()).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let mut protocols = request.headers().get_all(header::UPGRADE).iter();
    let protocol = protocols.next()?;
    let tunnelled = protocol.to_str().ok()?.split(',').all(|name| {
        let name = name.trim().to_ascii_lowercase();
        !["h2c", "http", "tls"]
            .iter()
            .any(|http| name.starts_with(http))
    });
    (wanted && tunnelled && protocols.next().is_none()).then(|| protocol.clone())
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter_map(|option| option.parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
    ] {
        headers.remove(name);
    }
    headers.remove(HeaderName::from_static("keep-alive"));
    headers.remove(HeaderName::from_static("proxy-connection"));
    headers.remove(HeaderName::from_static("http2-settings"));
}

/// HTTP/2 clients may cut the field into pieces, HTTP/1.1 knows only one of it
/// (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let pieces: Vec<&[u8]> = [first, second]
        .into_iter()
        .chain(cookies)
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether a field says of the client what only we know. Some servers take `_`
/// for `-` in names, or `proxy` for `HTTP_PROXY`.
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    if !name.starts_with(['x', 'f', 'p', 'h']) || name == "host" {
        return false;
    }
    let name = name.replace('_', "-");
    name.starts_with("x-forwarded-")
        || name.starts_with(PREFIX)
        || matches!(&*name, "x-real-ip" | "forwarded" | "proxy")
}

/// Makes the client's fields into ours; what it says of where it comes from is
/// not believed.
pub fn prepare(
    headers: &mut HeaderMap,
    host: &str,
    account: &Account,
    upgrade: Option<HeaderValue>,
) {
    remove_hop_by_hop(headers);
    join_cookies(headers);
    headers.remove(header::EXPECT);
    headers.remove(header::PROXY_AUTHORIZATION);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    let proto = if account.row.tls { "https" } else { "http" };
    let peer = account.peer_text();
    let node = if peer.contains(':') {
        format!("\"[{peer}]\"")
    } else {
        peer.to_owned()
    };
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        } else {
            headers.remove(name);
        }
    };
    set(HeaderName::from_static("x-forwarded-for"), peer);
    set(HeaderName::from_static("x-forwarded-proto"), proto);
    set(HeaderName::from_static("x-forwarded-host"), host);
    set(
        header::FORWARDED,
        &format!("for={node};host=\"{host}\";proto={proto}"),
    );
    set(header::HOST, host);
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Takes out what is between edges only.
pub fn remove_internal(headers: &mut HeaderMap) {
    let internal = |name: &&HeaderName| name.as_str().starts_with(PREFIX);
    let names: Vec<HeaderName> = headers.keys().filter(internal).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_we_know_is_a_claim_however_it_is_spelt() {
        for claim in [
            "x-forwarded-for",
            "x_forwarded_for",
            "x-real-ip",
            "forwarded",
            "proxy",
            "homeostat-forwarded",
            "homeostat_forwarded",
            "homeostat-x",
        ] {
            assert!(is_claim(&HeaderName::from_static(claim)), "{claim}");
        }
        for other in ["host", "x-request-id", "homeostat", "from", "hx"] {
            assert!(!is_claim(&HeaderName::from_static(other)), "{other}");
        }
    }
}
