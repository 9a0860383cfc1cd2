//! A Go program in the manner of the service that million-rps replaces: gin, and one question to Redis for each read. It
//! has a real Redis of its own, on the load's CPU, whose time is not counted.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::{Setting, free_address};
use crate::constant::ConstantResponse;
use crate::server::{Server, ServerError};
use crate::tools;

/// The program's name among those of the bench.
const PROGRAM: &str = "go_manner";
/// Where its sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/go-manner");

/// Builds the program.
///
/// # Errors
/// There is no Go, or the build fails: in words.
pub fn prepare(programs: &Path, build: bool) -> Result<(), String> {
    tools::build_go(SOURCES, &programs.join(PROGRAM), build)
}

/// Starts Redis with the response, and the program.
///
/// # Errors
/// [`ServerError`].
pub(super) fn start(setting: &Setting<'_>) -> Result<Server, ServerError> {
    let response = ConstantResponse::read(setting.unconditional).ok_or_else(|| io::Error::other("no response"))?;
    let redis_address = free_address()?;
    let mut redis = Command::new("redis-server");
    redis.args([
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--port",
        &redis_address.port().to_string(),
    ]);
    redis.arg("--dir").arg(std::path::absolute(setting.folder)?);
    let redis = Server::start_at(redis, &[], setting.folder, redis_address)?;
    set(redis_address, &key_of(setting.target), &response.body)?;

    let address = free_address()?;
    let mut command = Command::new(setting.programs.join(PROGRAM));
    command.env_remove("KAFKA_BROKERS").env_remove("JWT_SECRET");
    command.env("ADDRESS", address.to_string()).env("REDIS_ADDRESS", redis_address.to_string());
    // One thread at a time runs Go code, as everybody else has one worker.
    command.env("GOMAXPROCS", "1").env("GIN_MODE", "release");
    if let Some(brokers) = setting.kafka_brokers {
        command.env("KAFKA_BROKERS", brokers).env("KAFKA_TODO_TOPIC", "go-manner-commands");
    }
    let server = Server::start_at(command, &[setting.server_cpu], setting.folder, address)?;
    Ok(server.with_companion(redis))
}

/// Starts the program for writes alone, on the CPUs of the calling thread: it checks tokens made with `jwt_secret`, and hands
/// commands to Kafka without waiting for it.
///
/// # Errors
/// [`ServerError`].
pub fn start_for_writes(
    programs: &Path,
    folder: &Path,
    kafka_brokers: &str,
    topic: &str,
    jwt_secret: &str,
) -> Result<Server, ServerError> {
    let address = free_address()?;
    let mut command = Command::new(programs.join(PROGRAM));
    // Nobody reads, so there is no Redis.
    command.env("ADDRESS", address.to_string()).env("REDIS_ADDRESS", "127.0.0.1:1").env("GIN_MODE", "release");
    command.env("KAFKA_BROKERS", kafka_brokers).env("KAFKA_TODO_TOPIC", topic).env("JWT_SECRET", jwt_secret);
    Server::start_at(command, &[], folder, address)
}

/// The key under which the program looks for the answer: one for each limit, as the service that it stands for has.
fn key_of(target: &str) -> String {
    format!("todos:list:{}", target.split_once("limit=").map_or("all", |(_, limit)| limit))
}

/// `SET key value`.
fn set(redis: SocketAddr, key: &str, value: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(redis)?;
    write!(stream, "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len())?;
    stream.write_all(value)?;
    stream.write_all(b"\r\n")?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer)?;
    if &answer == b"+OK\r\n" { Ok(()) } else { Err(io::Error::other("Redis did not take the list")) }
}
