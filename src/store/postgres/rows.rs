//! Todos as rows of PostgreSQL: read one by one, and written as arrays of columns.

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::limits::{POSTGRES_STATEMENT_ROWS, POSTGRES_STATEMENT_TARGET_BYTES};
use crate::store::StoreError;
use crate::todo::{ColumnKind, ColumnSink, ColumnSource, TODO_COLUMNS, Timestamp, Todo, TodoId};

/// What PostgreSQL calls a column's type.
pub(super) fn type_name(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Id | ColumnKind::Text => "text",
        ColumnKind::Flag => "boolean",
        ColumnKind::Time => "timestamp with time zone",
    }
}

/// The type of an array of a column's values.
pub(super) fn array_type(kind: ColumnKind) -> Type {
    match kind {
        ColumnKind::Id | ColumnKind::Text => Type::TEXT_ARRAY,
        ColumnKind::Flag => Type::BOOL_ARRAY,
        ColumnKind::Time => Type::TIMESTAMPTZ_ARRAY,
    }
}

/// The names of all columns, as they stand in a statement.
pub(super) fn column_names() -> String {
    TODO_COLUMNS.iter().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// Whether a column is one of these, and not the site's own.
pub(super) fn is_own_column(name: &str) -> bool {
    TODO_COLUMNS.iter().any(|own| own.name == name)
}

/// The todo of a row of [`column_names`].
///
/// # Errors
/// [`StoreError::Misconfigured`]: the table has other columns, or an id that is none.
pub(super) fn todo_from_row(row: &Row) -> Result<Todo, StoreError> {
    Todo::take_columns(&mut RowValues { row, next: 0 })
}

/// The values of a row, from left to right.
struct RowValues<'r> {
    row: &'r Row,
    next: usize,
}

impl<'r> RowValues<'r> {
    fn value<T: FromSql<'r>>(&mut self) -> Result<T, StoreError> {
        let at = self.next;
        self.next += 1;
        self.row.try_get(at).map_err(|error| {
            StoreError::Misconfigured(format!(
                "the table todos has other columns than expected ({error}); run: million-rps migrate"
            ))
        })
    }
}

impl ColumnSource for RowValues<'_> {
    type Error = StoreError;

    fn id(&mut self) -> Result<TodoId, StoreError> {
        let id: &str = self.value()?;
        id.parse().map_err(|error| {
            StoreError::Misconfigured(format!(
                "the table todos has a row with the id {id:?}: {error}; run: million-rps migrate"
            ))
        })
    }

    fn text(&mut self) -> Result<String, StoreError> {
        self.value()
    }

    fn flag(&mut self) -> Result<bool, StoreError> {
        self.value()
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.value::<TimestampTz>().map(|time| time.0)
    }
}

/// Cuts todos into what one statement writes.
pub(super) fn statements_of<'s, 't>(todos: &'s [&'t Todo]) -> Vec<&'s [&'t Todo]> {
    let (mut cut, mut begin, mut bytes) = (Vec::new(), 0, 0);
    for (at, todo) in todos.iter().enumerate() {
        if at - begin == POSTGRES_STATEMENT_ROWS || bytes >= POSTGRES_STATEMENT_TARGET_BYTES {
            cut.push(&todos[begin..at]);
            (begin, bytes) = (at, 0);
        }
        bytes += todo.text_bytes();
    }
    if begin < todos.len() {
        cut.push(&todos[begin..]);
    }
    cut
}

/// Todos turned into one array a column, as `unnest` takes them.
pub(super) struct Columns<'t> {
    arrays: Vec<Array<'t>>,
    /// The column that the next value is of.
    next: usize,
}

enum Array<'t> {
    Ids(Vec<String>),
    Texts(Vec<&'t str>),
    Flags(Vec<bool>),
    Times(Vec<TimestampTz>),
}

impl<'t> Columns<'t> {
    pub(super) fn new(todos: &[&'t Todo]) -> Columns<'t> {
        let rows = todos.len();
        let array = |kind| match kind {
            ColumnKind::Id => Array::Ids(Vec::with_capacity(rows)),
            ColumnKind::Text => Array::Texts(Vec::with_capacity(rows)),
            ColumnKind::Flag => Array::Flags(Vec::with_capacity(rows)),
            ColumnKind::Time => Array::Times(Vec::with_capacity(rows)),
        };
        let mut columns = Columns { arrays: TODO_COLUMNS.iter().map(|column| array(column.kind)).collect(), next: 0 };
        for todo in todos {
            todo.give_columns(&mut columns);
        }
        columns
    }

    /// In the order of the statement's parameters.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.arrays.iter().map(Array::as_parameter).collect()
    }

    fn next_array(&mut self) -> &mut Array<'t> {
        let at = self.next;
        self.next = (at + 1) % self.arrays.len();
        &mut self.arrays[at]
    }
}

impl Array<'_> {
    fn as_parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Array::Ids(values) => values,
            Array::Texts(values) => values,
            Array::Flags(values) => values,
            Array::Times(values) => values,
        }
    }
}

/// Each value goes to the array of its column's kind, because todos give their values in the table's order.
impl<'t> ColumnSink<'t> for Columns<'t> {
    fn id(&mut self, id: TodoId) {
        if let Array::Ids(values) = self.next_array() {
            values.push(id.to_string());
        }
    }

    fn text(&mut self, text: &'t str) {
        if let Array::Texts(values) = self.next_array() {
            values.push(text);
        }
    }

    fn flag(&mut self, flag: bool) {
        if let Array::Flags(values) = self.next_array() {
            values.push(flag);
        }
    }

    fn time(&mut self, time: Timestamp) {
        if let Array::Times(values) = self.next_array() {
            values.push(TimestampTz(time));
        }
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
