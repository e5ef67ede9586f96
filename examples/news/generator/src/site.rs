//! Puts the whole site together.
//!
//! In: a seed. Out: every file's path and bytes, and each address's share of
//! the requests. Holds: one seed, one site; every link leads to a file of the
//! site (or to `/search`); what lies under `assets/` carries its own checksum in its
//! name, so it may be kept for ever.

use crate::media;
use crate::pages::{self, Article, Frame};
use crate::shape::{Class, FITS, Fit, Kind, popularity, shuffle, sizes};
use crate::words::{SECTIONS, Words, slug};
use kernel::Rng;
use std::collections::BTreeMap;

const FRONT_ARTICLES: usize = 40;
const RELATED: usize = 4;
const FAVICON_BYTES: usize = 3_638;

pub struct Site {
    /// Path without a leading `/`, bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Address with a leading `/`, share of the requests; falling.
    pub popularity: Vec<(String, f64)>,
}

/// Addresses of the files under `assets/`, by kind.
type Assets = BTreeMap<Kind, Vec<String>>;

pub fn build(seed: u64) -> Site {
    let mut rng = Rng::seeded(seed);
    let mut words = Words::seeded(rng.next_u64());
    let mut files = BTreeMap::new();
    let mut assets = Assets::new();
    let mut article_bytes = Vec::new();
    for fit in &FITS {
        let sizes = sizes(fit, &mut rng);
        if fit.kind == Kind::Article {
            article_bytes = sizes;
        } else {
            let paths = add_assets(fit, &sizes, &mut files, &mut rng, &mut words);
            assets.insert(fit.kind, paths);
        }
    }
    let main_style = add(&mut files, "style", "css", pages::MAIN_STYLE.into());
    let live = add(&mut files, "live", "js", pages::LIVE_SCRIPT.into());
    let favicon = media::png(FAVICON_BYTES, &mut rng);
    files.insert("favicon.ico".to_owned(), icon(&favicon));
    files.insert(
        "robots.txt".to_owned(),
        b"User-agent: *\nAllow: /\n".to_vec(),
    );

    let mut articles = plan_articles(&article_bytes, &assets, &mut rng, &mut words);
    add_pages(
        &mut files,
        &articles,
        &assets,
        (&main_style, &live),
        &mut words,
    );
    shuffle(&mut articles, &mut rng);
    let popularity = popularity(rank(&articles, &assets, main_style, live));
    Site { files, popularity }
}

fn add_assets(
    fit: &Fit,
    sizes: &[usize],
    files: &mut BTreeMap<String, Vec<u8>>,
    rng: &mut Rng,
    words: &mut Words,
) -> Vec<String> {
    sizes
        .iter()
        .map(|&bytes| {
            let (name, extension, content) = match fit.kind {
                Kind::Png => ("image", "png", media::png(bytes, rng)),
                Kind::Jpeg => ("photo", "jpg", media::jpeg(bytes, rng)),
                Kind::Svg => ("drawing", "svg", pages::drawing(bytes, words).into_bytes()),
                Kind::Style => ("block", "css", pages::style(bytes, words).into_bytes()),
                Kind::Script => ("part", "js", pages::script(bytes, words).into_bytes()),
                Kind::Font => ("font", "woff2", media::noise(b"wOF2", bytes, rng)),
                Kind::Download | Kind::Article => {
                    ("data", "tar.gz", media::noise(&[0x1f, 0x8b, 8], bytes, rng))
                }
            };
            add(files, name, extension, content)
        })
        .collect()
}

/// Keeps an asset; returns its address.
fn add(
    files: &mut BTreeMap<String, Vec<u8>>,
    name: &str,
    extension: &str,
    content: Vec<u8>,
) -> String {
    let sum = crc32fast::hash(&content);
    let path = format!("assets/{name}-{sum:08x}.{extension}");
    let address = format!("/{path}");
    files.insert(path, content);
    address
}

/// An ICO file that holds one PNG.
fn icon(png: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 1, 0, 1, 0, 64, 64, 0, 0, 1, 0, 8, 0];
    out.extend(u32::try_from(png.len()).unwrap_or(0).to_le_bytes());
    out.extend(22_u32.to_le_bytes());
    out.extend(png);
    out
}

fn plan_articles(
    sizes: &[usize],
    assets: &Assets,
    rng: &mut Rng,
    words: &mut Words,
) -> Vec<Article> {
    let of = |kind| assets.get(&kind).map_or(&[][..], Vec::as_slice);
    let mut pictures = [of(Kind::Png), of(Kind::Jpeg), of(Kind::Svg)].concat();
    shuffle(&mut pictures, rng);
    let downloads = of(Kind::Download);
    let mut taken = BTreeMap::<String, u32>::new();
    sizes
        .iter()
        .enumerate()
        .map(|(number, &bytes)| {
            let section = &SECTIONS[number % SECTIONS.len()];
            let title = words.title(section);
            let base = format!("{}/{}", section.name, slug(&title));
            let copies = taken.entry(base.clone()).or_insert(0);
            *copies += 1;
            let path = match *copies {
                1 => format!("{base}.html"),
                more => format!("{base}-{more}.html"),
            };
            // Every picture is in some article; two of three articles have one.
            let images = match number % 3 {
                0 => Vec::new(),
                _ => pictures
                    .get(number % pictures.len().max(1))
                    .cloned()
                    .into_iter()
                    .collect(),
            };
            let downloads = match number % 20 {
                7 => downloads
                    .get(number / 20 % downloads.len().max(1))
                    .cloned()
                    .into_iter()
                    .collect(),
                _ => Vec::new(),
            };
            Article {
                title,
                path,
                section,
                bytes,
                images,
                downloads,
            }
        })
        .collect()
}

fn add_pages(
    files: &mut BTreeMap<String, Vec<u8>>,
    articles: &[Article],
    assets: &Assets,
    (main_style, live): (&str, &str),
    words: &mut Words,
) {
    let of = |kind: Kind, number: usize| {
        let all = assets.get(&kind).map_or(&[][..], Vec::as_slice);
        all.get(number % all.len().max(1))
            .map_or("/", String::as_str)
    };
    let frame = |number: usize| Frame {
        style: main_style,
        section_style: of(Kind::Style, number),
        script: of(Kind::Script, number),
        live,
        logo: of(Kind::Svg, 0),
    };
    for (number, article) in articles.iter().enumerate() {
        let related: Vec<_> = (1..=RELATED)
            .map(|step| &articles[(number + step * SECTIONS.len()) % articles.len()])
            .collect();
        let text = pages::article(article, &related, &frame(number), words);
        files.insert(article.path.clone(), text.into_bytes());
    }
    for (number, section) in SECTIONS.iter().enumerate() {
        let own: Vec<_> = articles
            .iter()
            .filter(|article| article.section.name == section.name)
            .collect();
        let text = pages::list(section.title, &own, &frame(number));
        files.insert(format!("{}/index.html", section.name), text.into_bytes());
    }
    let front: Vec<_> = articles.iter().take(FRONT_ARTICLES).collect();
    let text = pages::list("The Stationary News", &front, &frame(0));
    files.insert("index.html".to_owned(), text.into_bytes());
    files.insert(
        "404.html".to_owned(),
        pages::not_found(&frame(0)).into_bytes(),
    );
    files.insert("feed.xml".to_owned(), pages::feed(&front).into_bytes());
}

/// The addresses of each class, the most popular first.
fn rank(
    articles: &[Article],
    assets: &Assets,
    main_style: String,
    live: String,
) -> Vec<(Class, Vec<String>)> {
    let of = |kind| assets.get(&kind).cloned().unwrap_or_default();
    let mut page_list = vec!["/".to_owned()];
    page_list.extend(SECTIONS.iter().map(|section| format!("/{}/", section.name)));
    page_list.extend(articles.iter().map(|article| format!("/{}", article.path)));
    let mut images = vec!["/favicon.ico".to_owned()];
    images.extend([of(Kind::Svg), of(Kind::Png), of(Kind::Jpeg)].concat());
    let mut styles = vec![main_style];
    styles.extend(of(Kind::Style));
    let mut scripts = vec![live];
    scripts.extend(of(Kind::Script));
    let mut others = vec!["/feed.xml".to_owned(), "/robots.txt".to_owned()];
    others.extend(of(Kind::Download));
    vec![
        (Class::Page, page_list),
        (Class::Image, images),
        (Class::Style, styles),
        (Class::Other, others),
        (Class::Script, scripts),
        (Class::Font, of(Kind::Font)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_page(path: &str) -> bool {
        path.rsplit_once('.')
            .is_some_and(|(_, ending)| ending == "html")
    }

    #[test]
    fn one_seed_one_site_and_another_seed_another() {
        let (first, second, other) = (build(1), build(1), build(2));
        assert!(first.files == second.files && first.popularity == second.popularity);
        assert!(first.files != other.files);
    }

    #[test]
    fn the_site_is_small_enough_and_large_enough() {
        let site = build(1);
        let total: usize = site.files.values().map(Vec::len).sum();
        assert!((10_000_000..=30_000_000).contains(&total), "{total}");
        assert!(
            (350..600).contains(&site.files.len()),
            "{}",
            site.files.len()
        );
    }

    #[test]
    fn every_address_and_every_link_is_a_file() {
        let site = build(1);
        let exists = |address: &str| {
            let path = address.trim_start_matches('/');
            let index = format!("{path}index.html");
            site.files.contains_key(path) || site.files.contains_key(&index)
        };
        for (address, _) in &site.popularity {
            assert!(exists(address), "{address}");
        }
        for (path, bytes) in site.files.iter().filter(|(path, _)| is_page(path)) {
            let text = str::from_utf8(bytes).expect("pages are text");
            for link in text.split("href=\"").chain(text.split("src=\"")).skip(1) {
                let link = link.split('"').next().unwrap_or_default();
                assert!(!link.starts_with('/') || exists(link), "{path}: {link}");
            }
        }
    }

    #[test]
    fn articles_have_the_size_they_were_given() {
        let site = build(1);
        let mut sizes: Vec<_> = site
            .files
            .iter()
            .filter(|(path, _)| is_page(path) && !path.ends_with("index.html"))
            .map(|(_, bytes)| bytes.len())
            .collect();
        sizes.sort_unstable();
        let median = sizes[sizes.len() / 2];
        assert!((9_000..10_500).contains(&median), "{median}");
    }
}
