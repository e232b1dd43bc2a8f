//! What the whole-program tests share: running `repmgr` in a lab, proving that a standby is one, and proving
//! that a directory was left alone.
//!
//! The tests see the program as its users do: arguments and configuration in; exit code, output, files and
//! a running server out. They must not know how it works inside.

mod program;
mod relay;
mod snapshot;
mod standby;
mod terminal;

pub use program::{Running, clone, clone_in, node, output, run, said};
pub use relay::Relay;
pub use snapshot::Snapshot;
pub use standby::{Standby, assert_cannot_start, assert_standby, assert_takes_writes};
pub use terminal::{Terminal, screen};

use std::io::Write;
use std::time::Duration;

/// For everything that must happen some time.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Says on the terminal, past the test harness, that this machine does not allow a test.
pub fn skip(test: &str, why: &str) {
    // Nobody is helped if the message about a test that is not run fails it.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
