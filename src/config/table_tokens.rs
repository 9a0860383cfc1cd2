//! The rows of the table of settings that are about tokens and their keys.

use super::kind::Kind;
use super::setting::{DefaultValue, Group, Setting};
use crate::limits::JWT_SECRET_MIN_BYTES;

pub(super) const TOKENS: &[Setting] = &[
    Setting {
        name: "JWT_SECRET",
        group: Group::Tokens,
        kind: Kind::Secret { min_bytes: JWT_SECRET_MIN_BYTES },
        default: DefaultValue::Unset {
            meaning: "made at the first start, kept in DATA_DIR; required with DATABASE_URL. With JWT_PUBLIC_KEY or JWT_JWKS: none",
        },
        unit: "",
        help: "Key of the tokens (HS256), the same for all processes. In .env it is read again when the file changes.",
        example: "$(openssl rand -base64 48)",
    },
    Setting {
        name: "JWT_SECRET_PREVIOUS",
        group: Group::Tokens,
        kind: Kind::Secret { min_bytes: JWT_SECRET_MIN_BYTES },
        default: DefaultValue::Unset { meaning: "none" },
        unit: "",
        help: "The JWT_SECRET before, whose tokens are still taken while clients get new ones.",
        example: "$(openssl rand -base64 48)",
    },
    Setting {
        name: "JWT_PUBLIC_KEY",
        group: Group::Tokens,
        kind: Kind::PublicKey,
        default: DefaultValue::Unset { meaning: "none" },
        unit: "",
        help: "Public keys of whoever issues tokens, in PEM: the file, or the text itself (with \\n for line ends). RSA is for RS256 (for \
               PS256 when the key says so), P-256 for ES256, Ed25519 for EdDSA.",
        example: "/etc/todos/issuer.pem",
    },
    Setting {
        name: "JWT_JWKS",
        group: Group::Tokens,
        kind: Kind::KeySet,
        default: DefaultValue::Unset { meaning: "none" },
        unit: "",
        help: "The key set of whoever issues tokens (RFC 7517): a file, or an https address.",
        example: "https://login.example.com/.well-known/jwks.json",
    },
    Setting {
        name: "JWT_JWKS_REFRESH_SEC",
        group: Group::Tokens,
        kind: Kind::Integer { min: 1, max: 86_400 },
        default: DefaultValue::Fixed("900"),
        unit: "s",
        help: "An address of JWT_JWKS is fetched again after so long at the latest, or when its Cache-Control says, but not more \
               than once a minute.",
        example: "",
    },
    Setting {
        name: "JWT_JWKS_CA_FILE",
        group: Group::Tokens,
        kind: Kind::Path,
        default: DefaultValue::Unset { meaning: "the system's" },
        unit: "",
        help: "Certificates (PEM) of the authorities that the address of JWT_JWKS is checked with.",
        example: "/etc/todos/authorities.pem",
    },
    Setting {
        name: "JWT_ISSUER",
        group: Group::Tokens,
        kind: Kind::Text,
        default: DefaultValue::Unset { meaning: "not checked" },
        unit: "",
        help: "The iss that a token must have.",
        example: "https://login.example.com",
    },
    Setting {
        name: "JWT_AUDIENCE",
        group: Group::Tokens,
        kind: Kind::Text,
        default: DefaultValue::Unset { meaning: "not checked" },
        unit: "",
        help: "The aud that a token must name; one of them, where commas separate several.",
        example: "todos",
    },
    Setting {
        name: "JWT_USER_CLAIM",
        group: Group::Tokens,
        kind: Kind::ClaimName,
        default: DefaultValue::Fixed("sub"),
        unit: "",
        help: "The claim that names the user; with a slash before it, the way to one that lies deeper.",
        example: "/realm/user",
    },
    Setting {
        name: "JWT_WRITE_SCOPE",
        group: Group::Tokens,
        kind: Kind::Scope,
        default: DefaultValue::Unset { meaning: "not asked for" },
        unit: "",
        help: "The scope (scope or scp) that a token must have to write; without it, a write is answered with 403.",
        example: "todos:write",
    },
    Setting {
        name: "JWT_EXPIRY",
        group: Group::Tokens,
        kind: Kind::Choice(&["required", "optional"]),
        default: DefaultValue::Fixed("required"),
        unit: "",
        help: "Whether a token must have an exp. One without is good until its key changes, whoever gets hold of it.",
        example: "optional",
    },
    Setting {
        name: "JWT_LEEWAY_SEC",
        group: Group::Tokens,
        kind: Kind::Integer { min: 0, max: 300 },
        default: DefaultValue::Fixed("0"),
        unit: "s",
        help: "How far exp and nbf of a token may be off, for clocks that disagree.",
        example: "",
    },
    Setting {
        name: "PAGE_TOKENS",
        group: Group::Tokens,
        kind: Kind::Choice(&["off", "local"]),
        default: DefaultValue::Fixed("local"),
        unit: "",
        help: "Who gets a token from the page at /, in any user's name: nobody, or whoever asks from this machine, all its users and \
               programs. Not used with DATABASE_URL. Behind a proxy on this machine that hides itself (see READY_DETAILS), \
               everybody asks from this machine: set off there.",
        example: "off",
    },
];
