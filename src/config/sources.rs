//! Where settings come from: flags, environment, `.env`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::error::SettingError;
use super::origin::Origin;
use super::setting::Setting;
use super::table::SETTINGS;

/// Looks a variable up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What stands in the way of `$` in `.env`.
const DOLLAR: &str =
    "has a $ outside of single quotes, which programs read in different ways; put the value in single quotes";

/// All that was given to the process.
pub struct Sources<'a> {
    /// Values of flags, by the name of their setting.
    pub flags: BTreeMap<&'static str, String>,
    /// The environment.
    pub environment: Environment<'a>,
    /// The names of all its variables.
    pub environment_names: Vec<String>,
    /// The file `.env`.
    pub dot_env: DotEnv,
}

impl Sources<'_> {
    /// What is wrong with the sources themselves.
    pub(super) fn errors(&self) -> Vec<SettingError> {
        let misspelt = self.dot_env.values.keys().filter_map(|name| {
            let setting = near_miss(name)?;
            Some(SettingError {
                name: name.clone(),
                shown: None,
                origin: Some(Origin::DotEnv),
                problem: format!("is no setting; it looks like {}", setting.name),
                allowed: "the settings of `million-rps --help`, and names that look like none of them".to_owned(),
                example: format!("{}={}", setting.name, setting.example()),
            })
        });
        self.dot_env.errors.iter().cloned().chain(misspelt).collect()
    }

    /// What looks wrong with the sources, but may be meant for another program.
    pub(super) fn warnings(&self) -> Vec<String> {
        let in_environment = self.environment_names.iter().filter_map(|name| {
            let setting = near_miss(name)?;
            Some(format!(
                "{name} in the environment is no setting and has no effect; if {} was meant, set that",
                setting.name
            ))
        });
        let of_others = self.dot_env.values.keys().filter(|name| !is_setting(name) && near_miss(name).is_none());
        let in_file = of_others.map(|name| format!("{name} in .env is no setting and has no effect"));
        self.dot_env.warnings.iter().cloned().chain(in_environment).chain(in_file).collect()
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
        Some((Origin::DotEnv, Ok(self.in_dot_env(setting.name)?)))
    }

    /// The value in `.env` that another in the environment has put aside.
    pub(super) fn overruled(&self, name: &str) -> Option<String> {
        let in_environment = (self.environment)(name).filter(|value| !value.is_empty())?;
        self.in_dot_env(name).filter(|value| **value != *in_environment)
    }

    fn in_dot_env(&self, name: &str) -> Option<String> {
        self.dot_env.values.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// The variables of a `.env` file.
#[derive(Debug, Clone, Default)]
pub struct DotEnv {
    values: BTreeMap<String, String>,
    errors: Vec<SettingError>,
    warnings: Vec<String>,
}

impl DotEnv {
    /// Reads the file; one that is not there is empty. What cannot be read is reported with the settings' errors.
    pub fn read(path: &Path) -> DotEnv {
        match std::fs::read_to_string(path) {
            Ok(text) => DotEnv::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => DotEnv::default(),
            // The folder may not be searched, so nobody knows whether there is such a file: not a reason to refuse work.
            Err(error) if path.symlink_metadata().is_err() => DotEnv {
                warnings: vec![format!("{} is not read: its folder may not be searched ({error})", path.display())],
                ..DotEnv::default()
            },
            Err(error) => DotEnv {
                errors: vec![file_error(path.display().to_string(), format!("cannot be read: {error}"))],
                ..DotEnv::default()
            },
        }
    }

    /// The value of a setting in it, checked as at a start; an empty one counts as none.
    ///
    /// # Errors
    /// What is wrong with the file or with the value, as text without the value.
    pub fn setting(&self, name: &'static str) -> Result<Option<String>, String> {
        if let Some(error) = self.errors.first() {
            return Err(error.to_string());
        }
        let Some(text) = self.values.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let row = SETTINGS.iter().find(|setting| setting.name == name);
        match row.map(|setting| setting.kind.check(text)) {
            Some(Err(problem)) => Err(format!("{name} {problem}")),
            _ => Ok(Some(text.clone())),
        }
    }

    /// Reads the text of such a file. The last of two lines for one variable counts, as in most programs that read such
    /// files, and a warning names the variable. `$` is refused outside of single quotes: programs differ in what it means.
    pub fn parse(text: &str) -> DotEnv {
        let mut dot_env = DotEnv::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for line in dotenvy::from_read_iter(text.as_bytes()) {
            match line {
                Ok((name, value)) => {
                    if let Some(before) = dot_env.values.insert(name.clone(), value)
                        && before != dot_env.values[&name]
                    {
                        dot_env
                            .warnings
                            .push(format!("{name} stands twice in .env, with two values; the last one counts"));
                    }
                }
                Err(error) => {
                    dot_env.errors.push(file_error(place_of(&error, text), "is not of this form".to_owned()));
                }
            }
        }
        for line in lines_with_dollar(text) {
            dot_env.errors.push(file_error(format!("line {line} of .env"), DOLLAR.to_owned()));
        }
        dot_env
    }
}

/// The numbers of lines, from 1, that have a `$` which dotenvy would replace: outside of single quotes and comments, without
/// a backslash before it.
fn lines_with_dollar(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut quote = None;
    for (index, line) in text.lines().enumerate() {
        let mut before = ' ';
        let mut characters = line.chars();
        while let Some(character) = characters.next() {
            match (quote, character) {
                (None, '#') if before.is_whitespace() => break,
                (None | Some('"'), '\\') => drop(characters.next()),
                (None, '\'' | '"') => quote = Some(character),
                (Some(open), character) if open == character => quote = None,
                (None | Some('"'), '$') => {
                    lines.push(index + 1);
                    break;
                }
                _ => {}
            }
            before = character;
        }
    }
    lines
}

fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name)
}

/// The setting that somebody who wrote `name` probably meant; `None` for a setting, and for what looks like none.
fn near_miss(name: &str) -> Option<&'static Setting> {
    if is_setting(name) {
        return None;
    }
    let wanted = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let distance = |setting: &Setting| strsim::osa_distance(&wanted, setting.name);
    let nearest = SETTINGS.iter().min_by_key(|setting| distance(setting))?;
    // One slip in a short name, two in a long one: a third of a short name would make it another word.
    let slips_max = if nearest.name.len() < 8 { 1 } else { 2 };
    (distance(nearest) <= slips_max).then_some(nearest)
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
    fn lines_are_read_and_the_last_of_a_name_counts_with_a_warning() {
        let dot_env = DotEnv::parse(
            "\u{feff}# it's a comment of $5\nexport HTTP_PORT=1\nHTTP_PORT=2\nSHARDS=3\nSHARDS=3\nJWT_SECRET='a $b #c'\n\n",
        );
        assert!(dot_env.errors.is_empty(), "{:?}", dot_env.errors);
        assert_eq!(dot_env.values["HTTP_PORT"], "2");
        assert_eq!(dot_env.values["JWT_SECRET"], "a $b #c");
        assert_eq!(dot_env.warnings, ["HTTP_PORT stands twice in .env, with two values; the last one counts"]);
    }

    #[test]
    fn a_dollar_that_would_be_replaced_is_refused_by_its_line() {
        let text = "A='$x'\nB=\\$x # $x\nC=\"'$x'\"\nD=a${x}b\nE=\"a\n$x\"\nF=it\\'s$x\nG=a#$x\n";
        assert_eq!(lines_with_dollar(text), [3, 4, 6, 7, 8]);
        let errors = DotEnv::parse("JWT_SECRET=hunter2$UNKNOWN_hunter2\n").errors;
        assert!(errors[0].to_string().starts_with("line 1 of .env: has a $ outside of single quotes"), "{errors:?}");
        assert!(!errors[0].to_string().contains("hunter2"));
    }

    #[test]
    fn misspelt_names_are_recognised_and_others_left_alone() {
        for (name, meant) in [
            ("HTTP_PROT", "HTTP_PORT"),
            ("SHARD", "SHARDS"),
            ("JWT_SECRTE", "JWT_SECRET"),
            ("KAFKA_BROKER", "KAFKA_BROKERS"),
            ("http-port", "HTTP_PORT"),
            ("DATABASE_URI", "DATABASE_URL"),
            ("CACHE_TTL_SECS", "CACHE_TTL_SEC"),
        ] {
            assert_eq!(near_miss(name).map(|setting| setting.name), Some(meant), "{name}");
        }
        let others =
            ["PATH", "HOME", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "KAFKA_HEAP_OPTS", "PORT", "HTTP_PROXY", "SHARDS"];
        for name in others {
            assert!(near_miss(name).is_none(), "{name} is taken for {:?}", near_miss(name));
        }
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
