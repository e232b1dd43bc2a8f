//! The system's log, reached as the C library reaches it: datagrams to `/dev/log`.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::str::FromStr;

use time::{OffsetDateTime, UtcOffset};

const SOCKET: &str = "/dev/log";

/// A syslog facility that `log_facility` can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facility(u8);

impl FromStr for Facility {
    type Err = ();

    /// Reads `USER` or `LOCAL0` to `LOCAL7`; upper case only, as in repmgr.
    fn from_str(name: &str) -> Result<Self, ()> {
        match name.strip_prefix("LOCAL").map(str::as_bytes) {
            Some([digit @ b'0'..=b'7']) => Ok(Self(16 + digit - b'0')),
            _ if name == "USER" => Ok(Self(1)),
            _ => Err(()),
        }
    }
}

/// A connection to the system's log.
pub(crate) struct Syslog {
    socket: UnixDatagram,
    facility: Facility,
    offset: UtcOffset,
}

impl Syslog {
    pub(crate) fn open(facility: Facility) -> io::Result<Self> {
        Self::open_at(Path::new(SOCKET), facility)
    }

    fn open_at(path: &Path, facility: Facility) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self {
            socket,
            facility,
            offset: UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC),
        })
    }

    /// Sends each line as a message. `severity` is 0 (worst) to 7.
    pub(crate) fn send(&self, severity: u8, text: &str) -> io::Result<()> {
        let priority = self.facility.0 * 8 + severity;
        let now = OffsetDateTime::now_utc().to_offset(self.offset);
        let format = time::macros::format_description!(
            "[month repr:short] [day padding:space] [hour]:[minute]:[second]"
        );
        let now = now.format(&format).map_err(io::Error::other)?;
        let process = std::process::id();
        for line in text.lines() {
            let message = format!("<{priority}>{now} repmgr[{process}]: {line}");
            self.socket.send(message.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_are_those_of_repmgr() {
        assert_eq!("USER".parse(), Ok(Facility(1)));
        assert_eq!("LOCAL0".parse(), Ok(Facility(16)));
        assert_eq!("LOCAL7".parse(), Ok(Facility(23)));
        for name in ["", "STDERR", "user", "local0", "LOCAL8", "LOCAL", "LOCAL10"] {
            assert_eq!(name.parse::<Facility>(), Err(()), "{name}");
        }
    }

    #[test]
    fn every_line_is_a_datagram_with_priority_time_and_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::open_at(&path, Facility(16 + 3)).unwrap();
        syslog.send(4, "WARNING: one\nDETAIL: two\n").unwrap();
        for expected in ["WARNING: one", "DETAIL: two"] {
            let mut bytes = [0; 200];
            let length = server.recv(&mut bytes).unwrap();
            let message = std::str::from_utf8(&bytes[..length]).unwrap();
            // 19 * 8 + 4
            assert!(message.starts_with("<156>"), "{message}");
            let end = format!(" repmgr[{}]: {expected}", std::process::id());
            assert!(message.ends_with(&end), "{message}");
            assert_eq!(
                message.len(),
                "<156>Nov 26 00:46:34".len() + end.len(),
                "{message}"
            );
        }
    }

    #[test]
    fn a_host_without_syslog_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Syslog::open_at(&directory.path().join("none"), Facility(1)).is_err());
    }
}
