//! The servers a clone has to do with, and whether the standby will be able to follow them.

pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod find;
pub(crate) mod node;
pub(crate) mod reach;
pub(crate) mod slot;
