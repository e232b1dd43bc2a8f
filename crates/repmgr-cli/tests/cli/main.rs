//! The `repmgr` program, as far as it goes without a Barman server.

mod config;
mod documents;
mod handover;
mod logging;
mod options;
mod program;
