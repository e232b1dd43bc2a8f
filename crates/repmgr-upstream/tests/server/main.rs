//! The crate against a real PostgreSQL server on loopback (Debian's `postgresql-15`, or the
//! programs in `REPMGR_TEST_PG_BINDIR`).

mod connect;
mod queries;
mod support;
