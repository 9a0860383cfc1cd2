//! Raw requests that other projects test their HTTP parsers with, sent to the real program: nothing they hold may crash it,
//! hang it, or make two readers of one connection disagree.
//!
//! `deploy/corpora.sh` fetches them; `make test` does that by itself. What a request should come to is asked twice: of its
//! authors, whose verdict stands beside each request of gunicorn and http-parser (`verdicts` lists where RFC 9112 has
//! another), and of the parser as a pure function, which has to agree with the whole program however the bytes are split.

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "each suite uses its part of the harness")]
mod harness;

mod corpus;
mod gunicorn;
mod h2o;
mod http_parser;
mod prediction;
mod verdicts;
mod wire;
