//! Flags for settings, made from the settings' table.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{SETTINGS, help_of};

/// The settings that were given as flags, unchecked, by the name of the setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingFlags(pub BTreeMap<&'static str, String>);

impl Args for SettingFlags {
    /// One flag a setting, on every command; `-h` leaves them out, `--help` groups them.
    fn augment_args(command: Command) -> Command {
        let flags = SETTINGS.iter().filter_map(|setting| {
            let flag = setting.flag()?;
            let value_name = if setting.unit.is_empty() { "VALUE" } else { setting.unit };
            let argument = Arg::new(setting.name)
                .long(flag)
                .value_name(value_name.to_ascii_uppercase())
                .help(help_of(setting))
                .help_heading(format!("{} (settings)", setting.group.title()))
                .hide_short_help(true)
                .global(true);
            Some(argument)
        });
        command.args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingFlags::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingFlags, Error> {
        let mut flags = SettingFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for setting in SETTINGS.iter().filter(|setting| setting.flag().is_some()) {
            if let Some(value) = matches.get_one::<String>(setting.name) {
                self.0.insert(setting.name, value.clone());
            }
        }
        Ok(())
    }
}
