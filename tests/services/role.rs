//! A role of the database server.

use crate::servers::{Database, unique};

/// A role that may log in and nothing else, dropped at the end.
pub struct Role<'d> {
    database: &'d Database,
    /// Its name.
    pub name: String,
}

impl<'d> Role<'d> {
    /// Creates it; from then on only the owner creates tables.
    pub fn create(database: &'d Database) -> Role<'d> {
        let name = unique("role");
        database.execute(&database.url(), &format!("CREATE ROLE \"{name}\" LOGIN"));
        database.execute(&database.url(), "REVOKE CREATE ON SCHEMA public FROM public");
        Role { database, name }
    }

    /// The database's URL, for this role.
    pub fn url(&self) -> String {
        let url = self.database.url();
        let (_, place) = url.rsplit_once('@').unwrap_or_else(|| url.split_once("://").expect("a URL"));
        format!("postgres://{}@{place}", self.name)
    }

    /// Gives it a right.
    pub fn grant(&self, right: &str) {
        self.database.execute(&self.database.url(), &format!("GRANT {right} TO \"{}\"", self.name));
    }
}

impl Drop for Role<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let drop = format!("DROP OWNED BY \"{0}\"; DROP ROLE \"{0}\"", self.name);
            self.database.execute(&self.database.url(), &drop);
        }
    }
}
