//! What a write may say: JSON, its members, their limits, and its media type.

use million_rps::limits::{DESCRIPTION_MAX_CHARS, JSON_MAX_DEPTH, TITLE_MAX_CHARS};
use serde_json::json;

use crate::harness::client::lossy;
use crate::harness::eventually;
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::server::Server;
use crate::harness::shared::on_both_drivers;
use crate::harness::token::token;

on_both_drivers!(crate::plain =>
    bad_bodies_of_a_create_name_the_field,
    bad_bodies_of_an_update_name_the_field,
    lengths_are_counted_in_characters,
    texts_come_back_as_they_were_sent,
    only_json_is_accepted,
    ids_have_one_form,
);

const SOME_ID: &str = "01900000-0000-7000-8000-000000000000";

fn bad_bodies_of_a_create_name_the_field(server: &Server) {
    let token = token("bodies");
    let mut client = server.connect();
    let nested =
        |depth: usize| format!(r#"{{"title":"t","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let bodies: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "body is empty"),
        (b"   ".to_vec(), "JSON"),
        (b"{".to_vec(), "JSON"),
        (b"{}}".to_vec(), "JSON"),
        (br#"{"title":"t",}"#.to_vec(), "JSON"),
        (br#"{'title':'t'}"#.to_vec(), "JSON"),
        (br#"{"title":"t"} trailing"#.to_vec(), "JSON"),
        (br#"{"title":"\x"}"#.to_vec(), "JSON"),
        (br#"{"title":"\ud800"}"#.to_vec(), "JSON"),
        (br#"{"title":"t","x":01}"#.to_vec(), "JSON"),
        (br#"{"title":"t","x":NaN}"#.to_vec(), "JSON"),
        (b"{\"title\":\"line\nbreak\"}".to_vec(), "JSON"),
        (b"{\"title\":\"t\"}\xef\xbb\xbf".to_vec(), "JSON"),
        (b"{\"title\":\"\xff\xfe\"}".to_vec(), "UTF-8"),
        (b"{\"title\":\"\xed\xa0\x80\"}".to_vec(), "UTF-8"),
        (b"{\"title\":\"\xc0\x80\"}".to_vec(), "UTF-8"),
        (b"[]".to_vec(), "no todos"),
        (b"null".to_vec(), "object"),
        (b"7".to_vec(), "object"),
        (br#""title""#.to_vec(), "object"),
        (b"{}".to_vec(), "title"),
        (br#"{"Titel":"t"}"#.to_vec(), "title"),
        (br#"{"description":"d"}"#.to_vec(), "title"),
        (br#"{"title":null}"#.to_vec(), "title"),
        (br#"{"title":""}"#.to_vec(), "title"),
        (br#"{"title":7}"#.to_vec(), "title"),
        (br#"{"title":true}"#.to_vec(), "title"),
        (br#"{"title":["t"]}"#.to_vec(), "title"),
        (br#"{"title":{"title":"t"}}"#.to_vec(), "title"),
        (br#"{"title":"a\u0000b"}"#.to_vec(), "title contains a NUL"),
        (br#"{"title":"t","title":"u"}"#.to_vec(), "title is given twice"),
        (br#"{"title":"t","\u0074itle":"u"}"#.to_vec(), "title is given twice"),
        (br#"{"title":"t","description":7}"#.to_vec(), "description"),
        (br#"{"title":"t","description":{}}"#.to_vec(), "description"),
        (br#"{"title":"t","description":"\u0000"}"#.to_vec(), "description contains a NUL"),
        (br#"{"title":"t","description":"","description":""}"#.to_vec(), "description is given twice"),
        (nested(JSON_MAX_DEPTH), "nested"),
        (nested(30_000), "nested"),
    ];
    for (body, named) in bodies {
        let text = client.call(&post(&token, body.clone())).problem(400);
        assert!(text.contains(named), "{:?} should name {named:?}: {text}", lossy(&body));
    }
    client.assert_goes_on();
}

fn bad_bodies_of_an_update_name_the_field(server: &Server) {
    let token = token("bodies");
    let mut client = server.connect();
    for (body, named) in [
        ("", "body is empty"),
        ("[]", "object"),
        (r#"{"title":""}"#, "title"),
        (r#"{"title":7}"#, "title"),
        (r#"{"title":"\u0000"}"#, "title contains a NUL"),
        (r#"{"description":false}"#, "description"),
        (r#"{"completed":"true"}"#, "completed"),
        (r#"{"completed":1}"#, "completed"),
        (r#"{"completed":[]}"#, "completed"),
        (r#"{"completed":true,"completed":true}"#, "completed is given twice"),
    ] {
        let text = client.call(&put(&token, SOME_ID, body)).problem(400);
        assert!(text.contains(named), "{body:?} should name {named:?}: {text}");
    }
    client.assert_goes_on();
}

fn lengths_are_counted_in_characters(server: &Server) {
    let token = token("lengths");
    let mut client = server.connect();
    for letter in ["x", "é", "😀"] {
        let body = |title: usize, description: usize| {
            json!({ "title": letter.repeat(title), "description": letter.repeat(description) }).to_string()
        };
        let longest = body(TITLE_MAX_CHARS, DESCRIPTION_MAX_CHARS);
        client.call(&post(&token, longest.clone())).expect(202);
        let text = client.call(&post(&token, body(TITLE_MAX_CHARS + 1, 0))).problem(400);
        assert!(text.contains("title has 501 characters"), "{text}");
        let text = client.call(&post(&token, body(1, DESCRIPTION_MAX_CHARS + 1))).problem(400);
        assert!(text.contains("description has 10001 characters"), "{text}");
        let text = client.call(&put(&token, SOME_ID, body(TITLE_MAX_CHARS + 1, 0))).problem(400);
        assert!(text.contains("title has 501 characters"), "{text}");
        client.call(&put(&token, SOME_ID, longest)).expect(202);
    }
    // Escapes are one character each, however many bytes they take.
    let body = format!(r#"{{"title":"{}"}}"#, r"\u0001".repeat(TITLE_MAX_CHARS));
    client.call(&post(&token, body)).expect(202);
}

fn texts_come_back_as_they_were_sent(server: &Server) {
    let sub = "usér \"quoted\" <&> 😀";
    let token = token(sub);
    let mut client = server.connect();
    for (title, description) in [
        ("plain", ""),
        ("\"quotes\" \\ / \u{1}\u{8}\u{c}\t\r\n\u{1f}\u{7f}", "a\nb"),
        ("grüße 日本語 العربية", "\u{2028}\u{2029}\u{feff}\u{fffd}\u{10ffff}"),
        ("👩‍👩‍👧‍👦", "</script><!-- %00 ${x} '; DROP TABLE todos; --"),
        (" leading and trailing ", "\\u0041 is no A"),
    ] {
        let body = json!({ "title": title, "description": description, "unknown": [1, {"x": null}], "id": "ignored" });
        let id = client.call(&post(&token, body.to_string())).expect(202).json()["id"].clone();
        let todo = eventually("the todo to show", || {
            let answer = client.call(&get(format!("/todos/{}", id.as_str().expect("an id"))));
            (answer.status == 200).then(|| answer.json())
        });
        assert_eq!(todo["title"], title);
        assert_eq!(todo["description"], description);
        assert_eq!(todo["user_id"], sub);
        assert_eq!(todo["id"], id);
    }
}

fn only_json_is_accepted(server: &Server) {
    let token = token("types");
    let mut client = server.connect();
    let request = || Request::new("POST", "/todos").token(&token).body(r#"{"title":"typed"}"#);
    for accepted in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
    ] {
        client.call(&request().field("Content-Type", accepted)).expect(202);
    }
    client.call(&request()).expect(202);
    client.call(&request().field("Content-Type", "application/json").field("Content-Encoding", "identity")).expect(202);
    for refused in [
        "text/html",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/json; charset=iso-8859-1",
        "json",
        "",
    ] {
        let text = client.call(&request().field("Content-Type", refused)).problem(415);
        assert!(text.contains("Content-Type"), "{refused:?}: {text}");
        client.call(&put(&token, SOME_ID, "{}").field("X", "y")).expect(202);
    }
    for coding in ["gzip", "br", "identity, gzip", "aes128gcm"] {
        let answer =
            client.call(&request().field("Content-Type", "application/json").field("Content-Encoding", coding));
        assert!(answer.problem(415).contains("Content-Encoding"), "{answer:?}");
        assert_eq!(answer.required("Accept-Encoding"), "identity", "RFC 9110 section 12.5.3");
    }
    client.assert_goes_on();
}

fn ids_have_one_form(server: &Server) {
    let token = token("ids");
    let mut client = server.connect();
    for wrong in [
        "",
        "1",
        "nonsense",
        "01900000-0000-7000-8000-00000000000",
        "01900000-0000-7000-8000-0000000000000",
        "01900000-0000-7000-8000-00000000000g",
        "0190000000007000800000000000000000",
        "01900000000070008000000000000000",
        "{01900000-0000-7000-8000-000000000000}",
        "urn:uuid:01900000-0000-7000-8000-000000000000",
        "019000000-000-7000-8000-000000000000",
        "%00",
        "..",
        "01900000-0000-7000-8000-000000000000%20",
    ] {
        // Braces may not stand in a target.
        let wrong = wrong.replace('{', "%7B").replace('}', "%7D");
        for request in [get(format!("/todos/{wrong}")), put(&token, &wrong, r#"{"title":"t"}"#), delete(&token, &wrong)]
        {
            let text = client.call(&request).problem(400);
            assert!(text.contains("id"), "{wrong:?}: {text}");
        }
    }
    let id = client.call(&post(&token, r#"{"title":"t"}"#)).expect(202).json()["id"].clone();
    let id = id.as_str().expect("an id");
    for form in [id.to_owned(), id.to_uppercase(), id.replacen('-', "%2D", 1)] {
        eventually("the todo under each spelling of its id", || {
            let answer = client.call(&get(format!("/todos/{form}")));
            (answer.status == 200).then(|| assert_eq!(answer.json()["id"], id))
        });
    }
}
