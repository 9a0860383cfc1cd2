//! Tests of the resource as a whole.

use super::*;
use crate::limits::{COMMAND_MAX_BYTES, DESCRIPTION_MAX_CHARS, JSON_MAX_DEPTH, TITLE_MAX_CHARS, USER_ID_MAX_BYTES};
use proptest::prelude::*;

fn new_todo(json: &str) -> Result<(String, String), String> {
    let mut body = json.as_bytes().to_vec();
    NewTodo::from_json(&mut body, TextLimits::default(), &mut JsonParser::default())
        .map(|todo| (todo.title.to_owned(), todo.description.to_owned()))
        .map_err(|error| error.to_string())
}

fn read_command(
    json: &mut [u8],
    logged_at: Timestamp,
    parser: &mut JsonParser,
) -> Result<Command<'static>, CommandError> {
    Command::from_json(json, logged_at, parser, |_| {})
}

#[test]
fn a_body_is_read_or_refused_with_its_field() {
    assert_eq!(
        new_todo(r#"{"title":"a\u00e9\n","description":null,"x":[{"y":1}]}"#),
        Ok(("aé\n".into(), String::new()))
    );
    for (json, expected) in [
        ("", "the body is empty; a JSON object is expected"),
        ("{}", "title is required"),
        (r#"{"title":null}"#, "title is required"),
        (r#"{"title":""}"#, "title must not be empty"),
        (r#"{"title":7}"#, "title must be a string or null"),
        (r#"{"title":"a","title":"b"}"#, "title is given twice"),
        (r#"{"title":"a","TITLE":"b"}"#, "title is given twice"),
        (r#"{"Title":7}"#, "title must be a string or null"),
        (r#"{"title":"a\u0000"}"#, "title contains a NUL character (\\u0000), which cannot be stored"),
        (r#"{"title":"a","description":[]}"#, "description must be a string or null"),
        ("[]", "the body must be a JSON object"),
        ("\"title\"", "the body must be a JSON object"),
    ] {
        assert_eq!(new_todo(json), Err(expected.to_owned()), "{json}");
    }
    for json in [
        r#"{"title":"a""#,
        r#"{"title":"a"} x"#,
        r#"{"title":"\ud800"}"#,
        "{\"title\":\"\u{1}\"}",
        "{title:1}",
        "\u{feff}",
        "{}\u{feff}",
    ] {
        let error = new_todo(json).expect_err(json);
        assert!(error.starts_with("the body is not valid JSON"), "{json}: {error}");
    }
}

#[test]
fn what_others_take_is_taken() {
    for json in [
        "\u{feff}{\"title\":\"a\"}".to_owned(),
        r#"{"title":"a","n":123456789012345678901234567890}"#.to_owned(),
        r#"{"n":[-1e400,{"m":1e-400}],"title":"\u0061","description":null}"#.to_owned(),
        format!(r#"{{"n":{},"title":"a"}}"#, "9".repeat(5_000)),
        format!(r#"{{"n":0.{}e-7,"title":"a","m":1E999}}"#, "3".repeat(900)),
    ] {
        assert_eq!(new_todo(&json), Ok(("a".to_owned(), String::new())), "{json}");
    }
    for (json, expected) in [
        (r#"{"title":1e400}"#, "title must be a string or null"),
        (r#"{"title":"a","completed":1e400}"#, "completed must be true, false or null"),
        (r#"{"n":1e400}"#, "title is required"),
        (r#"{"n":1e400,"title":"\ud800"}"#, "the body is not valid JSON: "),
        ("[1e400]", "the body must be a JSON object"),
    ] {
        let told = new_todo(json).expect_err(json);
        assert!(told.starts_with(expected), "{json}: {told}");
    }
    assert!(new_todo(r#"{"n":1e400,"title":"\ud800"}"#).expect_err("lone").contains("at line 1, byte "));
    // The parser goes on, and so does a command that another program has written.
    let mut parser = JsonParser::default();
    for _ in 0..3 {
        let mut body = br#"{"title":"a","n":1e400}"#.to_vec();
        assert!(NewTodo::from_json(&mut body, TextLimits::default(), &mut parser).is_ok());
        let mut command =
            br#"{"action":"delete","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u","n":1e400}"#.to_vec();
        assert!(read_command(&mut command, Timestamp::default(), &mut parser).is_ok());
    }
}

#[test]
fn a_new_todo_may_be_done_already() {
    for (json, completed) in [
        (r#"{"title":"a"}"#, false),
        (r#"{"title":"a","completed":null}"#, false),
        (r#"{"title":"a","completed":false}"#, false),
        (r#"{"title":"a","completed":true}"#, true),
    ] {
        let mut body = json.as_bytes().to_vec();
        let todo = NewTodo::from_json(&mut body, TextLimits::default(), &mut JsonParser::default()).expect(json);
        assert_eq!(todo.completed, completed, "{json}");
    }
    let mut body = br#"{"title":"a","completed":"true"}"#.to_vec();
    let error = NewTodo::from_json(&mut body, TextLimits::default(), &mut JsonParser::default()).expect_err("a text");
    assert_eq!(error.to_string(), "completed must be true, false or null");
}

#[test]
fn lengths_are_counted_in_characters() {
    let title = |chars: usize| format!(r#"{{"title":"{}"}}"#, "é".repeat(chars));
    assert!(new_todo(&title(TITLE_MAX_CHARS)).is_ok());
    assert_eq!(new_todo(&title(TITLE_MAX_CHARS + 1)), Err("title has 501 characters; at most 500 are allowed".into()));
    let description = |chars: usize| format!(r#"{{"title":"t","description":"{}"}}"#, "x".repeat(chars));
    assert!(new_todo(&description(DESCRIPTION_MAX_CHARS)).is_ok());
    assert!(new_todo(&description(DESCRIPTION_MAX_CHARS + 1)).is_err());
}

#[test]
fn members_may_be_written_in_another_case() {
    assert_eq!(new_todo(r#"{"Title":"a","DESCRIPTION":"b","titles":1}"#), Ok(("a".into(), "b".into())));
    let mut body = br#"{"Completed":true,"tItle":"x"}"#.to_vec();
    let patch = TodoPatch::from_json(&mut body, &mut JsonParser::default()).expect("valid");
    assert_eq!(patch, TodoPatch { title: Some("x"), description: None, completed: Some(true) });
}

#[test]
fn lengths_are_those_of_the_settings() {
    let limits = TextLimits { title_max_chars: 3, description_max_chars: 2 };
    let read =
        |json: &str| NewTodo::from_json(&mut json.as_bytes().to_vec(), limits, &mut JsonParser::default()).map(|_| ());
    assert_eq!(read(r#"{"title":"\u00e9bc","description":"de"}"#), Ok(()));
    assert_eq!(
        read(r#"{"title":"abcd"}"#).expect_err("long").to_string(),
        "title has 4 characters; at most 3 are allowed"
    );
    assert!(read(r#"{"title":"a","description":"abc"}"#).is_err());
}

#[test]
fn what_a_todo_has_may_be_sent_back_however_long_it_is() {
    let (title, description) = ("t".repeat(TITLE_MAX_CHARS + 1), "d".repeat(DESCRIPTION_MAX_CHARS + 1));
    let todo = Todo {
        id: TodoId::from_u128(1),
        title: title.clone(),
        description: description.clone(),
        completed: false,
        user_id: "u".into(),
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    };
    let check = |title: Option<&str>, description: Option<&str>, todo: Option<&Todo>| {
        TodoPatch { title, description, completed: None }.check_lengths(TextLimits::default(), || todo.cloned())
    };
    assert_eq!(check(Some(&title), Some(&description), Some(&todo)), Ok(()));
    assert_eq!(check(Some("short"), Some(&description), Some(&todo)), Ok(()));
    assert_eq!(check(Some(&title), Some(&description), None).expect_err("no such todo").field, Some("title"));
    let longer = format!("{title}x");
    assert_eq!(check(Some(&longer), None, Some(&todo)).expect_err("another").field, Some("title"));
    assert_eq!(
        check(Some(&title), Some(&title.repeat(30)), Some(&todo)).expect_err("another").field,
        Some("description")
    );
}

#[test]
fn what_is_on_the_log_is_read_whatever_requests_may_bring() {
    let id = "0190163d-8694-739b-aea5-966c26f8ad91";
    let read = |json: String| read_command(&mut json.into_bytes(), Timestamp::default(), &mut JsonParser::default());
    let long = "x".repeat(300_000);
    let users = ["u".repeat(USER_ID_MAX_BYTES + 1), String::new(), r"a\u0001".into()];
    for user in users {
        let json =
            format!(r#"{{"Action":"create","ID":"{id}","title":"{long}","description":"{long}","user_id":"{user}"}}"#);
        let command = read(json).expect("it was acknowledged");
        let todo = command.apply(None).expect("created");
        assert_eq!((todo.title.len(), todo.description.len()), (long.len(), long.len()));
        let mut json = Vec::new();
        todo.write_json(&mut json);
        assert_eq!(Todo::from_json(&mut json, &mut JsonParser::default()), Ok(todo));
    }
    let empty = read(format!(r#"{{"action":"create","id":"{id}","title":"","user_id":"u"}}"#));
    assert!(empty.is_ok(), "the original's worker writes such a row");
    let with = |bytes: usize| {
        let start = format!(r#"{{"action":"delete","id":"{id}","user_id":""#);
        format!("{start}{}\"}}", "u".repeat(bytes - start.len() - 2))
    };
    assert!(read(with(COMMAND_MAX_BYTES)).is_ok());
    let error = read(with(COMMAND_MAX_BYTES + 1)).expect_err("too large").to_string();
    assert_eq!(error, "the command has 1048577 bytes; at most 1048576 are applied");
}

/// What a request brings never becomes longer in the log than it was, whatever has to be escaped.
#[test]
fn a_command_is_no_longer_than_its_body_and_what_stands_around() {
    for character in 1..=0x80u8 {
        let escaped = match character {
            b'\x08' => r"\b".to_owned(),
            b'\x0c' => r"\f".to_owned(),
            b'\n' => r"\n".to_owned(),
            b'\r' => r"\r".to_owned(),
            b'\t' => r"\t".to_owned(),
            b'"' | b'\\' => format!("\\{}", char::from(character)),
            0..0x20 => format!("\\u{:04x}", character),
            _ => char::from(character).to_string(),
        };
        let body = format!(r#"{{"title":"{}"}}"#, escaped.repeat(100));
        let mut copy = body.clone().into_bytes();
        let mut parser = JsonParser::default();
        let NewTodo { title, .. } = NewTodo::from_json(&mut copy, TextLimits::default(), &mut parser).expect(&body);
        let action = Action::Create { title: title.into(), description: "".into(), completed: false };
        let command = Command { id: TodoId::new(), user_id: "u".into(), requested_at: Timestamp::default(), action };
        let mut json = Vec::new();
        command.write_json(&mut json);
        assert!(json.len() <= body.len() + 200, "{character}: {} bytes from {}", json.len(), body.len());
    }
}

#[test]
fn deep_nesting_is_refused_and_the_parser_goes_on() {
    let nested =
        |depth: usize| format!(r#"{{"title":"t","x":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let mut parser = JsonParser::default();
    let error =
        NewTodo::from_json(&mut nested(20_000), TextLimits::default(), &mut parser).expect_err("too deep").to_string();
    assert_eq!(error, "the body is nested deeper than 32 levels");
    assert!(NewTodo::from_json(&mut nested(JSON_MAX_DEPTH - 2), TextLimits::default(), &mut parser).is_ok());
}

#[test]
fn invalid_utf8_is_named() {
    let mut body = b"{\"title\":\"\xff\"}".to_vec();
    let error = NewTodo::from_json(&mut body, TextLimits::default(), &mut JsonParser::default()).expect_err("invalid");
    assert_eq!(error.to_string(), "the body is not valid UTF-8, at line 1, byte 11");
}

#[test]
fn a_patch_keeps_what_is_absent_or_null() {
    let mut body = br#"{"title":null,"description":"","completed":true}"#.to_vec();
    let patch = TodoPatch::from_json(&mut body, &mut JsonParser::default()).expect("valid");
    assert_eq!(patch, TodoPatch { title: None, description: Some(""), completed: Some(true) });
    for wrong in [r#"{"title":""}"#, r#"{"completed":1}"#, r#"{"completed":"true"}"#] {
        assert!(TodoPatch::from_json(&mut wrong.as_bytes().to_vec(), &mut JsonParser::default()).is_err(), "{wrong}");
    }
}

#[test]
fn commands_of_the_original_are_read() {
    let json = br#"{"action":"update","id":"0190163D-8694-739B-AEA5-966C26F8AD91","title":"","completed":true,"user_id":"u","requested_at":"2026-01-02T03:04:05.123456789+02:00"}"#;
    let command = read_command(&mut json.to_vec(), Timestamp::default(), &mut JsonParser::default()).expect("valid");
    assert_eq!(command.action, Action::Update { title: None, description: None, completed: Some(true) });
    assert_eq!(command.requested_at.to_string(), "2026-01-02T01:04:05.123456Z");
    assert_eq!(command.id.to_string(), "0190163d-8694-739b-aea5-966c26f8ad91");
    for (wrong, reason) in [
        (
            r#"{"action":"drop","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u"}"#,
            "unknown action \"drop\": expected create, update or delete",
        ),
        (
            r#"{"action":"delete","id":"x","user_id":"u"}"#,
            "id is not a UUID of the form xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
        ),
        (r#"{"action":"delete","id":"0190163d-8694-739b-aea5-966c26f8ad91"}"#, "user_id is missing"),
        (
            r#"{"action":"create","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u","title":"a\u0000"}"#,
            "title contains a NUL character (\\u0000), which cannot be stored",
        ),
        (
            r#"{"action":"delete","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"\u0000"}"#,
            "user_id contains a NUL character (\\u0000), which cannot be stored",
        ),
    ] {
        let error = read_command(&mut wrong.as_bytes().to_vec(), Timestamp::default(), &mut JsonParser::default());
        assert_eq!(error.expect_err(wrong).to_string(), reason);
    }
}

#[test]
fn another_users_command_changes_nothing() {
    let id = TodoId::new();
    let command = |user: &'static str, action| Command {
        id,
        user_id: user.into(),
        requested_at: Timestamp::from_micros(7),
        action,
    };
    let create = command("owner", Action::Create { title: "t".into(), description: "".into(), completed: false });
    let todo = create.apply(None);
    assert!(todo.is_some());
    let stranger = command("stranger", Action::Delete).apply(todo.clone());
    assert_eq!(stranger, todo);
    assert_eq!(create.apply(todo.clone()), todo, "a create of a todo that is there changes nothing");
    assert_eq!(command("owner", Action::Delete).apply(todo), None);
}

proptest! {
    #[test]
    fn timestamps_are_written_as_jiff_writes_them(micros in Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros()) {
        let text = Timestamp::from_micros(micros).to_string();
        prop_assert_eq!(text.parse::<Timestamp>(), Ok(Timestamp::from_micros(micros)), "{}", text);
        let expected = format!("{:.6}", jiff::Timestamp::from_microsecond(micros).expect("in range"));
        prop_assert_eq!(text, expected);
    }

    #[test]
    fn what_is_written_is_read_back(title in "\\PC{1,40}|[\\x01-\\x1f\"\\\\é😀]{1,20}", description in ".{0,40}", completed: bool, micros in 0i64..=Timestamp::MAX.as_micros()) {
        let description = description.replace('\0', "");
        let todo = Todo {
            id: TodoId::new(), title: title.clone(), description: description.clone(), completed,
            user_id: "usér \"1\"".into(), created_at: Timestamp::from_micros(micros), updated_at: Timestamp::from_micros(micros),
        };
        let mut json = Vec::new();
        todo.write_json(&mut json);
        let parsed: serde_json::Value = serde_json::from_slice(&json).expect("valid JSON");
        prop_assert_eq!(parsed["title"].as_str(), Some(title.as_str()));
        prop_assert_eq!(Todo::from_json(&mut json, &mut JsonParser::default()), Ok(todo));

        let command = Command {
            id: TodoId::new(), user_id: "u".into(), requested_at: Timestamp::from_micros(micros),
            action: Action::Create { title: title.into(), description: description.into(), completed },
        };
        let mut json = Vec::new();
        command.write_json(&mut json);
        prop_assert_eq!(read_command(&mut json, Timestamp::default(), &mut JsonParser::default()), Ok(command));
    }
}

#[test]
fn a_change_is_never_undone_to_the_byte_though_clocks_are_set_back() {
    let update = |title: &str, completed, micros| Command {
        id: TodoId::from_u128(1),
        user_id: "u".into(),
        requested_at: Timestamp::from_micros(micros),
        action: Action::Update { title: Some(title.to_owned().into()), description: None, completed },
    };
    let create = Command {
        action: Action::Create { title: "a".into(), description: "".into(), completed: false },
        ..update("", None, 1_000)
    };
    let first = create.apply(None);
    let mut seen = vec![first.clone()];
    let mut todo = first;
    for (title, completed) in
        [("b", None), ("a", None), ("a", Some(true)), ("a", Some(false)), ("b", None), ("a", None)]
    {
        // The clock stands before the create.
        todo = update(title, completed, 10).apply(todo);
        assert!(!seen.contains(&todo), "{todo:?} has been there before");
        seen.push(todo.clone());
    }
    let unchanged = update("a", Some(false), 10).apply(todo.clone());
    assert_eq!(unchanged, todo, "what changes nothing leaves the time");
    let later = update("a", None, 9_000).apply(todo).expect("it is there");
    assert_eq!(later.updated_at, Timestamp::from_micros(9_000));
}

#[test]
fn members_of_a_command_that_mean_nothing_here_are_named() {
    let mut json =
        br#"{"action":"update","id":"0190163d-8694-739b-aea5-966c26f8ad91","user_id":"u","priority":7,"Title":"t",
        "tags":["a"],"updated_at":"2026-01-02T03:04:05Z"}"#
            .to_vec();
    let mut unknown = Vec::new();
    let command = Command::from_json(&mut json, Timestamp::default(), &mut JsonParser::default(), |name| {
        unknown.push(name.to_owned());
    })
    .expect("a command");
    assert_eq!(unknown, ["priority", "tags"]);
    assert_eq!(command.action, Action::Update { title: Some("t".into()), description: None, completed: None });
}

/// Gives what it was given.
#[derive(Default)]
struct Cells(Vec<(ColumnKind, String)>, usize);

impl<'t> ColumnSink<'t> for Cells {
    fn id(&mut self, id: TodoId) {
        self.0.push((ColumnKind::Id, id.to_string()));
    }

    fn text(&mut self, text: &'t str) {
        self.0.push((ColumnKind::Text, text.to_owned()));
    }

    fn flag(&mut self, flag: bool) {
        self.0.push((ColumnKind::Flag, flag.to_string()));
    }

    fn time(&mut self, time: Timestamp) {
        self.0.push((ColumnKind::Time, time.to_string()));
    }
}

impl Cells {
    fn next(&mut self) -> String {
        self.1 += 1;
        self.0[self.1 - 1].1.clone()
    }
}

impl ColumnSource for Cells {
    type Error = &'static str;

    fn id(&mut self) -> Result<TodoId, &'static str> {
        self.next().parse().map_err(|_| "no id")
    }

    fn text(&mut self) -> Result<String, &'static str> {
        Ok(self.next())
    }

    fn flag(&mut self) -> Result<bool, &'static str> {
        self.next().parse().map_err(|_| "no flag")
    }

    fn time(&mut self) -> Result<Timestamp, &'static str> {
        self.next().parse().map_err(|_| "no time")
    }
}

#[test]
fn a_todo_is_a_row_of_the_columns_and_back() {
    let todo = Todo {
        id: TodoId::from_u128(7),
        title: "t".into(),
        description: "dd".into(),
        completed: true,
        user_id: "uuu".into(),
        created_at: Timestamp::from_micros(1),
        updated_at: Timestamp::from_micros(2),
    };
    let mut cells = Cells::default();
    todo.give_columns(&mut cells);
    assert_eq!(
        cells.0.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        TODO_COLUMNS.iter().map(|column| column.kind).collect::<Vec<_>>()
    );
    assert_eq!(todo.text_bytes(), 6);
    let mut json = Vec::new();
    todo.write_json(&mut json);
    let json = String::from_utf8(json).expect("JSON is UTF-8");
    let places: Vec<_> = TODO_COLUMNS.iter().map(|column| json.find(&format!("\"{}\":", column.name))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{json}");
    assert_eq!(Todo::take_columns(&mut cells), Ok(todo));
}

#[test]
fn a_patch_that_makes_texts_longer_says_so() {
    let todo = Command {
        id: TodoId::from_u128(7),
        user_id: "u".into(),
        requested_at: Timestamp::default(),
        action: Action::Create { title: "four".into(), description: "four".into(), completed: false },
    }
    .apply(None);
    let lengthens =
        |title, description, completed| TodoPatch { title, description, completed }.lengthens(todo.as_ref());
    assert!(lengthens(Some("fours"), None, None));
    assert!(!lengthens(Some("fours"), Some("for"), None), "as long as before together");
    assert!(!lengthens(None, None, Some(true)));
    assert!(TodoPatch { title: Some("t"), description: None, completed: None }.lengthens(None));
}
