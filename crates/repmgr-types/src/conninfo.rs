use std::fmt;
use std::str::FromStr;

use crate::PgVersion;

/// Every keyword libpq 18 knows, in libpq's option order, with the first
/// `server_version_num` whose libpq knows it (0: all that can be a standby here).
const KEYWORDS: &[(&str, u32)] = &[
    ("service", 0),
    ("user", 0),
    ("password", 0),
    ("passfile", 100_000),
    ("channel_binding", 130_000),
    ("connect_timeout", 0),
    ("dbname", 0),
    ("host", 0),
    ("hostaddr", 0),
    ("port", 0),
    ("client_encoding", 0),
    ("options", 0),
    ("application_name", 0),
    ("fallback_application_name", 0),
    ("keepalives", 0),
    ("keepalives_idle", 0),
    ("keepalives_interval", 0),
    ("keepalives_count", 0),
    ("tcp_user_timeout", 120_000),
    ("sslmode", 0),
    ("sslnegotiation", 170_000),
    ("sslcompression", 0),
    ("sslcert", 0),
    ("sslkey", 0),
    ("sslcertmode", 160_000),
    ("sslpassword", 130_000),
    ("sslrootcert", 0),
    ("sslcrl", 0),
    ("sslcrldir", 140_000),
    ("sslsni", 140_000),
    ("requirepeer", 0),
    ("require_auth", 160_000),
    ("min_protocol_version", 180_000),
    ("max_protocol_version", 180_000),
    ("ssl_min_protocol_version", 130_000),
    ("ssl_max_protocol_version", 130_000),
    ("gssencmode", 120_000),
    ("krbsrvname", 0),
    ("gsslib", 0),
    ("gssdelegation", 160_000),
    ("replication", 0),
    ("target_session_attrs", 100_000),
    ("load_balance_hosts", 160_000),
    ("scram_client_key", 180_000),
    ("scram_server_key", 180_000),
    ("oauth_issuer", 180_000),
    ("oauth_client_id", 180_000),
    ("oauth_client_secret", 180_000),
    ("oauth_scope", 180_000),
    ("sslkeylogfile", 180_000),
];

/// Values that `Display` and `Debug` replace by asterisks.
const SECRETS: &[&str] = &[
    "password",
    "sslpassword",
    "oauth_client_secret",
    "scram_client_key",
    "scram_server_key",
];

const URI_SCHEMES: &[&str] = &["postgresql://", "postgres://"];

/// A libpq connection string as an ordered list of parameters.
///
/// `Display` and `Debug` hide secrets; [`Conninfo::to_libpq_string`] is the one way to get them out.
///
/// ```
/// # use repmgr_types::Conninfo;
/// let mut conninfo: Conninfo = "postgresql://repmgr:s3cret@node1/repmgr".parse()?;
/// conninfo.set("application_name", "node 2");
/// assert_eq!(conninfo.get("host"), Some("node1"));
/// assert!(conninfo.to_string().ends_with("application_name='node 2'"));
/// assert!(!conninfo.to_string().contains("s3cret"));
/// # Ok::<(), repmgr_types::ConninfoError>(())
/// ```
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

    /// Reads `keyword = value` pairs or a URI, by the rules of libpq 18 (spaces around a URI
    /// query parameter are dropped). The last of several equal keywords wins.
    ///
    /// Nothing is looked up: `service` stays a parameter, defaults and environment stay out.
    ///
    /// # Errors
    /// Syntax libpq refuses and keywords it does not know. Values are not judged, as libpq
    /// does not judge them before it connects.
    pub fn parse(text: &str) -> Result<Self, ConninfoError> {
        if text.contains('\0') {
            return Err(error("contains a NUL byte"));
        }
        let mut conninfo = Self::new();
        match URI_SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme)) {
            Some(rest) => conninfo.read_uri(rest)?,
            None => conninfo.read_pairs(text)?,
        }
        Ok(conninfo)
    }

    /// Whether libpq would read `text`, given as a database name, as a connection string.
    pub fn looks_like_conninfo(text: &str) -> bool {
        URI_SCHEMES.iter().any(|scheme| text.starts_with(scheme)) || text.contains('=')
    }

    /// Whether the libpq of `version` knows `keyword`; one that does not refuses the whole string.
    pub fn keyword_known_to(keyword: &str, version: PgVersion) -> bool {
        KEYWORDS
            .iter()
            .any(|(known, since)| *known == keyword && *since <= version.num())
    }

    /// Whether the value of `keyword` is a secret, not to be shown to anybody.
    pub fn is_secret(keyword: &str) -> bool {
        SECRETS.contains(&keyword)
    }

    /// Every keyword libpq 18 knows, in the order libpq lists its options.
    pub fn keywords() -> impl Iterator<Item = &'static str> {
        KEYWORDS.iter().map(|(keyword, _)| *keyword)
    }

    /// The value of `keyword`.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == keyword)
            .map(|(_, value)| value)
    }

    /// Sets `keyword`: in its place if it is there, else at the end. The keyword is taken as
    /// it is; [`Conninfo::keyword_known_to`] tells whether a server will accept it.
    pub fn set(&mut self, keyword: &str, value: impl Into<String>) {
        let value = value.into();
        match self.params.iter_mut().find(|(known, _)| known == keyword) {
            Some(slot) => slot.1 = value,
            None => self.params.push((keyword.to_owned(), value)),
        }
    }

    /// Takes `keyword` out and gives its value back.
    pub fn remove(&mut self, keyword: &str) -> Option<String> {
        let position = self.params.iter().position(|(known, _)| known == keyword)?;
        Some(self.params.remove(position).1)
    }

    /// Keywords and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params
            .iter()
            .map(|(keyword, value)| (keyword.as_str(), value.as_str()))
    }

    /// Whether there is no parameter at all.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Whether it carries a password (an empty one counts as none, as for libpq).
    pub fn has_password(&self) -> bool {
        self.get("password").is_some_and(|password| !password.is_empty())
    }

    /// `keyword=value` pairs as libpq reads them, secrets included.
    pub fn to_libpq_string(&self) -> String {
        self.iter()
            .map(|(keyword, value)| format!("{keyword}={}", quote(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn set_known(&mut self, keyword: &str, value: String) -> Result<(), ConninfoError> {
        // libpq still translates this keyword of PostgreSQL 7, by its first letter.
        let (keyword, value) = match (keyword, value.as_str()) {
            ("requiressl", value) if value.starts_with('1') => ("sslmode", "require".to_owned()),
            ("requiressl", _) => ("sslmode", "prefer".to_owned()),
            _ => (keyword, value),
        };
        if !Self::keywords().any(|known| known == keyword) {
            return Err(unknown_option(keyword));
        }
        self.set(keyword, value);
        Ok(())
    }

    fn read_pairs(&mut self, text: &str) -> Result<(), ConninfoError> {
        let mut rest = text.trim_start_matches(is_space);
        while !rest.is_empty() {
            let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
            let (keyword, tail) = rest.split_at(end);
            let tail = tail.trim_start_matches(is_space);
            let Some(tail) = tail.strip_prefix('=') else {
                return Err(missing_equals(keyword));
            };
            let (value, tail) = read_value(tail.trim_start_matches(is_space))?;
            self.set_known(keyword, value)?;
            rest = tail.trim_start_matches(is_space);
        }
        Ok(())
    }

    /// `[user[:password]@][host[:port],...][/dbname][?keyword=value&...]`
    fn read_uri(&mut self, text: &str) -> Result<(), ConninfoError> {
        let mut rest = text;
        if let Some(at) = text.find(['@', '/']).filter(|at| text[*at..].starts_with('@')) {
            let (user, password) = text[..at].split_once(':').unwrap_or((&text[..at], ""));
            self.set_decoded("user", user)?;
            self.set_decoded("password", password)?;
            rest = &text[at + 1..];
        }
        let (hosts, ports, rest) = read_hosts(rest)?;
        self.set_decoded("host", &hosts)?;
        self.set_decoded("port", &ports)?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        self.set_decoded("dbname", path.strip_prefix('/').unwrap_or(path))?;
        self.read_query(query)
    }

    /// Parts of a URI that are empty set nothing, so that defaults apply.
    fn set_decoded(&mut self, keyword: &str, encoded: &str) -> Result<(), ConninfoError> {
        if !encoded.is_empty() {
            self.set(keyword, percent_decode(encoded)?);
        }
        Ok(())
    }

    fn read_query(&mut self, query: &str) -> Result<(), ConninfoError> {
        if query.is_empty() {
            return Ok(());
        }
        for pair in query.strip_suffix('&').unwrap_or(query).split('&') {
            let Some((keyword, value)) = pair.split_once('=') else {
                return Err(error(
                    "missing key/value separator \"=\" in a URI query parameter",
                ));
            };
            if value.contains('=') {
                return Err(error("extra key/value separator \"=\" in a URI query parameter"));
            }
            let keyword = percent_decode(keyword)?;
            let value = percent_decode(value)?;
            // As JDBC writes it.
            match (keyword.as_str(), value.as_str()) {
                ("ssl", "true") => self.set("sslmode", "require"),
                _ => self.set_known(&keyword, value)?,
            }
        }
        Ok(())
    }
}

/// The comma-separated hosts and ports of a URI, still encoded, and what follows them.
fn read_hosts(text: &str) -> Result<(String, String, &str), ConninfoError> {
    let (mut hosts, mut ports, mut rest) = (String::new(), String::new(), text);
    loop {
        let host;
        if let Some(bracketed) = rest.strip_prefix('[') {
            let Some((address, tail)) = bracketed.split_once(']') else {
                return Err(error("missing \"]\" after an IPv6 address"));
            };
            if address.is_empty() {
                return Err(error("empty IPv6 address"));
            }
            if !tail.is_empty() && !tail.starts_with([':', '/', '?', ',']) {
                return Err(error("unexpected character after an IPv6 address"));
            }
            (host, rest) = (address, tail);
        } else {
            (host, rest) = rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()));
        }
        hosts.push_str(host);
        if let Some(tail) = rest.strip_prefix(':') {
            let (port, tail) = tail.split_at(tail.find(['/', '?', ',']).unwrap_or(tail.len()));
            ports.push_str(port);
            rest = tail;
        }
        match rest.strip_prefix(',') {
            Some(tail) => rest = tail,
            None => return Ok((hosts, ports, rest)),
        }
        hosts.push(',');
        ports.push(',');
    }
}

/// One value of the keyword form, unescaped, and what follows it.
fn read_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            // A backslash at the very end stands for nothing.
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && is_space(c) => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        return Err(error("unterminated quoted string"));
    }
    Ok((value, ""))
}

fn percent_decode(text: &str) -> Result<String, ConninfoError> {
    let text = text.trim_matches(' ');
    if text.contains(' ') {
        return Err(error(
            "unexpected spaces in a URI, use percent-encoded spaces (%20)",
        ));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|d| char::from(d).to_digit(16));
        match (digit(), digit()) {
            (Some(0), Some(0)) => return Err(error("forbidden value %00 in a URI")),
            // Two hexadecimal digits always fit.
            (Some(high), Some(low)) => decoded.push((high << 4 | low) as u8),
            _ => return Err(error("invalid percent-encoded token in a URI")),
        }
    }
    String::from_utf8(decoded).map_err(|_| error("a percent-encoded value is not valid UTF-8"))
}

/// Plain where a reader needs no quotes, else `'…'` (as repmgr 5.5 writes primary_conninfo).
fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `isspace` of the C locale.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn error(reason: &str) -> ConninfoError {
    ConninfoError {
        reason: reason.to_owned(),
    }
}

fn unknown_option(keyword: &str) -> ConninfoError {
    match printable(keyword) {
        Some(keyword) => error(&format!("invalid connection option \"{keyword}\"")),
        None => error("invalid connection option"),
    }
}

fn missing_equals(keyword: &str) -> ConninfoError {
    match printable(keyword) {
        Some(keyword) => error(&format!("missing \"=\" after \"{keyword}\"")),
        None => error("missing \"=\" after a keyword"),
    }
}

/// A keyword that may be shown. In a badly quoted string any word can be a piece of the
/// password, so only words that look like a keyword of libpq mistyped are.
fn printable(keyword: &str) -> Option<&str> {
    let near = |known: &str| {
        known.len().abs_diff(keyword.len()) <= 2
            && known
                .chars()
                .zip(keyword.chars())
                .take_while(|(a, b)| a == b)
                .count()
                >= 3
            || known.len() >= 4 && is_one_slip(known.as_bytes(), keyword.as_bytes())
    };
    Conninfo::keywords().any(near).then_some(keyword)
}

/// Whether one letter is missing, too much or another, or two neighbours have changed places.
fn is_one_slip(known: &[u8], typed: &[u8]) -> bool {
    let same = known.iter().zip(typed).take_while(|(a, b)| a == b).count();
    let (known, typed) = (&known[same..], &typed[same..]);
    match (known, typed) {
        ([_, rest @ ..], [_, end @ ..]) if rest == end => true,
        ([_, rest @ ..], typed) if rest == typed => true,
        (known, [_, end @ ..]) if known == end => true,
        ([a, b, rest @ ..], [c, d, end @ ..]) => a == d && b == c && rest == end,
        _ => false,
    }
}

impl FromStr for Conninfo {
    type Err = ConninfoError;

    fn from_str(text: &str) -> Result<Self, ConninfoError> {
        Self::parse(text)
    }
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (keyword, value)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { " " };
            if Self::is_secret(keyword) {
                write!(f, "{separator}{keyword}=********")?;
            } else {
                write!(f, "{separator}{keyword}={}", quote(value))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conninfo({self})")
    }
}

#[cfg(test)]
mod tests;
