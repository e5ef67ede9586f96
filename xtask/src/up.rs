//! Builds the program and the news example, then starts a node on it.
//!
//! In: what follows `up`, for `homeostat up`. Out: this process becomes it.
//! Holds: the site is made again only when its generator changed; the search
//! program appears in its place whole.

use crate::steps::{programs, run as run_command, say, step};
use crate::workspace::Workspace;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

const PACKAGES: &str =
    "--package homeostat --package news-generator --package news-search --package guests";

/// # Errors
/// Names the step that failed; on success this process is `homeostat`.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let news = Workspace::load()?.root.join("examples/news");
    crate::tools::guest_target()?;
    let built = step("build", || programs(PACKAGES))?;
    let generator = &built["news-generator"];
    step("news site", || site(&news, generator))?;
    step("news search", || {
        place(&built["news-search"], &news.join("bin/news-search"))
            .map_err(|why| format!("cannot place news-search in {}: {why}", news.display()))
    })?;
    step("news comments and visitors", || {
        run_command(Command::new(&built["guests"]).arg(news.join("bin")))
    })?;
    say("==> homeostat up examples/news");
    let why = Command::new(&built["homeostat"])
        .arg("up")
        .arg(&news)
        .args(arguments)
        .exec();
    Err(format!("homeostat did not start: {why}"))
}

/// Makes the site unless this very generator made the one that is there.
fn site(news: &Path, generator: &Path) -> Result<(), String> {
    let made_by = news.join(".site-made-by");
    let bytes =
        std::fs::read(generator).map_err(|why| format!("{}: {why}", generator.display()))?;
    let sum = format!("{:08x} {}\n", crc32fast::hash(&bytes), bytes.len());
    let is_current = std::fs::read_to_string(&made_by).is_ok_and(|text| text == sum)
        && news.join("site/index.html").is_file()
        && news.join("popularity.tsv").is_file();
    if is_current {
        say("    current");
        return Ok(());
    }
    run_command(
        Command::new(generator)
            .arg("--out")
            .arg(news.join("site"))
            .arg("--popularity")
            .arg(news.join("popularity.tsv")),
    )?;
    std::fs::write(&made_by, sum).map_err(|why| format!("{}: {why}", made_by.display()))
}

/// Copies a program so that its place holds the old or the new one, whole: a
/// running one is not written to.
fn place(program: &Path, target: &Path) -> io::Result<()> {
    let bytes = std::fs::read(program)?;
    if std::fs::read(target).is_ok_and(|old| old == bytes) {
        say("    current");
        return Ok(());
    }
    let fresh = target.with_extension(format!("new-{}", std::process::id()));
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::copy(program, &fresh)?;
    std::fs::rename(&fresh, target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    /// A stand-in for the generator that notes each of its runs.
    fn generator(path: &Path, version: u8) {
        let text = format!(
            "#!/bin/sh\n# {version}\nmkdir -p \"$2\"\necho run >> \"$2/index.html\"\necho / > \"$4\"\n"
        );
        fs::write(path, text).expect("a script");
        fs::set_permissions(path, Permissions::from_mode(0o755)).expect("its mode");
    }

    #[test]
    fn a_site_is_made_once_by_each_generator_and_again_when_it_is_gone() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("generator");
        let index = home.path().join("site/index.html");
        let runs = || {
            fs::read_to_string(&index)
                .expect("the site")
                .lines()
                .count()
        };
        generator(&program, 1);
        for _ in 0..2 {
            site(home.path(), &program).expect("a site");
            assert_eq!(runs(), 1);
        }
        generator(&program, 2);
        site(home.path(), &program).expect("a site");
        assert_eq!(runs(), 2);

        fs::remove_file(&index).expect("it was there");
        site(home.path(), &program).expect("a site");
        assert_eq!(runs(), 1);
    }

    #[test]
    fn a_failed_generator_leaves_the_site_unfinished_for_the_next_run() {
        let home = tempfile::tempdir().expect("a directory");
        let program = home.path().join("generator");
        fs::write(&program, "#!/bin/sh\nexit 1\n").expect("a script");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
        assert!(site(home.path(), &program).is_err());
        assert!(!home.path().join(".site-made-by").exists());
    }

    #[test]
    fn a_program_is_replaced_by_another_file_and_only_when_it_differs() {
        let home = tempfile::tempdir().expect("a directory");
        let (program, target) = (home.path().join("made"), home.path().join("bin/search"));
        let inode = || fs::metadata(&target).expect("placed").ino();
        fs::write(&program, "one").expect("a file");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("its mode");
        place(&program, &target).expect("a place");
        let first = inode();
        place(&program, &target).expect("a place");
        assert_eq!(inode(), first);

        let open = fs::File::open(&target).expect("placed");
        fs::write(&program, "two").expect("a file");
        place(&program, &target).expect("a place");
        assert_ne!(inode(), first);
        assert_eq!(io::read_to_string(open).expect("still open"), "one");
        let mode = fs::metadata(&target).expect("placed").mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(
            fs::read_dir(home.path().join("bin"))
                .expect("a folder")
                .count(),
            1
        );
    }
}
