//! The shortest clone: what is indispensable, and nothing else.
//!
//!     cargo run -p repmgr-clone --example minimal -- BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY "PRIMARY_CONNINFO"

use std::error::Error;
use std::sync::Arc;

use repmgr_clone::{
    BarmanSource, CancelToken, CloneRequest, Conninfo, Context, Environment, Event, Observer, ServerAddress,
    SshHost, SshOptions, prepare,
};

/// Nobody wants to know.
struct Silence;

impl Observer for Silence {
    fn event(&self, _event: Event) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, server, data_directory, conninfo] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY CONNINFO".into());
    };
    let host = Arc::new(SshHost::new(host, SshOptions::default())?);
    let barman = BarmanSource::new(host, ServerAddress::new(server));
    let request = CloneRequest::new(data_directory, barman, Conninfo::parse(conninfo)?);
    let (cancel, environment) = (CancelToken::new(), Environment::from_process());
    let context = Context {
        observer: &Silence,
        cancel: &cancel,
        environment: &environment,
    };
    prepare(&request, &context)?.execute(&context)?;
    Ok(())
}
