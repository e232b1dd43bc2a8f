//! What a clone would do, as data: nothing is touched, here or elsewhere.
//!
//!     cargo run -p repmgr-clone --example plan_as_json -- BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY "PRIMARY_CONNINFO"
//!
//! What may be wrong with it comes as remarks with codes, what stands against it as an error with one.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::sync::{Arc, Mutex};

use repmgr_clone::{
    BarmanSource, CancelToken, CloneRequest, Conninfo, Context, Environment, Event, Observer, Remark,
    ServerAddress, SshHost, SshOptions, plan,
};
use serde_json::json;

/// Keeps the remarks. Observers are called from several threads.
#[derive(Default)]
struct Remarks(Mutex<Vec<Remark>>);

impl Observer for Remarks {
    fn event(&self, event: Event) {
        if let (Event::Remark(remark), Ok(mut remarks)) = (event, self.0.lock()) {
            remarks.push(remark);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, server, data_directory, conninfo] = arguments.as_slice() else {
        return Err("usage: BARMAN_HOST BARMAN_SERVER DATA_DIRECTORY CONNINFO".into());
    };
    let host = Arc::new(SshHost::new(host, SshOptions::default())?);
    let barman = BarmanSource::new(host, ServerAddress::new(server));
    let request = CloneRequest::new(data_directory, barman, Conninfo::parse(conninfo)?);
    let remarks = Remarks::default();
    let (cancel, environment) = (CancelToken::new(), Environment::from_process());
    let context = Context {
        observer: &remarks,
        cancel: &cancel,
        environment: &environment,
    };
    let planned = plan(&request, &context);
    let remarks = remarks.0.into_inner().unwrap_or_default();
    let answer = match planned {
        Ok(plan) => json!({ "plan": plan, "remarks": remarks }),
        Err(error) => json!({
            "error": { "code": error.code(), "text": error.to_string(), "try_again": error.is_transient() },
            "remarks": remarks,
        }),
    };
    println!("{}", serde_json::to_string_pretty(&answer)?);
    Ok(())
}
