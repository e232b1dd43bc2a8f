//! A Barman server's archive, over one connection that is kept.

mod files;
mod get_wal;
mod location;
mod proof;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use repmgr_barman::ServerAddress;
use repmgr_pgfile::read_beginning;
use repmgr_remote::{Connection, Host, RemoteErrorKind};
use repmgr_types::{CancelToken, SystemId, WalSegmentName, WalSegmentSize};

use self::files::{SendEnd, SendError};
use self::location::Location;
use crate::check::{check_branch, needs_history};
use crate::deliver::Shelf;
use crate::history::TimelineHistory;
use crate::receive::{MAX_TEXT, ReceiveError, Received, receive};
use crate::{ContentError, FetchError, WalFileName};

/// Nothing received for so long: a disk that spins up, a Python that starts on a busy host.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How WAL that is stored plain travels. What is stored compressed travels as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Compressed with zstd or lz4 if the Barman host has one of them.
    #[default]
    Fast,
    /// Compressed with gzip.
    Gzip,
    /// Compressed with bzip2.
    Bzip2,
    /// As it is stored.
    Stored,
}

impl Transport {
    /// Programs to try on the Barman host, each of which understands `-1 -c -q`.
    fn programs(self) -> &'static str {
        match self {
            Self::Fast => "zstd lz4",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Stored => "",
        }
    }
}

/// What to fetch, and from which server.
#[derive(Clone)]
pub struct ArchiveOptions {
    /// Barman and its server.
    pub address: ServerAddress,
    /// The same host for plain command lines, to turn to where a forced command
    /// (`command="..."` in `authorized_keys`) lets nothing pass but `barman get-wal`.
    pub plain_host: Option<Arc<dyn Host>>,
    /// The cluster the files must belong to; unknown for a directory without `global/pg_control`.
    pub system_id: Option<SystemId>,
    /// Take an unfinished `.partial` segment where there is no whole one.
    pub partial: bool,
    /// How plain files travel.
    pub transport: Transport,
    /// Where timeline history files of this node lie: `pg_wal`.
    pub local_wal: Option<PathBuf>,
}

/// How files are had.
enum Way {
    /// By reading the archive's directories.
    Files(Location),
    /// By `barman get-wal`, one Python start for each.
    GetWal,
}

/// The archive of one Barman server. Connects when it has to and keeps the connection.
pub struct Archive {
    host: Arc<dyn Host>,
    options: ArchiveOptions,
    connection: Option<Box<dyn Connection>>,
    way: Option<Way>,
    /// Whether commands run as we put them, with marks around their output.
    framed: bool,
    /// That the directories are really those of our cluster: an absent file there is absent.
    proven: bool,
    /// Of the cluster, as far as is known.
    segment_size: WalSegmentSize,
    /// Ends commands early, besides the token of the host.
    cancel: CancelToken,
}

/// What reading the directories gave.
enum Outcome {
    Found(Received),
    Missing,
    /// In this place is what we cannot decode, and Barman's own filters perhaps can.
    Undecodable(String, ContentError),
    /// Not readable for us, or not by us.
    AskBarman(&'static str),
}

/// Where a run of segments ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// All were there.
    Complete,
    /// This one is not there.
    Missing(WalSegmentName),
    /// This one is there and was refused.
    Refused(WalSegmentName),
}

impl Archive {
    /// An archive on `host`. Touches nothing yet.
    ///
    /// # Errors
    /// If a word in the options cannot be passed to Barman.
    pub fn new(host: Arc<dyn Host>, options: ArchiveOptions) -> Result<Self, FetchError> {
        let address = &options.address;
        for (what, word) in [
            ("Barman server", Some(&address.server)),
            ("configuration file", address.config.as_ref()),
        ] {
            if let Some(word) = word
                && (word.trim().is_empty() || word.starts_with('-') || word.chars().any(char::is_control))
            {
                return Err(FetchError::BadWord {
                    what,
                    word: word.clone(),
                });
            }
        }
        Ok(Self {
            host,
            options,
            connection: None,
            way: None,
            framed: true,
            proven: false,
            segment_size: WalSegmentSize::DEFAULT,
            cancel: CancelToken::new(),
        })
    }

    pub(crate) fn only_whole_segments(&mut self) {
        self.options.partial = false;
    }

    pub(crate) fn expect_segments_of(&mut self, size: WalSegmentSize) {
        self.segment_size = size;
    }

    pub(crate) fn cancel_by(&mut self, cancel: CancelToken) {
        self.cancel = cancel;
    }

    /// Fetches one file into a temporary file in `dir`, whole and checked.
    pub(crate) fn fetch(&mut self, name: WalFileName, dir: &Shelf) -> Result<Received, FetchError> {
        self.with_session(|archive| archive.fetch_once(name, dir))
    }

    /// Fetches `names` in one go, as many as there are up to the first that is not, and hands each
    /// to `keep`, which returns false to have no more of them.
    pub(crate) fn fetch_run(
        &mut self,
        names: &[WalSegmentName],
        dir: &Shelf,
        keep: &mut dyn FnMut(WalSegmentName, Received) -> bool,
    ) -> Result<RunEnd, FetchError> {
        self.with_session(|archive| archive.run_once(names, dir, keep))
    }

    /// Makes one more attempt where a kept connection turns out to have ended, and where the host
    /// takes plain command lines only.
    fn with_session<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, FetchError>,
    ) -> Result<T, FetchError> {
        let kept = self.connection.is_some();
        let mut result = attempt(self);
        match &result {
            Err(FetchError::Remote(e)) if matches!(e.kind, RemoteErrorKind::NoStartMark { .. }) => {
                if let Some(plain) = self.options.plain_host.take() {
                    log::debug!("{e}; trying \"barman get-wal\" as a plain command");
                    (self.host, self.connection, self.way) = (plain, None, Some(Way::GetWal));
                    self.framed = false;
                    result = attempt(self);
                }
            }
            // A fresh one is given no second try.
            Err(error) if kept && error.is_transient() => {
                log::debug!("{error}; connecting again");
                self.connection = None;
                result = attempt(self);
            }
            _ => {}
        }
        if result.as_ref().is_err_and(FetchError::is_transient) {
            self.connection = None;
        }
        result
    }

    fn fetch_once(&mut self, name: WalFileName, dir: &Shelf) -> Result<Received, FetchError> {
        let received = match self.read_files(name, dir)? {
            Outcome::Found(received) => received,
            Outcome::Missing if self.proven => return Err(self.not_in_archive(name)),
            Outcome::Missing => {
                // Nothing yet says that we look at the right place.
                let Some(received) = self.get_wal(name, dir)? else {
                    return Err(self.not_in_archive(name));
                };
                log::debug!("Barman finds {name} where its configuration files do not say so");
                self.way = Some(Way::GetWal);
                received
            }
            Outcome::Undecodable(place, error) => {
                log::debug!("{name} through \"barman get-wal\": {error}");
                match self.get_wal(name, dir) {
                    Ok(Some(received)) => received,
                    Ok(None) | Err(FetchError::Refused { .. } | FetchError::Barman { .. }) => {
                        return Err(self.refused(name, &place, error));
                    }
                    Err(error) => return Err(error),
                }
            }
            Outcome::AskBarman(why) => {
                log::debug!("{name} through \"barman get-wal\": {why}");
                match self.get_wal(name, dir)? {
                    Some(received) => received,
                    None if self.barman_shows_wal(name)? => return Err(self.not_in_archive(name)),
                    None => return Err(self.nothing_there(name)),
                }
            }
        };
        if let Some(header) = received.header {
            self.segment_size = header.segment_size;
        }
        if let (WalFileName::Segment(segment) | WalFileName::Partial(segment), Some(header)) =
            (name, received.header)
            && needs_history(segment, header)
        {
            self.confirm_branch(segment, &received, dir)?;
        }
        Ok(received)
    }

    fn read_files(&mut self, name: WalFileName, dir: &Shelf) -> Result<Outcome, FetchError> {
        let mut outcome = Outcome::Missing;
        let system_id = self.options.system_id;
        let place_name = std::cell::RefCell::new(String::new());
        let result = self.send(&[name], &mut |_, place, body| {
            *place_name.borrow_mut() = place.to_owned();
            match receive(name, body, system_id, dir) {
                Ok(received) => {
                    outcome = Outcome::Found(received);
                    Ok(())
                }
                Err(ReceiveError::Unknown) => {
                    outcome = Outcome::AskBarman("only Barman can read it");
                    Ok(())
                }
                Err(ReceiveError::Content(error)) if error.may_be_a_filter() => {
                    outcome = Outcome::Undecodable(place.to_owned(), error);
                    Ok(())
                }
                Err(error) => Err(error),
            }
        });
        match result {
            Ok(SendEnd::Denied) => {
                // Also for the files to come: a Python start each time, but the right answer.
                self.way = Some(Way::GetWal);
                return Ok(Outcome::AskBarman(
                    "the archive's directories cannot be read by this user",
                ));
            }
            Ok(SendEnd::NoLocation) => {
                return Ok(Outcome::AskBarman("the archive's directories are not known"));
            }
            Ok(SendEnd::Empty) => {
                return Ok(Outcome::AskBarman("the archive's directory shows no WAL at all"));
            }
            Ok(SendEnd::Missing | SendEnd::Complete) => {}
            Err(error) => return Err(self.fetch_error(name, &place_name.borrow(), error)),
        }
        if let Outcome::Found(received) = &outcome
            && received.header.is_some()
            && system_id.is_some()
        {
            self.proven = true;
        }
        Ok(outcome)
    }

    fn run_once(
        &mut self,
        names: &[WalSegmentName],
        dir: &Shelf,
        keep: &mut dyn FnMut(WalSegmentName, Received) -> bool,
    ) -> Result<RunEnd, FetchError> {
        let files: Vec<WalFileName> = names.iter().map(|n| WalFileName::Segment(*n)).collect();
        let system_id = self.options.system_id;
        let mut kept = 0;
        let mut branched = None;
        let mut enough = false;
        let mut refused = None;
        let result = self.send(&files, &mut |file, place, body| {
            if enough || refused.is_some() || branched.is_some() {
                return Ok(());
            }
            let Some(name) = file.segment() else { return Ok(()) };
            match receive(file, body, system_id, dir) {
                Ok(received) if received.header.is_some_and(|h| needs_history(name, h)) => {
                    branched = Some((name, received));
                }
                Ok(received) => {
                    kept += 1;
                    enough = !keep(name, received);
                }
                Err(ReceiveError::Unknown) => refused = Some((name, None)),
                Err(ReceiveError::Content(error)) => {
                    log::debug!("{name} from {place}: {error}");
                    refused = Some((name, Some(error)));
                }
                Err(error) => return Err(error),
            }
            Ok(())
        });
        let end = match result {
            Ok(end) => end,
            Err(error) => {
                let name = files.get(kept).copied().unwrap_or(files[0]);
                return Err(self.fetch_error(name, "", error));
            }
        };
        if enough {
            return Ok(RunEnd::Complete);
        }
        if let Some((name, received)) = branched {
            // The rest of the run is fetched with the next one.
            self.confirm_branch(name, &received, dir)?;
            keep(name, received);
            return Ok(RunEnd::Complete);
        }
        match (end, refused) {
            (SendEnd::Denied | SendEnd::NoLocation, _) => {
                self.way = Some(Way::GetWal);
                self.run_by_barman(&names[kept..], dir, keep)
            }
            (_, Some((name, None))) => {
                log::debug!("{name} and what follows through \"barman get-wal\"");
                self.run_by_barman(&names[kept..], dir, keep)
            }
            (_, Some((name, Some(_)))) => Ok(RunEnd::Refused(name)),
            // Of use for our own account only: whoever asks for it is told by `fetch`.
            (SendEnd::Missing | SendEnd::Empty, None) => {
                Ok(names.get(kept).map_or(RunEnd::Complete, |n| RunEnd::Missing(*n)))
            }
            (SendEnd::Complete, None) => Ok(RunEnd::Complete),
        }
    }

    fn run_by_barman(
        &mut self,
        names: &[WalSegmentName],
        dir: &Shelf,
        keep: &mut dyn FnMut(WalSegmentName, Received) -> bool,
    ) -> Result<RunEnd, FetchError> {
        for name in names {
            match self.fetch_once(WalFileName::Segment(*name), dir) {
                Ok(received) => {
                    if !keep(*name, received) {
                        break;
                    }
                }
                Err(FetchError::NotInArchive { .. } | FetchError::NothingThere { .. }) => {
                    return Ok(RunEnd::Missing(*name));
                }
                Err(FetchError::Refused { .. }) => return Ok(RunEnd::Refused(*name)),
                Err(error) => return Err(error),
            }
        }
        Ok(RunEnd::Complete)
    }

    /// A segment that begins on an older timeline must be the one in which its own branched off.
    fn confirm_branch(
        &mut self,
        segment: WalSegmentName,
        received: &Received,
        dir: &Shelf,
    ) -> Result<(), FetchError> {
        let Some(header) = received.header else {
            return Ok(());
        };
        let timeline = segment.timeline();
        let name = WalFileName::History(timeline);
        let local = self
            .options
            .local_wal
            .as_ref()
            .map(|wal| wal.join(name.to_string()));
        let bytes = match local.and_then(|path| read_beginning(&path, MAX_TEXT).ok()) {
            Some(bytes) => bytes,
            None => match self.fetch_once(name, dir) {
                Ok(history) => history.file.contents()?,
                Err(FetchError::NotInArchive { .. }) => {
                    // PostgreSQL does not know the branch either, and asks for no other timeline.
                    log::debug!("no {name} to compare {segment} with");
                    return Ok(());
                }
                Err(error) => return Err(error),
            },
        };
        TimelineHistory::parse(timeline, &bytes)
            .map_err(ContentError::from)
            .and_then(|history| check_branch(segment, header, &history))
            .map_err(|source| self.refused(segment.into(), "archive", source))
    }

    fn connection(&mut self) -> Result<&mut Box<dyn Connection>, FetchError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            none => Ok(none.insert(self.host.connect()?)),
        }
    }

    fn fetch_error(&self, name: WalFileName, place: &str, error: SendError) -> FetchError {
        match error {
            SendError::Fetch(error) => error,
            SendError::Receive(ReceiveError::Content(source)) => self.refused(name, place, source),
            SendError::Receive(ReceiveError::File(error)) => error.into(),
            SendError::Receive(ReceiveError::Source(error)) => FetchError::Garbled {
                host: self.host.name().to_owned(),
                reason: error.to_string(),
            },
            // Handled where it is met.
            SendError::Receive(ReceiveError::Unknown) => FetchError::Garbled {
                host: self.host.name().to_owned(),
                reason: "it is neither WAL nor compressed".to_owned(),
            },
        }
    }

    fn refused(&self, name: WalFileName, place: &str, source: ContentError) -> FetchError {
        FetchError::Refused {
            name,
            host: self.host.name().to_owned(),
            place: place.to_owned(),
            source,
        }
    }

    fn nothing_there(&self, name: WalFileName) -> FetchError {
        FetchError::NothingThere {
            name,
            server: self.options.address.server.clone(),
            host: self.host.name().to_owned(),
        }
    }

    pub(crate) fn not_in_archive(&self, name: WalFileName) -> FetchError {
        FetchError::NotInArchive {
            name,
            server: self.options.address.server.clone(),
            host: self.host.name().to_owned(),
        }
    }
}
