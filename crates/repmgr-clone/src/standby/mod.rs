//! What makes a data directory a standby's.

pub(crate) mod configure;
pub(crate) mod configured;
pub(crate) mod event;
pub(crate) mod host;
pub(crate) mod limits;
pub(crate) mod own_conf;
pub(crate) mod reconfigure;
pub(crate) mod restore_command;
pub(crate) mod settings;
