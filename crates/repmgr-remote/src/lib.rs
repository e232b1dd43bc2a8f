//! A host where commands run: over SSH exactly as the user's own `ssh` would reach it
//! ([`SshHost`], libssh2 underneath), or this one ([`LocalHost`]).
//!
//! A [`Host`] makes [`Connection`]s, a connection runs one [`ShellCommand`] at a time, and a
//! running [`Process`] is read like a file. Every wait has a time limit and looks at the
//! cancellation token; a stream that was cut never passes for a complete one.
//!
//! This crate knows nothing of Barman, backups or PostgreSQL, and must not: it moves bytes
//! and exit statuses. It asks the user only through the [`Prompt`] it is given.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod command;
mod error;
mod frame;
mod host;
mod local;
mod process;
mod ssh;
mod text;

pub use command::{ShellCommand, quote};
pub use error::{ConnectError, ConnectErrorKind, Obstacle, RemoteError, RemoteErrorKind, TimeLimit};
pub use host::{Connection, Exit, Host, Input, Output, Process, StartOptions, run};
pub use local::LocalHost;
pub use ssh::{PlainSsh, Prompt, SshClient, SshHost, SshOptions};
pub use text::{one_line, shorten};
