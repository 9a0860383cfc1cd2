//! Rows in the binary format of `COPY … FROM STDIN` (PostgreSQL's manual, "COPY", "Binary Format").

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::SinkExt;
use tokio_postgres::Client;

use crate::store::postgres::rows::{POSTGRES_EPOCH_MICROS, column_names};
use crate::todo::{ColumnSink, TODO_COLUMNS, TODO_ID_TEXT_BYTES, Timestamp, Todo, TodoId};

/// Signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Stands where the next row's number of columns would.
const END: i16 = -1;
/// About what a row takes beside its texts: lengths, id, times.
const ROW_BYTES: usize = 96;

/// Writes rows that are not there; one that is fails the transaction. Returns how many the server has written.
pub(super) async fn copy(client: &Client, todos: &[&Todo]) -> Result<u64, tokio_postgres::Error> {
    let statement = format!("COPY todos ({}) FROM STDIN (FORMAT binary)", column_names());
    let mut sink = pin!(client.copy_in(&statement).await?);
    sink.send(copy_data(todos)).await?;
    sink.finish().await
}

/// The rows: for each the number of its columns, and of each column its length and its bytes.
fn copy_data(todos: &[&Todo]) -> Bytes {
    let texts: usize = todos.iter().map(|todo| todo.text_bytes()).sum();
    let mut data = BytesMut::with_capacity(HEADER.len() + texts + todos.len() * ROW_BYTES + 2);
    data.put_slice(HEADER);
    for todo in todos {
        data.put_i16(TODO_COLUMNS.len() as i16);
        todo.give_columns(&mut CopyRow(&mut data));
    }
    data.put_i16(END);
    data.freeze()
}

/// Values of a row, behind each other.
struct CopyRow<'d>(&'d mut BytesMut);

impl CopyRow<'_> {
    fn put(&mut self, value: &[u8]) {
        self.0.put_u32(u32::try_from(value.len()).expect("the log's records are smaller"));
        self.0.put_slice(value);
    }
}

impl<'t> ColumnSink<'t> for CopyRow<'_> {
    fn id(&mut self, id: TodoId) {
        self.put(id.write_text(&mut [0; TODO_ID_TEXT_BYTES]).as_bytes());
    }

    fn text(&mut self, text: &'t str) {
        self.put(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.put(&[u8::from(flag)]);
    }

    fn time(&mut self, time: Timestamp) {
        self.put(&(time.as_micros() - POSTGRES_EPOCH_MICROS).to_be_bytes());
    }
}
