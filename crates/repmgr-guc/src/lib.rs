//! PostgreSQL's configuration file grammar: what `postgresql.conf`, `postgresql.auto.conf`,
//! `recovery.conf` and the `repmgr.conf` of repmgr 5 are written in.
//!
//! It scans bytes, unescapes and quotes values, and edits a file so that every line not
//! edited stays as it was, byte for byte (such files may hold text that is not UTF-8). It
//! must not know any parameter: names, include directives and the meaning of values are the
//! caller's, and so is reading and writing files.
//!
//! The rules are those of PostgreSQL 9.4 to 18, which do not differ.
//!
//! ```
//! use repmgr_guc::ConfigFile;
//!
//! let mut conf = ConfigFile::parse(b"port = 5433\ndata_directory = '/srv/pg' # moved\n")?;
//! assert_eq!(conf.get("PORT").and_then(|entry| entry.value_str()), Some("5433"));
//! conf.comment_out("data_directory", "set by the primary's packaging");
//! conf.set("restore_command", "cp '/wal/%f' %p");
//! let text = String::from_utf8_lossy(&conf.into_bytes()).into_owned();
//! let lines: Vec<&str> = text.lines().collect();
//! assert_eq!(lines[1], "# set by the primary's packaging: data_directory = '/srv/pg' # moved");
//! assert_eq!(lines[2], "restore_command = 'cp ''/wal/%f'' %p'");
//! # Ok::<(), repmgr_guc::SyntaxError>(())
//! ```

mod edit;
mod quote;
mod scan;
mod token;

pub use edit::ConfigFile;
pub use quote::quote_value;
pub use scan::{Entry, Line, Problem, SyntaxError, scan};
