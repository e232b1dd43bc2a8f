//! An archive on this host, made by hand: every place and form a file can have, and a prefetcher at work.

mod bench;
mod empty;
mod fetching;
mod prefetching;
mod refusing;
