//! The statements of a batch: prepared once for a session that is the server's own, sent as they are where a pooler gives
//! each transaction another one.

use std::borrow::Cow;

use futures_util::future::try_join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Statement};

use crate::store::postgres::rows::{array_type, column_names, type_name};
use crate::todo::TODO_COLUMNS;

/// A statement of a batch.
#[derive(Clone)]
pub(super) struct BatchStatement {
    text: Cow<'static, str>,
    types: Cow<'static, [Type]>,
    /// `None`: it is parsed each time, without a name that could meet another client's.
    prepared: Option<Statement>,
}

/// Number of the transaction, and of the process that runs it.
const TRANSACTION: (&str, &[Type]) = ("SELECT txid_current(), pg_backend_pid()", &[]);
const DELETE_ROWS: (&str, &[Type]) = ("DELETE FROM todos WHERE id = ANY($1::text[])", &[Type::TEXT_ARRAY]);
/// That the store follows another log than the one with these halves of an id: by the rows of `postgres_place`. Never, when they
/// are null.
macro_rules! follows_another {
    ($high:literal, $low:literal) => {
        concat!(
            "EXISTS (SELECT FROM applied_offsets WHERE topic = $1 AND (partition = -2 AND next <> ",
            $high,
            " OR partition = -3 AND next <> ",
            $low,
            "))"
        )
    };
}
const INSERT_OFFSETS: (&str, &[Type]) = (
    concat!(
        "INSERT INTO applied_offsets (topic, partition, next) \
         SELECT $1, step.partition, step.next FROM unnest($2::integer[], $3::bigint[]) AS step (partition, next) \
         WHERE NOT ",
        follows_another!("$4", "$5"),
        " ON CONFLICT DO NOTHING RETURNING partition"
    ),
    &[Type::TEXT, Type::INT4_ARRAY, Type::INT8_ARRAY, Type::INT8, Type::INT8],
);
const NOTE_EPOCHS: (&str, &[Type]) = (
    "INSERT INTO applied_offsets (topic, partition, next) SELECT $1, * FROM unnest($2::integer[], $3::bigint[]) \
     ON CONFLICT (topic, partition) DO UPDATE SET next = excluded.next",
    &[Type::TEXT, Type::INT4_ARRAY, Type::INT8_ARRAY],
);
const MOVE_OFFSETS: (&str, &[Type]) = (
    concat!(
        "UPDATE applied_offsets AS applied SET next = step.next \
         FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS step (partition, prior, next) \
         WHERE applied.topic = $1 AND applied.partition = step.partition AND applied.next = step.prior AND NOT ",
        follows_another!("$5", "$6"),
        " RETURNING applied.partition"
    ),
    &[Type::TEXT, Type::INT4_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8, Type::INT8],
);

/// Rows by their ids.
fn select_rows() -> BatchStatement {
    BatchStatement {
        text: format!("SELECT {} FROM todos WHERE id = ANY($1::text[])", column_names()).into(),
        types: (&[Type::TEXT_ARRAY]).into(),
        prepared: None,
    }
}

/// An array for each column.
fn upsert_rows() -> BatchStatement {
    let names = column_names();
    let types: Vec<Type> = TODO_COLUMNS.iter().map(|column| array_type(column.kind)).collect();
    let arrays: Vec<String> = TODO_COLUMNS
        .iter()
        .enumerate()
        .map(|(at, column)| format!("${}::{}[]", at + 1, type_name(column.kind)))
        .collect();
    // The first column is the id, by which a row is found.
    let changes: Vec<String> =
        TODO_COLUMNS[1..].iter().map(|column| format!("{0} = excluded.{0}", column.name)).collect();
    let text = format!(
        "INSERT INTO todos ({names}) SELECT * FROM unnest({}) ON CONFLICT (id) DO UPDATE SET {}",
        arrays.join(", "),
        changes.join(", ")
    );
    BatchStatement { text: text.into(), types: types.into(), prepared: None }
}

/// All of them.
#[derive(Clone)]
pub(super) struct Statements {
    pub transaction: BatchStatement,
    pub select_rows: BatchStatement,
    pub upsert_rows: BatchStatement,
    pub delete_rows: BatchStatement,
    pub insert_offsets: BatchStatement,
    pub move_offsets: BatchStatement,
    pub note_epochs: BatchStatement,
}

impl Statements {
    /// Statements without names.
    pub fn unnamed() -> Statements {
        let of = |(text, types): (&'static str, &'static [Type])| BatchStatement {
            text: text.into(),
            types: types.into(),
            prepared: None,
        };
        Statements {
            transaction: of(TRANSACTION),
            select_rows: select_rows(),
            upsert_rows: upsert_rows(),
            delete_rows: of(DELETE_ROWS),
            insert_offsets: of(INSERT_OFFSETS),
            move_offsets: of(MOVE_OFFSETS),
            note_epochs: of(NOTE_EPOCHS),
        }
    }

    /// Statements that this session has planned.
    pub async fn prepared(client: &Client) -> Result<Statements, Error> {
        let mut statements = Statements::unnamed();
        let Statements {
            transaction,
            select_rows,
            upsert_rows,
            delete_rows,
            insert_offsets,
            move_offsets,
            note_epochs,
        } = &mut statements;
        let all = [transaction, select_rows, upsert_rows, delete_rows, insert_offsets, move_offsets, note_epochs];
        try_join_all(all.map(async |statement| {
            statement.prepared = Some(client.prepare_typed(&statement.text, &statement.types).await?);
            Ok::<_, Error>(())
        }))
        .await?;
        Ok(statements)
    }
}

impl BatchStatement {
    /// Runs it; what it returns are rows.
    pub async fn query(&self, client: &Client, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        match &self.prepared {
            Some(statement) => client.query(statement, parameters).await,
            None => client.query_typed(&self.text, &self.typed(parameters)).await,
        }
    }

    /// Runs it; it returns how many rows it touched.
    pub async fn execute(&self, client: &Client, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        match &self.prepared {
            Some(statement) => client.execute(statement, parameters).await,
            None => client.execute_typed(&self.text, &self.typed(parameters)).await,
        }
    }

    fn typed<'p>(&self, parameters: &[&'p (dyn ToSql + Sync)]) -> Vec<(&'p (dyn ToSql + Sync), Type)> {
        debug_assert_eq!(parameters.len(), self.types.len());
        parameters.iter().copied().zip(self.types.iter().cloned()).collect()
    }
}
