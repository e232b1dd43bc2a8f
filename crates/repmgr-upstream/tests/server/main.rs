//! The crate against a real PostgreSQL server on loopback (Debian's `postgresql-15`, or the
//! programs in `REPMGR_TEST_PG_BINDIR`); what must hold for old and new servers alike also against those of the lab.

mod basebackup;
mod connect;
mod future;
mod queries;
mod replication;
mod support;
