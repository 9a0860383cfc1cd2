//! The values of all settings, checked one by one, on their way to [`super::Config`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::error::SettingError;
use super::origin::Origin;
use super::platform::Platform;
use super::setting::{Scope, Setting};
use super::sources::Sources;
use super::table::SETTINGS;
use super::value::Value;

/// One setting as it took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// Its row of the table.
    pub setting: &'static Setting,
    /// Its value, secrets masked; `None` when not set.
    pub shown: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

/// The row of a setting.
///
/// # Panics
/// When the table has no such name.
fn setting_named(name: &str) -> &'static Setting {
    SETTINGS.iter().find(|setting| setting.name == name).unwrap_or_else(|| panic!("the table has no setting {name}"))
}

/// The value of each setting, by name. The typed getters panic for a name or a type that the table does not have: any
/// start of the program, and any test that loads settings, would show it.
#[derive(Debug, Default)]
pub(super) struct Values {
    checked: BTreeMap<&'static str, Value>,
    origins: BTreeMap<&'static str, Origin>,
    effective: Vec<EffectiveSetting>,
}

impl Values {
    /// Reads every setting from its strongest source; what is wrong goes to `errors`.
    pub fn read(sources: &Sources, platform: &Platform, errors: &mut Vec<SettingError>) -> Values {
        let mut values = Values::default();
        for setting in SETTINGS {
            match sources.find(setting) {
                Some((origin, Ok(text))) => values.take(setting, origin, &text, errors),
                Some((origin, Err(()))) => {
                    values.origins.insert(setting.name, origin);
                    errors.push(setting.error(Some(origin), None, "is not UTF-8 text".to_owned()));
                }
                None => match setting.default.text(platform) {
                    Some(text) => values.take(setting, Origin::Default, &text, errors),
                    None => values.effective.push(EffectiveSetting { setting, shown: None, origin: Origin::Default }),
                },
            }
        }
        values
    }

    fn take(&mut self, setting: &'static Setting, origin: Origin, text: &str, errors: &mut Vec<SettingError>) {
        let shown = setting.kind.shown(text);
        self.origins.insert(setting.name, origin);
        match setting.kind.check(text) {
            Ok(value) => {
                self.checked.insert(setting.name, value);
                self.effective.push(EffectiveSetting { setting, shown: Some(shown), origin });
            }
            Err(problem) => errors.push(setting.error(Some(origin), Some(shown), problem)),
        }
    }

    /// Where the setting was given, rightly or wrongly; `None` when it was not.
    pub fn given(&self, name: &'static str) -> Option<Origin> {
        self.origins.get(name).copied().filter(|origin| *origin != Origin::Default)
    }

    /// The settings of this scope that were given, each with where.
    pub fn given_for(&self, scope: Scope) -> Vec<String> {
        let of_scope = SETTINGS.iter().filter(|setting| setting.scope() == scope);
        let given = of_scope.filter_map(|setting| Some((setting.name, self.given(setting.name)?)));
        given.map(|(name, origin)| format!("{name} (from {origin})")).collect()
    }

    /// An error about a setting whose value is fine by itself.
    pub fn error(&self, name: &'static str, problem: impl Into<String>) -> SettingError {
        let setting = setting_named(name);
        let effective = self.effective.iter().find(|effective| effective.setting.name == name);
        let shown = effective.and_then(|effective| effective.shown.clone());
        setting.error(self.given(name), shown, problem.into())
    }

    /// Whether its check passed.
    pub fn is_right(&self, name: &'static str) -> bool {
        self.checked.contains_key(name)
    }

    /// A whole number, if its check passed.
    pub fn checked_integer(&self, name: &'static str) -> Option<u64> {
        match self.checked.get(name) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// A choice, if its check passed.
    pub fn checked_choice(&self, name: &'static str) -> Option<&'static str> {
        match self.checked.get(name) {
            Some(Value::Choice(choice)) => Some(choice),
            _ => None,
        }
    }

    pub fn integer<T: TryFrom<u64>>(&self, name: &'static str) -> T {
        self.optional_integer(name).unwrap_or_else(|| panic!("{name} is no integer of the table"))
    }

    pub fn optional_integer<T: TryFrom<u64>>(&self, name: &'static str) -> Option<T> {
        let number = self.checked_integer(name)?;
        Some(T::try_from(number).unwrap_or_else(|_| panic!("the table's range of {name} is wider than its type")))
    }

    pub fn milliseconds(&self, name: &'static str) -> Duration {
        Duration::from_millis(self.integer(name))
    }

    pub fn seconds(&self, name: &'static str) -> Duration {
        Duration::from_secs(self.integer(name))
    }

    pub fn choice(&self, name: &'static str) -> &'static str {
        self.checked_choice(name).unwrap_or_else(|| panic!("{name} is no choice of the table"))
    }

    pub fn address(&self, name: &'static str) -> IpAddr {
        match self.checked.get(name) {
            Some(Value::Address(address)) => *address,
            _ => panic!("{name} is no address of the table"),
        }
    }

    pub fn text(&self, name: &'static str) -> String {
        self.optional_text(name).unwrap_or_else(|| panic!("{name} has neither a value nor a default"))
    }

    pub fn optional_text(&self, name: &'static str) -> Option<String> {
        match self.checked.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(other) => panic!("{name} is no text of the table: {other:?}"),
            None => {
                setting_named(name);
                None
            }
        }
    }

    /// What is right and has no effect.
    pub fn warnings(&self) -> Vec<String> {
        let database = self.optional_text("DATABASE_URL").unwrap_or_default();
        let ignored = database.contains("statement_timeout%3D").then(|| {
            "statement_timeout in DATABASE_URL has no effect: how long a statement may take is a part of how failures are noticed \
             here"
                .to_owned()
        });
        let (scope, reason) = match self.given("DATABASE_URL") {
            Some(_) => (Scope::Embedded, "beside DATABASE_URL: todos are kept in PostgreSQL, and commands in Kafka"),
            // Whoever works with todos does not come here with them.
            None => (Scope::Services, "without DATABASE_URL: the deployment is the one in DATA_DIR"),
        };
        let unused = self.given_for(scope).into_iter().map(|setting| format!("{setting} has no effect {reason}"));
        ignored.into_iter().chain(unused).collect()
    }

    pub fn take_effective(&mut self) -> Vec<EffectiveSetting> {
        std::mem::take(&mut self.effective)
    }
}
