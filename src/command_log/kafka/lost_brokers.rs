//! Gives a client of librdkafka its brokers again.
//!
//! librdkafka forgets every broker that an answer about the topic does not name. A cluster whose only broker has just come back
//! names none for a moment, the client is left without any, and when its own new beginning and such an answer cross, nothing
//! makes it begin again (librdkafka's issue 5301, version 2.12): it stays silent for ever, beside brokers that answer
//! everybody else. Adding the brokers of the settings once more ends that, and does nothing where they are known.

use std::ffi::CString;
use std::time::{Duration, Instant};

use rdkafka::bindings as librdkafka;
use rdkafka::client::{Client, ClientContext};

use crate::command_log::kafka::options::KafkaOptions;

/// Pause before the first attempt: what librdkafka does by itself is over by then. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Attempts after one sign of trouble. librdkafka keeps the text of each as long as the client lives.
const ATTEMPTS_MAX: u32 = 10;

/// When a client is given its brokers again.
pub(super) struct LostBrokers {
    brokers: CString,
    attempts: u32,
    next_at: Option<Instant>,
}

impl LostBrokers {
    /// Nothing is lost yet.
    pub fn new(options: &KafkaOptions) -> LostBrokers {
        // A list with a NUL in it has been refused by librdkafka.
        LostBrokers { brokers: CString::new(options.brokers.as_str()).unwrap_or_default(), attempts: 0, next_at: None }
    }

    /// The client may be without brokers: it has told of an error, or does not get anything done.
    pub fn note_silence(&mut self) {
        if self.next_at.is_none() {
            self.attempts = 0;
            self.next_at = Some(Instant::now() + PAUSE_MIN);
        }
    }

    /// A broker has answered the client.
    pub fn note_answer(&mut self) {
        self.next_at = None;
    }

    /// Gives the client its brokers again when that is due.
    pub fn look<C: ClientContext>(&mut self, client: &Client<C>) {
        let now = Instant::now();
        if self.next_at.is_none_or(|at| now < at) {
            return;
        }
        tracing::debug!(target: "librdkafka", attempts = self.attempts, "adding the brokers of the settings again");
        // SAFETY: the client lives as long as it is borrowed; the text ends with NUL and is copied.
        unsafe { librdkafka::rd_kafka_brokers_add(client.native_ptr(), self.brokers.as_ptr()) };
        self.attempts += 1;
        let pause = PAUSE_MIN.saturating_mul(1 << self.attempts.min(16)).min(PAUSE_MAX);
        self.next_at = (self.attempts < ATTEMPTS_MAX).then(|| now + pause);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rdkafka::producer::{BaseProducer, Producer};

    use super::*;

    const API_VERSIONS: i16 = 18;
    const METADATA: i16 = 3;
    /// "This version of the request is not known", which makes a client ask for versions in the oldest form.
    const UNSUPPORTED_VERSION: i16 = 35;
    const LEADER_NOT_AVAILABLE: i16 = 5;
    const TOPIC: &str = "todo-commands";

    /// A broker that knows versions and metadata (Kafka's protocol guide, ApiVersions 0 and Metadata 4), and names itself as
    /// the only broker or none.
    struct Broker {
        port: u16,
        names_itself: Arc<AtomicBool>,
    }

    impl Broker {
        fn start() -> Broker {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = listener.local_addr().expect("bound").port();
            let names_itself = Arc::new(AtomicBool::new(true));
            let shared = names_itself.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let names_itself = shared.clone();
                    std::thread::spawn(move || serve(stream, port, &names_itself));
                }
            });
            Broker { port, names_itself }
        }

        fn name_itself(&self, does: bool) {
            self.names_itself.store(does, Ordering::SeqCst);
        }
    }

    /// Answers until the client leaves.
    fn serve(mut stream: TcpStream, port: u16, names_itself: &AtomicBool) -> Option<()> {
        loop {
            let mut length = [0; 4];
            stream.read_exact(&mut length).ok()?;
            let mut request = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut request).ok()?;
            let number = |at: usize| i16::from_be_bytes([request[at], request[at + 1]]);
            let mut answer = request[4..8].to_vec();
            match (number(0), number(2)) {
                (API_VERSIONS, version) => {
                    answer.extend(if version == 0 { 0 } else { UNSUPPORTED_VERSION }.to_be_bytes());
                    answer.extend(2_i32.to_be_bytes());
                    [[API_VERSIONS, 0, 0], [METADATA, 4, 4]]
                        .concat()
                        .iter()
                        .for_each(|n| answer.extend(n.to_be_bytes()));
                }
                (METADATA, 4) => write_metadata(&mut answer, port, names_itself.load(Ordering::SeqCst)),
                unknown => panic!("nobody asks for that here: {unknown:?}"),
            }
            stream.write_all(&(answer.len() as i32).to_be_bytes()).and_then(|()| stream.write_all(&answer)).ok()?;
        }
    }

    fn write_metadata(answer: &mut Vec<u8>, port: u16, names_itself: bool) {
        let text = |answer: &mut Vec<u8>, text: &str| {
            answer.extend((text.len() as i16).to_be_bytes());
            answer.extend(text.as_bytes());
        };
        // How long the client was held up.
        answer.extend(0_i32.to_be_bytes());
        answer.extend(i32::from(names_itself).to_be_bytes());
        if names_itself {
            answer.extend(1_i32.to_be_bytes());
            text(answer, "127.0.0.1");
            answer.extend(i32::from(port).to_be_bytes());
            // No rack.
            answer.extend((-1_i16).to_be_bytes());
        }
        text(answer, "cluster");
        let leader = if names_itself { 1_i32 } else { -1 };
        answer.extend(leader.to_be_bytes());
        answer.extend(1_i32.to_be_bytes());
        answer.extend(0_i16.to_be_bytes());
        text(answer, TOPIC);
        // Not one of the cluster's own; one partition.
        answer.push(0);
        answer.extend(1_i32.to_be_bytes());
        answer.extend(if names_itself { 0 } else { LEADER_NOT_AVAILABLE }.to_be_bytes());
        answer.extend(0_i32.to_be_bytes());
        answer.extend(leader.to_be_bytes());
        for _replicas_and_in_sync in 0..2 {
            answer.extend(1_i32.to_be_bytes());
            answer.extend(1_i32.to_be_bytes());
        }
    }

    fn brokers_known(client: &Client<impl ClientContext>) -> Option<usize> {
        client.fetch_metadata(Some(TOPIC), Duration::from_secs(1)).ok().map(|metadata| metadata.brokers().len())
    }

    #[test]
    fn a_client_that_was_told_of_no_broker_finds_them_again() {
        let broker = Broker::start();
        let options = KafkaOptions::new(&format!("127.0.0.1:{}", broker.port), TOPIC);
        let producer: BaseProducer = options.client_config().create().expect("usable options");
        let mut lost = LostBrokers::new(&options);
        // Several times: librdkafka begins again by itself now and then, as its threads happen to run.
        for _ in 0..5 {
            let start = Instant::now();
            while brokers_known(producer.client()) != Some(1) {
                lost.note_silence();
                lost.look(producer.client());
                assert!(start.elapsed() < Duration::from_secs(30), "the broker answers, and is not asked");
            }
            lost.note_answer();
            broker.name_itself(false);
            while brokers_known(producer.client()).is_some_and(|brokers| brokers > 0) {}
            broker.name_itself(true);
        }
    }

    #[test]
    fn attempts_become_rare_and_end() {
        let options = KafkaOptions::new("127.0.0.1:1", TOPIC);
        let producer: BaseProducer = options.client_config().create().expect("usable options");
        let mut lost = LostBrokers::new(&options);
        lost.look(producer.client());
        assert_eq!((lost.attempts, lost.next_at), (0, None));
        lost.note_silence();
        lost.look(producer.client());
        assert_eq!(lost.attempts, 0, "not at once");
        let mut pauses = Vec::new();
        while lost.next_at.is_some() {
            let now = Instant::now();
            lost.next_at = Some(now);
            lost.look(producer.client());
            pauses.extend(lost.next_at.map(|at| (at - now).as_secs()));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60, 60]);
        lost.note_silence();
        assert!(lost.attempts == 0 && lost.next_at.is_some());
        lost.note_answer();
        assert_eq!(lost.next_at, None);
    }
}
