//! The table of settings by itself, and the document that is made of it.

use super::*;

#[test]
fn the_table_is_sound() {
    let mut names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SETTINGS.len(), "a name stands twice");
    let in_group_order = Group::ALL.iter().flat_map(|group| SETTINGS.iter().filter(|s| s.group == *group));
    assert!(in_group_order.eq(SETTINGS.iter()), "rows do not stand in the order of their groups");
    for setting in SETTINGS {
        assert!(setting.help.ends_with('.') && !setting.help.contains('|'), "{}", setting.name);
        assert!(!setting.example().is_empty(), "{} has no example", setting.name);
        if !matches!(setting.kind, Kind::Secret { .. }) {
            assert!(setting.kind.check(setting.example()).is_ok(), "the example of {} is refused", setting.name);
        }
        // A unit at the end of a name has to be the unit of the row.
        let unit = setting.name.rsplit('_').next().filter(|end| ["MS", "SEC", "BYTES", "COMMANDS"].contains(end));
        let named = match unit {
            Some("MS") => "ms",
            Some("SEC") => "s",
            Some("BYTES") => "bytes",
            Some("COMMANDS") => "commands",
            _ => continue,
        };
        // A rate is so much a second.
        assert_eq!(setting.unit.trim_end_matches("/s"), named, "{}", setting.name);
    }
}

#[test]
fn the_markdown_table_names_every_setting_once() {
    let markdown = markdown();
    for setting in SETTINGS {
        assert_eq!(markdown.matches(&format!("| `{}` |", setting.name)).count(), 1, "{}", setting.name);
    }
    for line in markdown.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(line.matches('|').count(), 5, "{line}");
    }
}
