//! One batch as a stream of tar archives over one connection.

use std::io::BufRead;

use repmgr_remote::{Connection, Exit, ShellCommand, run};

use crate::archive::{Archive, Member, MemberKind};
use crate::complaints::{Complaint, complaints};
use crate::counters::{Count, Counted};
use crate::error::{FarFile, TransferError, said, was_killed};
use crate::list::parse;
use crate::path::shown;
use crate::task::{Fetched, Kept, Stream, Task, WRITTEN_MEANWHILE};
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

/// As in the script.
const SAMPLE_BLOCK: u64 = 128 << 10;
/// A smaller file says little, and a smaller batch is not worth the time.
const WORTH_A_SAMPLE: u64 = 1 << 20;

impl Task<'_> {
    /// Fetches the batch as a stream and has it confirmed. `codecs` are the ones to choose from, best first;
    /// where there is a choice, nothing is compressed that does not shrink. `at` is the place of the file
    /// under way.
    pub(crate) fn stream(
        &self,
        connection: &mut dyn Connection,
        codecs: &str,
        at: &mut usize,
    ) -> Result<Fetched, TransferError> {
        let counters = self.fetcher.counters;
        let mut count = Count::new(counters);
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
        let mut wire = Counted::new(process, counters);
        let stream = self.read(&mut wire, &mut count, at)?;
        let exit = wire.into_inner().finish().map_err(|e| self.remote(e))?;
        let touched = self.judge(&exit)?;
        let codec = match stream {
            Stream::Whole(codec) => codec,
            Stream::Short(reason) => return Err(self.malformed(reason)),
            Stream::Cut => return Err(self.ended_early("their output breaks off".to_owned())),
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
                Ok(Some(member)) => match self.file(&member, &mut archive, &mut missing, count, at)? {
                    Ok(()) => {}
                    Err(StreamError::Short) => return Ok(Stream::Cut),
                    Err(e) => return self.broken(e),
                },
                Ok(None) => break,
                Err(StreamError::Short) => return Ok(Stream::Cut),
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
            _ if was_killed(exit) => Err(self.ended_early(said(exit, "tar: "))),
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

    fn path(&self, place: usize) -> &[u8] {
        self.listing.get(self.batch.files[place] as usize).path
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
