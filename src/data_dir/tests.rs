//! The folder as its owner and others find it.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

#[test]
fn a_new_folder_is_private_and_opens_again() {
    let parent = tempfile::tempdir().expect("temporary folder");
    let path = parent.path().join("a/data");
    let dir = DataDir::open(&path).expect("made");
    assert_eq!(mode(&path), 0o700);
    assert_eq!(std::fs::read_to_string(path.join("format")).expect("written"), "1\n");
    assert!(dir.log_path().is_dir());
    DataDir::open(&path).expect("opened again");
}

#[test]
fn another_format_is_refused() {
    for (content, expected) in [("2\n", "has format 2,"), ("", "no version number"), ("x", "(\"x\")")] {
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("format"), content).expect("written");
        let error = DataDir::open(folder.path()).expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("DATA_DIR"), "{error}");
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::write(folder.path().join("todos.sqlite"), "").expect("written");
    let error = DataDir::open(folder.path()).expect_err("refused").to_string();
    assert!(error.contains("data but no file `format`"), "{error}");
}

#[test]
fn only_one_owner_and_everyone_learns_who() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let dir = DataDir::open(folder.path()).expect("opened");
    assert_eq!(dir.owner(), None);
    let lock = dir.lock("127.0.0.1:8080").expect("free");
    let owner = Owner { pid: std::process::id(), address: "127.0.0.1:8080".to_owned() };
    assert_eq!(dir.owner(), Some(owner.clone()));
    match dir.lock("127.0.0.1:9090") {
        Err(DataDirError::InUse { owner: Some(found), .. }) => assert_eq!(found, owner),
        other => panic!("{other:?}"),
    }
    assert_eq!(dir.owner(), Some(owner), "the second start has not touched the name");
    drop(lock);
    assert_eq!(dir.owner(), None);
    drop(dir.lock("").expect("free again"));
    // A killed owner leaves its name behind, but no lock.
    std::fs::write(dir.lock_path(), "pid 1\naddress x:1\n").expect("written");
    assert_eq!(dir.owner(), None);
}

#[test]
fn the_secret_is_made_once_and_is_private() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    DataDir::open(folder.path()).expect("opened").jwt_secret().expect("a secret").expose().to_owned()
                })
            })
            .collect();
        starts.into_iter().map(|start| start.join().expect("no panic")).collect()
    });
    assert_eq!(secrets[0].len(), 2 * JWT_SECRET_MIN_BYTES);
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    let dir = DataDir::open(folder.path()).expect("opened");
    assert_eq!(dir.jwt_secret().expect("kept").expose(), secrets[0]);
    assert_eq!(mode(&dir.jwt_secret_path()), 0o600);

    let other = tempfile::tempdir().expect("temporary folder");
    assert_ne!(DataDir::open(other.path()).expect("opened").jwt_secret().expect("a secret").expose(), secrets[0]);
}

#[test]
fn a_damaged_secret_is_not_replaced_in_silence() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let dir = DataDir::open(folder.path()).expect("opened");
    std::fs::write(dir.jwt_secret_path(), "short\n").expect("written");
    let error = dir.jwt_secret().expect_err("too short").to_string();
    assert!(error.contains("5 bytes"), "{error}");
}
