//! The producer: the one thread that moves commands from the shards' queue into the command log.
//!
//! The queue is a bounded lock-free channel; the thread takes whatever has come and hands it over as one batch, so that
//! the log can commit it together. Acknowledgements go back through [`ShardAcknowledgements`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::command_log::{
    Acknowledgement, AcknowledgementSink, CommandAppender, LogError, Refusal, Submission, Ticket,
};
use crate::observe::counter::{Counter, Histogram};
use crate::observe::status::{Component, Status};
use crate::wires::inbox::{InboxSender, Message};

/// Most commands of one batch: enough to fill a broker's batch for each partition, small enough that the first of them
/// does not wait long for the last to be copied.
const BATCH_MAX_COMMANDS: usize = 4096;

/// The bounded queue into the producer thread; each shard has a clone.
pub type SubmissionQueue = Sender<Submission>;

/// What the producer counts.
#[derive(Debug)]
pub struct ProducerMetrics {
    /// Commands taken from the queue.
    pub commands_taken: Counter,
    /// Commands of each batch.
    pub batch_commands: Histogram,
    /// Time for handing each batch to the log.
    pub append_time: Histogram,
}

impl Default for ProducerMetrics {
    fn default() -> ProducerMetrics {
        ProducerMetrics {
            commands_taken: Counter::default(),
            batch_commands: Histogram::of_sizes(),
            append_time: Histogram::of_times(),
        }
    }
}

/// The running producer thread.
pub struct Producer {
    thread: JoinHandle<()>,
}

impl Producer {
    /// The queue between shards and producer, `capacity` commands long.
    pub fn queue(capacity: usize) -> (SubmissionQueue, Receiver<Submission>) {
        crossbeam_channel::bounded(capacity)
    }

    /// Starts the thread. It ends when every sender of the queue is gone and the queue is empty, after the appender has
    /// had up to `close_deadline` to get its acknowledgements.
    ///
    /// # Errors
    /// The system refuses another thread.
    pub fn start(
        submissions: Receiver<Submission>,
        mut appender: Box<dyn CommandAppender>,
        close_deadline: Duration,
        metrics: Arc<ProducerMetrics>,
    ) -> std::io::Result<Producer> {
        let thread = std::thread::Builder::new().name("producer".into()).spawn(move || {
            let mut batch = Vec::with_capacity(BATCH_MAX_COMMANDS);
            while let Ok(first) = submissions.recv() {
                batch.push(first);
                batch.extend(submissions.try_iter().take(BATCH_MAX_COMMANDS - 1));
                metrics.commands_taken.add(batch.len() as u64);
                metrics.batch_commands.observe(batch.len() as u64);
                let started_at = Instant::now();
                appender.append(&mut batch);
                metrics.append_time.observe_time(started_at.elapsed());
            }
            appender.close(close_deadline);
        })?;
        Ok(Producer { thread })
    }

    /// The thread, for whoever waits for its end.
    pub fn into_thread(self) -> JoinHandle<()> {
        self.thread
    }
}

/// Makes and reads tickets: the shard's number stands in the top bits, the rest is the shard's own.
pub mod ticket {
    use super::Ticket;

    /// Bits of the shard's own number.
    pub const SEQUENCE_BITS: u32 = 50;
    /// Most shards of one process: the numbers that fit above the shard's own bits.
    pub const SHARDS_MAX: usize = 1 << (Ticket::BITS - SEQUENCE_BITS);

    /// The ticket number `sequence` of this shard.
    pub fn new(shard: usize, sequence: u64) -> Ticket {
        debug_assert!(shard < SHARDS_MAX && sequence >> SEQUENCE_BITS == 0);
        Ticket((shard as u64) << SEQUENCE_BITS | sequence)
    }

    /// The shard that made it.
    pub fn shard(ticket: Ticket) -> usize {
        (ticket.0 >> SEQUENCE_BITS) as usize
    }

    /// The number that the shard gave it.
    pub fn sequence(ticket: Ticket) -> u64 {
        ticket.0 & ((1 << SEQUENCE_BITS) - 1)
    }
}

/// How long a refusal outweighs the news that the log can be reached: a broker may answer questions and still take no
/// commands.
const REFUSAL_REMEMBERED: Duration = Duration::from_secs(10);

/// Sorts acknowledgements by shard and puts one message for each shard into its inbox: one wake-up per batch.
pub struct ShardAcknowledgements {
    inboxes: Vec<InboxSender>,
    status: Arc<Status>,
    refused_at: Mutex<Option<Instant>>,
}

impl ShardAcknowledgements {
    /// Acknowledges into these inboxes, in shard order, and tells `status` whether the log is well.
    pub fn new(inboxes: Vec<InboxSender>, status: Arc<Status>) -> ShardAcknowledgements {
        ShardAcknowledgements { inboxes, status, refused_at: Mutex::new(None) }
    }

    fn note_health(&self, acknowledgements: &[Acknowledgement]) {
        let refusals = acknowledgements.iter().filter_map(|acknowledgement| acknowledgement.result.err());
        if refusals.into_iter().any(Refusal::is_trouble) {
            self.status.trouble(Component::CommandLog, "commands were refused or not acknowledged in time");
            *self.last_refusal() = Some(Instant::now());
        } else if acknowledgements.iter().any(|acknowledgement| acknowledgement.result.is_ok()) {
            self.status.well(Component::CommandLog);
        }
    }

    fn last_refusal(&self) -> MutexGuard<'_, Option<Instant>> {
        self.refused_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AcknowledgementSink for ShardAcknowledgements {
    fn acknowledge(&self, acknowledgements: &mut Vec<Acknowledgement>) {
        self.note_health(acknowledgements);
        let mut for_shard: Vec<Vec<Acknowledgement>> = vec![Vec::new(); self.inboxes.len()];
        for acknowledgement in acknowledgements.drain(..) {
            for_shard[ticket::shard(acknowledgement.ticket)].push(acknowledgement);
        }
        for (inbox, acknowledgements) in self.inboxes.iter().zip(for_shard) {
            if !acknowledgements.is_empty() {
                inbox.send(Message::Acknowledgements(acknowledgements));
            }
        }
    }

    fn note_reachable(&self, reachable: Result<(), &LogError>) {
        match reachable {
            Err(error) => self.status.trouble(Component::CommandLog, &error.to_string()),
            Ok(()) => {
                self.status.log_reached();
                if self.last_refusal().is_none_or(|at| at.elapsed() >= REFUSAL_REMEMBERED) {
                    self.status.well(Component::CommandLog);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;
    use crate::todo::TodoId;
    use crate::wires::inbox::Inbox;

    /// Commands that are submitted in one go, by two shards in turn.
    const TOGETHER: usize = 64;
    const FIRST: usize = 1;

    /// A shard that takes a message as soon as it is woken and sleeps again at once, so that each message would cost it a
    /// wake-up of its own.
    struct EagerShard {
        inbox: Inbox,
        /// Acknowledgements that each wake-up brought.
        woken_for: Mutex<Vec<usize>>,
    }

    impl EagerShard {
        /// Takes what has come, and sleeps.
        fn sleep(self: &Arc<Self>) -> usize {
            let waker = Waker::from(Arc::clone(self));
            let mut taken = 0;
            while let Poll::Ready(message) = pin!(self.inbox.next()).poll(&mut Context::from_waker(&waker)) {
                match message {
                    Some(Message::Acknowledgements(acknowledgements)) => taken += acknowledgements.len(),
                    Some(_) => panic!("only acknowledgements are sent here"),
                    None => break,
                }
            }
            taken
        }
    }

    impl Wake for EagerShard {
        fn wake(self: Arc<Self>) {
            let taken = self.sleep();
            self.woken_for.lock().expect("not poisoned").push(taken);
        }
    }

    /// Holds the producer up in each batch, and tells of how many commands it is.
    struct Gate {
        appender: Box<dyn CommandAppender>,
        entered: Sender<usize>,
        opened: Receiver<()>,
        left: Sender<()>,
    }

    impl CommandAppender for Gate {
        fn append(&mut self, batch: &mut Vec<Submission>) {
            self.entered.send(batch.len()).expect("the test listens");
            self.opened.recv().expect("the test opens it");
            self.appender.append(batch);
            self.left.send(()).expect("the test listens");
        }

        fn close(&mut self, deadline: Duration) {
            self.appender.close(deadline);
        }
    }

    /// Submits one command, and `TOGETHER` more while the producer is busy with it. `release` is called when the log has
    /// them all. Returns the sizes of the producer's batches, and the acknowledgements of each wake-up of each shard.
    fn wake_ups(
        log: impl FnOnce(Arc<dyn AcknowledgementSink>) -> Box<dyn CommandAppender>,
        release: impl FnOnce(),
    ) -> (Vec<usize>, Vec<Vec<usize>>) {
        let (senders, shards): (Vec<InboxSender>, Vec<Arc<EagerShard>>) = (0..2)
            .map(|_| Inbox::new())
            .map(|(sender, inbox)| (sender, Arc::new(EagerShard { inbox, woken_for: Mutex::default() })))
            .unzip();
        shards.iter().for_each(|shard| assert_eq!(shard.sleep(), 0));
        let appender = log(Arc::new(ShardAcknowledgements::new(senders, Arc::default())));
        let ((entered, batches), (open, opened)) = (crossbeam_channel::unbounded(), crossbeam_channel::unbounded());
        let (left, done) = crossbeam_channel::unbounded();
        let gate = Gate { appender, entered, opened, left };
        let (queue, submissions) = Producer::queue(FIRST + TOGETHER);
        let metrics = Arc::new(ProducerMetrics::default());
        let close_deadline = Duration::from_secs(60);
        let producer =
            Producer::start(submissions, Box::new(gate), close_deadline, Arc::clone(&metrics)).expect("a thread");
        let submit = |number: usize| {
            let ticket = ticket::new(number % 2, number as u64);
            queue.try_send(Submission { ticket, id: TodoId::new(), payload: b"{}".to_vec() }).expect("there is room");
        };

        submit(0);
        let mut sizes = vec![batches.recv().expect("the producer runs")];
        (FIRST..FIRST + TOGETHER).for_each(submit);
        while sizes.iter().sum::<usize>() < FIRST + TOGETHER {
            open.send(()).expect("the producer waits");
            sizes.push(batches.recv().expect("the producer runs"));
        }
        open.send(()).expect("the producer waits");
        sizes.iter().for_each(|_| done.recv().expect("the producer runs"));
        release();
        drop(queue);
        producer.into_thread().join().expect("no panic");
        assert_eq!(metrics.commands_taken.get(), (FIRST + TOGETHER) as u64);
        assert_eq!(metrics.batch_commands.counts().sum::<u64>(), sizes.len() as u64);
        let woken_for = shards.iter().map(|shard| shard.woken_for.lock().expect("not poisoned").clone());
        (sizes, woken_for.collect())
    }

    // The producer sleeps in one place, where it waits for the first command of a batch: it is woken once per batch at most.
    #[test]
    fn commands_that_came_together_cost_one_batch_of_the_producer_and_one_wake_up_of_each_shard() {
        let folder = tempfile::tempdir().expect("a folder");
        let data_dir = crate::data_dir::DataDir::open(folder.path()).expect("opened");
        let log = |sink| {
            let (appender, _reader) = crate::command_log::embedded::open(&data_dir, sink).expect("opened");
            Box::new(appender) as Box<dyn CommandAppender>
        };
        let (batches, woken_for) = wake_ups(log, || ());
        assert_eq!(batches, [FIRST, TOGETHER]);
        assert_eq!(woken_for, [vec![FIRST, TOGETHER / 2], vec![TOGETHER / 2]]);
    }

    #[cfg(feature = "services")]
    #[test]
    fn commands_that_a_broker_acknowledges_together_cost_one_wake_up_of_each_shard() {
        use crate::command_log::kafka::{KafkaAppender, KafkaHost, KafkaOptions};

        let brokers = rdkafka::mocking::MockCluster::new(1).expect("brokers within this process");
        brokers.create_topic("todo-commands", 1, 1).expect("created");
        // Until it is back, everything waits in one queue, and goes there in one request.
        brokers.broker_down(1).expect("stopped");
        let log = |sink| {
            let mut options = KafkaOptions::new(&brokers.bootstrap_servers(), "todo-commands");
            options.acknowledge_timeout_ms = 60_000;
            let host = KafkaHost::of_known_topic(1);
            Box::new(KafkaAppender::within(host, options, sink).expect("usable options")) as Box<dyn CommandAppender>
        };
        let (batches, woken_for) = wake_ups(log, || brokers.broker_up(1).expect("started"));
        assert_eq!(batches, [FIRST, TOGETHER]);
        assert_eq!(woken_for, [vec![FIRST + TOGETHER / 2], vec![TOGETHER / 2]]);
    }

    #[test]
    fn a_ticket_keeps_its_shard_and_its_number() {
        for (shard, sequence) in [(0, 0), (1, 1), (ticket::SHARDS_MAX - 1, (1 << ticket::SEQUENCE_BITS) - 1)] {
            let made = ticket::new(shard, sequence);
            assert_eq!((ticket::shard(made), ticket::sequence(made)), (shard, sequence));
            assert!(made.0 <= Ticket::MAX.0);
        }
    }

    #[test]
    fn a_log_that_answers_but_takes_no_commands_stays_in_trouble() {
        let status = Arc::new(Status::default());
        let sink = ShardAcknowledgements::new(Vec::new(), Arc::clone(&status));
        let unreachable = LogError::Unavailable("no broker".into());
        sink.note_reachable(Err(&unreachable));
        assert!(status.troubles()[0].1.contains("no broker"), "{:?}", status.troubles());
        sink.note_reachable(Ok(()));
        assert_eq!(status.troubles(), []);
        sink.note_health(&[Acknowledgement::refused(Ticket(0), Refusal::Unavailable)]);
        sink.note_reachable(Ok(()));
        assert_eq!(status.troubles().len(), 1);
        sink.note_health(&[Acknowledgement::durable(Ticket(1), None)]);
        assert_eq!(status.troubles(), []);
    }
}
