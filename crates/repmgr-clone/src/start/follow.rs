//! Following a server until it streams.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use repmgr_datadir::{ServerState, server_state};
use repmgr_pgfile::{ControlFile, PG_CONTROL, PG_CONTROL_SIZE, read_beginning};
use repmgr_types::{Conninfo, Lsn, WalSegmentSize};
use repmgr_upstream::{StandbyProgress, Upstream, connect};

use super::Ended;
use super::error::StartError;
use super::log::ServerLog;
use super::replay::replayed_segment;
use crate::error::with_causes;
use crate::event::ByteSize;
use crate::request::Start;
use crate::{CloneError, Context, Hint, Remark, RemarkCode, StandbyEvent};

/// How often the server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is tried to connect to it.
const CONNECT_EVERY: Duration = Duration::from_millis(500);
/// How often its position is told.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long no server may be seen, after the command has ended, before it counts as ended.
const GONE_AFTER: Duration = Duration::from_secs(3);
/// How long it may stay where it is.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// What is known of the server that was started.
pub(super) struct Follower<'a> {
    directory: PathBuf,
    conninfo: Option<Conninfo>,
    limit: Option<Duration>,
    /// Where the upstream node was when the server was started.
    target: Option<Lsn>,
    log: ServerLog,
    context: &'a Context<'a>,
    begun: Instant,
    session: Option<Upstream>,
    tried: Option<Instant>,
    /// When a server was last seen, and whether one ever was.
    seen: Instant,
    was_seen: bool,
    ended: Option<Ended>,
    positions: Positions,
}

impl<'a> Follower<'a> {
    pub(super) fn new(
        directory: PathBuf,
        conninfo: Option<Conninfo>,
        start: &Start,
        target: Option<Lsn>,
        log: ServerLog,
        context: &'a Context<'a>,
    ) -> Self {
        let begun = Instant::now();
        Self {
            directory,
            conninfo,
            limit: start.limit,
            target,
            log,
            context,
            begun,
            session: None,
            tried: None,
            seen: begun,
            was_seen: false,
            ended: None,
            positions: Positions::new(begun),
        }
    }

    /// Until it streams.
    pub(super) fn follow(&mut self, command: &Receiver<Ended>) -> Result<Lsn, CloneError> {
        loop {
            match command.recv_timeout(LOOK_EVERY) {
                Ok(ended) => self.ended = Some(ended),
                Err(RecvTimeoutError::Timeout) => {}
                // It has ended, and said so before.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
            self.context.cancel.check()?;
            self.check_running()?;
            if let Some(position) = self.look()? {
                return Ok(position);
            }
            self.check_time()?;
        }
    }

    fn pid(&self) -> Option<i32> {
        match server_state(&self.directory) {
            Ok(ServerState::Running { pid, .. }) => Some(pid),
            _ => None,
        }
    }

    fn check_running(&mut self) -> Result<(), StartError> {
        if self.pid().is_some() {
            self.seen = Instant::now();
            self.was_seen = true;
            return Ok(());
        }
        let failed = matches!(&self.ended, Some(ended) if ended.trouble.is_some());
        let long_gone = self.ended.is_some() && self.seen.elapsed() > GONE_AFTER;
        if !failed && !long_gone {
            return Ok(());
        }
        let log = self.log.errors();
        match self.ended.take() {
            Some(ended) if !self.was_seen || ended.trouble.is_some() => Err(StartError::Command {
                reason: ended.trouble.unwrap_or_else(|| {
                    format!(
                        "it ended well, and no server runs in \"{}\"",
                        self.directory.display()
                    )
                }),
                said: ended.said,
                log,
            }),
            _ => Err(StartError::Ended { log }),
        }
    }

    /// What can be seen of it now; its position once it streams.
    fn look(&mut self) -> Result<Option<Lsn>, CloneError> {
        for line in self.log.new_errors() {
            let remark = Remark::warning(RemarkCode::ServerLog, "the standby's log has an error");
            self.context.tell(
                remark
                    .detail(line)
                    .hint(Hint::from("it is followed on: the server may get over it")),
            );
        }
        let Some(progress) = self.progress() else {
            let segment = self.pid().and_then(replayed_segment);
            if let Some(segment) = segment {
                self.tell(segment.start(self.segment_size()));
            }
            return Ok(None);
        };
        if !progress.in_recovery {
            let directory = self.directory.clone();
            return Err(StartError::NotAStandby { directory }.into());
        }
        let position = progress
            .replayed
            .max(progress.received.filter(|_| progress.streams));
        if let Some(replayed) = progress.replayed {
            self.tell(replayed);
        }
        Ok(position.filter(|_| progress.streams))
    }

    /// As its control file says.
    fn segment_size(&self) -> WalSegmentSize {
        let control = read_beginning(&self.directory.join(PG_CONTROL), PG_CONTROL_SIZE as u64);
        let control = control.ok().and_then(|bytes| ControlFile::parse(&bytes).ok());
        control.map_or(WalSegmentSize::DEFAULT, |control| control.wal_segment_size)
    }

    fn progress(&mut self) -> Option<StandbyProgress> {
        if self.session.is_none() && self.tried.is_none_or(|tried| tried.elapsed() >= CONNECT_EVERY) {
            self.tried = Some(Instant::now());
            let conninfo = self.conninfo.as_ref()?;
            match connect(conninfo, self.context.environment) {
                Ok(session) => self.session = Some(session),
                Err(error) => log::debug!("no connection to the new standby yet: {}", with_causes(&error)),
            }
        }
        match self.session.as_ref()?.standby_progress() {
            Ok(progress) => Some(progress),
            Err(error) => {
                log::debug!("{}", with_causes(&error));
                self.session = None;
                None
            }
        }
    }

    fn tell(&mut self, position: Lsn) {
        if let Some(rate) = self.positions.at(position, Instant::now()) {
            let left = self.target.map(|target| target.0.saturating_sub(position.0));
            self.context.tell(StandbyEvent::Replaying {
                position: position.to_string(),
                target: self.target.map(|target| target.to_string()),
                bytes_left: left,
                bytes_per_second: rate,
            });
        }
    }

    fn check_time(&self) -> Result<(), StartError> {
        let position = || self.positions.last.map(|position| position.to_string());
        match self.limit {
            Some(limit) if self.begun.elapsed() > limit => {
                Err(StartError::too_late(limit, position(), self.log.errors()))
            }
            _ if self.positions.moved.elapsed() > STUCK_AFTER => {
                Err(StartError::stuck(STUCK_AFTER, position(), self.log.errors()))
            }
            _ => Ok(()),
        }
    }
}

/// How the position moves.
struct Positions {
    last: Option<Lsn>,
    /// When it last did.
    moved: Instant,
    /// What was told last.
    told: Option<(Lsn, Instant)>,
}

impl Positions {
    fn new(now: Instant) -> Self {
        Self {
            last: None,
            moved: now,
            told: None,
        }
    }

    /// Takes note of a position. If it is time to tell of it: bytes a second since the last time.
    fn at(&mut self, position: Lsn, now: Instant) -> Option<u64> {
        if self.last.is_none_or(|last| position > last) {
            (self.last, self.moved) = (Some(position), now);
        }
        let Some((told, when)) = self.told else {
            self.told = Some((position, now));
            return None;
        };
        let time = now.saturating_duration_since(when);
        if position <= told || time < TELL_EVERY {
            return None;
        }
        self.told = Some((position, now));
        let bytes = position.0.saturating_sub(told.0);
        u64::try_from(u128::from(bytes) * 1000 / time.as_millis().max(1)).ok()
    }
}

/// A rate and what it leaves, in words.
pub(crate) fn in_words(bytes_left: Option<u64>, bytes_per_second: u64) -> String {
    let rate = format!("{}/s", ByteSize(bytes_per_second));
    match bytes_left {
        Some(left) if bytes_per_second > 0 => {
            format!(
                "{} left, {rate}, about {} s",
                ByteSize(left),
                left.div_ceil(bytes_per_second)
            )
        }
        Some(left) => format!("{} left, {rate}", ByteSize(left)),
        None => rate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_told_now_and_then_with_its_rate() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut positions = Positions::new(begun);
        assert_eq!(positions.at(Lsn(1000), at(1)), None);
        assert_eq!(positions.at(Lsn(2000), at(2)), None);
        assert_eq!(positions.at(Lsn(9000), at(5)), Some(2000));
        // Nothing new, and then an older one of another source.
        assert_eq!(positions.at(Lsn(9000), at(9)), None);
        assert_eq!(positions.at(Lsn(8000), at(12)), None);
        assert_eq!((positions.last, positions.moved), (Some(Lsn(9000)), at(5)));
    }

    #[test]
    fn what_is_left_is_told_in_time_too() {
        assert_eq!(
            in_words(Some(100 << 20), 25 << 20),
            "100 MB left, 25 MB/s, about 4 s"
        );
        assert_eq!(in_words(Some(100 << 20), 0), "100 MB left, 0 bytes/s");
        assert_eq!(in_words(None, 25 << 20), "25 MB/s");
    }
}
