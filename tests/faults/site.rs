//! What a site makes of the database by itself: rules for rows, columns, rights. A row that it refuses is a dead letter, and
//! all else is said and waited for, while the processes go on.

use million_rps::limits::{DEAD_LETTER_BURST, WORKER_WATCH_INTERVAL_MS};
use serde_json::json;

use crate::deployment::{Api, Deployment};
use crate::harness::request::{delete, post, put};
use crate::harness::token::token;
use crate::within;

fn write(api: &Api, title: &str) {
    api.connect().call(&post(&token("anna"), json!({ "title": title }).to_string())).expect(202);
}

fn titles(api: &Api) -> Vec<String> {
    let list = api.list().json();
    let titles =
        list.as_array().expect("a list").iter().map(|todo| todo["title"].as_str().expect("a title").to_owned());
    let mut titles: Vec<String> = titles.collect();
    titles.sort_unstable();
    titles
}

fn letters(deployment: &Deployment) -> Vec<String> {
    let listed = deployment.command(&["dead-letters", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    listed.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_row_that_a_rule_of_the_site_refuses_is_a_dead_letter_and_nothing_stops() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    deployment.query(
        "CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.title = 'raised' THEN RAISE EXCEPTION 'we do not write such things'; END IF;
             IF NEW.title = 'coded' THEN RAISE EXCEPTION 'by a code of ours' USING ERRCODE = 'UE001'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER judge BEFORE INSERT OR UPDATE ON todos FOR EACH ROW EXECUTE FUNCTION judge();
         ALTER TABLE todos ADD CONSTRAINT decent CHECK (title <> 'checked')",
    );
    let refused = ["raised", "coded", "checked"];
    let mut good = Vec::new();
    for (number, title) in refused.iter().enumerate() {
        for part in 0..20 {
            good.push(format!("good {number}.{part}"));
            write(&api, good.last().expect("just pushed"));
        }
        write(&api, title);
    }
    good.sort_unstable();
    within("all others", || (titles(&api) == good).then_some(()));
    within("three dead letters", || (letters(&deployment).len() == 3).then_some(()));
    let reasons = letters(&deployment).join("\n");
    for reason in ["we do not write such things", "by a code of ours", "decent"] {
        assert!(reasons.contains(reason), "{reason}: {reasons}");
    }
    assert!(crate::harness::is_well(&api.ready().1));
}

/// A trigger that returns nothing refuses without an error: of what it passed over nobody may be told that it is stored.
#[test]
fn a_row_that_a_trigger_of_the_site_passes_over_is_a_dead_letter() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    write(&api, "first");
    write(&api, "kept");
    within("two todos", || (titles(&api) == ["first", "kept"]).then_some(()));
    deployment.query(
        "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF TG_OP = 'DELETE' THEN IF OLD.title = 'kept' THEN RETURN NULL; END IF; RETURN OLD; END IF;
             IF NEW.title LIKE 'skip%' THEN RETURN NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER skip BEFORE INSERT OR UPDATE OR DELETE ON todos FOR EACH ROW EXECUTE FUNCTION skip()",
    );
    let id = |title: &str| {
        let list = api.list().json();
        let todo = list.as_array().expect("a list").iter().find(|todo| todo["title"] == title).cloned();
        todo.expect("it is there")["id"].as_str().expect("an id").to_owned()
    };
    let token = token("anna");
    api.connect().call(&put(&token, &id("first"), json!({ "title": "skip the update" }).to_string())).expect(202);
    api.connect().call(&delete(&token, &id("kept"))).expect(202);
    write(&api, "skip the create");
    // Enough of them in one batch are copied.
    let many: Vec<u8> = (0..200)
        .flat_map(|number| {
            let title = if number == 100 { "skip one of many".to_owned() } else { format!("good {number:03}") };
            post(&token, json!({ "title": title }).to_string()).bytes()
        })
        .collect();
    let mut client = api.connect();
    client.send(&many);
    (0..200).for_each(|_| drop(client.answer().expect(202)));
    within("four dead letters", || (letters(&deployment).len() == 4).then_some(()));
    let reasons = letters(&deployment).join("\n");
    assert_eq!(reasons.matches("did not keep the row").count(), 3, "{reasons}");
    assert_eq!(reasons.matches("did not delete the row").count(), 1, "{reasons}");
    let mut expected: Vec<String> = (0..200).filter(|number| *number != 100).map(|n| format!("good {n:03}")).collect();
    expected.splice(0..0, ["first".to_owned()]);
    expected.push("kept".to_owned());
    within("what the store has", || (titles(&api) == expected).then_some(()));
    let stored = deployment.query("SELECT count(*) FROM todos WHERE title LIKE 'skip%'");
    assert_eq!(stored[0][0].as_deref(), Some("0"));
    // A row that somebody else takes away while it is deleted is no fault.
    deployment.query("DELETE FROM todos WHERE title = 'good 000'");
    api.connect().call(&put(&token, &id("good 001"), json!({ "title": "changed" }).to_string())).expect(202);
    within("the change", || titles(&api).contains(&"changed".to_owned()).then_some(()));
    assert_eq!(letters(&deployment).len(), 4);
}

/// Each row is refused: a rule that came too late, or the wrong one.
#[test]
fn a_burst_of_dead_letters_is_told_by_workers_and_by_apis_without_one() {
    let deployment = Deployment::beside_others();
    let (both, api) = (deployment.run(), deployment.serve());
    deployment.query("ALTER TABLE todos ADD CONSTRAINT nothing CHECK (title <> 'refused')");
    write(&api, "refused");
    within("one dead letter", || (letters(&deployment).len() == 1).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(3 * WORKER_WATCH_INTERVAL_MS / 2));
    for process in [&both, &api] {
        assert!(crate::harness::is_well(&process.ready().1), "one is no burst: {:?}", process.ready());
    }
    (1..DEAD_LETTER_BURST).for_each(|_| write(&api, "refused"));
    both.await_trouble("dead_letters: ");
    api.await_trouble("dead_letters: ");
    assert_eq!(letters(&deployment).len() as u64, DEAD_LETTER_BURST);
    assert_eq!(titles(&api), [] as [&str; 0]);
    // Over after its time, and gone with its cause.
    deployment.query("ALTER TABLE todos DROP CONSTRAINT nothing");
    assert!(deployment.command(&["dead-letters", "replay", "--all"]).status.success());
    within("the replayed commands", || (titles(&api).len() as u64 == DEAD_LETTER_BURST).then_some(()));
}

#[test]
fn a_column_without_a_default_and_a_missing_right_are_told_and_waited_for() {
    let deployment = Deployment::beside_others();
    let api = deployment.run();
    write(&api, "before");
    within("the first todo", || (titles(&api) == ["before"]).then_some(()));

    deployment.query(
        "ALTER TABLE todos ADD COLUMN tenant integer; UPDATE todos SET tenant = 1;
         ALTER TABLE todos ALTER COLUMN tenant SET NOT NULL",
    );
    write(&api, "of no tenant");
    api.await_trouble("the column tenant of the table todos");
    assert_eq!(titles(&api), ["before"]);
    deployment.query("ALTER TABLE todos ALTER COLUMN tenant SET DEFAULT 1");
    within("the todo after the remedy", || (titles(&api).len() == 2).then_some(()));
    api.await_well();
    assert_eq!(letters(&deployment), [] as [&str; 0]);

    // A worker of a role that may do nothing: it stays, and says what it takes.
    let role = format!("role-{}", deployment.topic);
    let database = deployment.setting("DATABASE_URL");
    let (_, place) = database.rsplit_once('@').unwrap_or_else(|| database.split_once("://").expect("a URL"));
    deployment.query(&format!("CREATE ROLE \"{role}\" LOGIN; REVOKE CREATE ON SCHEMA public FROM public"));
    api.process.signal(libc::SIGTERM);
    assert!(api.process.finish().status.success());
    let deployment = deployment.set("DATABASE_URL", &format!("postgres://{role}@{place}"));
    let reader = deployment.serve_unready("run");
    let remedy = "GRANT SELECT, INSERT, UPDATE, DELETE ON";
    within("the trouble", || {
        // Ready or not: the list may have come from Redis.
        reader.ready().1["reasons"].to_string().contains(remedy).then_some(())
    });
    deployment.query(&format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON todos TO \"{role}\";
         GRANT SELECT, INSERT, UPDATE ON applied_offsets TO \"{role}\"; GRANT SELECT ON deployment TO \"{role}\""
    ));
    within("readiness", || (reader.ready().0 == 200).then_some(()));
    write(&reader, "by another role");
    within("the third todo", || (titles(&reader).len() == 3).then_some(()));
    reader.await_well();
    drop(reader);
    deployment.query(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\""));
}
