/// How to call Barman for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// The section of Barman's configuration.
    pub server: String,
    /// The program on the Barman host: `barman`, or a path.
    pub command: String,
    /// Barman's configuration file there, when it is not where Barman looks.
    pub config: Option<String>,
}
