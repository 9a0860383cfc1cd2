//! The id of the log: a random number in its folder, made once.

use std::io;
use std::path::{Path, PathBuf};

use super::fault::fatal;
use crate::command_log::{LogError, LogId};
use crate::data_dir::private;

/// The name of the file, and of the one that a crash may leave while it is made.
pub(super) const FILE_NAMES: [&str; 2] = ["id", "id.unfinished"];

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE_NAMES[0])
}

/// The id in this folder, which this process has locked; made where there is none, as in the folder of a version without.
pub(super) fn read_or_make(folder: &Path) -> Result<LogId, LogError> {
    let path = path(folder);
    private::admit_file(&path).map_err(|error| LogError::Fatal(error.to_string()))?;
    match private::read(&path) {
        Ok(text) => parse(&text).ok_or_else(|| {
            LogError::Fatal(format!(
                "{} does not hold the id of the command log. If the log is this store's own, delete the file and run \
                 `million-rps migrate --from-beginning`: what is applied already is not changed by it, and what is not is not lost",
                path.display()
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path),
        Err(error) => Err(fatal("read", &path, &error)),
    }
}

/// Why the next start would not find this id in the folder; `None` when it would. What is written until then is kept all the same.
pub(super) fn find_missing(folder: &Path, id: LogId) -> Option<String> {
    let path = path(folder);
    let finding = match private::read(&path) {
        Ok(text) if parse(&text) == Some(id) => return None,
        Ok(_) => "does not hold the id of the command log any more".to_owned(),
        Err(error) => format!("cannot be read any more ({error})"),
    };
    let path = path.display();
    Some(format!(
        "{path} {finding}: the next start would take the log for another one than the store's, and refuse it. Put the file back: \
         (umask 077; echo {id} > {path}). After a start that was refused, `million-rps migrate --from-beginning` does as well"
    ))
}

fn make(path: &Path) -> Result<LogId, LogError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| LogError::Fatal(format!("the system gives no random number for the log's id: {error}")))?;
    // Zero is as improbable as any other number, and means that there is none.
    let id = LogId::from_bits(u128::from_be_bytes(bytes) | 1).expect("not zero");
    private::write_whole(path, format!("{id}\n").as_bytes()).map_err(|error| LogError::Fatal(error.to_string()))?;
    Ok(id)
}

fn parse(text: &[u8]) -> Option<LogId> {
    std::str::from_utf8(text).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_keeps_its_id_and_another_gets_another() {
        let [folder, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let id = read_or_make(folder.path()).expect("made");
        assert_eq!(read_or_make(folder.path()).expect("found"), id);
        assert_ne!(read_or_make(other.path()).expect("made"), id);
        let mode = std::fs::metadata(path(folder.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, private::FILE_MODE);
        assert_eq!(find_missing(folder.path(), id), None);
        std::fs::write(path(folder.path()), "").expect("emptied");
        assert!(find_missing(folder.path(), id).is_some_and(|text| text.contains(&id.to_string())));
        let damaged = read_or_make(folder.path()).expect_err("what is damaged is not replaced").to_string();
        assert!(damaged.contains("migrate --from-beginning"), "{damaged}");
        assert!(!damaged.contains("--from-end"), "it would lose what is not applied yet: {damaged}");
    }
}
