//! Todos as rows of SQLite: read one by one, and written value by value.

use std::collections::HashMap;
use std::sync::LazyLock;

use rusqlite::types::FromSql;
use rusqlite::{Row, Statement, ToSql, Transaction};

use crate::store::Changes;
use crate::todo::{ColumnSink, ColumnSource, TODO_COLUMNS, Timestamp, Todo, TodoId};

/// The statements that name the columns of a todo, made of the table of these.
pub(super) struct Statements {
    /// All todos, newest first.
    pub(super) scan: String,
    /// The row of an id, and behind its columns its rowid.
    select: String,
    /// Parameters: the columns.
    upsert: String,
    /// Parameters: the columns, and the rowid.
    update_in_place: String,
}

pub(super) static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
    let each = |text: &dyn Fn(usize, &str) -> Option<String>| -> String {
        let columns = TODO_COLUMNS.iter().enumerate().filter_map(|(at, column)| text(at + 1, column.name));
        columns.collect::<Vec<_>>().join(", ")
    };
    let names = each(&|_, name| Some(name.to_owned()));
    let values = each(&|number, _| Some(format!("?{number}")));
    let excluded = each(&|_, name| (name != "id").then(|| format!("{name} = excluded.{name}")));
    // Without the columns of the list's index.
    let in_place = each(&|number, name| (!matches!(name, "id" | "created_at")).then(|| format!("{name} = ?{number}")));
    let number = |wanted: &str| TODO_COLUMNS.iter().position(|column| column.name == wanted).map_or(0, |at| at + 1);
    let (id, created_at, rowid) = (number("id"), number("created_at"), TODO_COLUMNS.len() + 1);
    Statements {
        scan: format!("SELECT {names} FROM todos ORDER BY created_at DESC, id DESC"),
        select: format!("SELECT {names}, rowid FROM todos WHERE id = ?1"),
        upsert: format!("INSERT INTO todos ({names}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {excluded}"),
        update_in_place: format!(
            "UPDATE todos SET {in_place} WHERE rowid = ?{rowid} AND +id = ?{id} AND created_at = ?{created_at}"
        ),
    }
});

/// Where a row that was read stands.
pub(super) struct RowPlace {
    /// In the table's own order.
    rowid: i64,
    /// In the list.
    created_at: Timestamp,
}

/// The rows of these ids that exist, and where they stand.
pub(super) fn read_rows(
    transaction: &Transaction<'_>,
    ids: &[TodoId],
) -> rusqlite::Result<(HashMap<TodoId, Todo>, HashMap<TodoId, RowPlace>)> {
    let mut statement = transaction.prepare_cached(&STATEMENTS.select)?;
    let (mut found, mut places) = (HashMap::new(), HashMap::new());
    for id in ids {
        let mut rows = statement.query([id.as_u128().to_be_bytes()])?;
        if let Some(row) = rows.next()? {
            let todo = todo_of(row)?;
            places.insert(*id, RowPlace { rowid: row.get(TODO_COLUMNS.len())?, created_at: todo.created_at });
            found.insert(*id, todo);
        }
    }
    Ok((found, places))
}

/// The todo of a row that begins with its columns.
pub(super) fn todo_of(row: &Row<'_>) -> rusqlite::Result<Todo> {
    Todo::take_columns(&mut RowValues { row, next: 0 })
}

/// Deletes first: a todo that was deleted and made again stands in both lists. `places` says where the rows that were
/// there stood.
pub(super) fn write_changes(
    transaction: &Transaction<'_>,
    changes: &Changes,
    places: &HashMap<TodoId, RowPlace>,
) -> rusqlite::Result<()> {
    let mut delete = transaction.prepare_cached("DELETE FROM todos WHERE id = ?1")?;
    for key in &changes.deletes {
        delete.execute([key.id.as_u128().to_be_bytes()])?;
    }
    // Most updates leave a todo where it is. A statement that does not name the columns of the list's index does not
    // touch that index, which in a long list saves a page of its own for each update; and by its rowid a row is found
    // without a second search by id. The id is compared all the same: a rowid that a delete of this batch has freed may
    // be another row's by now.
    let mut update_in_place = transaction.prepare_cached(&STATEMENTS.update_in_place)?;
    let mut upsert = transaction.prepare_cached(&STATEMENTS.upsert)?;
    for todo in &changes.upserts {
        let place = places.get(&todo.id).filter(|place| place.created_at == todo.created_at);
        if let Some(RowPlace { rowid, .. }) = place {
            bind(&mut update_in_place, todo)?;
            update_in_place.raw_bind_parameter(TODO_COLUMNS.len() + 1, rowid)?;
            if update_in_place.raw_execute()? == 1 {
                continue;
            }
        }
        bind(&mut upsert, todo)?;
        upsert.raw_execute()?;
    }
    Ok(())
}

/// Binds the columns of a todo to the first parameters of a statement.
fn bind(statement: &mut Statement<'_>, todo: &Todo) -> rusqlite::Result<()> {
    let mut binder = Binder { statement, next: 1, result: Ok(()) };
    todo.give_columns(&mut binder);
    binder.result
}

struct Binder<'s, 'c> {
    statement: &'s mut Statement<'c>,
    next: usize,
    /// The first error.
    result: rusqlite::Result<()>,
}

impl Binder<'_, '_> {
    fn value(&mut self, value: impl ToSql) {
        if self.result.is_ok() {
            self.result = self.statement.raw_bind_parameter(self.next, value);
        }
        self.next += 1;
    }
}

/// Ids are 16 bytes, times microseconds since 1970: see `schema.sql`.
impl<'t> ColumnSink<'t> for Binder<'_, '_> {
    fn id(&mut self, id: TodoId) {
        self.value(id.as_u128().to_be_bytes());
    }

    fn text(&mut self, text: &'t str) {
        self.value(text);
    }

    fn flag(&mut self, flag: bool) {
        self.value(flag);
    }

    fn time(&mut self, time: Timestamp) {
        self.value(time.as_micros());
    }
}

/// The values of a row, from left to right.
struct RowValues<'r, 's> {
    row: &'r Row<'s>,
    next: usize,
}

impl RowValues<'_, '_> {
    fn value<T: FromSql>(&mut self) -> rusqlite::Result<T> {
        let at = self.next;
        self.next += 1;
        self.row.get(at)
    }
}

impl ColumnSource for RowValues<'_, '_> {
    type Error = rusqlite::Error;

    fn id(&mut self) -> rusqlite::Result<TodoId> {
        self.value().map(|bytes| TodoId::from_u128(u128::from_be_bytes(bytes)))
    }

    fn text(&mut self) -> rusqlite::Result<String> {
        self.value()
    }

    fn flag(&mut self) -> rusqlite::Result<bool> {
        self.value()
    }

    fn time(&mut self) -> rusqlite::Result<Timestamp> {
        self.value().map(Timestamp::from_micros)
    }
}
