//! What the read load is sent to: ours, the two floors, and others' servers that return the same bytes.

mod caches;
pub mod go_manner;
mod h2o;
mod nginx;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{Product, Server, ServerError};

/// What a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The product, with real todos.
    Ours,
    /// A limit, not a server: counts the ends of requests and writes a constant.
    Floor,
    /// Somebody's server that parses requests and returns a constant.
    Rival,
}

impl Kind {
    /// What one of this name is called in tables.
    pub fn label(self, name: &str) -> String {
        match self {
            Kind::Ours => format!("**{name}**"),
            Kind::Floor => format!("{name} (a limit, not a server)"),
            Kind::Rival => name.to_owned(),
        }
    }
}

/// One of those that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, also on the command line.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Product,
    /// A program of the bench that takes the response from a file.
    Program(&'static str),
    Nginx,
    H2o,
    Haproxy,
    Varnish,
    GoManner,
}

/// All candidates, in the order of the tables.
pub const CANDIDATES: &[Candidate] = &[
    Candidate { name: "million-rps", kind: Kind::Ours, how: How::Product },
    Candidate { name: "floor-epoll", kind: Kind::Floor, how: How::Program("floor_epoll") },
    Candidate { name: "floor-io_uring", kind: Kind::Floor, how: How::Program("floor_uring") },
    Candidate { name: "may_minihttp", kind: Kind::Rival, how: How::Program("rival_may_minihttp") },
    Candidate { name: "xitca-web", kind: Kind::Rival, how: How::Program("rival_xitca_web") },
    Candidate { name: "actix-web", kind: Kind::Rival, how: How::Program("rival_actix_web") },
    Candidate { name: "ntex", kind: Kind::Rival, how: How::Program("rival_ntex") },
    Candidate { name: "axum", kind: Kind::Rival, how: How::Program("rival_axum") },
    Candidate { name: "monoio-http", kind: Kind::Rival, how: How::Program("rival_monoio_http") },
    Candidate { name: "nginx", kind: Kind::Rival, how: How::Nginx },
    Candidate { name: "h2o", kind: Kind::Rival, how: How::H2o },
    Candidate { name: "haproxy-cache", kind: Kind::Rival, how: How::Haproxy },
    Candidate { name: "varnish", kind: Kind::Rival, how: How::Varnish },
    Candidate { name: "go-manner", kind: Kind::Rival, how: How::GoManner },
];

/// What a candidate needs to start.
pub struct Setting<'s> {
    /// Ours, seeded.
    pub product: &'s Product,
    /// The folder of the bench's programs.
    pub programs: &'s Path,
    /// What is asked for.
    pub target: &'s str,
    /// The response that all others return, as ours gave it.
    pub response: &'s [u8],
    /// What follows it, one after the other and then again from the first: of the floors alone.
    pub in_turn: &'s [Vec<u8>],
    /// The same where the request has no condition: what caches take from their origin.
    pub unconditional: &'s [u8],
    /// A folder for files of this start.
    pub folder: &'s Path,
    /// The CPU to run on.
    pub server_cpu: usize,
    /// Kafka, for those that write to it.
    pub kafka_brokers: Option<&'s str>,
}

impl Candidate {
    /// The candidate of this name.
    pub fn named(name: &str) -> Option<&'static Candidate> {
        CANDIDATES.iter().find(|candidate| candidate.name == name)
    }

    /// What it is called in tables.
    pub fn label(&self) -> String {
        self.kind.label(self.name)
    }

    /// The candidate that is called so in tables.
    pub fn labelled(label: &str) -> Option<&'static Candidate> {
        CANDIDATES.iter().find(|candidate| candidate.label() == label)
    }

    /// Whether it can hold a response of megabytes: nginx's `return` takes what fits into its configuration. What nginx does
    /// with a file, sendfile(2) from the page cache without a copy, is another thing than a constant from memory.
    pub fn holds_long_lists(&self) -> bool {
        self.how != How::Nginx
    }

    /// Makes the candidate ready to be started.
    ///
    /// # Errors
    /// Why the candidate cannot be measured here, in words.
    pub fn prepare(&self, programs: &Path, build: bool) -> Result<(), String> {
        match self.how {
            How::Product => Ok(()),
            How::Program(program) if programs.join(program).exists() => Ok(()),
            How::Program(_) if self.kind == Kind::Rival && !cfg!(feature = "rivals") => {
                Err("the bench was built without `--features rivals`".into())
            }
            How::Program(program) => Err(format!("its build failed: there is no {program}")),
            How::Nginx => can_be_started("nginx", "-v", "nginx-light"),
            How::H2o => can_be_started("h2o", "-v", "h2o"),
            How::Haproxy => can_be_started("haproxy", "-v", "haproxy"),
            How::Varnish => can_be_started("varnishd", "-V", "varnish"),
            How::GoManner => {
                can_be_started("redis-server", "-v", "redis-server")?;
                go_manner::prepare(programs, build)
            }
        }
    }

    /// Whether the candidate knows conditional requests, or returns a constant 304.
    pub fn answers_conditional_requests(&self) -> bool {
        self.how != How::GoManner
    }

    /// Whether the candidate takes writes.
    pub fn takes_writes(&self) -> bool {
        matches!(self.how, How::Product | How::GoManner)
    }

    /// Starts the candidate.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn start(&self, setting: &Setting<'_>) -> Result<Server, ServerError> {
        match self.how {
            How::Product => setting.product.start(setting.server_cpu),
            How::Program(program) => {
                let behind = setting.in_turn.iter().map(Vec::as_slice);
                let responses: Vec<&[u8]> = std::iter::once(setting.response).chain(behind).collect();
                start_program(program, &responses, setting, Some(setting.server_cpu))
            }
            How::Nginx => nginx::start(setting),
            How::H2o => h2o::start(setting),
            How::Haproxy => caches::start_haproxy(setting),
            How::Varnish => caches::start_varnish(setting),
            How::GoManner => go_manner::start(setting),
        }
    }
}

pub(crate) fn can_be_started(program: &str, version: &str, package: &str) -> Result<(), String> {
    let answer = Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let hint = format!("(Debian: apt install {package}, or deploy/setup.sh bench)");
    answer.map(drop).map_err(|error| format!("{program} cannot be started: {error} {hint}"))
}

/// Starts a program of the bench with constant responses; without a CPU it runs where the load does.
fn start_program(
    program: &str,
    responses: &[&[u8]],
    setting: &Setting<'_>,
    cpu: Option<usize>,
) -> Result<Server, ServerError> {
    let mut command = Command::new(setting.programs.join(program));
    for (number, response) in responses.iter().enumerate() {
        let path = setting.folder.join(format!("{program}.response{number}"));
        std::fs::write(&path, response)?;
        command.arg("--response").arg(path);
    }
    Server::start(command, cpu.as_slice(), setting.folder)
}

/// An address for programs that cannot tell which port they have got: one that is free now will be free a moment later.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
