//! The feed dies, falls silent, or is emptied; reads go on.

use std::time::{Duration, Instant};

use crate::deployment::{Deployment, required};
use crate::outage::Service;
use crate::readers::Reader;
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::writers::{Load, Target, Writers};

/// Longest that a read may take on a busy machine before it counts as a hang.
const READ_MAX: Duration = Duration::from_secs(5);

#[test]
fn redis_is_killed_and_comes_back_empty() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let targets = both.map(|api| Target::new(api.address));
    let mut history = Writers::start(Load { goal: 300, ..Load::default() }, &targets).until_goal();
    await_shown(&both, &history, Instant::now());

    let outage = Service::Redis.kill();
    let reader = Reader::start(&apis[0]);
    let writers = Writers::start(Load::default(), &targets);
    both.iter().for_each(|api| api.await_trouble("Redis cannot be reached"));
    writers.await_accepted(300);
    let fresh = deployment.serve();
    writers.await_accepted(100);
    history.merge(writers.finish());
    let all = [&apis[0], &apis[1], &fresh];
    let shown = await_shown(&all, &history, Instant::now());
    judge("Redis killed (-9), still away", &deployment, &all, &history, shown);
    all.iter().for_each(|api| api.await_trouble("Redis cannot be reached"));

    outage.end();
    let back_at = Instant::now();
    history.merge(Writers::start(Load { goal: 100, ..Load::default() }, &targets).until_goal());
    let healed = await_shown(&all, &history, back_at);
    let reading = reader.finish();
    assert!(reading.slowest < READ_MAX, "{reading:?}");
    judge("Redis killed (-9), back with nothing in it", &deployment, &all, &history, healed);
    all.iter().for_each(|api| api.await_well());
}

#[test]
fn redis_is_emptied_under_writes() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    let client = redis::Client::open(required("REDIS_URL")).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    for _ in 0..5 {
        writers.await_accepted(300);
        redis::cmd("FLUSHALL").exec(&mut connection).expect("emptied");
    }
    let emptied_at = Instant::now();
    let history = writers.finish();
    let healed = await_shown(&both, &history, emptied_at);
    judge("Redis emptied (FLUSHALL) five times", &deployment, &both, &history, healed);
    both.iter().for_each(|api| api.await_well());
}

#[test]
fn redis_is_frozen_under_writes() {
    let deployment = Deployment::new();
    let _workers = deployment.workers::<2>();
    let api = deployment.serve();
    let writers = Writers::start(Load::default(), &[Target::new(api.address)]);
    writers.await_accepted(300);
    let reader = Reader::start(&api);
    let outage = Service::Redis.freeze();
    api.await_trouble("Redis does not answer");
    writers.await_accepted(300);
    let fresh = deployment.serve();
    writers.await_accepted(100);
    let mut history = writers.finish();
    let both = [&api, &fresh];
    let shown = await_shown(&both, &history, Instant::now());
    judge("Redis frozen, still so", &deployment, &both, &history, shown);

    outage.end();
    let thawed_at = Instant::now();
    let targets = both.map(|api| Target::new(api.address));
    history.merge(Writers::start(Load { goal: 100, ..Load::default() }, &targets).until_goal());
    let healed = await_shown(&both, &history, thawed_at);
    let reading = reader.finish();
    assert!(reading.slowest < READ_MAX, "{reading:?}");
    judge("Redis frozen", &deployment, &both, &history, healed);
    both.iter().for_each(|api| api.await_well());
}

#[test]
fn postgres_and_redis_are_both_away() {
    let deployment = Deployment::new();
    // API and worker in one process: its /ready tells of both.
    let api = deployment.run();
    let target = Target::new(api.address);
    let mut history = Writers::start(Load { goal: 300, ..Load::default() }, std::slice::from_ref(&target)).until_goal();
    await_shown(&[&api], &history, Instant::now());
    let last_list = api.list().body;
    let before = Reader::read_for(&api, Duration::from_secs(1));

    let (redis, postgres) = (Service::Redis.kill(), Service::Postgres.end_immediately());
    let writers = Writers::start(Load::default(), &[target]);
    writers.await_accepted(100);
    api.await_trouble("feed: ");
    api.await_trouble("worker: ");
    history.merge(writers.finish());
    let meanwhile = Reader::read_for(&api, Duration::from_secs(1));
    assert!(api.list().body == last_list, "the last list is answered while there is no newer one");
    say(&format!(
        "PostgreSQL and Redis away: {:.0} lists/s, {:.0} before; slowest {:?}",
        meanwhile.rate(),
        before.rate(),
        meanwhile.slowest
    ));
    assert!(meanwhile.slowest < READ_MAX, "{meanwhile:?}");
    assert!(meanwhile.rate() > before.rate() / 10.0, "{meanwhile:?}, before: {before:?}");
    redis.end();
    postgres.end();
    let back_at = Instant::now();
    let healed = await_shown(&[&api], &history, back_at);
    judge("PostgreSQL and Redis both killed", &deployment, &[&api], &history, healed);
    api.await_well();
}
