//! The files of the page without what is for whoever reads them: comments, and room that neither a browser nor a compressor needs.

/// What joins or ends something in a script, with room around it. No two of them begin alike, but for the room.
const SCRIPT_SIGNS: [&str; 24] = [
    " === ", " !== ", " => ", " += ", " >= ", " <= ", " ?? ", " && ", " || ", " = ", " ? ", " : ", " < ", " > ", " * ",
    " / ", ", ", "; ", ": ", "{ ", " }", " {", "[ ", " ]",
];

/// The lines without comments that have a line of their own, and without the room before a line.
pub(super) fn without_comments(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// A style on one line, without the room in it.
pub(super) fn narrow_style(style: &str) -> String {
    let mut style = style.replace('\n', "");
    for (wide, narrow) in [(": ", ":"), (" {", "{"), ("{ ", "{"), (", ", ","), (";}", "}")] {
        style = style.replace(wide, narrow);
    }
    style
}

/// A script without the room around signs. Its lines stay, because they end statements, and so do its texts.
pub(super) fn narrow_script(script: &str) -> String {
    script.lines().map(narrow_line).collect::<Vec<_>>().join("\n")
}

fn narrow_line(line: &str) -> String {
    if has_pattern(line) {
        return line.to_owned();
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find(['\'', '"', '`']) {
        let (code, text) = rest.split_at(start);
        out.push_str(&narrow_code(code));
        let (text, behind) = text.split_at(text_bytes(text));
        out.push_str(text);
        rest = behind;
    }
    out + &narrow_code(rest)
}

/// Whether a line may have a regular expression, in which a quote begins no text.
fn has_pattern(line: &str) -> bool {
    line.match_indices('/').any(|(at, _)| !line[at + 1..].starts_with(' '))
}

fn narrow_code(code: &str) -> String {
    SCRIPT_SIGNS.iter().fold(code.to_owned(), |code, sign| code.replace(sign, sign.trim()))
}

/// Length of the text in quotes that stands first, with the quotes. What a template has in `${}` is left as it is, too.
fn text_bytes(text: &str) -> usize {
    let quote = text.as_bytes()[0];
    let (mut depth, mut is_escaped, mut before) = (0, false, quote);
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if std::mem::take(&mut is_escaped) => {}
            b'\\' => is_escaped = true,
            b'{' if quote == b'`' && (depth > 0 || before == b'$') => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            _ if byte == quote && depth == 0 => return at + 1,
            _ => {}
        }
        before = byte;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_goes_where_it_means_nothing() {
        for (line, narrow) in [
            ("const it = { a: 1, b: [2, 3] };", "const it={a:1,b:[2,3]};"),
            (
                "if (a === b && c > d) { return x ?? y; } else { z += -1; }",
                "if (a===b&&c>d){return x??y;} else{z+=-1;}",
            ),
            ("for (const name of all) name => name;", "for (const name of all) name=>name;"),
            ("const pause = ms => new Promise(go => wait(go, ms));", "const pause=ms=>new Promise(go=>wait(go,ms));"),
            ("a - -b + +c", "a - -b + +c"),
        ] {
            assert_eq!(narrow_line(line), narrow);
        }
    }

    #[test]
    fn texts_and_patterns_stay() {
        for (line, narrow) in [
            ("say('a, b: c', { d: \" = \" });", "say('a, b: c',{d:\" = \"});"),
            ("x = 'it\\'s, so', y = 1;", "x='it\\'s, so',y=1;"),
            ("z = `until ${a ? `, ${b}` : ' = '}, then`, w = 2;", "z=`until ${a ? `, ${b}` : ' = '}, then`,w=2;"),
            (
                "const at = /le=\"([^\"]*)\", x = /.exec(text), y = 1;",
                "const at = /le=\"([^\"]*)\", x = /.exec(text), y = 1;",
            ),
            ("const half = all / 2, most = 3;", "const half=all/2,most=3;"),
        ] {
            assert_eq!(narrow_line(line), narrow);
        }
    }
}
