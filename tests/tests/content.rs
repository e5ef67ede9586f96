//! Content on several nodes: what a disk changes is never served and comes back
//! from the others; what comes resumes; what nobody needs goes.

use black_box::disk::Disk;
use black_box::{TestNode, kill, says, until};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

const MIB: usize = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Bytes that nothing compresses, the same for the same seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(next());
    }
    bytes.truncate(length);
    bytes
}

/// A project of one site: a page and a film.
fn project(node: &TestNode, film: &[u8]) -> PathBuf {
    let directory = node.scratch().join("films");
    fs::create_dir_all(directory.join("site")).expect("a directory");
    fs::write(directory.join("site/index.html"), "a page").expect("a page");
    fs::write(directory.join("site/film.bin"), film).expect("a film");
    let text =
        "[project]\nname = \"films\"\n\n[site.web]\nroot = \"site\"\nhosts = [\"localhost\"]\n";
    fs::write(directory.join("homeostat.toml"), text).expect("a manifest");
    directory
}

fn join(first: &TestNode, node: TestNode) -> TestNode {
    let token = first.ok(&["token", "create", "--ttl", "5m", "--zone", "/eu/1"]);
    node.ok(&["up", "--join", token.trim()]);
    node
}

/// Where a file of that length lies in a node's content.
fn chunk(node: &TestNode, length: usize) -> Option<PathBuf> {
    let chunks = node.layout.content().join("chunks");
    let directories = fs::read_dir(chunks).ok()?;
    let files = directories
        .flatten()
        .filter_map(|it| fs::read_dir(it.path()).ok());
    let mut files = files.flatten().flatten();
    let found = files.find(|file| file.metadata().is_ok_and(|it| it.len() == length as u64));
    found.map(|file| file.path())
}

/// As a bad disk would.
fn damage(path: &Path, at: u64) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("may");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reads");
    file.write_all_at(&[byte[0] ^ 1], at).expect("writes");
}

fn doctor(node: &TestNode) -> String {
    String::from_utf8_lossy(&node.run(&["doctor"]).stdout).into_owned()
}

fn why(node: &TestNode, of: &str) -> String {
    String::from_utf8_lossy(&node.run(&["why", of]).stdout).into_owned()
}

/// What the node's loop over content saw come of its decisions, the newest first.
fn observed(node: &TestNode, name: &str) -> Vec<String> {
    let said = node.run(&["why", &format!("node/{name}"), "-o", "json"]);
    let said: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
    let steps = said["chain"].as_array().cloned().unwrap_or_default();
    let what = |step: &Value| Some(step["observation"]["what"].as_str()?.to_owned());
    steps.iter().filter_map(what).collect()
}

/// A good answer, which must be right; a refusal and an answer that breaks off
/// are no wrong bytes.
fn film(node: &TestNode, right: &[u8]) -> Option<()> {
    let answer = node.get("/film.bin").ok()?;
    if answer.status != 200 {
        return None;
    }
    assert!(answer.body == right, "a wrong byte was served");
    Some(())
}

#[test]
fn what_a_disk_changed_is_never_served_and_comes_back_from_other_nodes() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, TestNode::new().named("two"));
    let third = join(&first, TestNode::new().named("three"));
    let right = noise(3 * MIB + 77, 1);
    let directory = project(&first, &right);
    first.ok(&["apply", text(&directory)]);
    for node in [&first, &second, &third] {
        until("the film everywhere", || film(node, &right));
    }
    let on_disk = chunk(&second, right.len()).expect("it is there");
    damage(&on_disk, 1_500_000);
    until("the film, mended", || {
        film(&second, &right)?;
        let mended = fs::read(&on_disk).ok()?;
        (mended == right).then_some(())
    });
    until("it is told", || {
        let told = doctor(&second).contains("damaged file fetched again");
        let done = observed(&second, "two");
        let done = done
            .iter()
            .any(|it| it.contains("/film.bin is here, whole"));
        (told && done).then_some(())
    });
    // Elsewhere too, by the site that it belongs to.
    let told = why(&first, "site/web");
    assert!(told.contains("mend site/films/web /film.bin"), "{told}");

    // A small file, of which a new edge has nothing in memory.
    let page = chunk(&second, "a page".len()).expect("it is there");
    damage(&page, 0);
    let (_, _, edge) = second.pids();
    kill(edge);
    until("the page, mended", || {
        let answer = second.get("/").ok().filter(|answer| answer.status == 200)?;
        assert_eq!(answer.body, b"a page");
        Some(())
    });
}

#[test]
fn where_no_other_node_has_it_damage_is_said_with_the_next_step() {
    let node = TestNode::new().set("HOMEOSTAT_SCRUB_EVERY", "1s");
    let right = noise(MIB, 2);
    let directory = project(&node, &right);
    node.ok(&["up", text(&directory)]);
    let on_disk = until("the film", || chunk(&node, right.len()));
    damage(&on_disk, 5);
    // Nobody asks for it: it is read now and then.
    until("it is found", || {
        let found = doctor(&node);
        let words = [
            "bad   content",
            "/film.bin",
            "no other node",
            "apply it again",
        ];
        words.iter().all(|word| found.contains(word)).then_some(())
    });
    let told = why(&node, "site/web");
    assert!(
        told.contains("go without site/films/web /film.bin"),
        "{told}"
    );
    assert!(film(&node, &right).is_none());
    let done = node.run(&["apply", text(&directory)]);
    assert!(done.status.success(), "{}", says(&done));
    until("the film again", || film(&node, &right));
    until("all is well", || {
        doctor(&node).contains("ok    content").then_some(())
    });
}

#[test]
fn a_disk_without_room_for_it_is_named_and_content_comes_when_there_is_room() {
    let Some(disk) = Disk::of(256) else { return };
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, TestNode::with_data_in(disk.path()).named("two"));
    disk.fill(64 << 20);
    let right = noise(80 * MIB, 3);
    let directory = project(&first, &right);
    first.ok(&["apply", text(&directory)]);
    until("it is said", || {
        let found = doctor(&second);
        let words = ["site/films/web is not here", "are free on this disk"];
        words.iter().all(|word| found.contains(word)).then_some(())
    });
    until("the film at the first", || film(&first, &right));
    disk.make_room();
    until("the film", || film(&second, &right));
    until("all is well", || {
        doctor(&second).contains("ok    content").then_some(())
    });
}

#[test]
fn of_a_site_that_is_gone_only_the_copies_stay_that_a_roll_back_needs() {
    let keep = |node: TestNode| node.set("HOMEOSTAT_CONTENT_KEEP", "2s");
    let first = keep(TestNode::new());
    first.ok(&["up"]);
    let second = join(&first, keep(TestNode::new().named("two")));
    let third = join(&first, keep(TestNode::new().named("three")));
    let right = noise(2 * MIB, 4);
    let directory = project(&first, &right);
    first.ok(&["apply", text(&directory)]);
    for node in [&first, &second, &third] {
        until("the film everywhere", || film(node, &right));
    }
    fs::write(
        directory.join("homeostat.toml"),
        "[project]\nname = \"films\"\n",
    )
    .expect("writes");
    first.ok(&["apply", text(&directory)]);
    let has = |node: &TestNode| chunk(node, right.len()).is_some();
    until("one follower drops it", || {
        (has(&second) != has(&third)).then_some(())
    });
    assert!(has(&first), "a roll-back needs it");
    let (name, drops) = if has(&second) {
        ("three", &third)
    } else {
        ("two", &second)
    };
    let told = why(drops, &format!("node/{name}"));
    assert!(told.contains("drop site/films/web"), "{told}");
    first.ok(&["rollback", "films"]);
    for node in [&first, &second, &third] {
        until("the film everywhere again", || film(node, &right));
    }
}

/// Pieces that a fetch which is under way has, and all there are.
fn pieces(node: &TestNode) -> Option<(usize, usize)> {
    let mut files = fs::read_dir(node.layout.content().join("tmp"))
        .ok()?
        .flatten();
    let got = files.find(|file| file.file_name().to_string_lossy().ends_with(".got"))?;
    let data = got.path().with_extension("");
    let all = usize::try_from(fs::metadata(data).ok()?.len())
        .ok()?
        .div_ceil(256 << 10);
    let has = fs::read(got.path()).ok()?;
    let whole = has.iter().filter(|piece| **piece > 0);
    Some((whole.count(), all))
}

/// `12.5 MiB`, before a word.
fn mebibytes(told: &str, before: &str) -> f64 {
    let (told, _) = told.split_once(before).expect("it is told");
    let mut words = told.split_whitespace().rev();
    assert_eq!(words.next(), Some("MiB"), "{told}");
    words
        .next()
        .and_then(|word| word.parse().ok())
        .expect("a number")
}

#[test]
fn an_agent_killed_in_the_middle_of_a_fetch_goes_on_where_it_was() {
    let first = TestNode::new();
    first.ok(&["up"]);
    let second = join(&first, TestNode::new().named("two"));
    // A fast machine may fetch it all before it is seen: then another.
    let mut films = (5..25).step_by(2);
    let right = loop {
        let right = noise(256 * MIB, films.next().expect("none was cut off"));
        let directory = project(&first, &right);
        let (_, agent, _) = second.pids();
        let cut_off = std::thread::scope(|scope| {
            let apply = scope.spawn(|| first.ok(&["apply", text(&directory)]));
            let cut_off = until("a part of it, or the end", || {
                let part = pieces(&second).filter(|(has, all)| *has > all / 8 && has < all);
                part.map(|_| true)
                    .or_else(|| apply.is_finished().then_some(false))
            });
            if cut_off {
                kill(agent);
            }
            cut_off
        });
        if cut_off {
            break right;
        }
    };
    let told = until("the rest of it", || {
        let told = observed(&second, "two");
        let mut told = told.into_iter();
        told.find(|it| it.contains("site/films/web is here, whole") && it.contains(" were here"))
    });
    let (came, was) = (
        mebibytes(&told, " from one"),
        mebibytes(&told, " were here"),
    );
    assert!(was >= 16.0 && came < 241.0, "{told}");
    assert!((came + was - 256.0).abs() < 2.0, "{told}");
    // Another one may have been served before.
    until("the film", || {
        let answer = second.get("/film.bin").ok()?;
        (answer.status == 200 && answer.body == right).then_some(())
    });
}
