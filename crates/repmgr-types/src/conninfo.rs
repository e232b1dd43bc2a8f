use std::fmt;

/// A libpq connection string as an ordered list of parameters.
///
/// `Display` and `Debug` hide secrets; [`Conninfo::to_libpq_string`] is the one way to get them out.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Conninfo {
    params: Vec<(String, String)>,
}

/// A connection string that libpq would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid connection string: {reason}")]
pub struct ConninfoError {
    /// What is wrong, without the string itself: it may hold a password.
    pub reason: String,
}

impl Conninfo {
    /// No parameters.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `keyword`.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(k, _)| k == keyword)
            .map(|(_, v)| v.as_str())
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conninfo({self})")
    }
}
