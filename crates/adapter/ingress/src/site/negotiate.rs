//! Chooses the encodings a client takes, best for us first (RFC 9110, 12.5.3).
//!
//! In: `accept-encoding`. Out: an order of [`Encoding`]s to try.
//! Holds: identity is always last and always tried: refusing it would leave
//! nothing to send.

use crate::Encoding;

/// Encodings to try in order, ended by identity.
///
/// * `fields`: the lines of `accept-encoding`; none at all asks for identity.
pub fn preference<'a>(fields: impl Iterator<Item = &'a str>) -> [Option<Encoding>; 3] {
    let (mut brotli, mut gzip, mut any) = (None, None, None);
    for item in fields.flat_map(|field| field.split(',')) {
        let mut parts = item.split(';');
        let name = parts.next().unwrap_or_default().trim();
        let weight = parts.find_map(|part| {
            let (name, weight) = part.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("q")
                .then(|| weight_per_mille(weight))
        });
        let weight = Some(weight.unwrap_or(1000));
        if name.eq_ignore_ascii_case("br") {
            brotli = weight;
        } else if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            gzip = weight;
        } else if name == "*" {
            any = weight;
        }
    }
    let brotli = brotli.or(any).unwrap_or(0);
    let gzip = gzip.or(any).unwrap_or(0);
    let identity = Some(Encoding::Identity);
    match (brotli > 0, gzip > 0) {
        (true, true) if gzip > brotli => [Some(Encoding::Gzip), Some(Encoding::Brotli), identity],
        (true, true) => [Some(Encoding::Brotli), Some(Encoding::Gzip), identity],
        (true, false) => [Some(Encoding::Brotli), identity, None],
        (false, true) => [Some(Encoding::Gzip), identity, None],
        (false, false) => [identity, None, None],
    }
}

/// A weight in thousandths; what cannot be read counts as refused.
fn weight_per_mille(text: &str) -> u32 {
    match text.trim().parse::<f32>() {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000 by the guard"
        )]
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0) as u32,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn first(accept: &str) -> Encoding {
        preference([accept].into_iter())[0].expect("never empty")
    }

    #[test]
    fn weights_decide_and_zero_refuses() {
        assert_eq!(first("gzip, br"), Encoding::Brotli);
        assert_eq!(first("gzip, br;q=0.5"), Encoding::Gzip);
        assert_eq!(first("br;q=0, gzip;q=0"), Encoding::Identity);
        assert_eq!(first("*"), Encoding::Brotli);
        assert_eq!(first("*, br;q=0"), Encoding::Gzip);
        assert_eq!(first("deflate"), Encoding::Identity);
        assert_eq!(first(""), Encoding::Identity);
        assert_eq!(first("br;Q=0, gzip; q=0.1"), Encoding::Gzip);
        let lines = ["gzip;q=0.5", "br"];
        assert_eq!(preference(lines.into_iter())[0], Some(Encoding::Brotli));
        assert_eq!(preference([].into_iter())[0], Some(Encoding::Identity));
    }

    proptest! {
        #[test]
        fn identity_is_always_offered(text: String) {
            prop_assert!(preference([text.as_str()].into_iter()).contains(&Some(Encoding::Identity)));
        }
    }
}
