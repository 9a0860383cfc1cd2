//! Commands as they stand on the log, and a producer that puts them there: what the product's API does, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};

use crate::deployment::{AllServices, PARTITIONS, ServiceError};

/// How long the product waits for company to a message, by its own default, in milliseconds.
pub const LINGER_MS: u64 = 1;
/// How the product compresses, by its own default.
pub const COMPRESSION: &str = "lz4";

/// Everything that was produced is acknowledged within it.
const ACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);
/// When the todos of the bench begin, in milliseconds since 1970: their ids and times follow from their numbers.
const FIRST_MS: u64 = 1_700_000_000_000;

/// A todo of the bench; everything in it follows from its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its id, a UUID of version 7.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its description.
    pub description: String,
    /// When it was made, in microseconds since 1970.
    pub created_at_us: i64,
}

impl Row {
    /// The todo of this number.
    pub fn new(number: u64) -> Row {
        let ms = FIRST_MS + number / 8;
        // What stands for chance in the id: the number's bits, well mixed, so that ids spread over the partitions.
        let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = mixed ^ (mixed >> 29);
        let tail = mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16;
        let id = format!(
            "{:08x}-{:04x}-7{:03x}-{:04x}-{tail:012x}",
            ms >> 16,
            ms & 0xffff,
            number % 8 * 0x100,
            0x8000 | (mixed & 0x3fff)
        );
        Row {
            id,
            title: format!("Todo {number} of the bench"),
            description: "Made to be measured: what does this todo cost, and how soon is it there?".into(),
            created_at_us: i64::try_from(ms * 1_000 + number % 8).unwrap_or(i64::MAX),
        }
    }

    fn time(&self) -> String {
        let time = jiff::Timestamp::from_microsecond(self.created_at_us).unwrap_or_default();
        time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
    }

    /// The command that makes it.
    pub fn create(&self, user: &str) -> String {
        let Row { id, title, description, .. } = self;
        let time = self.time();
        format!(
            "{{\"action\":\"create\",\"id\":\"{id}\",\"title\":\"{title}\",\"description\":\"{description}\",\
             \"completed\":false,\"user_id\":\"{user}\",\"requested_at\":\"{time}\"}}"
        )
    }

    /// A command that changes it.
    pub fn update(&self, user: &str) -> String {
        let (id, time) = (&self.id, self.time());
        format!(
            "{{\"action\":\"update\",\"id\":\"{id}\",\"title\":\"{}, changed\",\"completed\":true,\"user_id\":\"{user}\",\
             \"requested_at\":\"{time}\"}}",
            self.title
        )
    }

    /// The command that removes it.
    pub fn delete(&self, user: &str) -> String {
        let (id, time) = (&self.id, self.time());
        format!("{{\"action\":\"delete\",\"id\":\"{id}\",\"user_id\":\"{user}\",\"requested_at\":\"{time}\"}}")
    }
}

/// A producer of librdkafka with what a 202 of the product promises: idempotent, acknowledged by all replicas.
pub struct Producer {
    producer: BaseProducer<Acknowledged>,
    acknowledged: Arc<AtomicU64>,
}

struct Acknowledged(Arc<AtomicU64>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_ok() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Which partition a message goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    /// The one that its key falls to: messages of one moment spread over all.
    ByKey,
    /// The one whose turn it is in this millisecond, which is where the product's ids of new todos fall to.
    ByMillisecond,
}

impl Producer {
    /// A producer with the product's settings, but these (names and values of librdkafka).
    ///
    /// # Errors
    /// librdkafka refuses one.
    pub fn new(services: &AllServices, changed: &[(&str, &str)]) -> Result<Producer, ServiceError> {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut config = services.kafka_config();
        config.set("acks", "all").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        config.set("linger.ms", LINGER_MS.to_string()).set("compression.type", COMPRESSION);
        config.set("max.in.flight.requests.per.connection", "1");
        config.set("queue.buffering.max.messages", "1000000").set("socket.nagle.disable", "true");
        for (name, value) in changed {
            config.set(*name, *value);
        }
        Ok(Producer { producer: config.create_with_context(Acknowledged(acknowledged.clone()))?, acknowledged })
    }

    /// Puts all of these into the topic and waits until they are acknowledged.
    ///
    /// # Errors
    /// The broker refuses, or takes too long.
    pub fn fill(&self, topic: &str, commands: impl Iterator<Item = (String, String)>) -> Result<(), ServiceError> {
        let before = self.acknowledged.load(Ordering::Relaxed);
        let mut sent = 0;
        for (key, payload) in commands {
            self.send(BaseRecord::to(topic).key(key.as_str()).payload(payload.as_bytes()))?;
            sent += 1;
        }
        self.producer.flush(ACKNOWLEDGED_MAX)?;
        match self.acknowledged.load(Ordering::Relaxed) - before {
            acknowledged if acknowledged == sent => Ok(()),
            acknowledged => Err(format!("{acknowledged} of {sent} commands were acknowledged").into()),
        }
    }

    fn send(&self, mut record: BaseRecord<'_, str, [u8]>) -> Result<(), KafkaError> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, refused)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    self.producer.poll(Duration::from_millis(1));
                    record = refused;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// The records that stand in a topic of [`PARTITIONS`] partitions, whoever has put them there.
    ///
    /// # Errors
    /// The broker does not tell.
    pub fn records(&self, topic: &str) -> Result<u64, ServiceError> {
        let mut records = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = self.producer.client().fetch_watermarks(topic, partition, ACKNOWLEDGED_MAX)?;
            records += u64::try_from(high - low)?;
        }
        Ok(records)
    }

    /// Sends creates for `duration`, each as soon as an earlier one is acknowledged, so that `in_flight` are always on
    /// their way; returns how many were acknowledged, and over which time.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn load(
        &self,
        topic: &str,
        partitions: Partitions,
        in_flight: u64,
        duration: Duration,
    ) -> Result<(u64, Duration), ServiceError> {
        // Made before the clock starts: what is measured is the producer.
        let rows: Vec<(String, String)> = (0..10_000).map(Row::new).map(|row| (row.create("bench"), row.id)).collect();
        let base = self.acknowledged.load(Ordering::Relaxed);
        let mut sent = 0;
        let begin = Instant::now();
        while begin.elapsed() < duration {
            let acknowledged = self.acknowledged.load(Ordering::Relaxed) - base;
            let turn = (begin.elapsed().as_millis() % PARTITIONS as u128) as i32;
            while sent < acknowledged + in_flight {
                let (payload, key) = &rows[sent as usize % rows.len()];
                let record = BaseRecord::to(topic).key(key.as_str()).payload(payload.as_bytes());
                self.send(match partitions {
                    Partitions::ByKey => record,
                    Partitions::ByMillisecond => record.partition(turn),
                })?;
                sent += 1;
            }
            // The crate's poll returns after its whole timeout: as short as it can be without spinning.
            self.producer.poll(Duration::ZERO);
            if self.acknowledged.load(Ordering::Relaxed) - base == acknowledged {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        let (acknowledged, elapsed) = (self.acknowledged.load(Ordering::Relaxed) - base, begin.elapsed());
        self.producer.flush(ACKNOWLEDGED_MAX)?;
        Ok((acknowledged, elapsed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_defaults_are_the_ones_here() {
        let settings = include_str!("../../.env.example");
        for default in [format!("#KAFKA_LINGER_MS={LINGER_MS}\n"), format!("#KAFKA_COMPRESSION={COMPRESSION}\n")] {
            assert!(settings.contains(&default), "{default}");
        }
    }

    #[test]
    fn rows_differ_and_their_ids_are_uuids_in_the_order_of_their_times() {
        let rows: Vec<Row> = (0..1_000).map(Row::new).collect();
        for pair in rows.windows(2) {
            assert!(pair[0].id < pair[1].id && pair[0].created_at_us < pair[1].created_at_us, "{pair:?}");
        }
        let id = &rows[9].id;
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!((lengths, &id[14..15]), (vec![8, 4, 4, 4, 12], "7"));
        let create: serde_json::Value = serde_json::from_str(&rows[9].create("me")).expect("JSON");
        assert_eq!((&create["action"], &create["id"]), (&"create".into(), &id.as_str().into()));
        assert_eq!(create["requested_at"], "2023-11-14T22:13:20.001001Z");
    }
}
