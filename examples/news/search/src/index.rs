//! Which page answers which words: an inverted index, ranked by BM25.
//!
//! In: pages, then queries. Out: addresses with titles and excerpts, the best
//! first. Holds: equal scores keep the addresses' order, so one site gives one
//! answer; a query costs no more than its words' postings.
//!
//! Source: Robertson, Zaragoza, "The Probabilistic Relevance Framework: BM25
//! and Beyond", 2009; k1 and b are the usual ones.

use crate::text::{Page, words};
use std::collections::{BTreeSet, HashMap};

pub const RESULTS_MAX: usize = 20;
pub const WORDS_MAX: usize = 16;
const K1: f64 = 1.2;
const B: f64 = 0.75;
/// A word of the title counts as often as this many of the text.
const TITLE_WEIGHT: u32 = 4;
const EXCERPT_BYTES: usize = 180;
/// How much of an excerpt lies before the word found.
const LEAD_BYTES: usize = 60;

#[derive(Default)]
pub struct Index {
    documents: Vec<Document>,
    postings: HashMap<String, Vec<Posting>>,
    words_total: f64,
}

struct Document {
    address: String,
    page: Page,
    words: u32,
}

struct Posting {
    document: usize,
    weight: u32,
    /// The word's first place in the text, in bytes; 0 when only the title has it.
    first: usize,
}

#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Pages with at least one of the words.
    pub total: usize,
    pub results: Vec<Hit>,
}

#[derive(Debug, PartialEq)]
pub struct Hit {
    pub address: String,
    pub title: String,
    pub excerpt: String,
    pub score: f64,
}

impl Index {
    pub fn add(&mut self, address: String, page: Page) {
        let mut found = HashMap::<String, (u32, usize)>::new();
        let mut count = 0;
        for word in words(&page.text) {
            count += 1;
            found.entry(word.lower).or_insert((0, word.at)).0 += 1;
        }
        for word in words(&page.title) {
            found.entry(word.lower).or_default().0 += TITLE_WEIGHT;
        }
        let document = self.documents.len();
        for (word, (weight, first)) in found {
            self.postings.entry(word).or_default().push(Posting {
                document,
                weight,
                first,
            });
        }
        self.words_total += f64::from(count);
        self.documents.push(Document {
            address,
            page,
            words: count,
        });
    }

    pub fn documents(&self) -> usize {
        self.documents.len()
    }

    pub fn words(&self) -> usize {
        self.postings.len()
    }

    /// The pages that have any of the query's first [`WORDS_MAX`] words.
    pub fn search(&self, query: &str) -> Found {
        let mut asked = BTreeSet::new();
        for word in words(query) {
            if asked.len() < WORDS_MAX {
                asked.insert(word.lower);
            }
        }
        let mut scores = HashMap::<usize, (f64, usize)>::new();
        for word in &asked {
            let Some(postings) = self.postings.get(word) else {
                continue;
            };
            let rarity = self.rarity(postings.len());
            for posting in postings {
                let slot = scores.entry(posting.document).or_insert((0.0, usize::MAX));
                slot.0 += rarity * self.weight(posting);
                slot.1 = slot.1.min(posting.first);
            }
        }
        let total = scores.len();
        let mut ranked: Vec<_> = scores.into_iter().collect();
        ranked.sort_by(|(a, (high, _)), (b, (low, _))| {
            let by_address = || {
                let address = |at: &usize| &self.documents[*at].address;
                address(a).cmp(address(b))
            };
            low.total_cmp(high).then_with(by_address)
        });
        ranked.truncate(RESULTS_MAX);
        let results = ranked
            .into_iter()
            .map(|(at, (score, first))| {
                let document = &self.documents[at];
                Hit {
                    address: document.address.clone(),
                    title: document.page.title.clone(),
                    excerpt: excerpt(&document.page.text, first),
                    score,
                }
            })
            .collect();
        Found { total, results }
    }

    fn rarity(&self, holders: usize) -> f64 {
        let (all, holders) = (count(self.documents.len()), count(holders));
        (1.0 + (all - holders + 0.5) / (holders + 0.5)).ln()
    }

    fn weight(&self, posting: &Posting) -> f64 {
        let mean = (self.words_total / count(self.documents.len())).max(1.0);
        let length = f64::from(self.documents[posting.document].words) / mean;
        let weight = f64::from(posting.weight);
        weight * (K1 + 1.0) / (weight + K1 * (1.0 - B + B * length))
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

/// Some text around byte `at`, whole words where it can.
fn excerpt(text: &str, at: usize) -> String {
    let from = boundary(text, at.saturating_sub(LEAD_BYTES));
    let to = boundary(text, from + EXCERPT_BYTES);
    let mut part = &text[from..to];
    if from > 0 {
        part = part.split_once(' ').map_or(part, |(_, rest)| rest);
    }
    if to < text.len() {
        part = part.rsplit_once(' ').map_or(part, |(rest, _)| rest);
    }
    let before = if from > 0 { "… " } else { "" };
    let after = if to < text.len() { " …" } else { "" };
    format!("{before}{part}{after}")
}

fn boundary(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(pages: &[(&str, &str, &str)]) -> Index {
        let mut index = Index::default();
        for (address, title, text) in pages {
            let page = Page {
                title: (*title).to_owned(),
                text: (*text).to_owned(),
            };
            index.add((*address).to_owned(), page);
        }
        index
    }

    fn addresses(found: &Found) -> Vec<&str> {
        found.results.iter().map(|hit| &*hit.address).collect()
    }

    #[test]
    fn titles_count_more_than_text_and_rare_words_more_than_common_ones() {
        let index = index(&[
            ("/text", "Morning", "the ferry left with the mayor"),
            ("/title", "The ferry", "it left with the cook on board"),
            ("/none", "Evening", "the tram left with the cook again"),
        ]);
        assert_eq!(addresses(&index.search("Ferry")), ["/title", "/text"]);
        assert_eq!(addresses(&index.search("left mayor"))[0], "/text");
        assert_eq!(index.search("left").total, 3);
    }

    #[test]
    fn a_word_in_a_short_page_counts_more_than_in_a_long_one() {
        let long = format!("ferry {}", "and more words ".repeat(200));
        let index = index(&[("/long", "A", &long), ("/short", "B", "ferry here")]);
        assert_eq!(addresses(&index.search("ferry")), ["/short", "/long"]);
    }

    #[test]
    fn equal_pages_come_in_the_order_of_their_addresses_and_not_too_many() {
        let names: Vec<_> = (0..50).rev().map(|at| format!("/{at:02}")).collect();
        let pages: Vec<_> = names
            .iter()
            .map(|name| (&**name, "Same", "ferry"))
            .collect();
        let found = index(&pages).search("ferry");
        assert_eq!((found.total, found.results.len()), (50, RESULTS_MAX));
        assert_eq!(found.results[0].address, "/00");
    }

    #[test]
    fn an_excerpt_shows_the_word_within_its_sentence() {
        let text = format!("{}ferry{}", "überall ".repeat(40), " später".repeat(40));
        let found = index(&[("/", "T", &text)]).search("ferry");
        let excerpt = &found.results[0].excerpt;
        assert!(excerpt.contains("überall ferry später"), "{excerpt}");
        assert!(excerpt.starts_with("… überall") && excerpt.ends_with("später …"));
        assert!(excerpt.len() < EXCERPT_BYTES + 10);
    }

    #[test]
    fn nothing_is_found_for_nothing() {
        let empty = Index::default();
        let index = index(&[("/", "T", "ferry")]);
        for query in ["", " ", "zebra", "<>&\"'", "\0\u{fffd}"] {
            assert_eq!(index.search(query), Found::default(), "{query:?}");
        }
        assert_eq!(empty.search("ferry"), Found::default());
    }

    #[test]
    fn words_beyond_the_limit_are_not_looked_up() {
        let index = index(&[("/", "T", "ferry")]);
        let many: Vec<_> = (0..WORDS_MAX).map(|at| format!("w{at}")).collect();
        let many = many.join(" ");
        assert_eq!(index.search(&format!("{many} ferry")).total, 0);
        assert_eq!(
            index
                .search(&format!("{many} w1 w2").replace("w0", "ferry"))
                .total,
            1
        );
    }
}
