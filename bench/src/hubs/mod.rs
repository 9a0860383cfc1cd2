//! Who sends changes to followers: ours, the floor, and others' servers that are told of a change and pass it on.

mod centrifugo;
mod mercure;
mod nchan;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::candidate::{Kind, free_address};
use crate::client::get;
use crate::followers::MARK;
use crate::server::{Product, Server, ServerError};
use crate::writes;

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hub {
    /// Its name, also on the command line.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Product,
    Floor,
    Nchan,
    Mercure,
    Centrifugo,
}

/// All of them, in the order of the tables.
pub const HUBS: &[Hub] = &[
    Hub { name: "million-rps", kind: Kind::Ours, how: How::Product },
    Hub { name: "floor", kind: Kind::Floor, how: How::Floor },
    Hub { name: "nchan", kind: Kind::Rival, how: How::Nchan },
    Hub { name: "mercure", kind: Kind::Rival, how: How::Mercure },
    Hub { name: "centrifugo", kind: Kind::Rival, how: How::Centrifugo },
];

/// What a hub needs to start.
pub struct Setting<'s> {
    /// Ours, seeded.
    pub product: &'s Product,
    /// A token of the user whose todos are changed.
    pub token: &'s str,
    /// The todos that are changed, one after the other.
    pub todo_ids: &'s [String],
    /// The folder of the bench's programs.
    pub programs: &'s Path,
    /// Where files may be put.
    pub folder: &'s Path,
    /// Where the hub runs.
    pub server_cpu: usize,
}

/// A hub that runs.
pub struct Running {
    /// Its process.
    pub server: Server,
    how: How,
    token: String,
    todo_ids: Vec<String>,
}

impl Hub {
    /// Whether it can be had.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn prepare(&self, programs: &Path, build: bool) -> Result<(), String> {
        match self.how {
            How::Product | How::Floor => Ok(()),
            How::Nchan => nchan::module().map(drop),
            How::Mercure => mercure::prepare(programs, build),
            How::Centrifugo => centrifugo::program().map(drop),
        }
    }

    /// Starts it on its CPU.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(&self, setting: &Setting<'_>) -> Result<Running, ServerError> {
        let cpus = &[setting.server_cpu];
        let server = match self.how {
            How::Product => setting.product.start(setting.server_cpu)?,
            How::Floor => Server::start(Command::new(setting.programs.join("floor_events")), cpus, setting.folder)?,
            How::Nchan => start_at(setting, nchan::command)?,
            How::Mercure => Server::start(mercure::command(setting.programs), cpus, setting.folder)?,
            How::Centrifugo => start_at(setting, centrifugo::command)?,
        };
        let (token, todo_ids) = (setting.token.to_owned(), setting.todo_ids.to_vec());
        Ok(Running { server, how: self.how, token, todo_ids })
    }
}

fn start_at(
    setting: &Setting<'_>,
    command: fn(&Path, SocketAddr) -> io::Result<Command>,
) -> Result<Server, ServerError> {
    let address = free_address()?;
    let command = command(&std::path::absolute(setting.folder)?, address)?;
    Server::start_at(command, &[setting.server_cpu], setting.folder, address)
}

impl Running {
    /// What a follower sends.
    pub fn follow(&self) -> Vec<u8> {
        match self.how {
            How::Product | How::Floor => get("/todos/events"),
            How::Nchan => nchan::follow(),
            How::Mercure => mercure::follow(),
            How::Centrifugo => centrifugo::follow(),
        }
    }

    /// What tells of the change of this number.
    pub fn publish(&self, number: usize) -> Vec<u8> {
        let id = &self.todo_ids[number % self.todo_ids.len()];
        let title = format!("{}change {number:08}", char::from(MARK));
        // What ours sends, of the same length.
        let todo = || {
            format!(
                "{{\"id\":\"{id}\",\"title\":\"{title}\",\"description\":\"\",\"completed\":false,\"user_id\":\"bench\",\
                 \"created_at\":\"2026-11-30T12:00:00.000000Z\",\"updated_at\":\"2026-11-30T12:00:00.000000Z\"}}"
            )
        };
        match self.how {
            How::Product => {
                writes::request("PUT", &format!("/todos/{id}"), &self.token, &format!("{{\"title\":\"{title}\"}}"))
            }
            How::Floor => post("/publish", "", &todo()),
            How::Nchan => nchan::publish(&todo()),
            How::Mercure => mercure::publish(&todo()),
            How::Centrifugo => centrifugo::publish(&todo()),
        }
    }
}

/// A POST with these further lines in its head.
fn post(target: &str, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {target} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// A GET for an event stream.
fn get_stream(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").into_bytes()
}
