//! `repmgr-wal-restore` against real Barmans over a real sshd, for a directory and for real standbys.

mod archives;
mod background;
mod bench;
mod calls;
mod faults;
mod standbys;
