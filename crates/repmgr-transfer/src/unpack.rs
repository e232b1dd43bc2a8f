use std::io::BufRead;
use std::time::SystemTime;

use repmgr_codec::{Codec, Window};
use repmgr_remote::{Connection, RemoteError, ShellCommand, StartOptions};

use crate::archive::{Archive, Member, MemberKind};
use crate::counters::{Count, Counted, Counters};
use crate::error::{FarFile, TransferError, said, was_killed};
use crate::listing::{EntryKind, join};
use crate::options::Options;
use crate::path::{is_sound, shown};
use crate::sink::{FileSink, SinkError};
use crate::wire::{StreamError, choose_codec, chosen_codec, lz4};

/// What stands in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveMember<'a> {
    /// Relative and checked, as in an [`Entry`](crate::Entry): no `./` before it, no `/` after it.
    pub path: &'a [u8],
    /// A file, a directory or a symbolic link; archives with anything else are refused.
    pub kind: EntryKind,
    /// Bytes; zero for what is no file.
    pub size: u64,
    /// Permission bits: at most `0o7777`.
    pub mode: u32,
    /// When it was last changed, in whole seconds.
    pub modified: SystemTime,
}

/// Who decides what to do with the members of an archive.
pub trait MemberSink {
    /// A member begins: where its bytes go, or nothing to skip it. For what is no file there are
    /// no bytes, so it should say nothing.
    ///
    /// A file that is finished is as it stands in the archive; whether the archive is good is known
    /// when [`unpack`] returns.
    ///
    /// # Errors
    /// End the work.
    fn member(&mut self, member: &ArchiveMember<'_>) -> Result<Option<Box<dyn FileSink + '_>>, SinkError>;
}

/// "$2" is the archive, "$3" what may compress it on the way.
const SCRIPT: &str = concat!(
    r#"cd -- "$1" || exit 1
"#,
    choose_codec!("$3"),
    r#"echo "$codec"
case $codec in
  zstd) exec zstd -1 -q -c <"./$2" ;;
  lz4) exec "#,
    lz4!(),
    r#" -c <"./$2" ;;
  gzip) exec gzip -1 -c <"./$2" ;;
  none) exec cat "./$2" ;;
esac"#
);

/// Streams one tar archive from `directory`, unpacks it on the way and gives its files to `sink`.
///
/// `codec` is how the archive is compressed; one that is not is compressed on the way as
/// `options` say, which also give the idle timeout and the token to stop. There is no second
/// attempt here: after a passing error ([`TransferError::is_transient`]) call it again with a new
/// connection and skip what is finished.
///
/// Returns after the end of the archive, of the compressed stream and of the command were proven:
/// the number of files taken and the bytes in them.
///
/// # Errors
/// See [`TransferError`]; a member that leads out of the directory is one as well.
pub fn unpack(
    connection: &mut dyn Connection,
    directory: &str,
    archive: &str,
    codec: Codec,
    options: &Options,
    sink: &mut dyn MemberSink,
    counters: &Counters,
) -> Result<(u64, u64), TransferError> {
    let on_the_way = match codec {
        Codec::None => options.compression.choices(),
        _ => "none",
    };
    let command = ShellCommand::script(SCRIPT)
        .arg(directory)
        .arg(archive)
        .arg(on_the_way)
        .env("LC_ALL", "C");
    let start = StartOptions {
        idle_timeout: options.idle_timeout,
        bulk: true,
        cancel: options.cancel.clone(),
        ..Default::default()
    };
    let file = FarFile {
        host: connection.host().to_owned(),
        directory: directory.to_owned(),
        path: archive.as_bytes().to_vec(),
    };
    if !directory.starts_with('/') || !is_sound(archive.as_bytes()) {
        let message = "not a plain path below an absolute one".to_owned();
        return Err(TransferError::Unreadable { file, message });
    }
    let mut task = Unpacking {
        file,
        options,
        count: Count::new(counters),
        sink,
    };
    let process = connection.start(&command, start).map_err(|e| task.remote(e))?;
    let mut wire = Counted::new(process, counters);
    let whole = task.read(&mut wire, codec)?;
    let exit = wire.into_inner().finish().map_err(|e| task.remote(e))?;
    if was_killed(&exit) {
        return Err(task.ended_early(said(&exit, "cat: ")));
    }
    if !exit.success() {
        let message = said(&exit, "cat: ");
        let file = task.file;
        return Err(TransferError::Unreadable { file, message });
    }
    if !whole {
        return Err(task.malformed("it ends too early".to_owned()));
    }
    Ok(task.count.keep())
}

struct Unpacking<'a, 'p> {
    file: FarFile,
    options: &'a Options,
    count: Count<'p>,
    sink: &'a mut dyn MemberSink,
}

impl Unpacking<'_, '_> {
    /// Whether the archive came to its end; if not, the exit may say why.
    fn read(&mut self, wire: &mut Counted<'_, '_>, codec: Codec) -> Result<bool, TransferError> {
        let codec = match chosen_codec(wire) {
            Ok(Codec::None) => codec,
            Ok(on_the_way) => on_the_way,
            Err(e) => return self.broken(e),
        };
        let decoder = codec.decoder(wire, Window::STORED);
        let mut archive = Archive::new(decoder.map_err(|e| self.malformed(e.to_string()))?);
        loop {
            match archive.next() {
                Ok(Some(member)) => {
                    if let Err(e) = self.take(&member, &mut archive)? {
                        return self.broken(e);
                    }
                }
                Ok(None) => return Ok(true),
                Err(e) => return self.broken(e),
            }
        }
    }

    /// The inner error is that of the stream.
    fn take<R: BufRead>(
        &mut self,
        member: &Member,
        archive: &mut Archive<R>,
    ) -> Result<Result<(), StreamError>, TransferError> {
        let path = member.path.strip_prefix(b"./").unwrap_or(&member.path);
        let (kind, path) = match member.kind {
            MemberKind::File => (EntryKind::File, path),
            MemberKind::Symlink => (EntryKind::Symlink, path),
            MemberKind::Directory => (EntryKind::Directory, path.strip_suffix(b"/").unwrap_or(path)),
        };
        if kind == EntryKind::Directory && (path.is_empty() || path == b".") {
            return Ok(Ok(()));
        }
        if !is_sound(path) {
            return Err(self.malformed(format!("\"{}\" in it leads elsewhere", shown(&member.path))));
        }
        let seen = ArchiveMember {
            path,
            kind,
            size: member.size,
            mode: member.mode,
            modified: join(
                member.modified.and_then(|m| i64::try_from(m).ok()).unwrap_or(0),
                0,
            ),
        };
        let stored = |source| TransferError::Sink {
            file: FarFile {
                host: self.file.host.clone(),
                directory: format!("{}/{}", self.file.directory, shown(&self.file.path)),
                path: path.to_vec(),
            },
            source,
        };
        let Some(mut file) = self.sink.member(&seen).map_err(stored)? else {
            return Ok(Ok(()));
        };
        loop {
            self.options.cancel.check()?;
            let bytes = match archive.fill() {
                Ok([]) => break,
                Ok(bytes) => bytes,
                Err(e) => return Ok(Err(e.into())),
            };
            let length = bytes.len();
            file.write(bytes).map_err(stored)?;
            archive.consume(length);
            self.count.add_bytes(length);
        }
        file.finish().map_err(stored)?;
        self.count.add_file();
        Ok(Ok(()))
    }

    fn broken(&self, error: StreamError) -> Result<bool, TransferError> {
        match error {
            StreamError::Short => Ok(false),
            StreamError::Remote(error) => Err(self.remote(error)),
            StreamError::Malformed(reason) => Err(self.malformed(reason)),
            StreamError::NoProgram(program) => Err(TransferError::NoProgram {
                host: self.file.host.clone(),
                program,
            }),
        }
    }

    fn remote(&self, error: RemoteError) -> TransferError {
        TransferError::broken(&self.file.directory, error)
    }

    fn ended_early(&self, message: String) -> TransferError {
        TransferError::EndedEarly {
            host: self.file.host.clone(),
            directory: format!("{}/{}", self.file.directory, shown(&self.file.path)),
            attempts: 1,
            message,
        }
    }

    fn malformed(&self, reason: String) -> TransferError {
        TransferError::Malformed {
            host: self.file.host.clone(),
            directory: format!("{}/{}", self.file.directory, shown(&self.file.path)),
            reason,
        }
    }
}

#[cfg(test)]
mod tests;
