//! The command words among options that need not be known.
//!
//! The original may be newer than this program: an option that we do not know must not keep a command from
//! it. Read as getopt reads: options stand anywhere, long ones may be shortened, `--` ends them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::Command;
use clap::builder::Arg;

use crate::args::command;

/// What of a command line says whose it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    pub(super) words: Vec<String>,
    /// `--dump-config` or `--generate`, which are ours.
    pub(super) is_ours: bool,
    pub(super) config_file: Option<PathBuf>,
    pub(super) pg_bindir: Option<PathBuf>,
}

impl Scan {
    /// Reads the arguments behind the program's name.
    pub(super) fn of(arguments: &[OsString]) -> Self {
        let command = command();
        let mut scan = Self::default();
        let mut rest = arguments.iter().map(OsString::as_os_str);
        while let Some(argument) = rest.next() {
            let bytes = argument.as_bytes();
            match bytes {
                b"--" => break,
                [b'-', b'-', long @ ..] => scan.long(&command, long, &mut rest),
                [b'-', shorts @ ..] if !shorts.is_empty() => scan.shorts(&command, shorts, &mut rest),
                _ => scan.word(argument),
            }
        }
        rest.for_each(|word| scan.word(word));
        scan
    }

    fn word(&mut self, word: &OsStr) {
        self.words.push(word.to_string_lossy().into_owned());
    }

    fn long<'a>(&mut self, command: &Command, text: &[u8], rest: &mut impl Iterator<Item = &'a OsStr>) {
        let mut parts = text.splitn(2, |byte| *byte == b'=');
        let name = parts.next().unwrap_or_default();
        let value = parts.next().map(OsStr::from_bytes);
        let Some(arg) = find_long(command, name) else {
            return;
        };
        let value = match needs_value(arg) {
            true => value.or_else(|| rest.next()),
            false => value,
        };
        self.given(arg, value);
    }

    /// `-Fh HOST`: letters, until one takes the rest or what follows.
    fn shorts<'a>(&mut self, command: &Command, letters: &[u8], rest: &mut impl Iterator<Item = &'a OsStr>) {
        for (at, letter) in letters.iter().enumerate() {
            let short = char::from(*letter);
            let Some(arg) = command.get_arguments().find(|arg| arg.get_short() == Some(short)) else {
                continue;
            };
            if !needs_value(arg) {
                self.given(arg, None);
                continue;
            }
            let attached = letters.get(at + 1..).filter(|attached| !attached.is_empty());
            let value = attached.map(OsStr::from_bytes).or_else(|| rest.next());
            return self.given(arg, value);
        }
    }

    fn given(&mut self, arg: &Arg, value: Option<&OsStr>) {
        let path = || value.map(|value| PathBuf::from(OsString::from_vec(value.as_bytes().to_vec())));
        match arg.get_id().as_str() {
            "dump_config" | "generate" => self.is_ours = true,
            "config_file" => self.config_file = path(),
            "pg_bindir" => self.pg_bindir = path(),
            _ => {}
        }
    }
}

/// By its name or an unambiguous beginning.
fn find_long<'c>(command: &'c Command, name: &[u8]) -> Option<&'c Arg> {
    let name = str::from_utf8(name).ok().filter(|name| !name.is_empty())?;
    let names = |arg: &Arg| {
        arg.get_long_and_visible_aliases()
            .unwrap_or_default()
            .iter()
            .map(|name| (*name).to_owned())
            .chain(
                arg.get_all_aliases()
                    .unwrap_or_default()
                    .iter()
                    .map(|name| (*name).to_owned()),
            )
            .collect::<Vec<_>>()
    };
    let mut exact = command
        .get_arguments()
        .filter(|arg| names(arg).iter().any(|known| known == name));
    if let Some(arg) = exact.next() {
        return Some(arg);
    }
    let mut begun = command
        .get_arguments()
        .filter(|arg| names(arg).iter().any(|known| known.starts_with(name)));
    let only = begun.next()?;
    begun.next().is_none().then_some(only)
}

fn needs_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(line: &str) -> Scan {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Scan::of(&arguments)
    }

    #[test]
    fn words_are_found_among_options_of_any_kind() {
        for line in [
            "standby promote",
            "-f /r.conf standby promote",
            "-Ff/r.conf standby --host standby promote",
            "standby --new-option promote --log-level=DEBUG",
            "--superu me standby promote --siblings-follow -w",
            "-d cluster standby -h show promote",
            "standby -X promote",
            "-- standby promote",
        ] {
            assert_eq!(scan(line).words, ["standby", "promote"], "{line}");
        }
        assert_eq!(scan("standby --node-id=3 -- -x").words, ["standby", "-x"]);
        assert_eq!(scan("standby --host").words, ["standby"]);
    }

    #[test]
    fn what_says_where_programs_are_is_kept() {
        let found = scan("-Ff/a.conf -b /bin --dump-config");
        assert_eq!(found.config_file, Some(PathBuf::from("/a.conf")));
        assert_eq!(
            (found.pg_bindir, found.is_ours),
            (Some(PathBuf::from("/bin")), true)
        );
        assert_eq!(
            scan("--config-file=/b.conf").config_file,
            Some(PathBuf::from("/b.conf"))
        );
    }
}
