//! A page for people: text with a style inside, no scripts and nothing from elsewhere.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("../../web/docs.css");

/// What browsers may do with a page: show it, with its own style.
pub fn policy() -> String {
    format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    )
}

/// A page in the making.
pub struct Html(String);

impl Html {
    /// A page of this title, which is not its heading.
    pub fn new(title: &str) -> Html {
        Html(format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>{}</title><style>{STYLE}</style></head><body><main>\n",
            escaped(title)
        ))
    }

    /// An element with text, in which words in backquotes are code.
    pub fn text(&mut self, element: &str, text: &str) -> &mut Html {
        writeln!(self.0, "<{element}>{}</{element}>", marked(text)).expect("memory takes it");
        self
    }

    /// An element with what has been made here, such as links.
    pub fn raw(&mut self, element: &str, markup: &str) -> &mut Html {
        writeln!(self.0, "<{element}>{markup}</{element}>").expect("memory takes it");
        self
    }

    /// A heading that links lead to.
    pub fn heading(&mut self, level: u8, id: &str, text: &str) -> &mut Html {
        writeln!(self.0, "<h{level} id=\"{}\">{}</h{level}>", escaped(id), marked(text)).expect("memory takes it");
        self
    }

    /// Lines as they are.
    pub fn code(&mut self, lines: &str) -> &mut Html {
        writeln!(self.0, "<pre><code>{}</code></pre>", escaped(lines)).expect("memory takes it");
        self
    }

    /// A table; nothing when it has no rows.
    pub fn table<const COLUMNS: usize>(
        &mut self,
        columns: [&str; COLUMNS],
        rows: impl IntoIterator<Item = [String; COLUMNS]>,
    ) -> &mut Html {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return self;
        }
        let row = |cells: &[String], element: &str| {
            let cells = cells.iter().map(|cell| format!("<{element}>{cell}</{element}>"));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        self.0 += "<div><table><thead>";
        self.0 += &row(&columns.map(escaped), "th");
        self.0 += "</thead><tbody>\n";
        for cells in rows {
            self.0 += &row(&cells, "td");
        }
        self.0 += "</tbody></table></div>\n";
        self
    }

    /// The whole page.
    pub fn finish(self) -> String {
        self.0 + "</main></body></html>\n"
    }
}

/// Text whose words in backquotes are code.
pub fn marked(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{}</code>", escaped(part)) } else { escaped(part) })
        .collect()
}

/// A link.
pub fn link(address: &str, text: &str) -> String {
    format!("<a href=\"{}\">{}</a>", escaped(address), marked(text))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_never_become_markup() {
        assert_eq!(marked("a `<b>` & \"c\""), "a <code>&lt;b&gt;</code> &amp; &quot;c&quot;");
        assert_eq!(link("/a\"b", "`c`"), "<a href=\"/a&quot;b\"><code>c</code></a>");
        assert!(!STYLE.contains("</"), "the style would end early");
    }
}
