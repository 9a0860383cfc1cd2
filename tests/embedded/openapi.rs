//! The contract as documents: `/openapi.json`, `/docs`, and an address for each type of problem.

use million_rps::http::ProblemKind;
use million_rps::http::route::RESOURCES;
use serde_json::Value;

use crate::harness::request::{Request, get};
use crate::harness::server::{Server, Setup};
use crate::harness::shared::on_both_drivers;

on_both_drivers!(crate::plain =>
    the_document_is_served_in_each_coding_and_by_its_tag,
    every_path_of_the_document_allows_what_it_says,
    the_type_of_each_problem_leads_to_its_page,
    the_pages_show_everything_and_need_nothing_from_elsewhere,
);

mod own {
    use super::*;

    on_both_drivers!(std::convert::identity => limits_of_this_process_stand_in_the_document);
}

const DOCUMENTS: [&str; 4] = ["/openapi.json", "/docs", "/docs/problems", "/docs/problems/no-such-todo"];

fn document(server: &Server) -> Value {
    let answer = server.connect().call(&get("/openapi.json")).expect(200);
    assert_eq!(answer.required("Content-Type"), "application/json");
    answer.json()
}

fn the_document_is_served_in_each_coding_and_by_its_tag(server: &Server) {
    let mut client = server.connect();
    for path in DOCUMENTS {
        let plain = client.call(&get(path)).expect(200);
        assert_eq!(plain.required("X-Content-Type-Options"), "nosniff");
        for coding in ["gzip", "br", "zstd"] {
            let answer = client.call(&get(path).field("Accept-Encoding", coding)).expect(200);
            let is_short = plain.body.len() < 4096;
            assert_eq!(answer.field("Content-Encoding"), (!is_short).then_some(coding), "{path}");
            assert!(is_short || answer.body.len() < plain.body.len() / 2, "{path}: {} bytes", answer.body.len());
            let tag = answer.required("ETag").to_owned();
            let unchanged = client.call(&get(path).field("If-None-Match", &tag)).expect(304);
            assert_eq!(unchanged.required("ETag"), tag);
        }
        let head = client.call(&Request::new("HEAD", path)).expect(200);
        assert_eq!((head.content_length(), head.body.len()), (plain.body.len(), 0));
        client.call(&get(path).field("If-Match", "\"0000000000000000\"")).problem(412);
    }
}

fn every_path_of_the_document_allows_what_it_says(server: &Server) {
    let (mut client, document) = (server.connect(), document(server));
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), RESOURCES.len());
    for (path, item) in paths {
        let path = path.replace("{id}", "01900000-0000-7000-8000-000000000001").replace("{type}", "list-full");
        let options = client.call(&Request::new("OPTIONS", &*path)).expect(204);
        let allowed: Vec<&str> = options.required("Allow").split(", ").collect();
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "QUERY"] {
            // OPTIONS is allowed everywhere, and said once for all.
            let is_told = item[method.to_lowercase()].is_object() || method == "OPTIONS";
            assert_eq!(allowed.contains(&method), is_told, "{method} {path}");
            if !is_told {
                let answer = client.call(&Request::new(method, &*path));
                answer.problem(405);
                assert_eq!(answer.required("Allow"), options.required("Allow"));
            }
        }
    }
}

fn the_type_of_each_problem_leads_to_its_page(server: &Server) {
    let mut client = server.connect();
    let problem: Value = serde_json::from_str(&client.call(&get("/nowhere")).problem(404)).expect("JSON");
    let page = client.call(&get(problem["type"].as_str().expect("a reference"))).expect(200);
    assert!(page.text().contains(problem["title"].as_str().expect("a title")));
    let index = client.call(&get("/docs/problems")).expect(200).text().to_owned();
    for kind in ProblemKind::ALL {
        let page = client.call(&get(kind.reference())).expect(200);
        let remedy = kind.remedy().replace('<', "&lt;").replace('>', "&gt;");
        assert!(page.text().contains(&format!("<p>{remedy}</p>")), "{}", page.text());
        assert!(index.contains(&format!("href=\"{}\"", kind.reference())), "{}", kind.slug());
    }
    client.call(&get("/docs/problems/no-such-type")).problem(404);
    let problem = client.call(&get("/docs/problems/")).problem(404);
    assert!(problem.contains("slash"), "{problem}");
}

fn the_pages_show_everything_and_need_nothing_from_elsewhere(server: &Server) {
    let mut client = server.connect();
    let document = document(server);
    let docs = client.call(&get("/docs").field("Accept-Encoding", "identity")).expect(200);
    let text = docs.text();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations").iter().filter(|(_, of)| of.is_object()) {
            let heading = format!("<code>{} {path}</code></h3>", method.to_uppercase());
            assert!(method == "head" || text.contains(&heading), "{heading}");
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = format!("<code>{}</code>", parameter["name"].as_str().expect("a name"));
                assert!(text.contains(&name), "{name}");
            }
        }
    }
    for name in document["components"]["schemas"].as_object().expect("schemas").keys() {
        assert!(text.contains(&format!("<h3 id=\"{name}\">")), "{name}");
    }
    for link in text.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        match link.strip_prefix('#') {
            Some(id) => assert!(text.contains(&format!(" id=\"{id}\"")), "{link}"),
            None => assert_eq!(client.call(&get(link)).status, 200, "{link}"),
        }
    }
    for path in &DOCUMENTS[1..] {
        let page = client.call(&get(*path)).expect(200);
        let policy = page.required("Content-Security-Policy").to_owned();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
        for outside in ["<script", "src=", "http-equiv", "@import", "url(", " style="] {
            assert!(!page.text().contains(outside), "{path} has {outside}");
        }
    }
    let small = client.call(&get("/docs").field("Accept-Encoding", "br")).expect(200);
    assert!(small.body.len() <= 14 * 1024, "/docs: {} bytes", small.body.len());
}

fn limits_of_this_process_stand_in_the_document(driver: &crate::harness::server::Driver) {
    let server = Setup::new().driver(*driver).set("TITLE_MAX_CHARS", "77").set("BODY_MAX_BYTES", "20480").start();
    let document = document(&server);
    assert_eq!(document["components"]["schemas"]["NewTodo"]["properties"]["title"]["maxLength"], 77);
    let docs = server.connect().call(&get("/docs")).expect(200).text().to_owned();
    assert!(docs.contains("at most 77") && docs.contains("20480 bytes"), "{docs}");
}
