//! Looks whether the database is one that this program can work with, and says who has to change what where it is not.

use std::fmt::Write as _;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use crate::store::StoreError;
use crate::store::postgres::error::store_error;
use crate::store::postgres::rows::type_name;
use crate::todo::{Column, TODO_COLUMNS};

/// The tables of the schema, with the rights that a worker needs.
const TABLES: [(&str, &[&str]); 3] = [
    ("todos", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("applied_offsets", &["SELECT", "INSERT", "UPDATE"]),
    ("deployment", &["SELECT"]),
];

/// What the session stands in.
const SURROUNDINGS: &str = "SELECT current_database()::text, current_user::text, \
     current_setting('server_encoding'), current_setting('search_path')";
/// A table that the session finds, or one of that name that it may not see for want of USAGE.
const TABLE: &str = "SELECT c.oid, n.nspname::text, pg_get_userbyid(c.relowner)::text, \
         c.oid = to_regclass($1)::oid IS TRUE, has_schema_privilege(n.oid, 'USAGE') \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
     ORDER BY 4 DESC, 5, 2 LIMIT 1";
/// Which of these rights the role lacks: of the table, and of one of these columns (of any, when there are none).
const MISSING_RIGHTS: &str = "SELECT wanted FROM unnest($2::text[]) AS wanted \
     WHERE NOT has_table_privilege($1, wanted) AND (wanted = 'DELETE' OR EXISTS ( \
         SELECT FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped \
             AND ($3::text[] = '{}' OR attname = ANY($3)) \
             AND NOT has_column_privilege($1, attnum, wanted)))";
const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute \
     WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped";
/// Columns that an insert of ours leaves without a value. A trigger may give one; that shows when a row is written.
const UNFILLED_COLUMNS: &str = "SELECT attname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
     WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attname <> ALL($2::text[]) \
         AND (attnotnull OR typnotnull) AND NOT atthasdef AND attidentity = '' AND typdefault IS NULL \
         AND NOT EXISTS (SELECT FROM pg_trigger \
             WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 7 = 7)";
/// Whether an upsert by id works.
const HAS_KEY: &str = "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = indrelid \
     WHERE indrelid = $1 AND indisunique AND indisvalid AND indpred IS NULL AND indnkeyatts = 1 AND attname = 'id' \
         AND indkey[0] = attnum)";

/// What is in the way of a worker, with the remedy of each; empty when nothing is.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn survey(client: &Client) -> Result<Vec<String>, StoreError> {
    let row = client.query_typed_one(SURROUNDINGS, &[]).await.map_err(store_error)?;
    let (database, role, encoding, search_path): (String, String, String, String) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut findings = Vec::new();
    // SQL_ASCII keeps any bytes as they are.
    if !matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        findings.push(format!(
            "the database {database} has the encoding {encoding}, which cannot hold the text of every todo. Make another one \
             (CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0), move the rows with pg_dump, and let DATABASE_URL name it"
        ));
    }
    for (table, rights) in TABLES {
        look_at_table(client, table, rights, &role, &search_path, &mut findings).await?;
    }
    Ok(findings)
}

async fn look_at_table(
    client: &Client,
    table: &str,
    rights: &[&str],
    role: &str,
    search_path: &str,
    findings: &mut Vec<String>,
) -> Result<(), StoreError> {
    let found = client.query_typed_opt(TABLE, &[(&table, Type::TEXT)]).await.map_err(store_error)?;
    let Some(row) = found else {
        findings.push(format!(
            "there is no table {table}: run `million-rps migrate` once as a role that may create tables in this database, or \
             `psql -f src/store/postgres/schema.sql`, and grant {role} its rights"
        ));
        return Ok(());
    };
    let (oid, schema, owner): (u32, String, String) = (row.get(0), row.get(1), row.get(2));
    let (is_visible, may_use): (bool, bool) = (row.get(3), row.get(4));
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    if !may_use {
        findings.push(format!(
            "{role} may not use the schema {schema}, where the table {table} is. As its owner: GRANT USAGE ON SCHEMA {} TO {}",
            quoted(&schema),
            quoted(role)
        ));
        return Ok(());
    }
    if !is_visible {
        findings.push(format!(
            "the table {table} is in the schema {schema}, which is not in the search path of {role} ({search_path}). As an \
             administrator: ALTER ROLE {} SET search_path = {}",
            quoted(role),
            quoted(&schema)
        ));
        return Ok(());
    }
    // The site's own columns of the table of todos are no business of this program.
    let own: Vec<&str> = match table {
        "todos" => TODO_COLUMNS.iter().map(|column| column.name).collect(),
        _ => Vec::new(),
    };
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&oid, Type::OID), (&rights, Type::TEXT_ARRAY), (&own, Type::TEXT_ARRAY)];
    let missing = client.query_typed(MISSING_RIGHTS, &parameters).await.map_err(store_error)?;
    let missing: Vec<&str> = missing.iter().map(|row| row.get(0)).collect();
    if !missing.is_empty() {
        findings.push(format!(
            "{role} lacks rights on the table {table}. As {owner}, who owns it: GRANT {} ON {}.{} TO {}",
            missing.join(", "),
            quoted(&schema),
            quoted(table),
            quoted(role)
        ));
    }
    if table == "todos" {
        look_at_todos(client, oid, &owner, findings).await?;
    }
    Ok(())
}

async fn look_at_todos(client: &Client, oid: u32, owner: &str, findings: &mut Vec<String>) -> Result<(), StoreError> {
    let rows = client.query_typed(COLUMNS, &[(&oid, Type::OID)]).await.map_err(store_error)?;
    let columns: Vec<(&str, &str)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut wrong = String::new();
    for Column { name, kind } in TODO_COLUMNS {
        let wanted = type_name(*kind);
        match columns.iter().find(|(found, _)| found == name) {
            Some((_, found)) if *found == wanted => {}
            Some((_, found)) => write!(wrong, " {name} is {found}, not {wanted};").unwrap_or_default(),
            None => write!(wrong, " {name} is missing;").unwrap_or_default(),
        }
    }
    if !wrong.is_empty() {
        findings.push(format!(
            "the table todos has other columns than this program:{wrong} run `million-rps migrate` as {owner}, who owns it"
        ));
        return Ok(());
    }
    let key = client.query_typed_one(HAS_KEY, &[(&oid, Type::OID)]).await.map_err(store_error)?;
    if !key.get::<_, bool>(0) {
        findings.push(format!("the table todos has no primary key: as {owner}, run `million-rps migrate`"));
    }
    let own: Vec<&str> = TODO_COLUMNS.iter().map(|column| column.name).collect();
    let unfilled = client
        .query_typed(UNFILLED_COLUMNS, &[(&oid, Type::OID), (&own, Type::TEXT_ARRAY)])
        .await
        .map_err(store_error)?;
    for row in &unfilled {
        let name: &str = row.get(0);
        findings.push(format!(
            "the column {name} of the table todos is not of this program, must have a value and has no default, so no todo can \
             be stored. As {owner}: ALTER TABLE todos ALTER COLUMN \"{name}\" SET DEFAULT …; or … DROP NOT NULL"
        ));
    }
    Ok(())
}
