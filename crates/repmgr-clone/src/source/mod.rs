//! Where the base backup comes from: a backup in Barman's catalogue, or the source node itself.

pub(crate) mod backup;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod external;
pub(crate) mod hold;
pub(crate) mod server;
