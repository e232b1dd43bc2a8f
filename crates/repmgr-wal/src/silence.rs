//! A Barman host that gives no answer is waited for once, not by each call anew: PostgreSQL asks for several
//! files in a row before it opens the database, and a promotion waits for all of them.

use std::fs;
use std::io::Read;
use std::time::{Duration, SystemTime};

use crate::spool::open_regular;
use crate::{FetchError, Spool};

/// What the last call without an answer leaves in the spool; its age is that of the file.
const NO_ANSWER: &str = "no_answer";
/// What failed sooner may as well be tried again.
const WORTH_SPARING: Duration = Duration::from_secs(1);
/// How long nobody is asked: longer than an attempt to connect takes, so that most promotions meet none.
const HOLD_OFF: Duration = Duration::from_secs(20);
/// Of the message, in characters.
const LONGEST: usize = 500;

impl Spool {
    /// Fails at once if a call got no answer a moment ago.
    pub(crate) fn ask_only_who_answers(&self) -> Result<(), FetchError> {
        match self.silence() {
            Some((ago, said)) => Err(FetchError::NoAnswer { ago, said }),
            None => Ok(()),
        }
    }

    /// How long ago a call got no answer, and how it failed, while that counts.
    pub(crate) fn silence(&self) -> Option<(Duration, String)> {
        let file = open_regular(&self.dir().join(NO_ANSWER)).filter(|_| self.is_private())?;
        // A time to come tells nothing: somebody has set the clock.
        let ago = SystemTime::now()
            .duration_since(file.metadata().ok()?.modified().ok()?)
            .ok()
            .filter(|ago| *ago < HOLD_OFF)?;
        let mut said = Vec::new();
        // Four bytes are the longest character.
        file.take(4 * LONGEST as u64).read_to_end(&mut said).ok()?;
        Some((ago, String::from_utf8_lossy(&said).trim_end().to_owned()))
    }

    /// Remembers how a call that took so long ended. Best effort: without, the next one waits as long.
    pub(crate) fn remember<T>(&self, result: &Result<T, FetchError>, took: Duration) {
        match result {
            Err(error) if error.is_silence() => {
                if took > WORTH_SPARING {
                    let said: String = error.to_string().chars().take(LONGEST).collect();
                    let put = self.make().and_then(|()| self.put(NO_ANSWER, &said));
                    put.unwrap_or_else(|e| log::debug!("{e}"));
                }
            }
            // Neither says anything of the host.
            Err(FetchError::File(_) | FetchError::NoAnswer { .. }) => {}
            _ => self.forget_silence(),
        }
    }

    /// There was an answer.
    pub(crate) fn forget_silence(&self) {
        // Where it stays it counts for some seconds more.
        let _ = fs::remove_file(self.dir().join(NO_ANSWER));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use repmgr_remote::{ConnectError, ConnectErrorKind};

    use super::*;
    use crate::Cluster;

    fn spool(dir: &Path) -> Spool {
        let destination = dir.join("pg_wal/RECOVERYXLOG");
        Spool::new(None, &Cluster::of_destination(&destination), None, &["host"])
    }

    fn timed_out() -> Result<(), FetchError> {
        let kind = ConnectErrorKind::TimedOut {
            stage: "connecting",
            after: Duration::from_secs(10),
        };
        let host = "barmansrv".to_owned();
        Err(ConnectError {
            host,
            kind,
            ssh_options: String::new(),
        }
        .into())
    }

    const SLOW: Duration = Duration::from_secs(10);

    #[test]
    fn nobody_waits_again_for_a_host_that_gave_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        assert!(spool.ask_only_who_answers().is_ok());
        spool.remember(&timed_out(), SLOW);
        let error = spool.ask_only_who_answers().unwrap_err();
        assert!(error.is_transient() && !error.is_silence());
        let text = error.to_string();
        assert!(text.contains("barmansrv") && text.contains("timed out"), "{text}");
        // Those who did not ask neither prolong it nor end it.
        let marker = File::open(spool.dir().join(NO_ANSWER)).unwrap();
        let before = Duration::from_secs(5);
        marker.set_modified(SystemTime::now() - before).unwrap();
        spool.remember(&Err::<(), _>(error), SLOW);
        assert!(spool.silence().unwrap().0 >= before);
    }

    #[test]
    fn it_counts_for_some_seconds_and_until_there_is_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        let set = |time: SystemTime| {
            spool.remember(&timed_out(), SLOW);
            let marker = File::open(spool.dir().join(NO_ANSWER)).unwrap();
            marker.set_modified(time).unwrap();
            spool.silence().is_some()
        };
        let now = SystemTime::now();
        assert!(set(now - HOLD_OFF / 2));
        assert!(!set(now - HOLD_OFF) && !set(now + Duration::from_secs(3600)));
        assert!(set(now));
        spool.remember(&Ok(()), SLOW);
        assert!(spool.silence().is_none());
    }

    #[test]
    fn what_fails_quickly_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        spool.remember(&timed_out(), Duration::from_millis(20));
        assert!(spool.silence().is_none() && !spool.dir().exists());
    }

    #[test]
    fn a_mark_in_a_directory_open_to_others_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        spool.remember(&timed_out(), SLOW);
        fs::set_permissions(spool.dir(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(spool.silence().is_none());
        fs::remove_file(spool.dir().join(NO_ANSWER)).unwrap();
        spool.remember(&timed_out(), SLOW);
        assert!(!spool.dir().join(NO_ANSWER).exists());
    }
}
