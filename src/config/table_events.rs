//! The rows of the table of settings that are about the change feed.

use super::kind::Kind;
use super::setting::{DefaultValue, Group, Setting};
use crate::limits::EVENTS_BYTES_MIN;

pub(super) const EVENTS: &[Setting] = &[
    Setting {
        name: "EVENTS_FOLLOWERS_MAX",
        group: Group::Events,
        kind: Kind::Integer { min: 0, max: 4_000_000 },
        default: DefaultValue::Unset { meaning: "four of five of MAX_CONNECTIONS" },
        unit: "connections",
        help: "Clients of the process that may follow the list (GET /todos/events), or wait for a change (If-None-Match with \
               Prefer: wait), at a time; they count among MAX_CONNECTIONS. More followers are answered with 503; more that would \
               wait are answered at once.",
        example: "8000",
    },
    Setting {
        name: "EVENTS_HEARTBEAT_SEC",
        group: Group::Events,
        kind: Kind::Integer { min: 1, max: 3_600 },
        default: DefaultValue::Fixed("15"),
        unit: "s",
        help: "Each follower hears something at least so often. Proxies end connections on which nothing is sent, often after 60 s.",
        example: "",
    },
    Setting {
        name: "EVENTS_HISTORY_MAX_BYTES",
        group: Group::Events,
        kind: Kind::Integer { min: EVENTS_BYTES_MIN, max: 1 << 31 },
        default: DefaultValue::Fixed("16777216"),
        unit: "bytes",
        help: "Memory of the latest changes, from which followers that were away go on. Who was away for longer is told to read the \
               list again, as is everybody when more than half of it changes at once.",
        example: "",
    },
    Setting {
        name: "EVENTS_HISTORY_SEC",
        group: Group::Events,
        kind: Kind::Integer { min: 1, max: 86_400 },
        default: DefaultValue::Fixed("300"),
        unit: "s",
        help: "How long they are kept.",
        example: "",
    },
    Setting {
        name: "EVENTS_UNSENT_MAX_BYTES",
        group: Group::Events,
        kind: Kind::Integer { min: EVENTS_BYTES_MIN, max: 1 << 31 },
        default: DefaultValue::Fixed("4194304"),
        unit: "bytes",
        help: "Changes that may wait for one follower, behind those that are being sent to it. The connection of one that does not \
               keep up is closed; it can go on from where it was.",
        example: "",
    },
];
