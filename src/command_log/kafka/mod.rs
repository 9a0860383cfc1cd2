//! The command log in Apache Kafka: for several API processes and workers.
//!
//! Built on librdkafka. Keys are the ids of todos, spread over the partitions as the Java client does (murmur2), so that
//! programs in other languages agree on the order of a todo's commands. The producer is idempotent and waits for all
//! in-sync replicas. Consumers share a group for the division of work only: where to go on is what the store says.

mod appender;
mod backlog;
mod creation;
mod dead_letters;
mod doubt;
mod epochs;
mod events;
mod extents;
mod gathered;
mod groups;
mod held;
mod host;
mod link;
mod lost_brokers;
mod membership;
mod options;
mod place;
mod progress;
mod promise;
mod reader;
mod returned;
mod seat;
mod shape;
mod silence;
mod single_message;
mod spread;
mod topic;
mod topic_look;
mod trouble;
mod waiting;
mod watch;
mod workers;

pub use self::appender::KafkaAppender;
pub use self::creation::ensure_topic;
pub use self::dead_letters::{list_dead_letters, replay_dead_letters};
pub use self::groups::TopicGroups;
pub use self::host::KafkaHost;
pub use self::options::{KafkaOptions, KafkaSecurity};
pub use self::place::{Members, group_members, group_offsets, groups_of_topic, log_bounds, log_id, set_group_offsets};
pub use self::reader::KafkaReader;
pub use self::seat::Seat;
pub use self::watch::watch_topic;
pub use self::workers::{WorkerWatch, WorkersSeen};
