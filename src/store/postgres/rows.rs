//! Todos as rows of PostgreSQL: read one by one, and written as arrays of columns.

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::limits::{POSTGRES_STATEMENT_ROWS, POSTGRES_STATEMENT_TARGET_BYTES};
use crate::store::StoreError;
use crate::todo::{Timestamp, Todo};

/// The columns of the table, with their types as PostgreSQL names them.
pub(super) const TODO_COLUMNS: [(&str, &str); 7] = [
    ("id", "text"),
    ("title", "text"),
    ("description", "text"),
    ("completed", "boolean"),
    ("user_id", "text"),
    ("created_at", "timestamp with time zone"),
    ("updated_at", "timestamp with time zone"),
];

/// Whether a column is one of these, and not the site's own.
pub(super) fn is_own_column(name: &str) -> bool {
    TODO_COLUMNS.iter().any(|(own, _)| *own == name)
}

/// The todo of a row of `id, title, description, completed, user_id, created_at, updated_at`.
///
/// # Errors
/// [`StoreError::Misconfigured`]: the table has other columns, or an id that is none.
pub(super) fn todo_from_row(row: &Row) -> Result<Todo, StoreError> {
    let unreadable = |error: tokio_postgres::Error| {
        StoreError::Misconfigured(format!(
            "the table todos has other columns than expected ({error}); run: million-rps migrate"
        ))
    };
    let id: &str = row.try_get(0).map_err(unreadable)?;
    Ok(Todo {
        id: id.parse().map_err(|error| {
            StoreError::Misconfigured(format!(
                "the table todos has a row with the id {id:?}: {error}; run: million-rps migrate"
            ))
        })?,
        title: row.try_get(1).map_err(unreadable)?,
        description: row.try_get(2).map_err(unreadable)?,
        completed: row.try_get(3).map_err(unreadable)?,
        user_id: row.try_get(4).map_err(unreadable)?,
        created_at: row.try_get::<_, TimestampTz>(5).map_err(unreadable)?.0,
        updated_at: row.try_get::<_, TimestampTz>(6).map_err(unreadable)?.0,
    })
}

/// Cuts todos into what one statement writes.
pub(super) fn statements_of<'s, 't>(todos: &'s [&'t Todo]) -> Vec<&'s [&'t Todo]> {
    let (mut cut, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, todo) in todos.iter().enumerate() {
        if at - begin == POSTGRES_STATEMENT_ROWS || bytes >= POSTGRES_STATEMENT_TARGET_BYTES {
            cut.push(&todos[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += todo.title.len() + todo.description.len();
    }
    if begin < todos.len() {
        cut.push(&todos[begin..]);
    }
    cut
}

/// Todos turned into one array a column, as `unnest` takes them.
pub(super) struct Columns<'a> {
    ids: Vec<String>,
    titles: Vec<&'a str>,
    descriptions: Vec<&'a str>,
    completed: Vec<bool>,
    user_ids: Vec<&'a str>,
    created_at: Vec<TimestampTz>,
    updated_at: Vec<TimestampTz>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(todos: &[&'a Todo]) -> Columns<'a> {
        Columns {
            ids: todos.iter().map(|todo| todo.id.to_string()).collect(),
            titles: todos.iter().map(|todo| todo.title.as_str()).collect(),
            descriptions: todos.iter().map(|todo| todo.description.as_str()).collect(),
            completed: todos.iter().map(|todo| todo.completed).collect(),
            user_ids: todos.iter().map(|todo| todo.user_id.as_str()).collect(),
            created_at: todos.iter().map(|todo| TimestampTz(todo.created_at)).collect(),
            updated_at: todos.iter().map(|todo| TimestampTz(todo.updated_at)).collect(),
        }
    }

    /// In the order of the statement's parameters.
    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 7] {
        [
            &self.ids,
            &self.titles,
            &self.descriptions,
            &self.completed,
            &self.user_ids,
            &self.created_at,
            &self.updated_at,
        ]
    }
}

/// A [`Timestamp`] on PostgreSQL's wire: microseconds since 2000-01-01T00:00:00Z, big-endian. `infinity` is the greatest
/// number there and becomes [`Timestamp::MAX`].
#[derive(Debug)]
struct TimestampTz(Timestamp);

/// 2000-01-01T00:00:00Z, in microseconds since 1970.
pub(super) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

impl<'a> FromSql<'a> for TimestampTz {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<TimestampTz, Box<dyn std::error::Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(TimestampTz(Timestamp::from_micros(micros.saturating_add(POSTGRES_EPOCH_MICROS))))
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }
}

impl ToSql for TimestampTz {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&(self.0.as_micros() - POSTGRES_EPOCH_MICROS).to_be_bytes());
        Ok(IsNull::No)
    }

    fn accepts(sql_type: &Type) -> bool {
        *sql_type == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::todo::TodoId;

    #[test]
    fn statements_are_bounded_in_rows_and_bytes_and_hold_every_todo_once() {
        let todo = |bytes: usize| Todo {
            id: TodoId::new(),
            title: "t".into(),
            description: "d".repeat(bytes),
            completed: false,
            user_id: "u".into(),
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        };
        let lengths = |todos: &[Todo]| {
            let todos: Vec<&Todo> = todos.iter().collect();
            let cut = statements_of(&todos);
            assert_eq!(cut.concat(), todos);
            cut.iter().map(|statement| statement.len()).collect::<Vec<_>>()
        };
        let most = POSTGRES_STATEMENT_ROWS;
        assert_eq!(lengths(&[]), [] as [usize; 0]);
        assert_eq!(lengths(&vec![todo(1); most]), [most]);
        assert_eq!(lengths(&vec![todo(1); 2 * most + 1]), [most, most, 1]);
        assert_eq!(lengths(&vec![todo(POSTGRES_STATEMENT_TARGET_BYTES / 2); 5]), [2, 2, 1]);
        assert_eq!(lengths(&vec![todo(2 * POSTGRES_STATEMENT_TARGET_BYTES); 2]), [1, 1]);
    }
}
