//! Where the store stands in its log, and which log that is.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::command_log::{KnownLogs, LogId, Offset, PartitionId};
use crate::store::log_rows::LogRows;
use crate::store::{AppliedOffsets, OffsetStep};

/// All that the table of offsets has.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<LogRows> {
    let mut statement = connection.prepare_cached("SELECT partition, next_offset FROM applied_offsets")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect::<rusqlite::Result<AppliedOffsets>>().map(LogRows::of)
}

/// The log that is followed, which has a table of its own, and those that are not.
pub(super) fn known_logs(connection: &Connection) -> rusqlite::Result<KnownLogs> {
    Ok(KnownLogs { followed: followed(connection)?, ..read(connection)?.known })
}

fn followed(connection: &Connection) -> rusqlite::Result<Option<LogId>> {
    let bits = connection.query_row("SELECT id FROM followed_log", [], |row| row.get(0)).optional()?;
    Ok(bits.and_then(|bits| LogId::from_bits(u128::from_be_bytes(bits))))
}

/// Has the store follow this log, unless it follows one; returns the one that it follows.
pub(super) fn note(connection: &Connection, log: LogId) -> rusqlite::Result<LogId> {
    let insert = "INSERT OR IGNORE INTO followed_log (only_row, id) VALUES (1, ?1)";
    connection.execute(insert, [log.bits().to_be_bytes()])?;
    followed(connection).map(|noted| noted.unwrap_or(log))
}

/// Notes that the offsets are not of this log.
pub(super) fn reject(transaction: &Transaction<'_>, log: LogId) -> rusqlite::Result<()> {
    let rows = read(transaction)?;
    if !rows.known.rejected.contains(&log) {
        for (row, half) in rows.free().into_iter().zip(log.halves()) {
            let insert = "INSERT INTO applied_offsets (partition, next_offset) VALUES (?1, ?2)";
            transaction.execute(insert, params![row, half])?;
        }
    }
    Ok(())
}

/// Has the store follow this log, whichever it followed or rejected before, from this offset on.
pub(super) fn set(
    transaction: &Transaction<'_>,
    log: LogId,
    partition: PartitionId,
    next: Offset,
) -> rusqlite::Result<()> {
    let log = log.bits().to_be_bytes();
    transaction.execute("INSERT OR REPLACE INTO followed_log (only_row, id) VALUES (1, ?1)", [log])?;
    transaction.execute("DELETE FROM applied_offsets WHERE partition < 0", [])?;
    let offset = "INSERT OR REPLACE INTO applied_offsets (partition, next_offset) VALUES (?1, ?2)";
    transaction.execute(offset, params![partition, next]).map(drop)
}

/// Moves one partition's offset; `false` when it was not at the step's `from`.
pub(super) fn move_offset(transaction: &Transaction<'_>, step: &OffsetStep) -> rusqlite::Result<bool> {
    let moved = match step.from {
        None => transaction
            .prepare_cached(
                "INSERT INTO applied_offsets (partition, next_offset) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?
            .execute(params![step.partition, step.to])?,
        Some(from) => transaction
            .prepare_cached("UPDATE applied_offsets SET next_offset = ?2 WHERE partition = ?1 AND next_offset = ?3")?
            .execute(params![step.partition, step.to, from])?,
    };
    Ok(moved == 1)
}
