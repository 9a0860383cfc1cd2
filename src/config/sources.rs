//! Where settings come from: flags, environment, `.env`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

use super::error::SettingError;
use super::setting::Setting;

/// Looks a variable up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// Where a value came from, strongest last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The table.
    Default,
    /// The file `.env` in the working directory.
    DotEnv,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::DotEnv => ".env",
            Origin::Environment => "environment",
            Origin::Flag => "flag",
        })
    }
}

/// All that was given to the process.
pub struct Sources<'a> {
    /// Values of flags, by the name of their setting.
    pub flags: BTreeMap<&'static str, String>,
    /// The environment.
    pub environment: Environment<'a>,
    /// The file `.env`.
    pub dot_env: DotEnv,
}

impl Sources<'_> {
    /// What is wrong with the sources themselves.
    pub(super) fn errors(&self) -> Vec<SettingError> {
        self.dot_env.errors.clone()
    }

    /// The strongest given value of a setting, and its origin. An empty variable counts as not given, since that is how
    /// compose files and shells spell "unset".
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub(super) fn find(&self, setting: &Setting) -> Option<(Origin, Result<String, ()>)> {
        if let Some(value) = self.flags.get(setting.name) {
            return Some((Origin::Flag, Ok(value.clone())));
        }
        if let Some(value) = (self.environment)(setting.name).filter(|value| !value.is_empty()) {
            return Some((Origin::Environment, value.into_string().map_err(|_| ())));
        }
        let value = self.dot_env.values.get(setting.name).filter(|value| !value.is_empty())?;
        Some((Origin::DotEnv, Ok(value.clone())))
    }
}

/// The variables of a `.env` file.
#[derive(Debug, Clone, Default)]
pub struct DotEnv {
    values: BTreeMap<String, String>,
    errors: Vec<SettingError>,
}

impl DotEnv {
    /// Reads the file; one that is not there is empty. What cannot be read is reported with the settings' errors.
    pub fn read(path: &Path) -> DotEnv {
        match std::fs::read_to_string(path) {
            Ok(text) => DotEnv::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => DotEnv::default(),
            Err(error) => DotEnv {
                values: BTreeMap::new(),
                errors: vec![file_error(path.display().to_string(), format!("cannot be read: {error}"))],
            },
        }
    }

    /// Reads the text of such a file. As dotenvy does it, the first of two lines for one variable counts, and
    /// `$NAME` is replaced outside of single quotes.
    pub fn parse(text: &str) -> DotEnv {
        let mut dot_env = DotEnv::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for line in dotenvy::from_read_iter(text.as_bytes()) {
            match line {
                Ok((name, value)) => {
                    dot_env.values.entry(name).or_insert(value);
                }
                Err(error) => {
                    dot_env.errors.push(file_error(place_of(&error, text), "is not of this form".to_owned()));
                }
            }
        }
        dot_env
    }
}

/// The line that could not be read, by its number: its text is not shown, since it may hold a secret.
fn place_of(error: &dotenvy::Error, text: &str) -> String {
    // The error holds the part of the line that was not understood, which may be only its value.
    let start = match error {
        dotenvy::Error::LineParse(part, _) => text.find(part.as_str()),
        _ => None,
    };
    match start {
        Some(start) => format!("line {} of .env", text[..start].matches('\n').count() + 1),
        None => "a line of .env".to_owned(),
    }
}

fn file_error(name: String, problem: String) -> SettingError {
    SettingError {
        name,
        shown: None,
        origin: None,
        problem,
        allowed: "UTF-8 text with lines NAME=value; a value with spaces, quotes, # or $ stands in single quotes"
            .to_owned(),
        example: "HTTP_PORT=8080".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_empty_and_an_unreadable_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let absent = DotEnv::read(&folder.path().join(".env"));
        assert!(absent.values.is_empty() && absent.errors.is_empty());
        // A folder of that name cannot be read as a file.
        let folder_error = &DotEnv::read(folder.path()).errors[0];
        assert!(folder_error.problem.starts_with("cannot be read: "), "{folder_error}");
    }

    #[test]
    fn lines_are_read_and_the_first_of_a_name_counts() {
        let dot_env = DotEnv::parse("\u{feff}# comment\nexport HTTP_PORT=1\nHTTP_PORT=2\nJWT_SECRET='a $b #c'\n\n");
        assert!(dot_env.errors.is_empty());
        assert_eq!(dot_env.values["HTTP_PORT"], "1");
        assert_eq!(dot_env.values["JWT_SECRET"], "a $b #c");
    }

    #[test]
    fn a_broken_line_is_numbered_but_not_shown_and_the_others_count() {
        let dot_env = DotEnv::parse("JWT_SECRET=very secret words\nvery secret line\nHTTP_PORT=81\n");
        let texts: Vec<String> = dot_env.errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].starts_with("line 1 of .env: is not of this form"), "{texts:?}");
        assert!(texts[1].starts_with("line 2 of .env: is not of this form"), "{texts:?}");
        assert!(!texts.concat().contains("very"));
        assert_eq!(dot_env.values["HTTP_PORT"], "81");
    }
}
