//! Where the servers are, and names and databases that no other test uses.

use std::sync::atomic::{AtomicU32, Ordering};

use million_rps::todo::TodoId;

/// The variable's value; without it the test cannot run, and says how it can.
pub fn required(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: these tests need real servers. Run `make test`, which starts them, or \
             `deploy/services.sh start DIR` and the lines that `deploy/services.sh env DIR` prints"
        )
    })
}

/// A name of letters, digits and hyphens that no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:x}-{number}", TodoId::new().as_u128() >> 32)
}

/// A database of its own, dropped at the end.
pub struct Database {
    /// Its name.
    pub name: String,
    /// For what a test asks the server itself.
    pub runtime: tokio::runtime::Runtime,
}

impl Database {
    /// Creates it.
    pub fn create() -> Database {
        let database = Database {
            name: unique("test"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
        };
        database.execute(&required("DATABASE_URL"), &format!("CREATE DATABASE \"{}\"", database.name));
        database
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let url = required("DATABASE_URL");
        let (server, query) = url.split_once('?').unwrap_or((&url, ""));
        let (server, _) = server.rsplit_once('/').expect("DATABASE_URL names a database");
        format!("{server}/{}?{query}", self.name)
    }

    /// Runs statements in the database at `url`.
    pub fn execute(&self, url: &str, statements: &str) {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
            tokio::spawn(connection);
            client.batch_execute(statements).await.expect("the statements work");
        });
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.execute(&required("DATABASE_URL"), &format!("DROP DATABASE \"{}\" WITH (FORCE)", self.name));
        }
    }
}
