//! The page for people, which stands at `/`: the files of `web/` as one document, in each content coding, with its policy.
//!
//! The document has styles and scripts inside, so one answer brings all of it. Its policy lets nothing in but those: it names each
//! by its hash, and nothing else can run, not even what somebody has found a way to write into a todo.

mod room;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use self::room::{narrow_script, narrow_style, without_comments};
use crate::http::response::ContentType;
use crate::static_document::StaticDocument;

/// The document, which names the others.
const DOCUMENT: &str = include_str!("../../web/page.html");

/// What stands in the document's place of each: the tag that names the file, and how it is written inside. Scripts that are alike
/// stand beside each other, which compresses better.
const PARTS: &[Part] = &[
    Part::style("page.css", include_str!("../../web/page.css")),
    Part::script("machine.js", include_str!("../../web/machine.js")),
    Part::script("writes.js", include_str!("../../web/writes.js")),
    Part::script("who.js", include_str!("../../web/who.js")),
    Part::script("feed.js", include_str!("../../web/feed.js")),
    Part::script("todos.js", include_str!("../../web/todos.js")),
    Part::script("rows.js", include_str!("../../web/rows.js")),
    Part::script("page.js", include_str!("../../web/page.js")),
];

/// A file that the document names.
struct Part {
    name: &'static str,
    text: &'static str,
    is_script: bool,
}

impl Part {
    const fn style(name: &'static str, text: &'static str) -> Part {
        Part { name, text, is_script: false }
    }

    const fn script(name: &'static str, text: &'static str) -> Part {
        Part { name, text, is_script: true }
    }

    /// The tag in the document.
    fn outside(&self) -> String {
        match self.is_script {
            true => format!("<script src=\"{}\"></script>", self.name),
            false => format!("<link rel=\"stylesheet\" href=\"{}\">", self.name),
        }
    }

    /// Its text without what is for whoever reads the file.
    fn inner(&self) -> String {
        let text = without_comments(self.text);
        if self.is_script { narrow_script(&text) } else { narrow_style(&text) }
    }

    /// What takes its place.
    fn inside(&self) -> String {
        let name = if self.is_script { "script" } else { "style" };
        format!("<{name}>{}</{name}>", self.inner())
    }

    /// Its name in a policy.
    fn hash(&self) -> String {
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(self.inner())))
    }
}

/// Puts the files together.
///
/// # Panics
/// When a compressor does not take its own level.
pub fn document() -> StaticDocument {
    StaticDocument::new(text(), ContentType::Html, Some(policy()))
}

fn text() -> String {
    let mut document = without_comments(DOCUMENT);
    for part in PARTS {
        document = document.replacen(&part.outside(), &part.inside(), 1);
    }
    document
}

/// What the document may do: run and show what is in it, and ask the server that it came from.
fn policy() -> String {
    let hashes = |is_script| {
        let parts = PARTS.iter().filter(|part| part.is_script == is_script);
        parts.map(Part::hash).collect::<Vec<_>>().join(" ")
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        hashes(true),
        hashes(false)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Coding;

    /// What ten packets of 1,460 bytes bring in the first round trip (RFC 6928), less the head of the answer.
    const COMPRESSED_MAX_BYTES: usize = 14 * 1024;

    #[test]
    fn the_page_arrives_in_one_round_trip() {
        let page = document();
        for coding in Coding::COMPRESSED {
            let bytes = page.body(coding).len();
            println!("{}: {bytes} bytes", coding.name());
            assert!(bytes <= COMPRESSED_MAX_BYTES, "{}: {bytes} of {COMPRESSED_MAX_BYTES} bytes", coding.name());
        }
    }

    #[test]
    fn every_file_is_inside_and_nothing_comes_from_elsewhere() {
        let document = text();
        for part in PARTS {
            assert!(document.contains(&part.inside()), "{} is not inside", part.name);
            assert!(!part.text.contains("</script") && !part.text.contains("</style"), "{} would end early", part.name);
            assert!(!part.text.contains("<!--"), "{}: a script with this is read in another way", part.name);
            let has_text_over_lines =
                |line: &str| !line.trim_start().starts_with("//") && !line.matches('`').count().is_multiple_of(2);
            assert!(
                !part.text.lines().any(has_text_over_lines),
                "{}: a text over several lines would lose some",
                part.name
            );
        }
        // The name of a language is no address.
        let document = document.replace("http://www.w3.org/2000/svg", "");
        for outside in ["src=", "rel=\"stylesheet\"", "http://", "https://", "@import", "url(", " style=", " onclick="]
        {
            assert!(!document.contains(outside), "the page has {outside}");
        }
    }

    #[test]
    fn texts_of_users_never_become_markup() {
        for part in PARTS {
            for sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
                assert!(!part.text.contains(sink), "{} has {sink}", part.name);
            }
        }
    }
}
