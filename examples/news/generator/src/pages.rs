//! The text documents: articles, lists of articles, styles, scripts, drawings.
//!
//! In: what a document says and links to, its size. Out: its text. Holds: a
//! text reaches its size within one paragraph, rule or line.

use crate::words::{SECTIONS, Section, Words};
use std::fmt::Write as _;

/// What every page links to, as paths from the root.
pub struct Frame<'a> {
    pub style: &'a str,
    pub section_style: &'a str,
    pub script: &'a str,
    pub live: &'a str,
    pub logo: &'a str,
}

pub struct Article {
    pub title: String,
    pub path: String,
    pub section: &'static Section,
    pub bytes: usize,
    pub images: Vec<String>,
    pub downloads: Vec<String>,
}

pub fn article(
    article: &Article,
    related: &[&Article],
    frame: &Frame,
    words: &mut Words,
) -> String {
    let title = &article.title;
    let mut body = format!("<article>\n<h1>{title}</h1>\n");
    let _ = writeln!(body, "<p class=\"by\">By {}</p>", words.person());
    for image in &article.images {
        let _ = writeln!(
            body,
            "<figure><img src=\"{image}\" alt=\"{title}\" loading=\"lazy\"></figure>"
        );
    }
    let around =
        page(title, COMMENTS, frame).len() + 90 * (related.len() + article.downloads.len());
    let first = words.paragraph(article.section);
    let _ = writeln!(body, "<p>{first}</p>");
    while body.len() + around + 200 < article.bytes {
        let _ = writeln!(body, "<p>{}</p>", words.paragraph(article.section));
    }
    for download in &article.downloads {
        let _ = writeln!(
            body,
            "<p><a href=\"{download}\">The data behind this</a></p>"
        );
    }
    body.push_str("</article>\n");
    body.push_str(COMMENTS);
    body.push_str("<ul class=\"related\">\n");
    for other in related {
        let _ = writeln!(
            body,
            "<li><a href=\"/{}\">{}</a></li>",
            other.path, other.title
        );
    }
    body.push_str("</ul>\n");
    page(title, &body, frame)
}

pub fn list(title: &str, articles: &[&Article], frame: &Frame) -> String {
    let mut body = format!("<h1>{title}</h1>\n<ul class=\"list\">\n");
    for article in articles {
        let (path, title, section) = (&article.path, &article.title, article.section.title);
        let _ = writeln!(
            body,
            "<li><span>{section}</span> <a href=\"/{path}\">{title}</a></li>"
        );
    }
    body.push_str("</ul>\n");
    page(title, &body, frame)
}

pub fn not_found(frame: &Frame) -> String {
    let body = "<h1>Not found</h1>\n<p>There is nothing at this address. \
                <a href=\"/\">The front page</a> has today's news.</p>\n";
    page("Not found", body, frame)
}

fn page(title: &str, body: &str, frame: &Frame) -> String {
    let Frame {
        style,
        section_style,
        script,
        live,
        logo,
    } = frame;
    let mut links = String::new();
    for section in &SECTIONS {
        let _ = write!(
            links,
            "<a href=\"/{}/\">{}</a> ",
            section.name, section.title
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"generator\" content=\"{GENERATOR}\">\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"/favicon.ico\">\n\
         <link rel=\"alternate\" type=\"application/rss+xml\" href=\"/feed.xml\">\n\
         <link rel=\"stylesheet\" href=\"{section_style}\">\n\
         <link rel=\"stylesheet\" href=\"{style}\">\n\
         <script src=\"{script}\" defer></script>\n\
         <script src=\"{live}\" defer></script>\n</head>\n<body>\n\
         <header><a href=\"/\"><img src=\"{logo}\" alt=\"The Stationary News\" width=\"64\" height=\"64\"></a>\n\
         <nav>{links}</nav>\n\
         <form action=\"/search\"><input name=\"q\" type=\"search\" placeholder=\"Search\"></form>\n\
         <small id=\"visitors\"></small></header>\n\
         <main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// In each page's head; the tool replaces only directories that carry it.
pub const GENERATOR: &str = "news-generator";

const COMMENTS: &str = "<section id=\"comments\">\n<h2>Comments</h2>\n<ul></ul>\n\
    <form><textarea name=\"text\" required maxlength=\"2000\"></textarea>\n\
    <button>Comment</button> <output></output></form>\n</section>\n";

/// Shows comments and who else is here: the services `comments` and `visitors`.
pub const LIVE_SCRIPT: &str = include_str!("live.js");

pub fn feed(articles: &[&Article]) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<rss version=\"2.0\"><channel>\n\
         <title>The Stationary News</title><link>/</link><description>Latest</description>\n",
    );
    for article in articles {
        let _ = writeln!(
            out,
            "<item><title>{}</title><link>/{}</link></item>",
            article.title, article.path
        );
    }
    out.push_str("</channel></rss>\n");
    out
}

pub const MAIN_STYLE: &str = "\
:root { color-scheme: light dark; }
body { max-width: 46rem; margin: 0 auto; padding: 1rem; font: 1.05rem/1.6 Georgia, serif; }
header { display: flex; gap: 1rem; align-items: center; border-bottom: 1px solid; }
nav { flex: 1; }
nav a { margin-right: .6rem; }
figure { margin: 1rem 0; }
figure img { max-width: 100%; height: auto; }
.by, .list span { font-size: .85rem; opacity: .7; }
.list { list-style: none; padding: 0; }
.list li { padding: .3rem 0; border-bottom: 1px dotted; }
";

pub fn style(bytes: usize, words: &mut Words) -> String {
    let mut out = String::new();
    while out.len() < bytes {
        let (block, part) = (words.plain(), words.plain());
        let (space, hue) = (words.rng().below(40), words.rng().below(360));
        let _ = writeln!(
            out,
            ".{block}-{part} {{ margin: {space}px; color: hsl({hue} 40% 30%); }}"
        );
    }
    out
}

pub fn script(bytes: usize, words: &mut Words) -> String {
    let mut out = String::from("\"use strict\";\n(() => {\nconst table = new Map();\n");
    while out.len() + 6 < bytes {
        let (key, value) = (words.plain(), words.plain());
        let number = words.rng().below(10_000);
        let _ = writeln!(
            out,
            "table.set(\"{key}-{number}\", () => \"{value}\".length + {number});"
        );
    }
    out.push_str("})();\n");
    out
}

pub fn drawing(bytes: usize, words: &mut Words) -> String {
    let mut out =
        String::from("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 100 100\">\n");
    while out.len() + 70 < bytes {
        let (x, y) = (words.rng().below(100), words.rng().below(100));
        let (radius, hue) = (2 + words.rng().below(14), words.rng().below(360));
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius}\" fill=\"hsl({hue} 60% 50%)\"/>"
        );
    }
    out.push_str("</svg>\n");
    out
}
