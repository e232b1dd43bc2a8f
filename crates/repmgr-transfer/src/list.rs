use std::io::{self, BufRead, BufReader, Read};
use std::time::{Duration, SystemTime};

use repmgr_remote::{Connection, RemoteError, ShellCommand, StartOptions};
use repmgr_types::CancelToken;

use crate::error::said;
use crate::listing::{Entry, EntryKind, Listing, Room, join};
use crate::path::{MAX_PATH, is_sound, shown};

/// No listing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The directory is not given by an absolute path.
    #[error("\"{directory}\" is not an absolute path")]
    NotAbsolute {
        /// As it was given.
        directory: String,
    },
    /// The connection or the command broke, or the work was cancelled.
    #[error("cannot list \"{directory}\"")]
    Remote {
        /// The directory.
        directory: String,
        /// What broke.
        #[source]
        source: Box<RemoteError>,
    },
    /// There is no GNU find on the far side.
    #[error("there is no GNU find on \"{host}\"")]
    NoFind {
        /// The host.
        host: String,
    },
    /// `find` failed: the directory is not there, or changed while it was read.
    #[error("cannot list \"{directory}\" on \"{host}\": {message}")]
    Failed {
        /// The host.
        host: String,
        /// The directory.
        directory: String,
        /// What `find` or the shell said, or the exit status.
        message: String,
    },
    /// The output is not what `find` prints.
    #[error("the listing of \"{directory}\" on \"{host}\" is not valid: {reason}")]
    Malformed {
        /// The host.
        host: String,
        /// The directory.
        directory: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ListError {
    /// Whether the same call on a new connection may well succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Remote { source, .. } if source.is_transient())
    }

    /// Whether it ended because somebody asked to stop.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Remote { source, .. } if source.is_cancelled())
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Remote { source, .. } => source.hint().map(|h| h.to_string()),
            Self::NoFind { host } => Some(format!(
                "install GNU findutils on \"{host}\", so that \"find\" of a non-interactive shell is it"
            )),
            Self::Failed { host, directory, .. } => Some(format!(
                "check that \"{directory}\" is there and that the user on \"{host}\" may read all of it"
            )),
            _ => None,
        }
    }
}

/// The longest path and what stands before it.
const LONGEST_ENTRY: u64 = MAX_PATH as u64 + 128;

/// Bytes of a command line that are for directories: [`SCRIPT`] needs some of the 32,000 that SSH takes.
const ROOM: usize = 28_000;

/// Directories that cannot be read are named with `-` and not entered, so that `find` does well
/// and its exit code means something.
const SCRIPT: &str = r#"case $(find --version 2>/dev/null) in *"GNU findutils"*) ;; *) printf 'missing\0'; exit 0 ;; esac
for directory; do
  printf 'find\0'
  cd -- "$directory" || exit 1
  find . -mindepth 1 \( -type d ! \( -readable -executable \) -printf '%y - %s %m %T@ %P\0' -prune \) -o \( -type f ! -readable -printf '%y - %s %m %T@ %P\0' \) -o -printf '%y r %s %m %T@ %P\0' || exit 1
done"#;

/// Lists everything below `directory`, an absolute path, in one command; `keep` says what to take.
///
/// `keep` sees a directory before what is in it, and everything in a directory it did not want.
/// The directory itself may be a symbolic link; links below it are not followed. Needs GNU find.
///
/// # Errors
/// See [`ListError`]; a listing that is not whole is always one.
pub fn list(
    connection: &mut dyn Connection,
    directory: &str,
    keep: &mut dyn FnMut(&Entry<'_>) -> bool,
    cancel: &CancelToken,
) -> Result<Listing, ListError> {
    let directories = [directory.to_owned()];
    let mut listings = list_all(connection, &directories, &mut |_, entry| keep(entry), cancel)?;
    // As many as directories.
    Ok(listings.remove(0))
}

/// As [`list`], of several directories; `keep` gets the number of the directory as well.
///
/// That is one command, or several where the directories are too many for one line.
///
/// # Errors
/// As [`list`].
pub fn list_all(
    connection: &mut dyn Connection,
    directories: &[String],
    keep: &mut dyn FnMut(usize, &Entry<'_>) -> bool,
    cancel: &CancelToken,
) -> Result<Vec<Listing>, ListError> {
    if let Some(relative) = directories.iter().find(|directory| !directory.starts_with('/')) {
        let directory = relative.clone();
        return Err(ListError::NotAbsolute { directory });
    }
    let mut listings = Vec::with_capacity(directories.len());
    let mut room = Room::new();
    while listings.len() < directories.len() {
        let first = listings.len();
        let rest = &directories[first..];
        let group = &rest[..on_one_line(rest)];
        let mut keep = |number, entry: &Entry<'_>| keep(first + number, entry);
        listings.append(&mut list_group(connection, group, &mut room, &mut keep, cancel)?);
    }
    Ok(listings)
}

/// How many of the directories, from the first on, fit on one command line; at least that one.
fn on_one_line(directories: &[String]) -> usize {
    let mut room = Some(ROOM);
    let fit = directories.iter().take_while(|directory| {
        room = room.and_then(|left| left.checked_sub(length_on_line(directory)));
        room.is_some()
    });
    fit.count().max(1)
}

/// The most bytes that a word takes on a command line over SSH, which is quoted twice and has
/// octal codes for what not every login shell leaves alone.
fn length_on_line(word: &str) -> usize {
    // A blank before it, and its quotes.
    let around = 1 + 2 * 4;
    let bytes = word.bytes().map(|byte| match byte {
        b'\'' => 17,
        b'\\' | b'!' | b'\n' => 5,
        _ => 1,
    });
    around + bytes.sum::<usize>()
}

/// [`list_all`] of as many directories as fit on one line.
fn list_group(
    connection: &mut dyn Connection,
    directories: &[String],
    room: &mut Room,
    keep: &mut dyn FnMut(usize, &Entry<'_>) -> bool,
    cancel: &CancelToken,
) -> Result<Vec<Listing>, ListError> {
    let host = connection.host().to_owned();
    let command = ShellCommand::script(SCRIPT).args(directories).env("LC_ALL", "C");
    let options = StartOptions {
        // Nothing is printed while a large directory without a kept name is read.
        idle_timeout: Duration::from_secs(300),
        bulk: true,
        cancel: cancel.clone(),
        ..Default::default()
    };
    let mut listings = Vec::with_capacity(directories.len());
    let ended = connection.start(&command, options).and_then(|mut process| {
        let ending = read_entries(process.as_mut(), directories, room, keep, &mut listings);
        match ending {
            Err(ReadError::Io(e)) => Err(RemoteError::from_io(e)),
            Err(ReadError::Shape(reason)) => Ok(Err(reason)),
            Ok(ending) => Ok(Ok((ending, process.finish()?))),
        }
    });
    // That under way, or the first.
    let directory = directories
        .get(listings.len().saturating_sub(1))
        .cloned()
        .unwrap_or_default();
    let malformed = |reason: &str| ListError::Malformed {
        host: host.clone(),
        directory: directory.clone(),
        reason: reason.to_owned(),
    };
    let (ending, exit) = match ended {
        Err(source) => {
            let source = Box::new(source);
            return Err(ListError::Remote { directory, source });
        }
        Ok(Err(reason)) => return Err(malformed(&reason)),
        Ok(Ok(ended)) => ended,
    };
    if !exit.success() {
        let message = said(&exit, "find: ");
        return Err(ListError::Failed {
            host,
            directory,
            message,
        });
    }
    match ending {
        Ending::NoFind => return Err(ListError::NoFind { host }),
        Ending::MidEntry => return Err(malformed("it ends inside an entry")),
        Ending::Whole if listings.len() < directories.len() => return Err(malformed("it ends too early")),
        Ending::Whole => {}
    }
    for listing in &mut listings {
        listing.shrink();
        log::debug!(
            "{} on {host}: {} entries, {} bytes",
            listing.directory(),
            listing.len(),
            listing.total_size()
        );
    }
    Ok(listings)
}

enum ReadError {
    Io(io::Error),
    /// What is wrong with the output, whatever the exit status.
    Shape(String),
}

/// How the output ended, if the exit status does not say otherwise.
enum Ending {
    Whole,
    NoFind,
    MidEntry,
}

fn read_entries(
    output: &mut dyn Read,
    directories: &[String],
    room: &mut Room,
    keep: &mut dyn FnMut(usize, &Entry<'_>) -> bool,
    listings: &mut Vec<Listing>,
) -> Result<Ending, ReadError> {
    let mut output = BufReader::with_capacity(64 * 1024, output);
    let mut line = Vec::new();
    loop {
        line.clear();
        let entry = (&mut output).take(LONGEST_ENTRY);
        let read = { entry }.read_until(0, &mut line).map_err(ReadError::Io)?;
        let Some(text) = line.strip_suffix(b"\0") else {
            return match read {
                0 if !listings.is_empty() => Ok(Ending::Whole),
                _ if (read as u64) < LONGEST_ENTRY => Ok(Ending::MidEntry),
                _ => Err(ReadError::Shape("an entry does not end".to_owned())),
            };
        };
        if text == b"find"
            && let Some(directory) = directories.get(listings.len())
        {
            listings.push(Listing::new(directory));
            continue;
        }
        let Some(number) = listings.len().checked_sub(1) else {
            return match text {
                b"missing" => Ok(Ending::NoFind),
                _ => Err(ReadError::Shape(format!("it begins with \"{}\"", shown(text)))),
            };
        };
        let entry =
            parse(text).ok_or_else(|| ReadError::Shape(format!("\"{}\" is no entry", shown(text))))?;
        if !is_sound(entry.path) {
            return Err(ReadError::Shape(format!(
                "\"{}\" leads elsewhere",
                shown(entry.path)
            )));
        }
        if keep(number, &entry) {
            let pushed = room.push(&mut listings[number], &entry);
            pushed.map_err(|e| ReadError::Shape(e.to_string()))?;
        }
    }
}

/// `f r 8192 600 1700000000.1234567890 base/1/2`
pub(crate) fn parse(text: &[u8]) -> Option<Entry<'_>> {
    let mut fields = text.splitn(6, |b| *b == b' ');
    let mut field = || fields.next().and_then(|f| std::str::from_utf8(f).ok());
    let kind = match field()? {
        "f" => EntryKind::File,
        "d" => EntryKind::Directory,
        "l" => EntryKind::Symlink,
        kind if kind.len() == 1 => EntryKind::Other,
        _ => return None,
    };
    let readable = match field()? {
        "r" => true,
        "-" => false,
        _ => return None,
    };
    let size = field()?.parse().ok()?;
    let mode = u32::from_str_radix(field()?, 8).ok().filter(|m| *m <= 0o7777)?;
    let modified = parse_time(field()?)?;
    let path = fields.next()?;
    Some(Entry {
        path,
        kind,
        size,
        mode,
        modified,
        readable,
    })
}

/// Seconds since 1970 with a decimal fraction; before 1970 find 4.9 prints "-2.5000000000" for
/// what is 1.5 s before.
fn parse_time(text: &str) -> Option<SystemTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}")[..9].parse().ok()?;
    Some(join(whole.parse().ok()?, nanoseconds))
}

#[cfg(test)]
mod tests;
