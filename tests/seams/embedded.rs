//! The embedded sides of the seams: segment files, SQLite, the in-process channel.

use std::sync::Arc;

use million_rps::command_log::embedded::{self, list_dead_letters};
use million_rps::command_log::{AcknowledgementSink, CommandAppender, CommandReader, DeadLetter};
use million_rps::data_dir::DataDir;
use million_rps::feed::in_process;
use million_rps::feed::{FeedPublisher, FeedSubscriber};
use million_rps::store::Store;
use million_rps::store::sqlite::SqliteStore;
use tempfile::TempDir;

use crate::feed_suite::FeedFixture;
use crate::log_suite::LogFixture;
use crate::store_suite::StoreFixture;

/// A data folder that goes with the case.
pub struct Embedded {
    pub data_dir: DataDir,
    _folder: TempDir,
}

impl Embedded {
    pub fn new() -> Embedded {
        let folder = tempfile::tempdir().expect("temporary folder");
        Embedded { data_dir: DataDir::open(folder.path()).expect("opened"), _folder: folder }
    }

    pub fn sqlite(&self) -> SqliteStore {
        SqliteStore::open(&self.data_dir.store_path()).expect("opened")
    }
}

impl LogFixture for Embedded {
    fn open(&self, sink: Arc<dyn AcknowledgementSink>) -> (Box<dyn CommandAppender>, Box<dyn CommandReader>) {
        let (appender, reader) = embedded::open(&self.data_dir, sink).expect("opened");
        (Box::new(appender), Box::new(reader))
    }

    fn dead_letters(&self) -> Vec<DeadLetter> {
        list_dead_letters(&self.data_dir).expect("readable")
    }
}

impl StoreFixture for Embedded {
    fn connect(&self) -> Box<dyn Store> {
        Box::new(self.sqlite())
    }
}

impl FeedFixture for Embedded {
    fn open(&self) -> (Box<dyn FeedPublisher>, Box<dyn FeedSubscriber>) {
        let (publisher, subscriber) = in_process::channel();
        (Box::new(publisher), Box::new(subscriber))
    }

    fn store(&self) -> Box<dyn Store> {
        let mut store = self.sqlite();
        store.migrate().expect("migrated");
        Box::new(store)
    }
}

mod log {
    log_suite!(super::Embedded::new);
}

mod store {
    store_suite!(super::Embedded::new);
}

mod feed {
    feed_suite!(super::Embedded::new);
}
