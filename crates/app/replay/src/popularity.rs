//! Which of the target's documents stands for which recorded one, and how often
//! a generated load asks for each.
//!
//! In: the target's own list of documents, recorded paths with their counts.
//! Out: one document per recorded path; draws by popularity. Holds: the n-th
//! most popular recorded path is mapped onto the n-th most popular document, so
//! that popularity and timing stay those recorded while the names change; where
//! the log has more paths than the target documents, the surplus is dealt over
//! all of them, the most popular first, again and again.

use crate::ReplayError;
use crate::path::target;
use http::uri::PathAndQuery;
use kernel::Rng;
use std::cmp::Reverse;
use std::path::Path;

/// Of the requests over the ranks of documents, as fitted to a recorded site;
/// used where a list has no weights of its own.
pub const ZIPF_EXPONENT: f64 = 1.03;
const DOCUMENTS_MAX: usize = 1_000_000;
const LIST_BYTES_MAX: u64 = 256 << 20;

/// A site's documents, the most popular first.
#[derive(Clone, Debug, PartialEq)]
pub struct Popularity {
    documents: Vec<PathAndQuery>,
    /// Running totals of the weights; as long as `documents`.
    totals: Vec<f64>,
}

impl Popularity {
    /// Reads a list: a path a line, and after a tab its weight; `#` opens a
    /// comment. Without weights, the lines' order is the rank.
    ///
    /// # Errors
    /// [`ReplayError`] with the first line that is not understood.
    pub fn read(path: &Path) -> Result<Self, ReplayError> {
        let failed = |source| ReplayError::Read {
            path: path.to_owned(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        let list = |line, what| ReplayError::List {
            path: path.to_owned(),
            line,
            what,
        };
        if bytes > LIST_BYTES_MAX {
            return Err(list(0, "the list is larger than 256 MiB"));
        }
        let text = std::fs::read(path).map_err(failed)?;
        Self::parse(&text).map_err(|(line, what)| list(line, what))
    }

    /// As [`Popularity::read`]; an error is a line from 1 and what is wrong.
    fn parse(text: &[u8]) -> Result<Self, (usize, &'static str)> {
        let mut found: Vec<(PathAndQuery, Option<f64>)> = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let wrong = |what| (index + 1, what);
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if found.len() == DOCUMENTS_MAX {
                return Err(wrong("the list has more than 1,000,000 documents"));
            }
            let mut fields = line.split(|byte| *byte == b'\t');
            let path = target(fields.next().unwrap_or_default()).map_err(wrong)?;
            let weight = match fields.next() {
                None => None,
                Some(field) => {
                    let number = str::from_utf8(field)
                        .ok()
                        .and_then(|text| text.trim().parse().ok());
                    let weight = number.filter(|weight: &f64| weight.is_finite() && *weight > 0.0);
                    Some(weight.ok_or_else(|| wrong("the weight is no positive number"))?)
                }
            };
            if found
                .first()
                .is_some_and(|(_, first)| first.is_some() != weight.is_some())
            {
                return Err(wrong("some lines have a weight and some have none"));
            }
            found.push((path, weight));
        }
        if found.is_empty() {
            return Err((1, "the list has no documents"));
        }
        // Stable: equal weights keep the list's order.
        found.sort_by(|(_, a), (_, b)| b.unwrap_or(0.0).total_cmp(&a.unwrap_or(0.0)));
        let weights = found.iter().map(|(_, weight)| *weight).collect::<Vec<_>>();
        let documents = found.into_iter().map(|(path, _)| path).collect();
        Ok(Self::new(documents, &weights))
    }

    fn new(documents: Vec<PathAndQuery>, weights: &[Option<f64>]) -> Self {
        let (mut total, mut rank) = (0.0, 0.0_f64);
        let totals = weights
            .iter()
            .map(|weight| {
                rank += 1.0;
                total += weight.unwrap_or_else(|| rank.powf(-ZIPF_EXPONENT));
                total
            })
            .collect();
        Self { documents, totals }
    }

    /// A site of which only the front page is known.
    pub fn front_page() -> Self {
        Self::new(vec![PathAndQuery::from_static("/")], &[None])
    }

    pub fn documents(&self) -> &[PathAndQuery] {
        &self.documents
    }

    /// A document, each as often as its weight says.
    pub fn draw(&self, rng: &mut Rng) -> usize {
        let total = self.totals.last().copied().unwrap_or_default();
        let point = rng.unit() * total;
        let at = self.totals.partition_point(|until| *until <= point);
        at.min(self.documents.len() - 1)
    }

    /// For each recorded path the document that stands for it.
    ///
    /// * `counts`: requests per recorded path. Equal counts are ranked by place.
    pub fn map(&self, counts: &[u64]) -> Vec<usize> {
        let mut ranked: Vec<usize> = (0..counts.len()).collect();
        ranked.sort_by_key(|path| Reverse(counts[*path]));
        let mut mapped = vec![0; counts.len()];
        for (rank, path) in ranked.into_iter().enumerate() {
            mapped[path] = rank % self.documents.len();
        }
        mapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Rng;
    use proptest::prelude::*;

    fn list(text: &str) -> Popularity {
        Popularity::parse(text.as_bytes()).expect("a list")
    }

    fn names(popularity: &Popularity) -> Vec<&str> {
        let documents = popularity.documents().iter();
        documents.map(PathAndQuery::as_str).collect()
    }

    #[test]
    fn lists_with_and_without_weights_are_read() {
        assert_eq!(names(&list("# the site\n/a\n\n/b c\r\n")), ["/a", "/b%20c"]);
        assert_eq!(names(&list("/a\t0.1\n/b\t0.9\textra\n")), ["/b", "/a"]);
    }

    #[test]
    fn mistakes_in_a_list_have_a_line() {
        let mistake = |text: &str| Popularity::parse(text.as_bytes()).expect_err("a mistake");
        assert_eq!(mistake("/a\nb\n"), (2, "the path does not begin with `/`"));
        assert_eq!(mistake("/a\tmany\n").0, 1);
        assert_eq!(mistake("/a\t-1\n").0, 1);
        assert_eq!(mistake("/a\tNaN\n").0, 1);
        assert_eq!(mistake("/a\t1\n/b\n").0, 2);
        assert_eq!(mistake("").1, "the list has no documents");
    }

    #[test]
    fn the_most_popular_path_is_mapped_onto_the_most_popular_document() {
        let site = list("/first\n/second\n/third\n");
        // Two more paths than documents: they are dealt from the front again.
        assert_eq!(site.map(&[1, 9, 5, 1, 1]), [2, 0, 1, 0, 1]);
        assert_eq!(site.map(&[]), [] as [usize; 0]);
    }

    #[test]
    fn draws_follow_the_weights() {
        let site = list("/rare\t1\n/often\t3\n");
        let mut rng = Rng::seeded(1);
        let often = (0..4_000).filter(|_| site.draw(&mut rng) == 0).count();
        assert!((2_850..3_150).contains(&often), "{often}");
    }

    #[test]
    fn the_recorded_log_has_the_fitted_exponent() {
        let Some(log) = crate::log::recorded() else {
            return;
        };
        let mut counts = std::collections::BTreeMap::<String, f64>::new();
        for line in log {
            let entry = line.expect("readable").entry.expect("an entry");
            *counts.entry(entry.target.path().to_owned()).or_default() += 1.0;
        }
        let mut counts: Vec<f64> = counts.into_values().collect();
        counts.sort_by(|a, b| b.total_cmp(a));
        let ranks = || (1..).map(f64::from).zip(&counts);
        // The logarithm of how likely the counts are under an exponent.
        let likelihood = |exponent: f64| {
            let total: f64 = ranks().map(|(rank, _)| rank.powf(-exponent)).sum();
            let each = |(rank, count): (f64, &f64)| -count * (exponent * rank.ln() + total.ln());
            ranks().map(each).sum::<f64>()
        };
        let best = likelihood(ZIPF_EXPONENT);
        assert!(best > likelihood(ZIPF_EXPONENT - 0.01));
        assert!(best > likelihood(ZIPF_EXPONENT + 0.01));
    }

    #[test]
    fn without_weights_the_first_document_is_about_twice_as_popular_as_the_second() {
        let text: String = (0..100).fold(String::new(), |text, at| format!("{text}/{at}\n"));
        let (site, mut rng) = (list(&text), Rng::seeded(2));
        let mut counts = [0_u32; 100];
        for _ in 0..50_000 {
            counts[site.draw(&mut rng)] += 1;
        }
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.9..2.2).contains(&ratio), "{ratio}");
        assert!(counts.iter().all(|count| *count > 0));
    }

    proptest! {
        #[test]
        fn no_list_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Popularity::parse(&text);
        }

        #[test]
        fn the_mapping_keeps_the_order_of_popularity(counts in proptest::collection::vec(0..50_u64, 1..60)) {
            let text: String = (0..60).fold(String::new(), |text, at| format!("{text}/{at}\n"));
            let mapped = list(&text).map(&counts);
            for (a, &first) in counts.iter().enumerate() {
                for (b, &second) in counts.iter().enumerate() {
                    prop_assert!(first <= second || mapped[a] < mapped[b]);
                }
            }
        }
    }
}
