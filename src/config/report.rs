//! The settings as people read them: `million-rps config`, the README's table, `.env.example`, flag help.

use std::fmt::Write;

use super::Config;
use super::kind::Kind;
use super::origin::Origin;
use super::setting::{DefaultValue, Group, Setting};
use super::table::SETTINGS;
use crate::counted::Counted;

/// The effective settings with where each came from, secrets masked, for `million-rps config`.
pub fn text(config: &Config) -> String {
    let rows: Vec<[String; 3]> = config
        .effective
        .iter()
        .map(|effective| {
            let setting = effective.setting;
            let value = match &effective.shown {
                Some(shown) if setting.unit.is_empty() => shown.clone(),
                Some(shown) => Counted(shown, setting.unit).to_string(),
                None => format!("(not set: {})", setting.default.describe()),
            };
            let origin = match (effective.origin, setting.flag()) {
                (Origin::Flag, Some(flag)) => format!("flag --{flag}"),
                (origin, _) => origin.to_string(),
            };
            [setting.name.to_owned(), value, origin]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (name_width, value_width) = (width(0), width(1));
    let mut out = String::new();
    for [name, value, origin] in &rows {
        writeln!(out, "{name:name_width$}  {value:value_width$}  {origin}").expect("writing into a String cannot fail");
    }
    out
}

/// The settings as the README shows them: one table a group.
pub fn markdown() -> String {
    let mut out = String::new();
    for group in Group::ALL {
        writeln!(out, "**{}**\n\n| Setting | Default | Allowed | What it does |\n|---|---|---|---|", group.title())
            .expect("writing into a String cannot fail");
        for setting in of(group) {
            let default = match setting.default {
                DefaultValue::Fixed(text) => format!("`{text}`"),
                ref other => other.describe().to_owned(),
            };
            writeln!(out, "| `{}` | {default} | {} | {} |", setting.name, setting.allowed(), setting.help)
                .expect("writing into a String cannot fail");
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The text of `.env.example`: every setting, commented out, with its default.
pub fn env_example() -> String {
    let mut out = String::from(
        "# Settings of million-rps. Copy this file to .env and take the # away from what you change. The environment wins\n\
         # over this file, flags win over both. A value with spaces, quotes, # or $ stands in single quotes.\n\
         # `million-rps config` shows what is in effect. Made from src/config/table.rs.\n",
    );
    for group in Group::ALL {
        writeln!(out, "\n# --- {} ---", group.title()).expect("writing into a String cannot fail");
        for setting in of(group) {
            let value = match setting.default {
                DefaultValue::Fixed(text) => text,
                // A command is no value: a file is not run by a shell.
                _ if matches!(setting.kind, Kind::Secret { .. }) => "",
                _ => setting.example(),
            };
            let default = match setting.default {
                DefaultValue::Fixed(_) => String::new(),
                ref other => format!(" When not set: {}.", other.describe()),
            };
            let how = match setting.kind {
                Kind::Secret { min_bytes } if min_bytes > 1 => format!(" Make one: {}.", command_of(setting)),
                _ => String::new(),
            };
            writeln!(
                out,
                "\n# {} Allowed: {}.{default}{how}\n#{}={value}",
                setting.help,
                setting.allowed(),
                setting.name
            )
            .expect("writing into a String cannot fail");
        }
    }
    out
}

/// The help of a setting's flag: what it does, what is allowed, the default.
pub fn help_of(setting: &Setting) -> String {
    let default = match setting.default {
        DefaultValue::Fixed(text) if !setting.unit.is_empty() => Counted(text, setting.unit).to_string(),
        ref other => other.describe().to_owned(),
    };
    format!("{} [env: {}] [allowed: {}] [default: {default}]", setting.help, setting.name, setting.allowed())
}

fn command_of(setting: &Setting) -> &'static str {
    let example = setting.example();
    example.strip_prefix("$(").and_then(|example| example.strip_suffix(')')).unwrap_or(example)
}

fn of(group: Group) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.group == group)
}
