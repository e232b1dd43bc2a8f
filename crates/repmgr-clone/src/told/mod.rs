//! Who hears of a clone when it has ended: repmgr's event table, and the user's own command.

pub(crate) mod notify;
pub(crate) mod record;
