//! Micro benches of what a request passes through, stage by stage, and of what a write does to the list:
//! `cargo bench -p million-rps-bench`. They link with the product's library; everything else in this package runs its
//! program.

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use million_rps::auth::{FailedChecks, Verifier, mint};
use million_rps::config::{Auth, Secret};
use million_rps::http::Coding;
use million_rps::http::response::{CacheControl, ContentType, date};
use million_rps::http::route::route;
use million_rps::http::words::filter::Filter;
use million_rps::http::{ResponseHead, Status, parse_head, query};
use million_rps::snapshot::{Encoder, HashKeys, Snapshot, SnapshotBuilder};
use million_rps::store::Changes;
use million_rps::todo::{Timestamp, Todo, TodoId};

/// What wrk sends.
const SHORT_REQUEST: &[u8] = b"GET /todos?limit=10 HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";
/// What a browser sends.
const LONG_REQUEST: &[u8] = b"GET /todos?limit=10 HTTP/1.1\r\nHost: localhost:8080\r\nConnection: keep-alive\r\n\
    sec-ch-ua: \"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Accept: application/json, text/plain, */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
    Sec-Fetch-Dest: empty\r\nReferer: http://localhost:8080/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\nIf-None-Match: \"0227e3da95bc8923\"\r\n\r\n";
/// The start of 2026, in microseconds since 1970.
const FIRST_CREATED_AT_US: i64 = 1_767_225_600_000_000;

fn todo(number: usize) -> Todo {
    let at = Timestamp::from_micros(FIRST_CREATED_AT_US + number as i64 * 1000);
    Todo {
        id: TodoId::new(),
        title: format!("Sort out library books, part {number}"),
        description: "Only possible while the shop is open, until 18:30. Allow two days for the answer.".into(),
        completed: number.is_multiple_of(2),
        user_id: "bench".into(),
        created_at: at,
        updated_at: at,
    }
}

/// A list of that length, and its todos, oldest first.
fn list(len: usize) -> (Snapshot, Vec<Todo>) {
    let todos: Vec<Todo> = (0..len).map(todo).collect();
    let mut builder = SnapshotBuilder::new(HashKeys::new(&[1; 32]));
    // From the newest on.
    todos.iter().rev().for_each(|todo| builder.push(todo));
    (builder.finish(1), todos)
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, request) in [("short", SHORT_REQUEST), ("browser", LONG_REQUEST)] {
        group.throughput(Throughput::Bytes(request.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| parse_head(black_box(request)).is_ok()));
    }
    group.finish();
}

fn find_resource(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for path in ["/todos", "/todos/01a20900-b509-71e5-b2c2-2145a8e92f6c", "/ready"] {
        group.bench_function(path, |bencher| bencher.iter(|| route(black_box(path.as_bytes()))));
    }
    let query = Some(&b"limit=10"[..]);
    group.bench_function("?limit=10", |bencher| bencher.iter(|| query::list_query(black_box(query)).is_ok()));
    group.finish();
}

fn check_token(criterion: &mut Criterion) {
    let secret = Secret::new("0123456789abcdef0123456789abcdef");
    let settings = Auth::default();
    let now = FIRST_CREATED_AT_US / 1_000_000;
    let token = mint(&secret, &settings, "bench", Duration::from_secs(3600), now).expect("a valid user");
    let authorization = format!("Bearer {token}").into_bytes();
    let mut group = criterion.benchmark_group("token check");
    group.bench_function("first time", |bencher| {
        let fresh = || Verifier::of_secret(&secret, &settings);
        let connection = FailedChecks::default();
        let check = |mut verifier: Verifier| {
            let is_valid = verifier.verify(Some(black_box(&authorization)), now, &connection).is_ok();
            (verifier, is_valid)
        };
        bencher.iter_batched(fresh, check, BatchSize::SmallInput);
    });
    group.bench_function("verified before", |bencher| {
        let mut verifier = Verifier::of_secret(&secret, &settings);
        let connection = FailedChecks::default();
        bencher.iter(|| verifier.verify(Some(black_box(&authorization)), now, &connection).is_ok());
    });
    group.finish();
}

fn page(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("page");
    for len in [1_000, 100_000] {
        let (snapshot, todos) = list(len);
        let middle = todos[len / 2].key();
        for (name, after) in [("first", None), ("middle", Some(middle))] {
            group.bench_function(format!("limit=10, {name} of {len}"), |bencher| {
                bencher.iter(|| snapshot.page(black_box(after), black_box(Some(10))));
            });
        }
        let id = todos[len / 2].id;
        group.bench_function(format!("one todo of {len}"), |bencher| {
            bencher.iter(|| snapshot.get(black_box(id)).map(|entry| entry.entity_tag()));
        });
        group.bench_function(format!("pieces of limit=100 of {len}"), |bencher| {
            bencher.iter(|| {
                let mut body = snapshot.page(None, Some(100)).body;
                let mut bytes = 0;
                while let Some(piece) = body.next_piece(&snapshot) {
                    bytes += black_box(piece).len();
                }
                bytes
            });
        });
    }
    group.finish();
}

fn response_head(criterion: &mut Criterion) {
    let date = date(SystemTime::UNIX_EPOCH);
    let (snapshot, _) = list(100);
    let page = snapshot.page(None, Some(10));
    let last = page.next.expect("90 todos follow");
    let mut out = Vec::with_capacity(1024);
    criterion.bench_function("response head", |bencher| {
        bencher.iter(|| {
            out.clear();
            ResponseHead::start(&mut out, Status::Ok, &date)
                .content_type(ContentType::Json)
                .content_length(black_box(page.content_length))
                .etag(black_box(page.entity_tag))
                .cache_control(CacheControl::NoCache)
                .vary_accept_encoding()
                .next_page(&Filter::default(), 10, last)
                .end();
            out.len()
        });
    });
}

fn snapshot_change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot change");
    for len in [1_000, 100_000] {
        let (snapshot, todos) = list(len);
        for count in [1, 100] {
            // Anywhere in the list.
            let step = len / count;
            let upserts = (0..count).map(|at| {
                let mut changed = todos[at * step + step / 2].clone();
                changed.completed = !changed.completed;
                changed
            });
            let updates = Changes { upserts: upserts.collect(), ..Changes::default() };
            group.throughput(Throughput::Elements(count as u64));
            let name = BenchmarkId::new(format!("{count} updates"), len);
            group.bench_function(name, |bencher| bencher.iter(|| snapshot.apply([black_box(&updates)])));
            let creates = Changes { upserts: (len..len + count).map(todo).collect(), ..Changes::default() };
            let name = BenchmarkId::new(format!("{count} creates"), len);
            group.bench_function(name, |bencher| bencher.iter(|| snapshot.apply([black_box(&creates)])));
        }
    }
    group.finish();
}

/// What the encoder does for a snapshot in which one todo is another.
fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let (list, todos) = list(100_000);
    for coding in Coding::COMPRESSED {
        for (name, limit) in [("limit=10", Some(10)), ("limit=100", Some(100)), ("all", None)] {
            let mut encoder = Encoder::new(coding);
            let (mut snapshot, mut number) = (list.clone(), 0);
            encoder.encode(&snapshot, limit).expect("it pays");
            group.bench_function(BenchmarkId::new(coding.name(), name), |bencher| {
                bencher.iter_batched(
                    || {
                        number += 1;
                        let changed =
                            Todo { title: format!("changed {number}"), ..todos[todos.len() - 1 - number % 10].clone() };
                        snapshot = snapshot.apply([&Changes { upserts: vec![changed], deletes: Vec::new() }]);
                        snapshot.clone()
                    },
                    |snapshot| encoder.encode(&snapshot, limit),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, parse, find_resource, check_token, page, response_head, snapshot_change, encode);
criterion_main!(benches);
