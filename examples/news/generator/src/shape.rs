//! What a real news site looks like in numbers: how many documents of which
//! kind, how large, how often asked for.
//!
//! In: a seed. Out: sizes per kind, weights per rank. Holds: the figures are
//! those of `docs/news-fit.md`; sizes are taken at equal steps of the fitted
//! distribution, so that every seed has the same sizes in another order.

use kernel::Rng;

/// Exponent of the requests over the ranks of documents.
pub const ZIPF_EXPONENT: f64 = 1.03;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Article,
    Png,
    Jpeg,
    Svg,
    Style,
    Script,
    Font,
    Download,
}

/// Sizes of one kind: log-normal, cut at both ends.
#[derive(Clone, Copy, Debug)]
pub struct Fit {
    pub kind: Kind,
    pub documents: u32,
    /// Mean and standard deviation of the natural logarithm of the bytes.
    pub mu: f64,
    pub sigma: f64,
    pub bytes_min: u32,
    pub bytes_max: u32,
}

const fn fit(kind: Kind, documents: u32, log: (f64, f64), bytes: (u32, u32)) -> Fit {
    Fit {
        kind,
        documents,
        mu: log.0,
        sigma: log.1,
        bytes_min: bytes.0,
        bytes_max: bytes.1,
    }
}

pub const FITS: [Fit; 8] = [
    fit(Kind::Article, 240, (9.15, 0.92), (1_800, 200_000)),
    fit(Kind::Png, 64, (10.69, 1.69), (150, 900_000)),
    fit(Kind::Jpeg, 14, (12.57, 1.47), (10_000, 1_500_000)),
    fit(Kind::Svg, 4, (8.70, 1.15), (400, 45_000)),
    fit(Kind::Style, 34, (7.68, 1.44), (100, 70_000)),
    fit(Kind::Script, 25, (8.92, 1.38), (300, 165_000)),
    fit(Kind::Font, 6, (10.55, 0.08), (34_000, 43_000)),
    fit(Kind::Download, 3, (14.45, 0.36), (1_000_000, 2_500_000)),
];

/// What requests ask for, coarser than [`Kind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Page,
    Image,
    Style,
    Script,
    Font,
    Other,
}

/// Share of the requests per class, of 1.
pub const SHARES: [(Class, f64); 6] = [
    (Class::Page, 0.388),
    (Class::Image, 0.361),
    (Class::Style, 0.146),
    (Class::Other, 0.071),
    (Class::Script, 0.025),
    (Class::Font, 0.009),
];

/// The sizes of one kind in bytes, shuffled.
pub fn sizes(fit: &Fit, rng: &mut Rng) -> Vec<usize> {
    let steps = f64::from(fit.documents);
    let mut sizes: Vec<usize> = (0..fit.documents)
        .map(|index| {
            let share = (f64::from(index) + 0.5) / steps;
            let bytes = (fit.mu + fit.sigma * normal_quantile(share)).exp();
            whole(bytes.clamp(f64::from(fit.bytes_min), f64::from(fit.bytes_max)))
        })
        .collect();
    shuffle(&mut sizes, rng);
    sizes
}

/// Gives each document its weight (of 1 in all) by rank.
///
/// * `ranked`: per class, paths with the most popular first.
///
/// The classes are dealt so that, rank by rank, each keeps to its share of the
/// requests for as long as it has documents.
pub fn popularity(mut ranked: Vec<(Class, Vec<String>)>) -> Vec<(String, f64)> {
    for (_, paths) in &mut ranked {
        paths.reverse();
    }
    let mut given = [0.0_f64; SHARES.len()];
    let (mut total, mut rank) = (0.0_f64, 0_u32);
    let mut out = Vec::new();
    loop {
        rank += 1;
        let weight = f64::from(rank).powf(-ZIPF_EXPONENT);
        let debt = |class: Class| {
            SHARES
                .iter()
                .zip(given)
                .find(|((name, _), _)| *name == class)
                .map_or(0.0, |((_, share), given)| share * (total + weight) - given)
        };
        let next = ranked
            .iter_mut()
            .filter(|(_, paths)| !paths.is_empty())
            .max_by(|a, b| debt(a.0).total_cmp(&debt(b.0)));
        let Some((class, paths)) = next else { break };
        total += weight;
        if let Some(slot) = SHARES.iter().position(|(name, _)| name == class) {
            given[slot] += weight;
        }
        out.extend(paths.pop().map(|path| (path, weight)));
    }
    for (_, weight) in &mut out {
        *weight /= total;
    }
    out
}

pub fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, index(rng, last + 1));
    }
}

/// Uniform in `0..len`; 0 when `len` is 0.
pub fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sizes are positive and far below 2^32"
)]
pub fn whole(value: f64) -> usize {
    value as usize
}

/// Inverse of the standard normal distribution, to 0.2 %.
///
/// Source: Winitzki, "A handy approximation for the error function", 2008.
fn normal_quantile(share: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * share - 1.0;
    let log = (1.0 - x * x).ln();
    let first = 2.0 / (std::f64::consts::PI * A) + log / 2.0;
    let inverse = (first.mul_add(first, -log / A)).sqrt() - first;
    x.signum() * (2.0 * inverse).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_is_the_textbook_one() {
        for (share, z) in [(0.5, 0.0), (0.841_34, 1.0), (0.022_75, -2.0), (0.99, 2.326)] {
            assert!((normal_quantile(share) - z).abs() < 0.01, "{share}");
        }
    }

    #[test]
    fn sizes_have_the_fitted_median() {
        for fit in &FITS {
            let mut sizes = sizes(fit, &mut Rng::seeded(3));
            sizes.sort_unstable();
            let low = sizes[(sizes.len() - 1) / 2];
            let high = sizes[sizes.len() / 2];
            let median = whole(fit.mu.exp());
            assert!(low <= median + 1 && median <= high + 1, "{:?}", fit.kind);
        }
    }

    #[test]
    fn classes_keep_to_their_shares() {
        let classes = SHARES.iter().map(|(class, _)| {
            let paths = (0..80).map(|index| format!("{class:?}-{index}")).collect();
            (*class, paths)
        });
        let weights = popularity(classes.collect());
        assert!((weights.iter().map(|(_, weight)| weight).sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(weights.windows(2).all(|pair| pair[0].1 > pair[1].1));
        let pages: f64 = weights
            .iter()
            .filter(|(path, _)| path.starts_with("Page"))
            .map(|(_, weight)| weight)
            .sum();
        assert!((pages - 0.388).abs() < 0.08, "{pages}");
    }
}
