//! Where the requests are, and how they are read.

use std::path::{Path, PathBuf};

/// A folder of what `deploy/corpora.sh` has fetched.
///
/// # Panics
/// When it is not there: these tests have no meaning without it.
pub fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/corpora").join(name);
    assert!(
        folder.join(".complete").exists(),
        "{} is missing: run deploy/corpora.sh, which fetches it from files.pythonhosted.org and deb.debian.org",
        folder.display()
    );
    folder
}

/// The files of a folder, by name.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("the file can be read"))
        })
        .collect();
    files.sort();
    files
}

/// A string literal of C or Python without its quotes, as bytes. Returns what follows the closing quote, too.
pub fn literal(text: &str, quote: char) -> (Vec<u8>, &str) {
    let mut bytes = Vec::new();
    let mut rest = text;
    loop {
        let mut chars = rest.chars();
        match chars.next().expect("the literal ends") {
            end if end == quote => return (bytes, chars.as_str()),
            '\\' => {
                let escaped = chars.next().expect("an escaped character");
                rest = chars.as_str();
                let byte = match escaped {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    'x' => {
                        let digits = &rest[..2];
                        rest = &rest[2..];
                        u8::from_str_radix(digits, 16).expect("two hexadecimal digits")
                    }
                    other => u8::try_from(other).expect("ASCII"),
                };
                bytes.push(byte);
            }
            other => {
                bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                rest = chars.as_str();
            }
        }
    }
}
