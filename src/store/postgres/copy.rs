//! Rows in the binary format of `COPY … FROM STDIN` (PostgreSQL's manual, "COPY", "Binary Format").

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::Client;

use crate::store::postgres::rows::POSTGRES_EPOCH_MICROS;
use crate::todo::{TODO_ID_TEXT_BYTES, Todo};

/// The statement that takes what [`copy_data`] makes.
const COPY_ROWS: &str = "COPY todos (id, title, description, completed, user_id, created_at, updated_at) \
     FROM STDIN (FORMAT binary)";

/// Signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COLUMNS: i16 = 7;
/// Stands where the next row's number of columns would.
const END: i16 = -1;
/// About what a row takes beside its texts: lengths, id, times.
const ROW_BYTES: usize = 96;

/// Writes rows that are not there; one that is fails the transaction.
pub(super) async fn copy(client: &Client, todos: &[&Todo]) -> Result<(), tokio_postgres::Error> {
    let mut sink = pin!(client.copy_in(COPY_ROWS).await?);
    sink.send(copy_data(todos)).await?;
    sink.finish().await.map(|_| ())
}

/// The rows: for each the number of its columns, and of each column its length and its bytes.
fn copy_data(todos: &[&Todo]) -> Bytes {
    let texts: usize = todos.iter().map(|todo| todo.title.len() + todo.description.len() + todo.user_id.len()).sum();
    let mut data = BytesMut::with_capacity(HEADER.len() + texts + todos.len() * ROW_BYTES + 2);
    data.put_slice(HEADER);
    for todo in todos {
        data.put_i16(COLUMNS);
        put(&mut data, todo.id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
        put(&mut data, todo.title.as_bytes());
        put(&mut data, todo.description.as_bytes());
        put(&mut data, &[u8::from(todo.completed)]);
        put(&mut data, todo.user_id.as_bytes());
        for time in [todo.created_at, todo.updated_at] {
            put(&mut data, &(time.as_micros() - POSTGRES_EPOCH_MICROS).to_be_bytes());
        }
    }
    data.put_i16(END);
    data.freeze()
}

fn put(data: &mut BytesMut, value: &[u8]) {
    data.put_u32(u32::try_from(value.len()).expect("the log's records are smaller"));
    data.put_slice(value);
}
