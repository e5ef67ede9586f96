//! What a page says: its title and the words a reader sees.
//!
//! In: a page's bytes, from anywhere. Out: title, text, words. Holds: no input
//! panics; the work is linear in the input. Never: a full HTML parser; what it
//! misreads costs a search result, not the service.

/// Elements whose content nobody reads as text.
const SILENT: [&str; 8] = [
    "script", "style", "nav", "header", "footer", "form", "svg", "template",
];
/// The part of a page that is its own, the first found wins.
const OWN: [&str; 2] = ["article", "main"];
const WORD_CHARS_MAX: usize = 48;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub title: String,
    pub text: String,
}

/// A word in lower case, and where it begins in the text, in bytes.
pub struct Word {
    pub at: usize,
    pub lower: String,
}

pub fn page(html: &str) -> Page {
    let mut reader = Reader {
        rest: html,
        page: Page::default(),
        own: [None; OWN.len()],
    };
    while !reader.rest.is_empty() {
        reader.step();
    }
    let own = reader.own.iter().flatten().next().copied();
    let (from, to) = own.unwrap_or((0, usize::MAX));
    let text = &reader.page.text;
    let text = text.get(from..to.min(text.len())).unwrap_or(text);
    Page {
        title: reader.page.title.trim().to_owned(),
        text: text.trim().to_owned(),
    }
}

/// The words of a text: runs of letters and digits; overlong runs are left out.
pub fn words(text: &str) -> impl Iterator<Item = Word> {
    let mut from = None;
    let end = std::iter::once((text.len(), ' '));
    text.char_indices()
        .chain(end)
        .filter_map(move |(at, char)| {
            if char.is_alphanumeric() {
                from.get_or_insert(at);
                return None;
            }
            let start = from.take()?;
            let word = &text[start..at];
            (word.len() <= 4 * WORD_CHARS_MAX && word.chars().count() <= WORD_CHARS_MAX).then(
                || Word {
                    at: start,
                    lower: word.to_lowercase(),
                },
            )
        })
}

struct Reader<'a> {
    rest: &'a str,
    page: Page,
    /// From the first opening of each of [`OWN`] to its last closing.
    own: [Option<(usize, usize)>; OWN.len()],
}

impl Reader<'_> {
    /// Takes the text up to the next tag, and the tag.
    fn step(&mut self) {
        let tag = self.rest.find('<').unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(tag);
        push(&mut self.page.text, text);
        if let Some(comment) = rest.strip_prefix("<!--") {
            self.rest = after(comment, "-->");
            return;
        }
        let Some(inside) = rest.strip_prefix('<') else {
            self.rest = "";
            return;
        };
        if !inside.starts_with(|char: char| char.is_ascii_alphabetic() || "/!?".contains(char)) {
            self.page.text.push('<');
            self.rest = inside;
            return;
        }
        self.rest = &inside[tag_end(inside)..];
        let (closing, named) = match inside.strip_prefix('/') {
            Some(named) => (true, named),
            None => (false, inside),
        };
        let name_end = named
            .find(|char: char| !char.is_ascii_alphanumeric())
            .unwrap_or(named.len());
        self.element(&named[..name_end].to_ascii_lowercase(), closing);
    }

    fn element(&mut self, name: &str, closing: bool) {
        let here = self.page.text.len();
        if let Some(slot) = OWN.iter().position(|own| *own == name) {
            match (&mut self.own[slot], closing) {
                (Some((_, to)), true) => *to = here,
                (own @ None, false) => *own = Some((here, usize::MAX)),
                _ => {}
            }
        }
        if closing {
        } else if name == "title" && self.page.title.is_empty() {
            let end = self.rest.find('<').unwrap_or(self.rest.len());
            let (title, rest) = self.rest.split_at(end);
            push(&mut self.page.title, title);
            self.rest = rest;
        } else if SILENT.contains(&name) {
            self.rest = after_closing(self.rest, name);
        }
        // Tags part words: `<li>one</li><li>two</li>`.
        space(&mut self.page.text);
    }
}

/// Where a tag ends, `>` included; a `>` in quotes is not its end.
fn tag_end(inside: &str) -> usize {
    let mut quote = None;
    for (at, char) in inside.char_indices() {
        match (quote, char) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            _ => {}
        }
    }
    // An unclosed quote must not hide the rest of the page.
    inside.find('>').map_or(inside.len(), |at| at + 1)
}

fn after<'a>(text: &'a str, mark: &str) -> &'a str {
    text.find(mark).map_or("", |at| &text[at + mark.len()..])
}

/// What follows `</name`, at any case; nothing when it is never closed.
fn after_closing<'a>(text: &'a str, name: &str) -> &'a str {
    let mut rest = text;
    while let Some(at) = rest.find("</") {
        rest = &rest[at + 2..];
        let found = rest.get(..name.len());
        if found.is_some_and(|found| found.eq_ignore_ascii_case(name)) {
            return after(rest, ">");
        }
    }
    ""
}

/// Adds text with its references resolved and its white space single.
fn push(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let (char, length) = match char {
            '&' => reference(rest).unwrap_or(('&', 1)),
            _ => (char, char.len_utf8()),
        };
        rest = &rest[length..];
        if char.is_whitespace() || char.is_control() {
            space(out);
        } else {
            out.push(char);
        }
    }
}

fn space(out: &mut String) {
    if !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
}

/// A character reference at the start of `text`, and its length in bytes.
fn reference(text: &str) -> Option<(char, usize)> {
    let end = text.bytes().take(12).position(|byte| byte == b';')?;
    let name = text.get(1..end)?;
    let char = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" => ' ',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code)?
        }
    };
    Some((char, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(html: &str) -> String {
        page(html).text
    }

    #[test]
    fn a_page_says_its_title_and_its_article_alone() {
        let page = page(
            "<!doctype html><head><title>Ferry &amp; tram</title><style>p { a: b }</style></head>\
             <body><nav>City</nav><main><h1>Menu</h1><article><p>The <b>ferry</b> left.</p>\
             <p>Twice</p></article><ul><li>Other</ul></main></body>",
        );
        assert_eq!(page.title, "Ferry & tram");
        assert_eq!(page.text, "The ferry left. Twice");
    }

    #[test]
    fn without_an_article_the_main_part_counts_and_without_it_the_page() {
        assert_eq!(text("<p>a<main>b</main>c"), "b");
        assert_eq!(text("<p>a<div>b</div>c"), "a b c");
    }

    #[test]
    fn silent_elements_comments_and_attributes_say_nothing() {
        assert_eq!(text("a<SCRIPT>x < y</Script >b<!-- no > -->c"), "a bc");
        assert_eq!(text("<a title='1 > 0'>word</a>"), "word");
        assert_eq!(
            text("1 < 2 &lt; 3 &#33; &#x21; &nosuch; &"),
            "1 < 2 < 3 ! ! &nosuch; &"
        );
        assert_eq!(
            text("shown <a href=\"never closed>and after"),
            "shown and after"
        );
    }

    #[test]
    fn words_are_lower_case_and_placed() {
        let found: Vec<_> = words("Die Fähre, 2×!")
            .map(|word| (word.at, word.lower))
            .collect();
        let expected = [(0, "die"), (4, "fähre"), (12, "2")];
        assert_eq!(found, expected.map(|(at, word)| (at, word.to_owned())));
        assert_eq!(words(&"x".repeat(5_000)).count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let page = page(&String::from_utf8_lossy(&bytes));
            prop_assert!(words(&page.text).all(|word| !word.lower.is_empty()));
        }

        #[test]
        fn no_markup_panics(html in "(<|</|>|&|;|#x?|\"|'|<!--|-->|title|article|main|script|é| |[0-9]){0,40}") {
            let _ = page(&html);
        }
    }
}
