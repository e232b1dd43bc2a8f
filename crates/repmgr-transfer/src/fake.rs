//! A host whose commands give prepared answers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use repmgr_codec::Codec;
use repmgr_remote::{
    ConnectError, ConnectErrorKind, Connection, Exit, Host, Input, Process, RemoteError, RemoteErrorKind,
    ShellCommand, StartOptions,
};

/// What one command prints and how it ends.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    code: i32,
    lost: bool,
}

impl Reply {
    pub(crate) fn output(stdout: &[u8]) -> Self {
        Self {
            stdout: stdout.to_vec(),
            ..Self::default()
        }
    }

    pub(crate) fn exit(mut self, code: i32, stderr: &str) -> Self {
        (self.code, self.stderr) = (code, stderr.as_bytes().to_vec());
        self
    }

    /// The connection breaks after the output.
    pub(crate) fn then_lost(mut self) -> Self {
        self.lost = true;
        self
    }
}

type Answer = dyn Fn(&str, &[u8]) -> Reply + Send + Sync;

/// Answers every command by a function of its line and its input.
#[derive(Clone)]
pub(crate) struct FakeHost {
    answer: Arc<Answer>,
    /// That many connects fail first, or all.
    refusals: Arc<Mutex<u32>>,
}

impl FakeHost {
    pub(crate) fn new(answer: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            answer: Arc::new(answer),
            refusals: Arc::default(),
        }
    }

    /// Gives these answers in turn.
    pub(crate) fn answering(replies: Vec<Reply>) -> Self {
        let replies = Mutex::new(VecDeque::from(replies));
        Self::new(move |line, _| {
            let next = replies.lock().unwrap().pop_front();
            next.unwrap_or_else(|| panic!("one command too many: {line}"))
        })
    }

    pub(crate) fn refusing(self, connects: u32) -> Self {
        *self.refusals.lock().unwrap() = connects;
        self
    }
}

impl Host for FakeHost {
    fn name(&self) -> &str {
        "fake"
    }

    fn connect(&self) -> Result<Box<dyn Connection>, ConnectError> {
        let mut refusals = self.refusals.lock().unwrap();
        if *refusals > 0 {
            *refusals -= 1;
            let source = io::Error::from(io::ErrorKind::ConnectionRefused);
            let address = "fake:22".to_owned();
            return Err(ConnectError {
                host: "fake".to_owned(),
                kind: ConnectErrorKind::Network { address, source },
                ssh_options: String::new(),
            });
        }
        Ok(Box::new(self.clone()))
    }
}

impl Connection for FakeHost {
    fn host(&self) -> &str {
        "fake"
    }

    fn start<'c>(
        &'c mut self,
        command: &ShellCommand,
        options: StartOptions,
    ) -> Result<Box<dyn Process + 'c>, RemoteError> {
        let input = match options.input {
            Input::Bytes(bytes) => bytes,
            _ => Vec::new(),
        };
        let reply = (self.answer)(&command.line(), &input);
        Ok(Box::new(FakeProcess { reply, at: 0 }))
    }
}

struct FakeProcess {
    reply: Reply,
    at: usize,
}

fn lost() -> RemoteError {
    RemoteError {
        host: "fake".to_owned(),
        command: "fake".to_owned(),
        kind: RemoteErrorKind::ConnectionLost {
            reason: "fake".to_owned(),
        },
    }
}

impl Read for FakeProcess {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = &self.reply.stdout[self.at..];
        // In pieces, as a network does.
        let n = left.len().min(buffer.len()).min(1000);
        buffer[..n].copy_from_slice(&left[..n]);
        self.at += n;
        if n == 0 && self.reply.lost && !buffer.is_empty() {
            return Err(lost().into());
        }
        Ok(n)
    }
}

impl Process for FakeProcess {
    fn finish(self: Box<Self>) -> Result<Exit, RemoteError> {
        if self.reply.lost {
            return Err(lost());
        }
        Ok(Exit {
            code: Some(self.reply.code),
            signal: None,
            stderr: self.reply.stderr.clone(),
        })
    }

    fn close_stdin(&mut self) -> Result<(), RemoteError> {
        Ok(())
    }

    fn check(&mut self) -> Result<(), RemoteError> {
        Ok(())
    }

    fn received(&self) -> u64 {
        self.at as u64
    }
}

/// What a far side would send of `data`.
pub(crate) fn compress(codec: Codec, data: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Zstd => zstd::encode_all(data, 1).unwrap(),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Bzip2 | Codec::Xz => panic!("no far side is asked for {codec}"),
        Codec::None => data.to_vec(),
    }
}
