//! Another program reads the same log and is faster: what the worker has to apply stands in the database already.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deployment::{Api, Deployment};
use crate::harness::request::{Request, delete, get, post, put};
use crate::harness::token::token;
use crate::{say, within};

/// Far above what the test takes: nothing is healed by the comparison with the store.
const CACHE_TTL_SEC: &str = "300";

/// Has a todo made and waits until it shows.
fn make(api: &Api, title: &str) -> String {
    let wait = post(&token("anna"), json!({ "title": title }).to_string()).field("Prefer", "wait=30");
    let answer = api.connect().call(&wait).expect(202);
    assert_eq!(answer.required("Preference-Applied"), "wait");
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn write(api: &Api, request: &Request) -> Value {
    api.connect().call(request).expect(202).json()
}

/// What the rows are, in the order of the list.
fn rows(deployment: &Deployment) -> Vec<(String, String, bool)> {
    let query = "SELECT id, title, completed FROM todos ORDER BY created_at DESC, id DESC";
    let text = |column: &Option<String>| column.clone().expect("no column is null");
    deployment.query(query).iter().map(|row| (text(&row[0]), text(&row[1]), text(&row[2]) == "t")).collect()
}

fn shown(api: &Api) -> Vec<(String, String, bool)> {
    let list = api.list().json();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let todo = |todo: &Value| (text(&todo["id"]), text(&todo["title"]), todo["completed"] == true);
    list.as_array().expect("a list").iter().map(todo).collect()
}

#[test]
fn what_another_program_has_applied_already_is_shown_all_the_same() {
    let deployment = Deployment::new().set("CACHE_TTL_SEC", CACHE_TTL_SEC);
    let [worker] = deployment.workers();
    let (api, other) = (deployment.serve(), deployment.serve());
    let [updated, deleted, untouched] = ["to update", "to delete", "to leave"].map(|title| make(&api, title));
    worker.signal(libc::SIGTERM);
    assert!(worker.finish().status.success());

    // Acknowledged, and applied by the other program first, by a clock of its own.
    let token = token("anna");
    let created = write(&api, &post(&token, r#"{"title":"made","description":"d"}"#));
    let created = created["id"].as_str().expect("an id");
    write(&api, &put(&token, &updated, r#"{"title":"updated","completed":true}"#));
    write(&api, &delete(&token, &deleted));
    deployment.query(&format!(
        "INSERT INTO todos VALUES ('{created}', 'made', 'd', false, 'anna', now(), now());
         UPDATE todos SET title = 'updated', completed = true, updated_at = now() WHERE id = '{updated}';
         DELETE FROM todos WHERE id = '{deleted}'"
    ));
    // Writes that wait are answered when the list is right.
    let started_at = Instant::now();
    let waiting = put(&token, &updated, r#"{"title":"updated"}"#).field("Prefer", "wait=60");
    std::thread::scope(|scope| {
        let answers = [&api, &other].map(|api| {
            let (waiting, target) = (waiting.clone(), format!("/todos/{updated}"));
            scope.spawn(move || {
                let answer = api.connect().call(&waiting).expect(202);
                assert_eq!(answer.required("Preference-Applied"), "wait");
                api.connect().call(&get(target)).expect(200).json()
            })
        });
        let _worker = deployment.workers::<1>();
        for answer in answers {
            let todo = answer.join().expect("no panic");
            assert_eq!((&todo["title"], &todo["completed"]), (&json!("updated"), &json!(true)));
        }
        for api in [&api, &other] {
            within("the list as the store has it", || (shown(api) == rows(&deployment)).then_some(()));
        }
    });
    let expected = rows(&deployment);
    let ids: Vec<&str> = expected.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(ids, [created, &untouched, &updated]);
    assert!(started_at.elapsed() < Duration::from_secs(CACHE_TTL_SEC.parse().expect("a number")));
    say(&format!("second writer: shown after {:.1} s", started_at.elapsed().as_secs_f64()));
}
