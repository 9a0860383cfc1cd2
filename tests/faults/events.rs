//! Followers of the list under faults: what they have by the change feed is what the list shows, or they were told to read it.

use std::time::Instant;

use crate::deployment::{Api, Deployment, required};
use crate::harness::events::{Recorder, list_at};
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, Writers};

/// Takes in what has come until there is this much more.
fn follow(recorders: &mut [Recorder], more: usize) {
    let goal = recorders.iter().map(|recorder| recorder.changes).min().expect("there is one") + more;
    within("changes", || {
        recorders.iter_mut().for_each(Recorder::take);
        recorders.iter().all(|recorder| recorder.changes >= goal).then_some(())
    });
}

/// Waits until each follower has the list of each API, which is one.
fn await_same(recorders: &mut [Recorder], apis: &[&Api]) {
    within("followers with the list", || {
        recorders.iter_mut().for_each(Recorder::take);
        let lists: Option<Vec<_>> = apis.iter().map(|api| list_at(api.address)).collect();
        let lists = lists?;
        let is_same = lists.iter().all(|list| *list == lists[0]);
        (is_same && recorders.iter().all(|recorder| recorder.has(&lists[0].1))).then_some(())
    });
}

#[test]
fn followers_move_between_two_apis() {
    let deployment = Deployment::beside_others();
    let _workers = deployment.workers::<1>();
    let apis = [deployment.serve(), deployment.serve()];
    let both = [&apis[0], &apis[1]];
    let writers = Writers::start(Load::default(), &both.map(|api| Target::new(api.address)));
    let mut recorders = both.map(|api| Recorder::start(api.address));
    for round in 0..20 {
        follow(&mut recorders, 20);
        for (at, recorder) in recorders.iter_mut().enumerate() {
            recorder.move_to(both[(at + round) % 2].address);
        }
    }
    let history = writers.finish();
    let shown = await_shown(&both, &history, Instant::now());
    await_same(&mut recorders, &both);
    for recorder in &recorders {
        assert_eq!(recorder.resets, Vec::<String>::new(), "each process has the positions of the other");
        assert!(recorder.connects >= 20);
        assert_eq!(recorder.repeats, 0, "each change is told once");
    }
    judge("followers moved between two APIs 20 times", &deployment, &both, &history, shown);
}

#[test]
fn followers_outlive_every_fault() {
    let deployment = Deployment::new();
    let [mut worker] = deployment.workers::<1>();
    let mut apis = [deployment.serve(), deployment.serve()];
    let targets = [0, 1].map(|at: usize| Target::new(apis[at].address));
    let writers = Writers::start(Load::default(), &targets);
    let mut recorders = [0, 1].map(|at: usize| Recorder::start(apis[at].address));
    follow(&mut recorders, 50);

    let client = redis::Client::open(required("REDIS_URL")).expect("a URL");
    let mut connection = client.get_connection().expect("a connection");
    for _ in 0..3 {
        redis::cmd("FLUSHALL").exec(&mut connection).expect("emptied");
        follow(&mut recorders, 30);
    }
    let resets_by_redis = recorders.each_ref().map(|recorder| recorder.resets.len());

    worker.signal(libc::SIGKILL);
    worker = deployment.worker();
    follow(&mut recorders, 30);

    for at in [0, 1] {
        apis[at].process.signal(libc::SIGKILL);
        recorders[at].move_to(apis[1 - at].address);
        follow(&mut recorders, 30);
        apis[at] = deployment.serve();
        targets[at].move_to(apis[at].address);
        recorders[at].move_to(apis[at].address);
        follow(&mut recorders, 30);
    }

    // A rolling restart: the next process has the list before the last one leaves, so nobody's position is lost.
    let resets_before = recorders.each_ref().map(|recorder| recorder.resets.len());
    for at in [0, 1] {
        let next = deployment.serve();
        follow(&mut recorders, 30);
        let last = std::mem::replace(&mut apis[at], next);
        targets[at].move_to(apis[at].address);
        last.process.signal(libc::SIGTERM);
        // What it still tells is taken from it, up to the end of the stream.
        within("the end of the process", || {
            recorders.iter_mut().for_each(Recorder::take);
            (!recorders[at].is_connected()).then_some(())
        });
        recorders[at].move_to(apis[at].address);
        follow(&mut recorders, 30);
    }
    assert_eq!(recorders.each_ref().map(|recorder| recorder.resets.len()), resets_before, "{recorders:?}");
    let history = writers.finish();
    let both = [&apis[0], &apis[1]];
    let healed = await_shown(&both, &history, Instant::now());
    await_same(&mut recorders, &both);
    for recorder in &recorders {
        say(&format!(
            "a follower: {} changes, {} of them as they stood, {} connections, resets {:?} ({resets_by_redis:?} while Redis was \
             emptied)",
            recorder.changes, recorder.repeats, recorder.connects, recorder.resets
        ));
    }
    judge("followers through Redis emptied, worker and APIs killed", &deployment, &both, &history, healed);
    drop(worker);
}
