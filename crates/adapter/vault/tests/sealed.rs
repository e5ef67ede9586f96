//! Values sealed and opened, and every way in which that must fail.

use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use vault::{VALUE_BYTES_MAX, Vault, VaultError};

const NAME: &str = "news/token";
const VALUE: &[u8] = b"a value that nobody sees";

struct Bench {
    home: tempfile::TempDir,
}

impl Bench {
    fn new() -> (Self, Vault) {
        let home = tempfile::tempdir().expect("a directory");
        let bench = Self { home };
        let vault = Vault::open(&bench.keys()).expect("opens");
        (bench, vault)
    }

    fn keys(&self) -> PathBuf {
        self.home.path().join("keys")
    }

    fn key(&self) -> PathBuf {
        self.keys().join("secrets.key")
    }
}

#[test]
fn a_sealed_value_opens_under_its_name_after_a_restart_and_under_no_other() {
    let (bench, vault) = Bench::new();
    let sealed = vault.seal(NAME, VALUE).expect("seals");
    let again = Vault::open(&bench.keys()).expect("opens");
    assert_eq!(*again.open_value(NAME, &sealed).expect("opens"), VALUE);
    for other in ["", "news/toke", "news/token2", "other/token"] {
        let error = again.open_value(other, &sealed).expect_err("refused");
        assert!(matches!(error, VaultError::Damaged { .. }), "{error}");
    }
}

#[test]
fn the_same_value_is_sealed_differently_each_time() {
    let (_bench, vault) = Bench::new();
    let sealed: std::collections::BTreeSet<String> = (0..100)
        .map(|_| vault.seal(NAME, VALUE).expect("seals"))
        .collect();
    assert_eq!(sealed.len(), 100);
}

#[test]
fn the_key_and_its_directory_are_their_owners_alone_and_nothing_lies_beside() {
    let (bench, vault) = Bench::new();
    for (path, wanted) in [(bench.key(), 0o600), (bench.keys(), 0o700)] {
        let found = std::fs::metadata(&path).expect("is there").permissions();
        assert_eq!(found.mode() & 0o777, wanted, "{path:?}");
    }
    assert_eq!(std::fs::read_dir(bench.keys()).expect("lists").count(), 1);
    std::fs::set_permissions(bench.key(), std::fs::Permissions::from_mode(0o640)).expect("opened");
    let error = Vault::open(&bench.keys()).expect_err("refused");
    assert!(error.hint().expect("a next step").contains("nobody else"));
    drop(vault);
}

#[test]
fn a_damaged_key_is_named_left_in_place_and_never_shown() {
    let (bench, _) = Bench::new();
    let whole = std::fs::read(bench.key()).expect("reads");
    let mut flipped = whole.clone();
    let at = flipped.len() / 2;
    flipped[at] = if flipped[at] == b'0' { b'1' } else { b'0' };
    let short = whole[..whole.len() / 2].to_vec();
    for damaged in [
        Vec::new(),
        short,
        flipped,
        vec![0xff; 90],
        b"homeostat secrets key 2\n".to_vec(),
    ] {
        std::fs::write(bench.key(), &damaged).expect("damages");
        let error = Vault::open(&bench.keys()).expect_err("refused");
        assert!(error.to_string().contains("secrets.key"), "{error}");
        assert!(
            error
                .hint()
                .expect("a next step")
                .contains("set each secret again")
        );
        let (key, shown) = (
            String::from_utf8_lossy(&whole),
            format!("{error} {error:?}"),
        );
        let key = key.lines().nth(1).expect("a key");
        assert!(!shown.contains(&key[..16]), "{shown}");
        assert_eq!(std::fs::read(bench.key()).expect("reads"), damaged);
    }
}

#[test]
fn a_value_of_another_key_says_so() {
    let (bench, vault) = Bench::new();
    let sealed = vault.seal(NAME, VALUE).expect("seals");
    std::fs::remove_file(bench.key()).expect("loses the key");
    let other = Vault::open(&bench.keys()).expect("makes another");
    let error = other.open_value(NAME, &sealed).expect_err("refused");
    assert!(matches!(error, VaultError::OtherKey { .. }), "{error}");
    assert!(error.to_string().contains(NAME) && error.hint().is_some());
}

#[test]
fn a_key_that_must_be_there_is_not_made() {
    let home = tempfile::tempdir().expect("a directory");
    let error = Vault::read(home.path()).expect_err("refused");
    assert!(error.to_string().contains("secrets.key"), "{error}");
    assert_eq!(std::fs::read_dir(home.path()).expect("lists").count(), 0);
}

#[test]
fn a_value_is_as_large_as_the_limit_and_no_larger() {
    let (_bench, vault) = Bench::new();
    let value = vec![7; VALUE_BYTES_MAX + 1];
    let sealed = vault.seal(NAME, &value[1..]).expect("seals");
    assert_eq!(
        vault.open_value(NAME, &sealed).expect("opens").len(),
        VALUE_BYTES_MAX
    );
    let error = vault.seal(NAME, &value).expect_err("refused");
    assert!(error.to_string().contains("65537"), "{error}");
}

#[test]
fn what_is_shown_for_debugging_holds_no_key() {
    let (bench, vault) = Bench::new();
    let key = std::fs::read_to_string(bench.key()).expect("reads");
    let shown = format!("{vault:?}");
    assert!(
        !shown.contains(key.lines().nth(1).expect("a key")),
        "{shown}"
    );
}

proptest! {
    #[test]
    fn any_value_comes_back_and_no_changed_text_opens(
        value in proptest::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        with in any::<char>(),
    ) {
        let (_bench, vault) = Bench::new();
        let sealed = vault.seal(NAME, &value).expect("seals");
        prop_assert_eq!(&*vault.open_value(NAME, &sealed).expect("opens"), &value);
        let mut changed: Vec<char> = sealed.chars().collect();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != with);
        changed[at] = with;
        let changed: String = changed.into_iter().collect();
        let error = vault.open_value(NAME, &changed).expect_err("refused");
        prop_assert!(error.hint().is_some());
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,100}") {
        let (_bench, vault) = Bench::new();
        prop_assert!(vault.open_value(NAME, &text).is_err());
    }
}

#[test]
fn bytes_of_any_length_open_under_their_name_and_not_once_a_bit_has_changed() {
    let (bench, vault) = Bench::new();
    for bytes in [0, 1, VALUE_BYTES_MAX * 3] {
        let value = vec![7; bytes];
        let sealed = vault.seal_bytes(NAME, value.clone()).expect("seals");
        let again = Vault::read(&bench.keys()).expect("opens");
        assert_eq!(*again.open_bytes(NAME, &sealed).expect("opens"), value);
        assert!(again.open_bytes("news/other", &sealed).is_err());
        for at in [0, 3, sealed.len() / 2, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            again.open_bytes(NAME, &changed).expect_err("refused");
            again.open_bytes(NAME, &sealed[..at]).expect_err("refused");
        }
    }
}
