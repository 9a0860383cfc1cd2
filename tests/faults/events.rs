//! Followers of the list under faults: what they have by the change feed is what the list shows, or they were told to read it.

use std::time::Instant;

use crate::deployment::{Api, Deployment, required};
use crate::harness::client::Client;
use crate::harness::events::{Recorder, list_at};
use crate::harness::process::Process;
use crate::harness::request::{get, post, put};
use crate::harness::token::token;
use crate::history::History;
use crate::outage::Service;
use crate::say;
use crate::verdict::{await_shown, judge};
use crate::within;
use crate::writers::{Load, Target, USER, Writers};

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

/// Two APIs and a worker, clients that write at both, and a follower of each.
struct Scene {
    deployment: Deployment,
    worker: Process,
    apis: [Api; 2],
    targets: [Target; 2],
    recorders: [Recorder; 2],
    /// `None` between two faults.
    writers: Option<Writers>,
    history: History,
}

impl Scene {
    fn new() -> Scene {
        let deployment = Deployment::new();
        let [worker] = deployment.workers();
        let apis = [deployment.serve(), deployment.serve()];
        let targets = [0, 1].map(|at: usize| Target::new(apis[at].address));
        let recorders = [0, 1].map(|at: usize| Recorder::start(apis[at].address));
        Scene { deployment, worker, apis, targets, recorders, writers: None, history: History::default() }
    }

    /// Does harm while clients write and followers follow. Afterwards each follower has exactly the list that each API gives, and
    /// what the clients were promised is kept. Returns how often the followers had to read the list again meanwhile.
    fn under(&mut self, fault: &str, harm: impl FnOnce(&mut Scene)) -> usize {
        let before = self.resets();
        let (changes, connects) = (self.sum(|recorder| recorder.changes), self.sum(|recorder| recorder.connects));
        self.writers = Some(Writers::start(Load::default(), &self.targets));
        self.follow(30);
        harm(self);
        self.follow(30);
        let writers = self.writers.take().expect("they write");
        self.history.merge(writers.finish());
        let both = [&self.apis[0], &self.apis[1]];
        let healed = await_shown(&both, &self.history, Instant::now());
        await_same(&mut self.recorders, &both);
        let resets: Vec<String> = self
            .recorders
            .iter()
            .zip(before)
            .flat_map(|(recorder, before)| recorder.resets[before..].to_vec())
            .collect();
        say(&format!(
            "followers, {fault}: {} changes, {} connections, resets {resets:?}",
            self.sum(|recorder| recorder.changes) - changes,
            self.sum(|recorder| recorder.connects) - connects,
        ));
        // What is told is the loss of a position, and nothing that clients could do anything about.
        assert!(resets.iter().all(|reason| ["too_old", "unknown_position"].contains(&reason.as_str())), "{resets:?}");
        judge(&format!("followers, {fault}"), &self.deployment, &both, &self.history, healed);
        resets.len()
    }

    fn follow(&mut self, more: usize) {
        follow(&mut self.recorders, more);
    }

    fn resets(&self) -> [usize; 2] {
        self.recorders.each_ref().map(|recorder| recorder.resets.len())
    }

    fn sum(&self, count: impl Fn(&Recorder) -> usize) -> usize {
        self.recorders.iter().map(count).sum()
    }

    fn writers(&self) -> &Writers {
        self.writers.as_ref().expect("they write")
    }
}

#[test]
fn followers_outlive_what_happens_to_redis() {
    let mut scene = Scene::new();
    let client = redis::Client::open(required("REDIS_URL")).expect("a URL");
    let resets = scene.under("Redis emptied (FLUSHALL) three times", |scene| {
        let mut connection = client.get_connection().expect("a connection");
        for _ in 0..3 {
            redis::cmd("FLUSHALL").exec(&mut connection).expect("emptied");
            scene.follow(30);
        }
    });
    assert_eq!(resets, 0, "positions are no part of Redis");
    let resets = scene.under("Redis killed (-9) and started again with nothing in it", |scene| {
        let outage = Service::Redis.kill();
        scene.apis.iter().for_each(|api| api.await_trouble("Redis cannot be reached"));
        // The store is read meanwhile: changes go on.
        scene.follow(30);
        outage.end();
        scene.follow(30);
        scene.apis.iter().for_each(Api::await_well);
    });
    assert_eq!(resets, 0, "what came before Redis was away and what comes after it is one history");
    scene.under("Redis frozen", |scene| {
        let outage = Service::Redis.freeze();
        scene.apis.iter().for_each(|api| api.await_trouble("Redis does not answer"));
        scene.follow(30);
        outage.end();
        scene.follow(30);
        scene.apis.iter().for_each(Api::await_well);
    });
}

#[test]
fn followers_outlive_the_processes() {
    let mut scene = Scene::new();
    let resets = scene.under("worker killed (-9)", |scene| {
        scene.worker.signal(libc::SIGKILL);
        scene.worker = scene.deployment.worker();
        scene.follow(30);
    });
    assert_eq!(resets, 0, "what a worker has applied and not told is told by the next one");
    for at in [0, 1] {
        scene.under(&format!("API {at} killed (-9), its follower at the other one meanwhile"), |scene| {
            let before = scene.resets();
            scene.apis[at].process.signal(libc::SIGKILL);
            scene.recorders[at].move_to(scene.apis[1 - at].address);
            scene.follow(30);
            assert_eq!(scene.resets(), before, "the other one has its position");
            scene.apis[at] = scene.deployment.serve();
            scene.targets[at].move_to(scene.apis[at].address);
            scene.recorders[at].move_to(scene.apis[at].address);
            scene.follow(30);
        });
        scene.under(&format!("API {at} killed (-9), its follower without any meanwhile"), |scene| {
            scene.apis[at].process.signal(libc::SIGKILL);
            scene.recorders[at].disconnect();
            // What is written now is before the next process begins.
            scene.writers().await_accepted(100);
            scene.apis[at] = scene.deployment.serve();
            scene.targets[at].move_to(scene.apis[at].address);
            scene.recorders[at].move_to(scene.apis[at].address);
        });
    }
    // The next process has the list before the last one leaves, so nobody's position is lost.
    let resets = scene.under("rolling restart", |scene| {
        for at in [0, 1] {
            let next = scene.deployment.serve();
            scene.follow(30);
            let last = std::mem::replace(&mut scene.apis[at], next);
            scene.targets[at].move_to(scene.apis[at].address);
            last.process.signal(libc::SIGTERM);
            // What it still tells is taken from it, up to the end of the stream.
            within("the end of the process", || {
                scene.recorders.iter_mut().for_each(Recorder::take);
                (!scene.recorders[at].is_connected()).then_some(())
            });
            scene.recorders[at].move_to(scene.apis[at].address);
            scene.follow(30);
        }
    });
    assert_eq!(resets, 0, "a rolling restart loses nobody's position");
}

#[test]
fn followers_outlive_the_broker() {
    let mut scene = Scene::new();
    for (fault, is_killed) in [("broker frozen", false), ("broker killed (-9) and started again", true)] {
        let resets = scene.under(fault, |scene| {
            let outage = if is_killed { Service::Kafka.kill() } else { Service::Kafka.freeze() };
            scene.writers().await_refused(50);
            // Nothing changes, and nobody is told that anything had.
            scene.recorders.iter_mut().for_each(Recorder::take);
            assert!(scene.recorders.iter().all(Recorder::is_connected), "a stream is not the log's");
            outage.end();
            scene.writers().await_accepted(100);
        });
        assert_eq!(resets, 0, "{fault}: the list is as it was");
    }
}

/// The wait at one API ends by a write through the other.
#[test]
fn a_read_that_waits_hears_of_writes_through_another_api() {
    let deployment = Deployment::beside_others();
    let _workers = deployment.workers::<1>();
    let apis = [deployment.serve(), deployment.serve()];
    let token = token(USER);
    let mut writer = apis[0].connect();
    let created = writer.call(&post(&token, r#"{"title":"first"}"#).field("Prefer", "wait=30")).expect(202).json();
    let id = created["id"].as_str().expect("an id");
    let target = format!("/todos/{id}");
    within("the todo at the other API", || (apis[1].connect().call(&get(&target)).status == 200).then_some(()));
    let targets = ["/todos", "/todos?limit=10", &target];
    let mut shown = "first".to_owned();
    for round in 0..5 {
        let mut waiting = targets.map(|target| {
            let mut client = apis[1].connect();
            let poll =
                get(target).field("If-None-Match", &tag_of(&mut client, target, &shown)).field("Prefer", "wait=30");
            client.send(poll.bytes());
            client
        });
        within("reads that wait", || (apis[1].metric("million_rps_reads_waiting") == 3.0).then_some(()));
        shown = format!("round {round}");
        writer.call(&put(&token, id, serde_json::json!({ "title": shown }).to_string())).expect(202);
        for client in &mut waiting {
            let answer = client.answer().expect(200);
            assert!(answer.text().contains(&shown), "{answer:?}");
        }
    }
    // What one API gave is known to the other.
    let tag = tag_of(&mut writer, &target, &shown);
    let mut client = apis[1].connect();
    assert_eq!(tag_of(&mut client, &target, &shown), tag);
    let poll = get(&target).field("If-None-Match", &tag).field("Prefer", "wait=1");
    assert_eq!(client.call(&poll).expect(304).required("Preference-Applied"), "wait=1");
}

/// The entity tag of what stands at `target` once `title` is in it: each shard of each API hears of a change by
/// itself, so one that has shown it says nothing of the others.
fn tag_of(client: &mut Client, target: &str, title: &str) -> String {
    within("what the list holds at this connection", || {
        let answer = client.call(&get(target)).expect(200);
        answer.text().contains(title).then(|| answer.required("ETag").to_owned())
    })
    .0
}
