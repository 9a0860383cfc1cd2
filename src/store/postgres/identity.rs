//! The identity of a deployment whose store is in PostgreSQL: the one row of the table `deployment`.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use crate::store::postgres::error::store_error;
use crate::store::postgres::schema::SCHEMA;
use crate::store::{Identity, StoreError};

/// The row, and the database's own number: one that was copied within a server, also as a template, has another.
const SELECT_ROW: &str = "SELECT id, encode(secret, 'hex'), \
     (SELECT oid FROM pg_database WHERE datname = current_database()) FROM deployment";
/// Whether each role may ask for the server's number. Were it the right of some roles only, two processes of a deployment could
/// take it for two.
const MAY_ASK_FOR_SERVER: &str =
    "SELECT coalesce(has_function_privilege('public', to_regprocedure('pg_control_system()'), 'execute'), false)";
/// The number that a server is given when it is set up: one that was restored from a dump elsewhere has another.
const SELECT_SERVER: &str = "SELECT system_identifier FROM pg_control_system()";
/// The part of the schema that makes the table begins with this line.
const DEPLOYMENT_SCHEMA_BEGIN: &str = "-- The identity of the deployment";

/// The part of the schema that makes the table and its row.
fn deployment_schema() -> &'static str {
    let begin = SCHEMA.find(DEPLOYMENT_SCHEMA_BEGIN).expect("the schema has it");
    let end = SCHEMA.rfind("COMMIT;").expect("the schema is a transaction");
    SCHEMA[begin..end].trim_end()
}

/// Reads the identity; makes it where there is none. `user` is who asks.
///
/// # Errors
/// [`StoreError::Misconfigured`] names what the owner of the tables has to run.
pub(super) async fn identity(client: &Client, user: &str) -> Result<Identity, StoreError> {
    let row = match rows(client, SELECT_ROW).await {
        Ok(rows) => rows.into_iter().next(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => None,
        Err(error) => return Err(no_identity(error, user)),
    };
    let row = match row {
        Some(row) => row,
        // A table of the version before. Several processes may find that at once.
        None => {
            let schema = deployment_schema();
            let make = format!("BEGIN; SELECT pg_advisory_xact_lock(6455466); {schema}\nCOMMIT");
            if let Err(error) = client.batch_execute(&make).await {
                client.batch_execute("ROLLBACK").await.map_err(store_error)?;
                return Err(no_identity(error, user));
            }
            let row = rows(client, SELECT_ROW).await.map_err(|error| no_identity(error, user))?.into_iter().next();
            row.ok_or_else(|| {
                StoreError::Misconfigured(format!("PostgreSQL: the table deployment is empty. {}", remedy(user)))
            })?
        }
    };
    let may_ask = rows(client, MAY_ASK_FOR_SERVER).await.map_err(store_error)?;
    let server = match may_ask.first().and_then(|row| row.get(0)) {
        Some("t") => rows(client, SELECT_SERVER).await.map_err(store_error)?.into_iter().next(),
        _ => None,
    };
    let server = server.as_ref().and_then(|row| row.get(0)).unwrap_or_default();
    identity_of(&row, server).ok_or_else(|| {
        StoreError::Misconfigured(format!(
            "PostgreSQL: the table deployment holds something else than an id and a secret of 32 bytes. {}",
            remedy(user)
        ))
    })
}

/// Runs a query without parameters as text: it leaves nothing behind in a session that a pooler gives to others.
async fn rows(client: &Client, query: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = client.simple_query(query).await?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

fn identity_of(row: &SimpleQueryRow, server: &str) -> Option<Identity> {
    let id: uuid::Uuid = row.get(0)?.parse().ok()?;
    let secret = row.get(1)?.as_bytes();
    let bytes = secret.chunks(2).map(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    let secret: Vec<u8> = bytes.collect::<Option<_>>()?;
    Some(Identity::new(id.into_bytes(), secret.try_into().ok()?, &[server, row.get(2)?]))
}

/// What it means that the table can neither be read nor made.
fn no_identity(error: tokio_postgres::Error, user: &str) -> StoreError {
    match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            let reason = store_error_text(&error);
            StoreError::Misconfigured(format!(
                "PostgreSQL: {reason}: the deployment has no identity yet. {}",
                remedy(user)
            ))
        }
        _ => store_error(error),
    }
}

fn store_error_text(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |database| database.message().to_owned())
}

fn remedy(user: &str) -> String {
    let user = user.replace('"', "\"\"");
    format!(
        "As the owner of the table todos, run `million-rps migrate` or this:\n{}\nGRANT SELECT ON deployment TO \"{user}\";",
        deployment_schema()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_the_schema_stands_for_itself() {
        let schema = deployment_schema();
        assert!(schema.contains("CREATE TABLE IF NOT EXISTS deployment") && schema.contains("INSERT INTO deployment"));
        assert!(!schema.contains("todos") && !schema.contains("COMMIT") && schema.ends_with(';'), "{schema}");
        assert!(remedy("an \"app\"").ends_with("GRANT SELECT ON deployment TO \"an \"\"app\"\"\";"));
    }
}
