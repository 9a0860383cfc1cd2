//! A link to Redis that is cut, silent, or loses an answer.

use std::time::{Duration, Instant};

use million_rps::feed::redis::RedisOptions;
use million_rps::feed::{FeedError, FeedEvent, FeedPublisher, FeedSubscriber};
use million_rps::limits::{LINK_MIN_BYTES_PER_SEC, REDIS_REPLY_TIMEOUT_MS};
use million_rps::todo::Todo;

use crate::proxy::{Proxy, Way};
use crate::redis::{Process, WAIT, publisher, warm};
use crate::setting::{eventually, todo};

#[test]
fn a_lost_link_is_opened_again_and_nothing_is_missed() {
    let (direct, store, mut publisher, _) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::before(&address);
    let through = RedisOptions { url: proxy.address.to_string(), ..direct.clone() };
    let mut process = Process::loaded(&through, &store);
    proxy.cut();
    publisher.publish(&store.commit(0, vec![todo(10, "while the link was cut")], vec![])).expect("published");
    assert_eq!((process.follow(), &process.todos), (vec![], &store.todos()));

    proxy.refuse();
    proxy.cut();
    assert!(matches!(process.subscriber.next(WAIT), Err(FeedError::Unavailable(_))));
    publisher.publish(&store.commit(0, vec![todo(11, "while Redis was away")], vec![])).expect("published");
    proxy.heal();
    eventually("Redis is back", || {
        process.subscriber.next(Duration::ZERO).ok().map(|event| {
            let FeedEvent::Changes(sets) = event else { panic!("{event:?}") };
            process.todos.extend(sets.into_iter().flat_map(|set| set.changes.upserts).map(|todo| (todo.id, todo)));
        })
    });
    assert_eq!((process.follow(), process.todos, store.scans()), (vec![], store.todos(), 1));
}

#[test]
fn a_frozen_redis_is_noticed_and_used_again_when_it_thaws() {
    let (direct, store, mut publisher, _) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::before(&address);
    let through = RedisOptions { url: proxy.address.to_string(), ..direct };
    let mut process = Process::loaded(&through, &store);
    let mut frozen_out = self::publisher(&through);
    proxy.silence(Way::ToClient);
    assert!(matches!(process.subscriber.next(WAIT), Err(FeedError::Unavailable(_))));
    assert!(matches!(frozen_out.resume(&store.offsets()), Err(FeedError::Unavailable(_))));
    publisher.publish(&store.commit(0, vec![todo(10, "while it was frozen")], vec![])).expect("published");
    proxy.heal();
    eventually("Redis is back", || frozen_out.resume(&store.offsets()).ok());
    let event = eventually("the link is back", || process.subscriber.next(WAIT).ok());
    assert!(matches!(&event, FeedEvent::Changes(sets) if sets[0].changes.upserts[0].title == "while it was frozen"));
}

#[test]
fn a_link_that_falls_silent_is_noticed_within_its_bound() {
    // For a busy machine.
    let leniency = Duration::from_secs(5);
    let (direct, store, _, _) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::before(&address);
    let through = RedisOptions { url: proxy.address.to_string(), ..direct };
    let mut publisher = publisher(&through);
    publisher.resume(&store.offsets()).expect("Redis answers");
    proxy.black_hole();
    // In the middle of a conversation, then while connecting.
    for _ in 0..2 {
        let start = Instant::now();
        assert!(matches!(publisher.resume(&store.offsets()), Err(FeedError::Unavailable(_))));
        assert!(start.elapsed() < Duration::from_millis(REDIS_REPLY_TIMEOUT_MS) + leniency, "{:?}", start.elapsed());
    }
    proxy.heal();
    eventually("Redis is back", || publisher.resume(&store.offsets()).ok());
}

#[test]
fn a_publication_whose_answer_was_lost_is_not_doubled() {
    let (direct, store, _, mut process) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::before(&address);
    let through = RedisOptions { url: proxy.address.to_string(), ..direct };
    let mut publisher = publisher(&through);
    publisher.publish(&store.commit(0, vec![todo(10, "first")], vec![])).expect("published");
    process.follow();
    let set = store.commit(0, vec![todo(11, "cut off here")], vec![]);
    proxy.cut_reply_to("cut off here");
    publisher.publish(&set).expect("published at the second attempt, which finds it known");
    assert_eq!(process.step(), FeedEvent::Changes(vec![set]));
    assert_eq!(process.step(), FeedEvent::Current);
}

#[test]
fn a_large_batch_gets_through_a_narrow_link() {
    let (direct, store, _, mut process) = warm();
    let address = direct.url.trim_start_matches("redis://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::before(&address);
    let through = RedisOptions { url: proxy.address.to_string(), ..direct };
    let mut publisher = publisher(&through);
    let large = |number| Todo { description: "d".repeat(30_000), ..todo(number, "large") };
    let set = store.commit(0, (0..100).map(large).collect(), vec![]);
    proxy.slow(Duration::from_millis(20), LINK_MIN_BYTES_PER_SEC as u32 * 5 / 4);
    publisher.publish(&set).expect("published at the first attempt");
    assert_eq!((process.follow(), &process.todos), (vec![], &store.todos()));
}
