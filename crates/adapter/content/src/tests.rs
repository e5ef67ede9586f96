//! What the store of content promises, through its public face.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tempfile::TempDir;

struct Bench {
    place: TempDir,
    content: Content,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let content = Content::open(place.path().join("content")).expect("opens");
        fs::create_dir(place.path().join("site")).expect("creates");
        Self { place, content }
    }

    fn site(&self) -> PathBuf {
        self.place.path().join("site")
    }

    fn write(&self, path: &str, bytes: &[u8]) -> &Self {
        let path = self.site().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("creates");
        fs::write(path, bytes).expect("writes");
        self
    }

    fn ingest(&self) -> Result<Ingested, ContentError> {
        self.content.ingest_tree(&self.site(), &mut |_| {})
    }
}

#[test]
fn hidden_files_and_the_manifest_are_not_part_of_a_site() {
    let bench = Bench::new();
    for path in [
        ".git/config",
        ".env",
        "deep/.htpasswd",
        "homeostat.toml",
        ".well-known/security.txt",
        "deep/homeostat.toml",
        "index.html",
    ] {
        bench.write(path, b"x");
    }
    symlink("/nowhere", bench.site().join(".lock")).expect("links");
    let ingested = bench.ingest().expect("ingests");
    let tree = bench.content.tree(ingested.tree).expect("reads");
    let served: Vec<&str> = tree.entries.keys().map(String::as_str).collect();
    let expected = [
        ".well-known/security.txt",
        "deep/homeostat.toml",
        "index.html",
    ];
    assert_eq!(served, expected);
}

fn damage(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("mode");
    fs::write(path, bytes).expect("writes");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_ingested_reads_back_equal(
        files in proptest::collection::btree_map("[a-c]{1,2}/[a-z]{1,6}", any::<Vec<u8>>(), 0..40),
    ) {
        let bench = Bench::new();
        for (path, bytes) in &files {
            bench.write(path, bytes);
        }
        let ingested = bench.ingest().expect("ingests");
        let tree = bench.content.tree(ingested.tree).expect("reads");
        let read: BTreeMap<_, _> = tree.entries.iter()
            .map(|(path, entry)| (path.clone(), bench.content.read_verified(entry.hash).expect("reads")))
            .collect();
        prop_assert_eq!(&read, &files);
        let to = bench.place.path().join("out");
        bench.content.export_tree(ingested.tree, &to).expect("exports");
        for (path, bytes) in &files {
            prop_assert_eq!(&fs::read(to.join(path)).expect("reads"), bytes);
        }
        prop_assert_eq!(fs::read_dir(bench.content.temporary()).expect("lists").count(), 0);
    }

    #[test]
    fn hostile_tree_bytes_never_panic(bytes: Vec<u8>, versioned: bool) {
        let bench = Bench::new();
        let mut bytes = bytes;
        if versioned {
            bytes.insert(0, TREE_VERSION);
        }
        bench.write("tree", &bytes);
        let hash = bench.content.ingest_file(&bench.site().join("tree"), false).expect("ingests");
        let _ = bench.content.tree(hash);
    }
}

#[test]
fn tree_with_a_path_out_of_the_root_is_refused() {
    for key in ["../x", "/x", "a//b", "a/./b", "", "a/.."] {
        let bench = Bench::new();
        bench.write("a", b"x");
        let mut tree = bench
            .content
            .tree(bench.ingest().expect("ingests").tree)
            .expect("reads");
        let entry = tree.entries.remove("a").expect("there");
        tree.entries.insert(key.to_owned(), entry);
        bench.write(
            "t",
            &wire::record::encode(TREE_VERSION, &tree).expect("encodes"),
        );
        let hash = bench
            .content
            .ingest_file(&bench.site().join("t"), false)
            .expect("ingests");
        assert!(
            matches!(bench.content.tree(hash), Err(ContentError::TreePath { .. })),
            "{key}"
        );
    }
}

#[test]
fn damaged_content_is_noticed_and_another_size_is_written_anew() {
    let bench = Bench::new();
    bench.write("a.txt", b"as it was");
    let ingested = bench.ingest().expect("ingests");
    let hash = bench.content.tree(ingested.tree).expect("reads").entries["a.txt"].hash;
    damage(&bench.content.path(hash), b"as it is.");
    assert!(matches!(
        bench.content.read_verified(hash),
        Err(ContentError::Damaged { .. })
    ));
    damage(&bench.content.path(hash), b"");
    assert_eq!(bench.ingest().expect("ingests").new_bytes, 9);
    assert_eq!(
        bench.content.read_verified(hash).expect("reads"),
        b"as it was"
    );
}

#[test]
fn unchanged_files_are_not_rewritten() {
    let bench = Bench::new();
    bench
        .write("a", b"same")
        .write("b", b"same")
        .write("big", &vec![7; 5 << 20]);
    let first = bench.ingest().expect("ingests");
    assert_eq!(first.new_bytes, 4 + (5 << 20));
    let inode = |hash| fs::metadata(bench.content.path(hash)).expect("there").ino();
    let before = inode(first.tree);
    let second = bench.ingest().expect("ingests");
    assert_eq!((second.tree, second.new_bytes), (first.tree, 0));
    assert_eq!(inode(second.tree), before);
}

#[test]
fn links_stay_inside_the_root() {
    let bench = Bench::new();
    bench.write("real/page.html", b"page");
    symlink("real/page.html", bench.site().join("link.html")).expect("links");
    symlink("real", bench.site().join("alias")).expect("links");
    let tree = bench
        .content
        .tree(bench.ingest().expect("ingests").tree)
        .expect("reads");
    let paths: Vec<_> = tree.entries.keys().map(String::as_str).collect();
    assert_eq!(paths, ["alias/page.html", "link.html", "real/page.html"]);
    symlink("..", bench.site().join("real/up")).expect("links");
    assert!(matches!(bench.ingest(), Err(ContentError::Cycle { .. })));
    fs::remove_file(bench.site().join("real/up")).expect("removes");
    symlink("/etc/passwd", bench.site().join("out")).expect("links");
    assert!(matches!(bench.ingest(), Err(ContentError::Escapes { .. })));
}

#[test]
fn fifo_is_refused_and_nothing_half_made_remains() {
    let bench = Bench::new();
    bench.write("a", b"x");
    let fifo = bench.site().join("z");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
        .expect("makes");
    assert!(matches!(bench.ingest(), Err(ContentError::NotAFile { .. })));
    assert_eq!(
        fs::read_dir(bench.content.temporary())
            .expect("lists")
            .count(),
        0
    );
}

#[test]
fn variants_decode_to_their_content_and_only_useful_ones_are_kept() {
    let bench = Bench::new();
    let page = "<p>hello</p>\n".repeat(200);
    let mut noise = vec![0; 4096];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    bench
        .write("a.html", page.as_bytes())
        .write("n.txt", &noise)
        .write("s.txt", b"short");
    bench.write("p.png", page.as_bytes());
    let tree = bench.ingest().expect("ingests").tree;
    let go = AtomicBool::new(false);
    fs::remove_file(bench.site().join("p.png")).expect("removes");
    let done = bench.content.precompress(tree, &go).expect("compresses");
    assert_eq!((done.made, done.not_worth), (2, 2));
    let hash = bench.content.tree(tree).expect("reads").entries["a.html"].hash;
    let open =
        |encoding| File::open(bench.content.variant(hash, encoding).expect("made")).expect("opens");
    let mut text = String::new();
    flate2::read::GzDecoder::new(open(Encoding::Gzip))
        .read_to_string(&mut text)
        .expect("reads");
    assert_eq!(text, page);
    text.clear();
    brotli::Decompressor::new(open(Encoding::Brotli), 4096)
        .read_to_string(&mut text)
        .expect("reads");
    assert_eq!(text, page);
    assert_eq!(
        bench
            .content
            .precompress(tree, &go)
            .expect("compresses")
            .made,
        0
    );
}

#[test]
fn collection_spares_the_live_and_the_young() {
    let bench = Bench::new();
    bench
        .write("old.html", "old ".repeat(100).as_bytes())
        .write("both", b"both");
    let old = bench.ingest().expect("ingests").tree;
    bench
        .content
        .precompress(old, &AtomicBool::new(false))
        .expect("compresses");
    fs::remove_file(bench.site().join("old.html")).expect("removes");
    let new = bench.ingest().expect("ingests").tree;
    assert_eq!(
        bench.content.collect(&[new], &[]).expect("collects").files,
        0
    );
    let all = Duration::ZERO;
    assert_eq!(
        bench
            .content
            .collect_older(&[new], &[], all)
            .expect("collects")
            .files,
        4
    );
    assert!(matches!(
        bench.content.tree(old),
        Err(ContentError::Missing { .. })
    ));
    let tree = bench.content.tree(new).expect("reads");
    bench
        .content
        .read_verified(tree.entries["both"].hash)
        .expect("kept");
    assert!(bench.content.collect_older(&[old], &[], all).is_err());
    bench
        .content
        .tree(new)
        .expect("a failed collection removes nothing");
}

#[test]
fn executable_content_can_be_run() {
    let bench = Bench::new();
    bench.write("run", b"#!/bin/sh\nexit 7\n");
    let hash = bench
        .content
        .ingest_file(&bench.site().join("run"), true)
        .expect("ingests");
    let mode = fs::metadata(bench.content.path(hash))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o555);
}

#[test]
fn media_types_name_the_charset_of_text() {
    assert_eq!(media::media_type("a/b.html"), "text/html; charset=utf-8");
    assert_eq!(media::media_type("a.js"), "text/javascript; charset=utf-8");
    assert_eq!(media::media_type("a.png"), "image/png");
    assert_eq!(media::media_type("a"), "application/octet-stream");
}
