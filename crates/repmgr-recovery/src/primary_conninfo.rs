use std::fmt;
use std::path::Path;

use repmgr_types::{Conninfo, Hint, PgVersion, Remedy};

/// How the standby will connect to its upstream node to stream WAL.
///
/// Everything comes from the upstream node's own connection string and from what is named here;
/// nothing from the command line the clone was started with, whose `-p` may be another server's.
#[derive(Debug, Clone)]
pub struct PrimaryConninfo<'a> {
    upstream: &'a Conninfo,
    node_name: &'a str,
    user: Option<&'a str>,
    password: Option<&'a str>,
    passfile: Option<&'a str>,
    typed_here: bool,
}

/// A keyword of the upstream's string that is not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedKeyword {
    /// The keyword.
    pub keyword: String,
    /// Why not.
    pub reason: DropReason,
}

/// Why a keyword is not passed on. Shown as a clause: "PostgreSQL 12 does not know it".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// It is a secret, and nobody asked for one to be written.
    Secret,
    /// It names a file of the host where the string was written.
    ForeignFile,
    /// It names a file by a path that a server would take from its data directory.
    RelativeFile,
    /// The standby's libpq would refuse the whole string.
    UnknownTo(PgVersion),
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret => f.write_str("passwords are written only when that is asked for"),
            Self::ForeignFile => f.write_str("it names a file of the host where the string was written"),
            Self::RelativeFile => {
                f.write_str("its path is not absolute; the server would take it from its data directory")
            }
            Self::UnknownTo(version) => write!(f, "PostgreSQL {} does not know it", version.major_name()),
        }
    }
}

impl DroppedKeyword {
    /// What to do if the standby needs it.
    pub fn hint(&self) -> Option<Hint> {
        match self.reason {
            DropReason::Secret => Some(
                Hint::new("give the standby the password in .pgpass of the user it runs as, or with ")
                    .remedy(Remedy::PasswordFile)
                    .words(" or ")
                    .remedy(Remedy::Password),
            ),
            DropReason::ForeignFile => {
                Some(Hint::new("name a password file of this host with ").remedy(Remedy::PasswordFile))
            }
            DropReason::RelativeFile => Some(Hint::new("write the whole path of the file")),
            DropReason::UnknownTo(_) => None,
        }
    }
}

/// A connection string for `primary_conninfo`.
#[derive(Debug, Clone)]
pub struct BuiltConninfo {
    /// What to write.
    pub conninfo: Conninfo,
    /// What the user may miss in it. Parameters that mean nothing to a WAL receiver are not listed.
    pub dropped: Vec<DroppedKeyword>,
}

/// Where the server is, who we are: the order people know from repmgr. Others follow in libpq's.
const FIRST: &[&str] = &["host", "hostaddr", "port", "user", "application_name"];
/// These come at the end.
const LAST: &[&str] = &["password", "passfile"];

/// Without meaning for a WAL receiver, which sets them itself.
const MEANINGLESS: &[&str] = &["dbname", "replication", "options", "fallback_application_name"];

/// As good as a password.
const SECRETS: &[&str] = &["password", "scram_client_key", "scram_server_key"];

impl<'a> PrimaryConninfo<'a> {
    /// Towards the node that `upstream` connects to, under the name `node_name`, which repmgr
    /// demands as `application_name` when the standby is registered.
    pub fn new(upstream: &'a Conninfo, node_name: &'a str) -> Self {
        Self {
            upstream,
            node_name,
            user: None,
            password: None,
            passfile: None,
            typed_here: false,
        }
    }

    /// The string was typed for this host: a password file it names is one of this host. A node's
    /// record may have been made on another, where its paths mean something else.
    #[must_use]
    pub fn typed_here(self, typed_here: bool) -> Self {
        Self { typed_here, ..self }
    }

    /// As this user (the upstream record's `repluser`), not the one in the upstream's string.
    #[must_use]
    pub fn user(self, user: Option<&'a str>) -> Self {
        Self { user, ..self }
    }

    /// With this password in plain text. Without, a password in the upstream's string is left out.
    #[must_use]
    pub fn password(self, password: Option<&'a str>) -> Self {
        Self { password, ..self }
    }

    /// With a password file other than `~/.pgpass`.
    #[must_use]
    pub fn passfile(self, passfile: Option<&'a str>) -> Self {
        Self { passfile, ..self }
    }

    /// The string for a standby of `version`, whose libpq must know every keyword in it: it would
    /// refuse the whole string, and the standby would start and never stream.
    pub fn build(&self, version: PgVersion) -> BuiltConninfo {
        let mut conninfo = Conninfo::new();
        let mut dropped = Vec::new();
        let rest = Conninfo::keywords().filter(|keyword| !FIRST.contains(keyword) && !LAST.contains(keyword));
        let keywords = FIRST.iter().copied().chain(rest).chain(LAST.iter().copied());
        for keyword in keywords {
            let Some((value, objection)) = self.value(keyword, version) else {
                continue;
            };
            match objection {
                None => conninfo.set(keyword, value),
                Some(reason) => dropped.push(DroppedKeyword {
                    keyword: keyword.to_owned(),
                    reason,
                }),
            }
        }
        BuiltConninfo { conninfo, dropped }
    }

    /// The value for `keyword`, and why it is not to be written. What is given for the standby counts
    /// before the upstream's string; an empty value counts as none.
    fn value(&self, keyword: &str, version: PgVersion) -> Option<(&'a str, Option<DropReason>)> {
        if MEANINGLESS.contains(&keyword) {
            return None;
        }
        let given = match keyword {
            "user" => self.user,
            "application_name" => Some(self.node_name),
            "password" => self.password,
            "passfile" => self.passfile,
            _ => None,
        };
        let given = given.filter(|value| !value.is_empty());
        let value = given.or(self.upstream.get(keyword).filter(|value| !value.is_empty()))?;
        let unknown =
            (!Conninfo::keyword_known_to(keyword, version)).then_some(DropReason::UnknownTo(version));
        let foreign = match keyword {
            _ if given.is_some() => None,
            // Another secret than the one asked for is not missed.
            keyword if SECRETS.contains(&keyword) && self.password.is_some() => return None,
            keyword if SECRETS.contains(&keyword) => Some(DropReason::Secret),
            "passfile" if !self.typed_here => Some(DropReason::ForeignFile),
            "passfile" if !Path::new(value).is_absolute() => Some(DropReason::RelativeFile),
            _ => None,
        };
        Some((value, foreign.or(unknown)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(num: u32) -> PgVersion {
        PgVersion::from_num(num).unwrap()
    }

    fn upstream(text: &str) -> Conninfo {
        Conninfo::parse(text).unwrap()
    }

    fn dropped(built: &BuiltConninfo) -> Vec<&str> {
        built.dropped.iter().map(|d| d.keyword.as_str()).collect()
    }

    #[test]
    fn the_usual_string_looks_as_repmgr_writes_it() {
        let upstream = upstream("host=127.0.0.1 user=repmgr dbname=repmgr connect_timeout=2 port=6543");
        let built = PrimaryConninfo::new(&upstream, "n91")
            .user(Some("repmgr"))
            .build(version(150_018));
        assert_eq!(
            built.conninfo.to_libpq_string(),
            "host=127.0.0.1 port=6543 user=repmgr application_name=n91 connect_timeout=2"
        );
        assert_eq!(built.dropped, []);
    }

    #[test]
    fn defect_27_a_password_is_written_only_when_asked_for() {
        let upstream = upstream("host=h user=u password=s3cret passfile=/theirs");
        let plain = PrimaryConninfo::new(&upstream, "n");
        let built = plain.build(version(150_000));
        assert_eq!(
            built.conninfo.to_libpq_string(),
            "host=h user=u application_name=n"
        );
        assert_eq!(dropped(&built), ["password", "passfile"]);
        assert!(!format!("{built:?} {plain:?}").contains("s3cret"));
        assert!(built.dropped.iter().all(|dropped| dropped.hint().is_some()));
        let asked = plain.password(Some("it's")).passfile(Some("/ours"));
        assert_eq!(
            asked.build(version(150_000)).conninfo.to_libpq_string(),
            "host=h user=u application_name=n password='it\\'s' passfile='/ours'"
        );
    }

    #[test]
    fn a_password_file_is_written_if_it_was_typed_for_this_host() {
        let typed = upstream("host=h passfile=/here/pgpass password=p");
        let plain = PrimaryConninfo::new(&typed, "n").typed_here(true);
        let built = plain.build(version(150_000));
        assert_eq!(built.conninfo.get("passfile"), Some("/here/pgpass"));
        assert_eq!(dropped(&built), ["password"]);
        let other = plain.passfile(Some("/ours")).build(version(150_000));
        assert_eq!(other.conninfo.get("passfile"), Some("/ours"));
        let relative = upstream("host=h passfile=pgpass");
        let built = PrimaryConninfo::new(&relative, "n")
            .typed_here(true)
            .build(version(150_000));
        assert_eq!(built.conninfo.get("passfile"), None);
        assert_eq!(built.dropped[0].reason, DropReason::RelativeFile);
    }

    #[test]
    fn defect_28_nothing_but_the_upstreams_own_string_gets_in() {
        let upstream = upstream(
            "host=h fallback_application_name=repmgr options=-csearch_path= replication=1 application_name=psql port=",
        );
        let built = PrimaryConninfo::new(&upstream, "n 1")
            .user(Some("repl"))
            .build(version(180_000));
        assert_eq!(
            built.conninfo.to_libpq_string(),
            "host=h user=repl application_name='n 1'"
        );
    }

    #[test]
    fn a_keyword_the_standbys_libpq_does_not_know_is_left_out() {
        let upstream = upstream(
            "host=h sslmode=require channel_binding=prefer sslsni=0 require_auth=md5 sslnegotiation=direct",
        );
        let keywords = |num| {
            let built = PrimaryConninfo::new(&upstream, "n").build(version(num));
            let kept = built
                .conninfo
                .iter()
                .map(|(keyword, _)| keyword.to_owned())
                .collect::<Vec<_>>();
            assert_eq!(kept.len() + built.dropped.len(), 7, "{built:?}");
            kept[2..].join(" ")
        };
        assert_eq!(keywords(100_023), "sslmode");
        assert_eq!(keywords(130_000), "channel_binding sslmode");
        assert_eq!(keywords(150_000), "channel_binding sslmode sslsni");
        assert_eq!(
            keywords(180_000),
            "channel_binding sslmode sslnegotiation sslsni require_auth"
        );
    }
}
