//! An API process is replaced by a new one on the same port, and no client notices.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::deployment::{Api, Deployment};
use crate::harness::client::Client;
use crate::harness::request::{get, post};
use crate::harness::token::token;
use crate::{say, within};

/// How often the process is replaced.
const ROUNDS: usize = 4;
/// Requests that have to be answered between two steps.
const REQUESTS: usize = 300;

/// Clients without a pause: half of them keep a connection as long as the server does, half connect for each request.
/// Every request that is not answered with 200 or 202 panics.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(api: &Api) -> Load {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let address = api.address;
        let clients = (0..6)
            .map(|number| {
                let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
                std::thread::spawn(move || {
                    let token = token("rolling");
                    let requests = [get("/todos?limit=10"), get("/todos"), post(&token, r#"{"title":"rolled over"}"#)];
                    let mut client = Client::connect(address);
                    for request in requests.iter().cycle() {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let answer = client.call(request);
                        assert!(matches!(answer.status, 200 | 202), "client {number}: {answer:?}");
                        answered.fetch_add(1, Ordering::Relaxed);
                        if answer.closes() || number % 2 == 0 {
                            client = Client::new(TcpStream::connect(address).expect("the connection is taken"));
                        }
                    }
                })
            })
            .collect();
        Load { stop, answered, clients }
    }

    fn await_more(&self) {
        let goal = self.answered.load(Ordering::Relaxed) + REQUESTS;
        within("answers", || {
            let has_failed = self.clients.iter().any(std::thread::JoinHandle::is_finished);
            assert!(!has_failed, "a client has seen a failure; it is told above");
            (self.answered.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("not one request fails");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

fn roll(driver: &str) {
    let deployment = Deployment::new().set("IO_DRIVER", driver);
    let _workers = deployment.workers::<1>();
    let mut serving = deployment.serve();
    let deployment = deployment.set("HTTP_PORT", &serving.address.port().to_string());
    let load = Load::start(&serving);
    for _ in 0..ROUNDS {
        load.await_more();
        let next = deployment.serve_unready("serve");
        // Two shards, each says so.
        within("the new process to listen", || {
            (next.process.stderr.text().matches("listening shard=").count() == 2).then_some(())
        });
        load.await_more();
        let previous = std::mem::replace(&mut serving, next);
        previous.process.signal(libc::SIGTERM);
        let ended = previous.process.finish();
        assert!(ended.status.success(), "{ended:?}");
        load.await_more();
    }
    let answered = load.finish();
    say(&format!("API replaced {ROUNDS} times on one port ({driver}): {answered} requests, none failed"));
}

#[test]
fn not_one_request_fails_while_the_process_is_replaced_with_epoll() {
    roll("epoll");
}

#[test]
fn not_one_request_fails_while_the_process_is_replaced() {
    roll("auto");
}
