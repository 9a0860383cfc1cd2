//! The identity of a deployment in PostgreSQL: of its own for each database, readable by roles that may do little.

use million_rps::store::{Store, StoreError};

use crate::postgres::database_store;
use crate::role::Role;
use crate::servers::{Database, required, unique};

#[test]
fn a_copy_of_a_database_is_another_deployment() {
    let database = Database::create();
    let identity = database.migrated_store().identity().expect("made");
    assert_eq!(database.store().identity().expect("found"), identity);
    let copy = unique("copy");
    let server = required("DATABASE_URL");
    database.execute(&server, &format!("CREATE DATABASE \"{copy}\" TEMPLATE \"{}\"", database.name));
    let of_copy = database_store(&database.url().replace(&database.name, &copy)).identity();
    database.execute(&server, &format!("DROP DATABASE \"{copy}\" WITH (FORCE)"));
    let of_copy = of_copy.expect("found");
    assert_ne!(of_copy.id(), identity.id());
    assert_eq!(of_copy.key(b"p"), identity.key(b"p"), "what was made with its keys stays good");
}

#[test]
fn a_database_of_the_version_before_gets_an_identity_at_the_first_question() {
    let database = Database::create();
    database.migrated_store();
    database.execute(&database.url(), "DROP TABLE deployment");
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(|| database_store(&database.url()).identity())).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic").expect("made or found")).collect()
    });
    assert!(all.iter().all(|identity| *identity == all[0]), "{all:?}");
    database.execute(&database.url(), "DELETE FROM deployment");
    assert_ne!(database.store().identity().expect("made anew"), all[0]);
}

#[test]
fn a_role_that_may_not_create_reads_the_identity_or_says_what_the_owner_has_to_run() {
    let database = Database::create();
    let identity = database.migrated_store().identity().expect("made");
    let role = Role::create(&database);
    let ask = || database_store(&role.url()).identity();

    let no_right = ask();
    let grant = format!("GRANT SELECT ON deployment TO \"{}\";", role.name);
    assert!(matches!(&no_right, Err(StoreError::Misconfigured(text)) if text.contains(&grant)), "{no_right:?}");
    role.grant("SELECT ON deployment");
    assert_eq!(ask().expect("readable"), identity);

    database.execute(&database.url(), "DROP TABLE deployment");
    let Err(StoreError::Misconfigured(text)) = ask() else { panic!("there is no table, and it may not be made") };
    assert!(text.contains("permission denied"), "{text}");
    let (_, statements) = text.split_once("run `million-rps migrate` or this:\n").expect("the remedy");
    database.execute(&database.url(), statements);
    assert!(ask().is_ok(), "the statements are all that it takes");
}

#[test]
fn roles_with_different_rights_find_the_same_identity() {
    let database = Database::create();
    let before = database.migrated_store().identity().expect("made");
    let role = Role::create(&database);
    role.grant("SELECT ON deployment");
    // The right is of this database alone. The superuser may still ask for the server's number.
    database.execute(&database.url(), "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public");
    let of_superuser = database.store().identity().expect("readable");
    assert_eq!(database_store(&role.url()).identity().expect("readable"), of_superuser);
    assert_ne!(of_superuser.id(), before.id(), "it is made of less");
}
