//! One batch over one connection.

use std::io::BufRead;
use std::time::Duration;

use repmgr_remote::{Connection, Exit, Input, RemoteError, ShellCommand, StartOptions, run};
use repmgr_types::CancelToken;

use crate::archive::{Archive, Member, MemberKind};
use crate::batch::Batch;
use crate::codec::Codec;
use crate::complaints::{Complaint, complaints};
use crate::error::{FarFile, TransferError, said};
use crate::list::parse;
use crate::listing::Listing;
use crate::path::shown;
use crate::progress::{Count, Counted, Progress};
use crate::revise::Kept;
use crate::sink::{OldFiles, Sink, SinkError};
use crate::wire::{StreamError, choose_codec, decoded, lz4};

/// Says which codec it took from "$2" and sends an archive of the names on standard input. tar
/// runs the compressor itself, so its exit code speaks for both; before 1.27 it could not pass
/// arguments on, so the level is in the environment.
///
/// "$3" is the largest file if there is one worth it: unless the blocks "$5", "$6", ... of it become
/// smaller than "$4" bytes together, nothing is compressed.
///
/// `--no-unquote`, `--null` and names that begin with "./": every name is taken literally.
const SCRIPT: &str = concat!(
    r#"cd -- "$1" || exit 1
unset TAR_OPTIONS
version=$(tar --version 2>/dev/null)
case $version in *"GNU tar"*) ;; *) echo 'missing GNU tar'; exit 0 ;; esac
"#,
    choose_codec!("$2"),
    r#"export ZSTD_CLEVEL=1 GZIP=-1
program=$codec
case $codec:$version in
  lz4:*"(GNU tar) 1."[01]* | lz4:*"(GNU tar) 1.2"[0-6]*) ;;
  lz4:*) program='"#,
    lz4!(),
    r#"' ;;
esac
if [ "$codec" != none ] && [ $# -gt 4 ]; then
  file=$3 most=$4
  shift 4
  size=$({ for at; do dd if="$file" bs=128k skip="$at" count=1; done | $program -c | wc -c; } 2>/dev/null)
  [ "$size" -lt "$most" ] || codec=none
fi
echo "$codec"
[ "$codec" = none ] && set -- || set -- --use-compress-program="$program"
exec tar --create --file=- --format=gnu --blocking-factor=128 --no-recursion --hard-dereference --numeric-owner --quoting-style=escape "$@" --null --no-unquote --files-from=-"#
);

/// What the files named on standard input are now, as [`list`](crate::list) has it.
const LOOK_SCRIPT: &str = r#"cd -- "$1" || exit 1
exec xargs -0 -r sh -c 'exec find "$@" -maxdepth 0 -printf "%y r %s %m %T@ %p\0"' sh"#;

pub(crate) const WRITTEN_MEANWHILE: &str = "it was written while it was read";

/// As in the script.
const SAMPLE_BLOCK: u64 = 128 << 10;
/// A smaller file says little, and a smaller batch is not worth the time.
const WORTH_A_SAMPLE: u64 = 1 << 20;

/// What all batches of a transfer have in common.
pub(crate) struct Fetcher<'a> {
    pub(crate) sources: &'a [Listing],
    pub(crate) sink: &'a dyn Sink,
    pub(crate) progress: &'a Progress,
    pub(crate) idle_timeout: Duration,
    pub(crate) cancel: CancelToken,
}

/// What a batch was.
pub(crate) struct Fetched {
    /// None where there was no stream.
    pub(crate) codec: Option<Codec>,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    /// What of it was here already.
    pub(crate) kept: Kept,
}

/// A batch that did not arrive.
pub(crate) struct Failure {
    pub(crate) error: TransferError,
    /// The file that was under way: its place in the batch.
    pub(crate) at: usize,
}

/// How a stream ended.
pub(crate) enum Stream {
    /// All files of the batch came.
    Whole(Codec),
    /// Too early, or not all files came. The exit may say why.
    Short(String),
}

impl Fetcher<'_> {
    /// Fetches a batch and has it confirmed. `codecs` are the ones to choose from, best first; where
    /// there is a choice, nothing is compressed that does not shrink.
    pub(crate) fn fetch(
        &self,
        connection: &mut dyn Connection,
        batch: &Batch,
        codecs: &str,
    ) -> Result<Fetched, Failure> {
        let host = connection.host().to_owned();
        self.work(host, batch, |task, at| task.stream(connection, codecs, at))
    }

    /// Brings a batch of `old` files up to date and has it confirmed.
    pub(crate) fn revise(
        &self,
        old: &dyn OldFiles,
        connection: &mut dyn Connection,
        batch: &Batch,
        codecs: &str,
    ) -> Result<Fetched, Failure> {
        let host = connection.host().to_owned();
        self.work(host, batch, |task, at| task.revise(old, connection, codecs, at))
    }

    /// Copies a batch from this host, which is called so, and has it confirmed.
    pub(crate) fn copy(&self, host: &str, batch: &Batch) -> Result<Fetched, Failure> {
        self.work(host.to_owned(), batch, |task, at| task.copy(at))
    }

    fn work(
        &self,
        host: String,
        batch: &Batch,
        work: impl FnOnce(&Task<'_>, &mut usize) -> Result<Fetched, TransferError>,
    ) -> Result<Fetched, Failure> {
        let task = Task {
            fetcher: self,
            host,
            listing: &self.sources[batch.source],
            batch,
        };
        let mut at = 0;
        work(&task, &mut at).map_err(|error| Failure { error, at })
    }
}

/// One batch from one host.
pub(crate) struct Task<'a> {
    pub(crate) fetcher: &'a Fetcher<'a>,
    host: String,
    pub(crate) listing: &'a Listing,
    pub(crate) batch: &'a Batch,
}

impl Task<'_> {
    fn stream(
        &self,
        connection: &mut dyn Connection,
        codecs: &str,
        at: &mut usize,
    ) -> Result<Fetched, TransferError> {
        let progress = self.fetcher.progress;
        let mut count = Count::new(progress);
        let sample = match codecs.contains(' ') {
            true => self.sample(),
            false => None,
        };
        let command = ShellCommand::script(SCRIPT)
            .arg(self.listing.directory())
            .arg(codecs)
            .args(sample.into_iter().flatten())
            .env("LC_ALL", "C");
        let names = name_list((0..self.batch.files.len()).map(|place| self.path(place)));
        let process = connection
            .start(&command, self.options(names))
            .map_err(|e| self.remote(e))?;
        let mut wire = Counted::new(process, progress);
        let stream = self.read(&mut wire, &mut count, at)?;
        let exit = wire.into_inner().finish().map_err(|e| self.remote(e))?;
        let touched = self.judge(&exit)?;
        let codec = match stream {
            Stream::Whole(codec) => codec,
            Stream::Short(reason) => return Err(self.malformed(reason)),
        };
        if !touched.is_empty() {
            self.check_untouched(connection, &touched)?;
        }
        self.confirm()?;
        let (files, bytes) = count.keep();
        let codec = Some(codec);
        Ok(Fetched {
            codec,
            files,
            bytes,
            kept: Kept::default(),
        })
    }

    pub(crate) fn confirm(&self) -> Result<(), TransferError> {
        let indexes: Vec<_> = self.batch.files.iter().map(|i| *i as usize).collect();
        let confirmed = self.fetcher.sink.confirm(self.batch.source, &indexes);
        confirmed.map_err(|e| self.not_stored(indexes[0], e))
    }

    /// What the script takes to see whether the batch can be compressed.
    fn sample(&self) -> Option<[String; 5]> {
        let entries = self.batch.files.iter().map(|i| self.listing.get(*i as usize));
        let largest = entries
            .max_by_key(|entry| entry.size)
            .filter(|entry| entry.size >= WORTH_A_SAMPLE)?;
        let path = std::str::from_utf8(largest.path).ok()?;
        let blocks = largest.size / SAMPLE_BLOCK;
        let [first, second, third] = [1, 2, 3].map(|quarter| (blocks * quarter / 4).to_string());
        // 95 percent.
        let most = (3 * SAMPLE_BLOCK / 20 * 19).to_string();
        Some([format!("./{path}"), most, first, second, third])
    }

    pub(crate) fn options(&self, input: Vec<u8>) -> StartOptions {
        StartOptions {
            input: Input::Bytes(input),
            idle_timeout: self.fetcher.idle_timeout,
            total_timeout: None,
            bulk: true,
            cancel: self.fetcher.cancel.clone(),
        }
    }

    fn read(
        &self,
        wire: &mut Counted<'_, '_>,
        count: &mut Count<'_>,
        at: &mut usize,
    ) -> Result<Stream, TransferError> {
        let (codec, input) = match decoded(wire) {
            Ok(decoded) => decoded,
            Err(e) => return self.broken(e),
        };
        let mut archive = Archive::new(input);
        let mut missing = None;
        loop {
            match archive.next() {
                Ok(Some(member)) => {
                    if let Err(e) = self.file(&member, &mut archive, &mut missing, count, at)? {
                        return self.broken(e);
                    }
                }
                Ok(None) => break,
                Err(e) => return self.broken(e),
            }
        }
        if *at < self.batch.files.len() {
            missing.get_or_insert(*at);
        }
        Ok(match missing {
            None => Stream::Whole(codec),
            Some(place) => Stream::Short(format!("\"{}\" is not in it", shown(self.path(place)))),
        })
    }

    /// Takes one file. The inner error is that of the stream.
    fn file<R: BufRead>(
        &self,
        member: &Member,
        archive: &mut Archive<R>,
        missing: &mut Option<usize>,
        count: &mut Count<'_>,
        at: &mut usize,
    ) -> Result<Result<(), StreamError>, TransferError> {
        let name = member.path.strip_prefix(b"./");
        let place = (*at..self.batch.files.len()).find(|place| Some(self.path(*place)) == name);
        let Some(place) = place else {
            let path = shown(&member.path);
            return Err(self.malformed(format!("\"{path}\" is in it and was not asked for")));
        };
        if place > *at {
            // tar left files out; at the end it tells why.
            missing.get_or_insert(*at);
            *at = place;
        }
        let index = self.batch.files[place] as usize;
        // The archive has whole seconds, or none.
        let then = u64::try_from(self.listing.modified_seconds(index)).ok();
        let same_time = member.modified.is_none() || member.modified == then;
        self.check_as_listed(index, member.kind == MemberKind::File, member.size, same_time)?;
        let stored = |e| self.not_stored(index, e);
        let mut sink = self
            .fetcher
            .sink
            .create(self.batch.source, index)
            .map_err(stored)?;
        loop {
            self.fetcher.cancel.check()?;
            let bytes = match archive.fill() {
                Ok([]) => break,
                Ok(bytes) => bytes,
                Err(e) => return Ok(Err(e.into())),
            };
            let length = bytes.len();
            sink.write(bytes).map_err(stored)?;
            archive.consume(length);
            count.add_bytes(length);
        }
        sink.finish().map_err(stored)?;
        count.add_file();
        *at += 1;
        Ok(Ok(()))
    }

    pub(crate) fn check_as_listed(
        &self,
        index: usize,
        is_file: bool,
        size: u64,
        same_time: bool,
    ) -> Result<(), TransferError> {
        let then = self.listing.get(index).size;
        if !is_file {
            return Err(self.changed(index, "it is no regular file any more"));
        }
        if size != then {
            let message = format!("it has {size} bytes now and had {then} in the listing");
            return Err(self.changed(index, message));
        }
        if !same_time {
            return Err(self.changed(index, "it was written after the listing was made"));
        }
        Ok(())
    }

    /// What the far side's tar made of it; the paths it saw touched while it read them.
    fn judge(&self, exit: &Exit) -> Result<Vec<Vec<u8>>, TransferError> {
        if exit.success() {
            return Ok(Vec::new());
        }
        let all = complaints(exit);
        // The worst first: what follows from it is said as well.
        let rank = |c: &&Complaint| match c {
            Complaint::Unreadable(..) => 0,
            Complaint::Changed(..) => 1,
            Complaint::Other(_) => 2,
            Complaint::Touched(_) => 3,
        };
        let file = |path: &Vec<u8>| FarFile {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            path: path.clone(),
        };
        match all.iter().min_by_key(rank) {
            Some(Complaint::Unreadable(path, message)) => Err(TransferError::Unreadable {
                file: file(path),
                message: message.clone(),
            }),
            Some(Complaint::Changed(path, message)) => Err(TransferError::Changed {
                file: file(path),
                message: message.clone(),
            }),
            Some(Complaint::Touched(_)) if exit.code == Some(1) => Ok(all
                .into_iter()
                .filter_map(|c| match c {
                    Complaint::Touched(path) => Some(path),
                    _ => None,
                })
                .collect()),
            Some(Complaint::Other(message)) => Err(self.failed(message.clone())),
            _ => Err(self.failed(exit.status())),
        }
    }

    /// tar says that a file changed when its inode did: a new hard link to it (Barman makes them for
    /// the next backup) does that as well. Its content is the same if size and time are.
    fn check_untouched(
        &self,
        connection: &mut dyn Connection,
        paths: &[Vec<u8>],
    ) -> Result<(), TransferError> {
        let command = ShellCommand::script(LOOK_SCRIPT)
            .arg(self.listing.directory())
            .env("LC_ALL", "C");
        let input = name_list(paths.iter().map(Vec::as_slice));
        let most = input.len() + paths.len() * 100;
        let output = run(connection, &command, self.options(input), most).map_err(|e| self.remote(e))?;
        if !output.exit.success() {
            return Err(self.failed(said(&output.exit, "find: ")));
        }
        let mut now = output.stdout.split(|b| *b == 0).map(parse);
        for path in paths {
            let Some(index) = self
                .batch
                .files
                .iter()
                .find(|i| self.listing.get(**i as usize).path == path)
            else {
                return Err(self.malformed(format!("tar complains of \"{}\"", shown(path))));
            };
            let index = *index as usize;
            let then = self.listing.get(index);
            let Some(Some(now)) = now
                .next()
                .filter(|e| e.is_some_and(|e| e.path.strip_prefix(b"./") == Some(path)))
            else {
                return Err(self.malformed(format!("nothing is said of \"{}\"", shown(path))));
            };
            if (now.kind, now.size, now.modified) != (then.kind, then.size, then.modified) {
                return Err(self.changed(index, WRITTEN_MEANWHILE));
            }
        }
        log::debug!("{} files got new links while they were read", paths.len());
        Ok(())
    }

    /// What to make of a stream that cannot be read on.
    pub(crate) fn broken(&self, error: StreamError) -> Result<Stream, TransferError> {
        match error {
            StreamError::Short => Ok(Stream::Short("it ends too early".to_owned())),
            StreamError::Remote(error) => Err(self.remote(error)),
            StreamError::Malformed(reason) => Err(self.malformed(reason)),
            StreamError::NoProgram(program) => Err(self.no_program(program)),
        }
    }

    fn path(&self, place: usize) -> &[u8] {
        self.listing.get(self.batch.files[place] as usize).path
    }

    pub(crate) fn far_file(&self, index: usize) -> FarFile {
        FarFile {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            path: self.listing.get(index).path.to_vec(),
        }
    }

    pub(crate) fn changed(&self, index: usize, message: impl Into<String>) -> TransferError {
        TransferError::Changed {
            file: self.far_file(index),
            message: message.into(),
        }
    }

    pub(crate) fn remote(&self, error: RemoteError) -> TransferError {
        TransferError::broken(self.listing.directory(), error)
    }

    pub(crate) fn malformed(&self, reason: String) -> TransferError {
        TransferError::Malformed {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            reason,
        }
    }

    pub(crate) fn no_program(&self, program: String) -> TransferError {
        TransferError::NoProgram {
            host: self.host.clone(),
            program,
        }
    }

    pub(crate) fn failed(&self, message: String) -> TransferError {
        TransferError::Failed {
            host: self.host.clone(),
            directory: self.listing.directory().to_owned(),
            message,
        }
    }

    pub(crate) fn not_stored(&self, index: usize, source: SinkError) -> TransferError {
        TransferError::Sink {
            file: self.far_file(index),
            source,
        }
    }
}

/// For standard input of tar and xargs.
fn name_list<'p>(paths: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    let mut list = Vec::new();
    for path in paths {
        list.extend_from_slice(b"./");
        list.extend_from_slice(path);
        list.push(0);
    }
    list
}
