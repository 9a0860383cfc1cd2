//! Part `apply`: how fast a worker takes commands from Kafka into PostgreSQL and Redis, beside what PostgreSQL takes of the
//! same rows when nothing else is asked of it.
//!
//! The worker reads, parses, folds, moves the offsets, commits and publishes; its clock runs from the first batch that is
//! published to the last. The others write the same rows into the same table, on one connection, a transaction a batch.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use clap::Args;
use futures_util::SinkExt as _;
use tokio_postgres::Client;

use super::{Bench, PartError, USER, setting};
use crate::commands::{Producer, Row};
use crate::deployment::{AllServices, Deployment};
use crate::measurement::Measurement;
use crate::report::{Bound, Report, Row as ReportRow, Table};

/// The part of the rate of plain batches that a worker reaches with creates.
const CREATES_RATIO_MIN: f64 = 0.7;
/// And with commands of all kinds.
const MIX_RATIO_MIN: f64 = 0.5;
/// A worker that does nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Between two looks at how far the worker is.
const POLL: Duration = Duration::from_millis(5);
/// 2000-01-01T00:00:00Z in microseconds since 1970: where PostgreSQL's times begin.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// The statement that plain batches are made of.
const UNNEST: &str = "INSERT INTO todos (id, title, description, completed, user_id, created_at, updated_at) \
     SELECT id, title, description, false, $4, at, at FROM \
     unnest($1::text[], $2::text[], $3::text[], $5::timestamptz[]) AS row (id, title, description, at) \
     ON CONFLICT (id) DO UPDATE SET title = excluded.title, description = excluded.description";
const COPY: &str = "(id, title, description, completed, user_id, created_at, updated_at) FROM STDIN (FORMAT binary)";

/// What the part takes.
#[derive(Debug, Clone, Args)]
pub struct ApplyArguments {
    /// Commands of each run
    #[arg(long, value_name = "COMMANDS", default_value_t = 200_000)]
    pub commands: u64,
    /// Rows of a plain batch
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    pub batch_rows: usize,
    /// What is compared
    #[arg(long, value_name = "WAYS", value_delimiter = ',', default_value = "creates,mix,unnest,staged-copy,copy")]
    pub ways: Vec<Way>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// A worker that is given creates.
    Creates,
    /// A worker that is given 60 % creates, 30 % updates and 10 % deletes.
    Mix,
    /// `INSERT … SELECT FROM unnest(…)`.
    Unnest,
    /// `COPY` into a table without indexes, then `INSERT … SELECT`.
    StagedCopy,
    /// `COPY` into the table itself: no conflict may happen.
    Copy,
}

/// Runs the part.
///
/// # Errors
/// A service or the worker fails.
pub fn run(bench: &Bench, arguments: &ApplyArguments) -> Result<Report, PartError> {
    crate::cpu::unpin_current_thread()?;
    let mut report = bench.report(
        "apply",
        "Commands that a worker takes from Kafka into PostgreSQL and Redis a second, exactly once and in order, and rows \
         that PostgreSQL takes a second from a program that only inserts. All on the same machine and all its CPUs.",
        vec![setting("commands", arguments.commands), setting("rows of a plain batch", arguments.batch_rows)],
    );
    std::fs::create_dir_all(&bench.scratch)?;
    let services = AllServices::open(&bench.scratch.join("services"))?;
    let ways = &arguments.ways;
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    // The first round warms the services up and is not counted.
    for run in 0..=bench.runs {
        for turn in 0..ways.len() {
            let turn = if run % 2 == 0 { turn } else { ways.len() - 1 - turn };
            let (way, label) = (ways[turn], ways[turn].label());
            let rate = way.measure(bench, &services, arguments)?;
            eprintln!("apply: {label}, run {run} of {}: {rate:.0}/s", bench.runs);
            if run > 0 {
                rates[turn].push(rate);
            }
        }
    }
    let median = |way| {
        let place = ways.iter().position(|other| *other == way);
        Measurement::new("", "", place.map_or(Vec::new(), |place| rates[place].clone())).median()
    };
    report.bounds = [("creates", Way::Creates, CREATES_RATIO_MIN), ("the mix", Way::Mix, MIX_RATIO_MIN)]
        .map(|(name, way, limit)| {
            let claim = format!("rows/s of a worker with {name} over plain unnest");
            Bound::at_least(claim, median(way) / median(Way::Unnest), limit)
        })
        .into();
    let row = |(way, rates): (&Way, Vec<f64>)| ReportRow {
        label: way.label().into(),
        measurements: vec![Measurement::new("applied", "rows/s", rates)],
    };
    report.tables.push(Table::new("Rate", ways.iter().zip(rates.clone()).map(row).collect()));
    Ok(report)
}

impl Way {
    fn label(self) -> &'static str {
        match self {
            Way::Creates => "worker, creates",
            Way::Mix => "worker, 60 % create, 30 % update, 10 % delete",
            Way::Unnest => "plain unnest",
            Way::StagedCopy => "plain COPY into a staging table, then INSERT … SELECT",
            Way::Copy => "plain COPY",
        }
    }

    /// Commands or rows a second.
    fn measure(self, bench: &Bench, services: &AllServices, arguments: &ApplyArguments) -> Result<f64, PartError> {
        let deployment = services.deployment("bench-apply")?;
        let rows = (0..arguments.commands).map(Row::new);
        let started_at = match self {
            Way::Creates => {
                let commands = rows.map(|row| (row.id.clone(), row.create(USER)));
                return applied_rate(&deployment, &bench.product, &bench.scratch, commands, arguments.commands);
            }
            Way::Mix => {
                let commands = (0..arguments.commands).map(mixed_command);
                return applied_rate(&deployment, &bench.product, &bench.scratch, commands, arguments.commands);
            }
            Way::Unnest | Way::StagedCopy | Way::Copy => {
                let rows: Vec<Row> = rows.collect();
                let client = deployment.database()?;
                let started_at = Instant::now();
                services.block_on(async {
                    match self {
                        Way::Unnest => unnest(&client, &rows, arguments.batch_rows).await,
                        Way::StagedCopy => staged_copy(&client, &rows, arguments.batch_rows).await,
                        _ => plain_copy(&client, &rows, arguments.batch_rows).await,
                    }
                })?;
                started_at
            }
        };
        Ok(arguments.commands as f64 / started_at.elapsed().as_secs_f64())
    }
}

/// Of ten commands six create, three update and one deletes what was made before.
fn mixed_command(number: u64) -> (String, String) {
    let (group, place) = (number / 10, number % 10);
    let made = |group: u64, place: u64| Row::new(group * 6 + place);
    // Changes hit a todo that was made many batches ago: within one, a fold would leave nothing to be written.
    let earlier = group / 2;
    let row = if place < 6 { made(group, place) } else { made(earlier, (place - 6 + 4 * (group % 2)) % 6) };
    let command = match place {
        0..6 => row.create(USER),
        6..9 => row.update(USER),
        _ => row.delete(USER),
    };
    (row.id, command)
}

fn applied_rate(
    deployment: &Deployment<'_>,
    product: &Path,
    folder: &Path,
    commands: impl Iterator<Item = (String, String)>,
    count: u64,
) -> Result<f64, PartError> {
    // An API process loads the list into Redis; from then on changes are published into it.
    drop(deployment.api(product, folder)?);
    Producer::new(deployment.services(), &[("linger.ms", "5")])?.fill(deployment.topic(), commands)?;
    let mut feed = deployment.feed()?;
    let mut worker = deployment.worker(product, folder)?;
    let mut first = None;
    let mut changed_at = Instant::now();
    let mut last = 0;
    loop {
        let published = feed.published()?;
        let now = Instant::now();
        if published > last {
            (last, changed_at) = (published, now);
            first.get_or_insert((now, published));
        }
        if let Some((first_at, first)) = first
            && published >= count
        {
            return Ok((count - first) as f64 / now.duration_since(first_at).as_secs_f64());
        }
        if !worker.is_running() || changed_at.elapsed() > SILENCE_MAX {
            let log = std::fs::read_to_string(folder.join("worker.log")).unwrap_or_default();
            return Err(format!("the worker has applied {published} of {count} commands. Its log:\n{log}").into());
        }
        std::thread::sleep(POLL);
    }
}

/// Fills the table with this many todos, as nothing else would: without the log.
pub(super) fn fill(deployment: &Deployment<'_>, todos: u64) -> Result<(), PartError> {
    let client = deployment.database()?;
    let numbers: Vec<u64> = (0..todos).collect();
    deployment.services().block_on(async {
        for part in numbers.chunks(10_000) {
            let rows: Vec<Row> = part.iter().copied().map(Row::new).collect();
            copy_in(&client, "todos", &rows).await?;
        }
        Ok(())
    })
}

async fn unnest(client: &Client, rows: &[Row], batch_rows: usize) -> Result<(), PartError> {
    let statement = client.prepare(UNNEST).await?;
    for batch in rows.chunks(batch_rows) {
        let ids: Vec<&str> = batch.iter().map(|row| row.id.as_str()).collect();
        let titles: Vec<&str> = batch.iter().map(|row| row.title.as_str()).collect();
        let descriptions: Vec<&str> = batch.iter().map(|row| row.description.as_str()).collect();
        let times: Vec<std::time::SystemTime> = batch
            .iter()
            .map(|row| std::time::UNIX_EPOCH + Duration::from_micros(row.created_at_us.unsigned_abs()))
            .collect();
        client.execute(&statement, &[&ids, &titles, &descriptions, &USER, &times]).await?;
    }
    Ok(())
}

async fn staged_copy(client: &Client, rows: &[Row], batch_rows: usize) -> Result<(), PartError> {
    client.batch_execute("CREATE TEMP TABLE staged (LIKE todos) ON COMMIT DELETE ROWS").await?;
    let merge = client
        .prepare(
            "INSERT INTO todos SELECT * FROM staged \
             ON CONFLICT (id) DO UPDATE SET title = excluded.title, description = excluded.description",
        )
        .await?;
    for batch in rows.chunks(batch_rows) {
        client.batch_execute("BEGIN").await?;
        copy_in(client, "staged", batch).await?;
        client.execute(&merge, &[]).await?;
        client.batch_execute("COMMIT").await?;
    }
    Ok(())
}

async fn plain_copy(client: &Client, rows: &[Row], batch_rows: usize) -> Result<(), PartError> {
    for batch in rows.chunks(batch_rows) {
        copy_in(client, "todos", batch).await?;
    }
    Ok(())
}

async fn copy_in(client: &Client, table: &str, rows: &[Row]) -> Result<(), PartError> {
    let sink = client.copy_in(&format!("COPY {table} {COPY}")).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(copy_data(rows).freeze()).await?;
    sink.finish().await?;
    Ok(())
}

/// Rows in the binary format of COPY: a header, for each row the number of its columns and each column's length and bytes,
/// and an end.
fn copy_data(rows: &[Row]) -> BytesMut {
    let mut data = BytesMut::new();
    data.put_slice(b"PGCOPY\n\xff\r\n\0");
    data.put_u64(0);
    for row in rows {
        data.put_i16(7);
        let mut column = |bytes: &[u8]| {
            data.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            data.put_slice(bytes);
        };
        column(row.id.as_bytes());
        column(row.title.as_bytes());
        column(row.description.as_bytes());
        column(&[0]);
        column(USER.as_bytes());
        let time = (row.created_at_us - POSTGRES_EPOCH_US).to_be_bytes();
        column(&time);
        column(&time);
    }
    data.put_i16(-1);
    data
}
