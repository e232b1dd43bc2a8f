//! Programs on this host: started in a process group of their own, limited in time, cancelled, and
//! their last words kept.
//!
//! [`run`] starts a program without input, gives its output as it comes, and returns once it has
//! ended. What is kept of the output is the caller's choice: [`LastBytes`], or [`LineSplitter`] and
//! [`LastLines`]. Who speaks with a program over pipes of its own takes a [`Group`] only.
//!
//! Nothing here knows a program, a shell or another host.
//!
//! ```
//! use std::process::Command;
//! use std::time::Duration;
//!
//! use repmgr_program::{End, LastBytes, Leftovers, Rules, run};
//! use repmgr_types::CancelToken;
//!
//! let mut command = Command::new("sh");
//! command.args(["-c", "echo out; echo no such thing >&2; exit 3"]);
//! let rules = Rules {
//!     limit: Some(Duration::from_secs(60)),
//!     grace: Duration::from_secs(5),
//!     leftovers: Leftovers::Kill,
//! };
//! let mut last = LastBytes::new(14);
//! let end = run(command, &rules, &CancelToken::new(), &mut |bytes| last.add(bytes))?;
//! assert!(matches!(end, End::Exited(status) if status.code() == Some(3)));
//! assert_eq!(last.as_bytes(), b"no such thing\n");
//! # Ok::<(), repmgr_program::RunError>(())
//! ```

mod group;
mod run;
mod words;

pub use group::{Group, Pipes};
pub use run::{End, Leftovers, Rules, RunError, run};
pub use words::{LastBytes, LastLines, LineSplitter};
