//! The writing half of a batch, and whether the database has done what it was told: a trigger of the site may pass over a row
//! without an error, and then only the counts tell.

use std::collections::HashMap;

use futures_util::future::{try_join, try_join_all};
use tokio_postgres::error::SqlState;

use crate::limits::POSTGRES_STATEMENT_ROWS;
use crate::store::postgres::connection::Session;
use crate::store::postgres::copy::copy;
use crate::store::postgres::rows::{Columns, statements_of, todo_from_row};
use crate::store::postgres::statements::Statements;
use crate::store::{Changes, StoreError};
use crate::todo::{Todo, TodoId};

/// Writes the changes of a batch whose transaction is open.
///
/// # Errors
/// [`StoreError::Refused`], also for a row that the database has neither refused nor kept.
pub(super) async fn write(
    session: &Session,
    statements: &Statements,
    changes: &Changes,
    new_ids: &[TodoId],
) -> Result<(), StoreError> {
    let client = &session.client;
    let is_new = |todo: &&Todo| new_ids.binary_search(&todo.id).is_ok();
    let (new, upserts): (Vec<&Todo>, Vec<&Todo>) = changes.upserts.iter().partition(is_new);
    let columns: Vec<Columns<'_>> = statements_of(&upserts).into_iter().map(Columns::new).collect();
    let columns: Vec<_> = columns.iter().map(Columns::parameters).collect();
    let mut deletes: Vec<String> = changes.deletes.iter().map(|key| key.id.to_string()).collect();
    deletes.sort_unstable();
    let chunks: Vec<&[String]> = deletes.chunks(POSTGRES_STATEMENT_ROWS).collect();
    // One group on the wire, in the order in which the futures are first polled: deletes before upserts, because a todo
    // that was deleted and made again is in both. The commit is not part of it: that must not leave before every write is
    // known to have worked.
    let upserting = try_join_all(columns.iter().map(|columns| statements.upsert_rows.execute(client, columns)));
    let deleting = try_join_all(chunks.iter().map(async |ids| statements.delete_rows.execute(client, &[ids]).await));
    let (deleted, upserted) = try_join(deleting, upserting).await.map_err(|error| session.error(error))?;
    let is_all = |counts: &[u64], sent: usize| counts.iter().sum::<u64>() == sent as u64;
    if !is_all(&deleted, deletes.len()) || !is_all(&upserted, upserts.len()) {
        compare(session, statements, &upserts, changes).await?;
    }
    if new.is_empty() {
        return Ok(());
    }
    let copied = copy(client, &new).await.map_err(|error| match error.code() {
        // A table with row-level security, or a view: by INSERT it may work.
        Some(&SqlState::FEATURE_NOT_SUPPORTED | &SqlState::WRONG_OBJECT_TYPE) => StoreError::Refused(error.to_string()),
        _ => session.error(error),
    })?;
    if copied == new.len() as u64 { Ok(()) } else { compare(session, statements, &new, changes).await }
}

/// Looks for what was written and deleted. A count alone proves nothing: rows may have gone to another table that belongs to
/// this one, or been deleted by somebody else meanwhile.
async fn compare(
    session: &Session,
    statements: &Statements,
    upserts: &[&Todo],
    changes: &Changes,
) -> Result<(), StoreError> {
    let deleted = changes.deletes.iter().map(|key| key.id);
    let ids: Vec<String> = upserts.iter().map(|todo| todo.id).chain(deleted).map(|id| id.to_string()).collect();
    let rows = statements.select_rows.query(&session.client, &[&ids]).await.map_err(|error| session.error(error))?;
    let rows = rows.iter().map(|row| todo_from_row(row).map(|todo| (todo.id, todo)));
    let rows: HashMap<TodoId, Todo> = rows.collect::<Result<_, _>>()?;
    let remade = |id: TodoId| changes.upserts.iter().any(|todo| todo.id == id);
    let passed_over =
        upserts.iter().find(|todo| rows.get(&todo.id) != Some(*todo)).map(|todo| (todo.id, "keep")).or_else(|| {
            let left = changes.deletes.iter().find(|key| rows.contains_key(&key.id) && !remade(key.id));
            left.map(|key| (key.id, "delete"))
        });
    match passed_over {
        Some((id, what)) => Err(StoreError::Refused(format!(
            "PostgreSQL: the database did not {what} the row of todo {id} and gave no error: does a trigger or a rule of its own on \
             the table todos pass over it?"
        ))),
        None => Ok(()),
    }
}
