//! The marks around a remote command's output, which tell its bytes from a login shell's chatter
//! and a complete stream from one that was cut.
//!
//! SSH alone does not: libssh2 1.11 reports end of file and exit status 0 when the server closes a
//! channel early, and `~/.bashrc` may print before the command does.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use crate::command::quote;

/// Output before the start mark that is thrown away; more is no chatter.
const MAX_CHATTER: usize = 64 * 1024;
/// The end mark: the token, a blank and three digits.
const END_LEN: usize = Frame::TOKEN_LEN + 4;

/// One command's marks.
#[derive(Debug)]
pub(crate) struct Frame {
    token: String,
}

impl Frame {
    const TOKEN_LEN: usize = 23;

    pub(crate) fn new() -> Self {
        // Not a secret (the far side sees it): it only must not turn up in the output by accident.
        Self {
            token: format!("repmgr-{:016x}", RandomState::new().build_hasher().finish()),
        }
    }

    /// The line for the login shell. Any shell that knows `exec` and plain single quotes will do,
    /// csh and fish included: what they treat specially inside quotes travels as octal codes.
    pub(crate) fn wrap(&self, line: &str) -> String {
        let mut coded = String::with_capacity(line.len() + 16);
        for c in line.chars() {
            match c {
                '\\' => coded.push_str("\\0134"),
                '!' => coded.push_str("\\0041"),
                '\n' => coded.push_str("\\0012"),
                c => coded.push(c),
            }
        }
        // The command runs in a subshell, or its `exit` would take the end mark with it.
        format!(
            "exec sh -c '{}' sh {} {}",
            r#"printf "%s\n" "$1"; (eval "$(printf %b "$2")"); r=$?; printf "%s %03d" "$1" $r; exit $r"#,
            self.token,
            quote(&coded)
        )
    }

    /// How many bytes at the end of `output` may belong to the end mark.
    fn held_back(&self, output: &[u8]) -> usize {
        let may_be = |part: &[u8]| {
            let (token, rest) = part.split_at(part.len().min(Self::TOKEN_LEN));
            self.token.as_bytes().starts_with(token) && (rest.is_empty() || rest[0] == b' ')
        };
        let longest = output.len().min(END_LEN);
        (1..=longest)
            .rev()
            .find(|n| may_be(&output[output.len() - n..]))
            .unwrap_or(0)
    }

    fn end_code(&self, tail: &[u8]) -> Option<i32> {
        let digits = tail.strip_prefix(self.token.as_bytes())?.strip_prefix(b" ")?;
        std::str::from_utf8(digits)
            .ok()
            .filter(|d| d.len() == 3)?
            .parse()
            .ok()
    }
}

/// What stdout turned out to be when it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// No marks were expected.
    Plain,
    /// Both marks came; the command's exit code.
    Marked(i32),
    /// Not even the start mark came.
    NeverStarted,
    /// The start mark came, the end mark did not.
    Cut,
}

/// The output buffer: takes chunks from the wire, gives the command's bytes.
pub(crate) struct Stdout {
    buffer: Vec<u8>,
    head: usize,
    tail: usize,
    frame: Option<Frame>,
    started: bool,
    ending: Option<Ending>,
}

/// There was more chatter than anybody prints.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoStartMark;

impl Stdout {
    /// Every read from the wire asks for exactly so much; see `room`.
    pub(crate) const CHUNK: usize = 256 * 1024;

    pub(crate) fn new(frame: Option<Frame>) -> Self {
        let started = frame.is_none();
        let buffer = vec![0; Self::CHUNK + MAX_CHATTER + END_LEN];
        Self {
            buffer,
            head: 0,
            tail: 0,
            frame,
            started,
            ending: None,
        }
    }

    /// Free space of exactly one chunk, unless the buffer holds too much that nobody has read.
    ///
    /// Always the same length: libssh2 continues an interrupted window adjustment with the length
    /// of the call that continues it, and would count a window the server never got.
    pub(crate) fn room(&mut self) -> Option<&mut [u8]> {
        if self.buffer.len() - self.tail < Self::CHUNK {
            self.buffer.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        self.buffer[self.tail..].get_mut(..Self::CHUNK)
    }

    /// `n` bytes of the room now hold output.
    pub(crate) fn filled(&mut self, n: usize) -> Result<(), NoStartMark> {
        self.tail += n;
        if !self.started {
            self.find_start();
            if !self.started && self.tail - self.head > MAX_CHATTER {
                return Err(NoStartMark);
            }
        }
        Ok(())
    }

    fn find_start(&mut self) {
        let Some(frame) = &self.frame else { return };
        let mark = frame.token.as_bytes();
        let held = &self.buffer[self.head..self.tail];
        let found = held
            .windows(mark.len() + 1)
            .position(|w| w.strip_prefix(mark).is_some_and(|rest| rest == b"\n"));
        if let Some(at) = found {
            self.head += at + mark.len() + 1;
            self.started = true;
        }
    }

    /// The output ended here.
    pub(crate) fn end(&mut self) {
        self.ending = Some(match &self.frame {
            None => Ending::Plain,
            Some(_) if !self.started => Ending::NeverStarted,
            Some(frame) => {
                let start = self.tail.saturating_sub(END_LEN).max(self.head);
                match frame.end_code(&self.buffer[start..self.tail]) {
                    Some(code) => {
                        self.tail = start;
                        Ending::Marked(code)
                    }
                    None => Ending::Cut,
                }
            }
        });
    }

    /// How it ended, once it has.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Bytes of the command that can be read now: what may be the end mark stays back.
    pub(crate) fn ready(&self) -> &[u8] {
        if !self.started {
            return &[];
        }
        let held = self.held();
        match &self.frame {
            Some(frame) if self.ending.is_none() => &held[..held.len() - frame.held_back(held)],
            _ => held,
        }
    }

    /// The reader took `n` of them.
    pub(crate) fn consume(&mut self, n: usize) {
        self.head += n;
    }

    /// All that is here, marks or not.
    pub(crate) fn held(&self) -> &[u8] {
        &self.buffer[self.head..self.tail]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Feeds `bytes` in pieces of `piece` and returns the payload and how it ended.
    fn through(frame: Frame, bytes: &[u8], piece: usize) -> (Vec<u8>, Ending) {
        let mut stdout = Stdout::new(Some(frame));
        let mut payload = Vec::new();
        let mut drain = |stdout: &mut Stdout| {
            payload.extend_from_slice(stdout.ready());
            stdout.consume(stdout.ready().len());
        };
        for chunk in bytes.chunks(piece) {
            stdout.room().unwrap()[..chunk.len()].copy_from_slice(chunk);
            stdout.filled(chunk.len()).unwrap();
            drain(&mut stdout);
        }
        stdout.end();
        drain(&mut stdout);
        (payload, stdout.ending.unwrap())
    }

    fn frame() -> Frame {
        Frame {
            token: "repmgr-0123456789abcdef".into(),
        }
    }

    #[test]
    fn marks_come_off_whatever_the_pieces() {
        let text = b"motd!\nrepmgr-0123456789abcdef\npay\nrepmgr-0123456789abcdef 00load\nrepmgr-0123456789abcdef 003";
        for piece in 1..=text.len() {
            let (payload, ending) = through(frame(), text, piece);
            assert_eq!(
                String::from_utf8_lossy(&payload),
                "pay\nrepmgr-0123456789abcdef 00load\n"
            );
            assert_eq!(ending, Ending::Marked(3));
        }
    }

    #[test]
    fn a_cut_stream_never_looks_whole() {
        let text = b"repmgr-0123456789abcdef\nsome payload that is cut somewhererepmgr-0123456789abcdef 000";
        for cut in 0..text.len() {
            let (_, ending) = through(frame(), &text[..cut], 7);
            let expected = if cut < 24 {
                Ending::NeverStarted
            } else {
                Ending::Cut
            };
            assert_eq!(ending, expected, "{cut}");
        }
    }

    #[test]
    fn output_that_cannot_be_the_end_mark_is_readable_at_once() {
        let mut stdout = Stdout::new(Some(frame()));
        let mut see = |more: &[u8]| {
            stdout.room().unwrap()[..more.len()].copy_from_slice(more);
            stdout.filled(more.len()).unwrap();
            let seen = String::from_utf8(stdout.ready().to_vec()).unwrap();
            stdout.consume(seen.len());
            seen
        };
        assert_eq!(see(b"repmgr-0123456789abcdef\nlocked\n"), "locked\n");
        assert_eq!(see(b"is it repmgr-01"), "is it ");
        assert_eq!(see(b"23456789abcdef"), "");
        assert_eq!(see(b"!"), "repmgr-0123456789abcdef!");
        assert_eq!(see(b"repmgr-0123456789abcdef 000"), "");
    }

    #[test]
    fn endless_chatter_is_refused() {
        let mut stdout = Stdout::new(Some(frame()));
        stdout.room().unwrap().fill(b'x');
        assert_eq!(stdout.filled(MAX_CHATTER), Ok(()));
        assert_eq!(stdout.filled(1), Err(NoStartMark));
    }

    #[test]
    fn a_full_buffer_offers_no_room_until_somebody_reads() {
        let mut stdout = Stdout::new(None);
        while let Some(room) = stdout.room() {
            let n = room.len();
            stdout.filled(n).unwrap();
        }
        stdout.consume(stdout.ready().len());
        assert_eq!(stdout.room().unwrap().len(), Stdout::CHUNK);
    }

    /// The same line through each login shell that is installed; dash and bash always are.
    #[test]
    fn every_login_shell_passes_the_line_on() {
        let line = "printf '%s|' 'it'\\''s' 'a\\b' '!x' 'two\nlines' \"$((1+1))\" 'ü%' ; (exit 7)";
        for shell in ["sh", "dash", "bash", "zsh", "ksh", "csh", "tcsh", "fish"] {
            let frame = Frame::new();
            assert_eq!(frame.token.len(), Frame::TOKEN_LEN);
            let out = match Command::new(shell).arg("-c").arg(frame.wrap(line)).output() {
                Ok(out) => out,
                Err(e) if !["sh", "bash"].contains(&shell) && e.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                Err(e) => panic!("{shell}: {e}"),
            };
            let (payload, ending) = through(frame, &out.stdout, 4096);
            assert_eq!(
                String::from_utf8_lossy(&payload),
                "it's|a\\b|!x|two\nlines|2|ü%|",
                "{shell}: {out:?}"
            );
            assert_eq!(ending, Ending::Marked(7), "{shell}");
            assert_eq!(out.status.code(), Some(7), "{shell}");
        }
    }
}
