//! The text of articles: sentences from a small grammar over real words, with
//! invented names of people and places.
//!
//! In: a seed, a section. Out: words, titles, paragraphs. Holds: words are
//! drawn by Zipf's law, so that a few are everywhere and most are rare, as
//! search engines expect.

use crate::shape::{index, whole};
use kernel::Rng;

pub struct Section {
    pub name: &'static str,
    pub title: &'static str,
    nouns: [&'static str; 14],
}

pub const SECTIONS: [Section; 6] = [
    Section {
        name: "city",
        title: "City",
        nouns: [
            "council", "harbour", "bridge", "tram", "street", "mayor", "school", "housing",
            "police", "park", "museum", "market", "budget", "ferry",
        ],
    },
    Section {
        name: "world",
        title: "World",
        nouns: [
            "election",
            "border",
            "treaty",
            "minister",
            "parliament",
            "summit",
            "embassy",
            "sanction",
            "refugee",
            "coalition",
            "president",
            "ceasefire",
            "referendum",
            "flood",
        ],
    },
    Section {
        name: "business",
        title: "Business",
        nouns: [
            "bank",
            "factory",
            "inflation",
            "price",
            "union",
            "shipyard",
            "merger",
            "tariff",
            "export",
            "wage",
            "investor",
            "startup",
            "harvest",
            "supplier",
        ],
    },
    Section {
        name: "science",
        title: "Science",
        nouns: [
            "telescope",
            "vaccine",
            "glacier",
            "laboratory",
            "satellite",
            "genome",
            "reactor",
            "whale",
            "climate",
            "experiment",
            "comet",
            "volcano",
            "battery",
            "algorithm",
        ],
    },
    Section {
        name: "culture",
        title: "Culture",
        nouns: [
            "festival",
            "orchestra",
            "novel",
            "theatre",
            "painter",
            "film",
            "archive",
            "choir",
            "exhibition",
            "poet",
            "opera",
            "gallery",
            "sculpture",
            "library",
        ],
    },
    Section {
        name: "sport",
        title: "Sport",
        nouns: [
            "final",
            "goalkeeper",
            "season",
            "regatta",
            "coach",
            "stadium",
            "marathon",
            "record",
            "league",
            "striker",
            "referee",
            "transfer",
            "tournament",
            "relay",
        ],
    },
];

const NOUNS: [&str; 48] = [
    "year",
    "people",
    "plan",
    "week",
    "group",
    "number",
    "question",
    "report",
    "night",
    "house",
    "country",
    "family",
    "problem",
    "answer",
    "morning",
    "change",
    "river",
    "worker",
    "train",
    "story",
    "member",
    "summer",
    "winter",
    "decision",
    "neighbour",
    "letter",
    "engineer",
    "child",
    "doctor",
    "farmer",
    "student",
    "crowd",
    "village",
    "island",
    "coast",
    "road",
    "storm",
    "light",
    "engine",
    "garden",
    "voice",
    "map",
    "permit",
    "signal",
    "tunnel",
    "reservoir",
    "lantern",
    "quarry",
];
const VERBS: [&str; 32] = [
    "reached",
    "opened",
    "followed",
    "changed",
    "rejected",
    "praised",
    "closed",
    "delayed",
    "surprised",
    "replaced",
    "supported",
    "questioned",
    "rebuilt",
    "announced",
    "postponed",
    "welcomed",
    "measured",
    "abandoned",
    "promised",
    "funded",
    "inspected",
    "won",
    "lost",
    "repaired",
    "crossed",
    "warned",
    "defended",
    "divided",
    "joined",
    "outgrew",
    "discovered",
    "restored",
];
const ADJECTIVES: [&str; 32] = [
    "new",
    "old",
    "local",
    "first",
    "last",
    "public",
    "northern",
    "southern",
    "quiet",
    "early",
    "late",
    "small",
    "large",
    "rare",
    "costly",
    "popular",
    "independent",
    "western",
    "eastern",
    "narrow",
    "modern",
    "unexpected",
    "careful",
    "annual",
    "young",
    "temporary",
    "famous",
    "ancient",
    "digital",
    "disputed",
    "green",
    "forgotten",
];
const LINKS: [&str; 10] = [
    "after", "before", "because", "while", "although", "when", "as", "until", "since", "once",
];
const ONSETS: [&str; 16] = [
    "b", "br", "d", "f", "g", "h", "k", "l", "m", "n", "r", "s", "st", "t", "v", "w",
];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ai", "ei", "oa"];
const ENDS: [&str; 10] = ["n", "r", "l", "s", "nd", "rk", "m", "th", "ck", "ll"];

const NAMES: usize = 900;

/// Where all text of one site comes from.
pub struct Words {
    rng: Rng,
    names: Vec<String>,
}

impl Words {
    pub fn seeded(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let names = (0..NAMES).map(|_| name(&mut rng)).collect();
        Self { rng, names }
    }

    pub fn title(&mut self, section: &Section) -> String {
        let (adjective, verb) = (self.pick(&ADJECTIVES), self.pick(&VERBS));
        let (subject, object) = (self.pick(&section.nouns), self.pick(&NOUNS));
        let name = self.name();
        capital(&match self.rng.below(3) {
            0 => format!("{adjective} {subject} {verb} the {object} of {name}"),
            1 => format!("{name} {verb} {adjective} {subject}"),
            _ => format!("{subject} in {name} {verb} {adjective} {object}"),
        })
    }

    pub fn paragraph(&mut self, section: &Section) -> String {
        let sentences = 3 + self.rng.below(4);
        let mut text = String::new();
        for _ in 0..sentences {
            if !text.is_empty() {
                text.push(' ');
            }
            let sentence = self.sentence(section);
            text.push_str(&capital(&sentence));
        }
        text
    }

    pub fn person(&mut self) -> String {
        format!("{} {}", self.name(), self.name())
    }

    /// A word for identifiers in scripts and styles.
    pub fn plain(&mut self) -> &'static str {
        self.pick(&NOUNS)
    }

    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn sentence(&mut self, section: &Section) -> String {
        let first = self.clause(section);
        match self.rng.below(4) {
            0 => format!("{first}."),
            1 => format!("{first}, {} said.", self.person()),
            _ => {
                let link = self.pick(&LINKS);
                let second = self.clause(section);
                format!("{first} {link} {second}.")
            }
        }
    }

    fn clause(&mut self, section: &Section) -> String {
        let (subject, verb, object) = (self.thing(section), self.pick(&VERBS), self.thing(section));
        if self.rng.below(3) == 0 {
            format!("{subject} {verb} {object} in {}", self.name())
        } else {
            format!("{subject} {verb} {object}")
        }
    }

    fn thing(&mut self, section: &Section) -> String {
        let noun = if self.rng.below(2) == 0 {
            self.pick(&section.nouns)
        } else {
            self.pick(&NOUNS)
        };
        match self.rng.below(5) {
            0 => format!("the {} {noun}", self.pick(&ADJECTIVES)),
            1 => format!("the {noun} of {}", self.name()),
            2 => format!("a {noun}"),
            _ => format!("the {noun}"),
        }
    }

    fn name(&mut self) -> String {
        let rank = self.rank(NAMES);
        self.names[rank].clone()
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        // Half by rank, half evenly: the lists are short, and Zipf's law alone
        // would repeat their first words in each sentence.
        match self.rng.below(2) {
            0 => words[self.rank(words.len())],
            _ => words[index(&mut self.rng, words.len())],
        }
    }

    /// A rank below `len` by Zipf's law with exponent 1, by inversion of its
    /// continuous form.
    fn rank(&mut self, len: usize) -> usize {
        let most = u32::try_from(len).map_or(1.0, f64::from);
        let rank = ((most + 1.0).ln() * self.rng.unit()).exp() - 1.0;
        whole(rank).min(len - 1)
    }
}

/// `The ferry of Brain` as a part of a path: `the-ferry-of-brain`.
pub fn slug(title: &str) -> String {
    title.to_lowercase().replace(' ', "-")
}

fn name(rng: &mut Rng) -> String {
    let mut text = String::new();
    for _ in 0..=1 + rng.below(2) {
        text.push_str(ONSETS[index(rng, ONSETS.len())]);
        text.push_str(VOWELS[index(rng, VOWELS.len())]);
    }
    text.push_str(ENDS[index(rng, ENDS.len())]);
    capital(&text)
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next()
        .map(|first| first.to_uppercase().chain(rest).collect())
        .unwrap_or_default()
}
