//! What one can say of a host and the way to it.

use std::sync::Arc;
use std::time::Duration;

use repmgr_types::CancelToken;

/// Asks the user while a connection is made. Without one nothing is ever asked.
pub trait Prompt: Send + Sync {
    /// A passphrase, password or code; `None` when the user gives up.
    fn secret(&self, question: &str) -> Option<String>;

    /// A question whose answer is yes or no.
    fn confirm(&self, question: &str) -> bool;
}

/// What connects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SshClient {
    /// libssh2, and the user's own `ssh` for what libssh2 cannot do.
    #[default]
    Auto,
    /// libssh2 only.
    Libssh2,
    /// The user's own `ssh` only. It asks nothing.
    OpenSsh,
}

/// How to reach a host, beyond its name.
#[derive(Clone)]
pub struct SshOptions {
    /// Options as one would type them after `ssh`, split like a shell does: `-F file -o 'A=b c'`.
    pub ssh_options: String,
    /// The user to log in as, unless the destination names one.
    pub user: Option<String>,
    /// The user where neither the destination, [`user`](Self::user) nor the configuration names one
    /// (instead of this account's own).
    pub default_user: Option<String>,
    /// The port, unless the destination names one.
    pub port: Option<u16>,
    /// Who to ask for passphrases, passwords and new host keys.
    pub prompt: Option<Arc<dyn Prompt>>,
    /// The limit for each step of connecting, where `ConnectTimeout` sets none.
    pub connect_timeout: Duration,
    /// Ends connecting and all commands early.
    pub cancel: CancelToken,
    /// The OpenSSH client that reads the user's configuration, and connects through a `ProxyJump`.
    pub ssh_program: String,
    /// What connects.
    pub client: SshClient,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            ssh_options: String::new(),
            user: None,
            default_user: None,
            port: None,
            prompt: None,
            connect_timeout: Duration::from_secs(30),
            cancel: CancelToken::new(),
            ssh_program: "ssh".to_owned(),
            client: SshClient::Auto,
        }
    }
}
