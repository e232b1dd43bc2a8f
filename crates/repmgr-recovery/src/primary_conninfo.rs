use repmgr_types::{Conninfo, PgVersion};

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
}

/// A keyword of the upstream's string that is not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedKeyword {
    /// The keyword.
    pub keyword: String,
    /// Why not, as a clause: "PostgreSQL 12 does not know it".
    pub reason: String,
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
        }
    }

    /// As this user (the upstream record's `repluser`), not the one in the upstream's string.
    #[must_use]
    pub fn user(self, user: Option<&'a str>) -> Self {
        Self { user, ..self }
    }

    /// With this password in plain text (`use_primary_conninfo_password`). Without, a password
    /// in the upstream's string is left out.
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
        let mut dropped = Vec::new();
        let mut drop = |keyword: &str, reason: String| {
            dropped.push(DroppedKeyword {
                keyword: keyword.to_owned(),
                reason,
            });
        };
        let mut conninfo = Conninfo::new();
        let rest = Conninfo::keywords().filter(|keyword| !FIRST.contains(keyword));
        for keyword in FIRST.iter().copied().chain(rest) {
            let own = match keyword {
                "user" => self.user,
                "application_name" => Some(self.node_name),
                _ => None,
            };
            let Some(value) = own
                .or(self.upstream.get(keyword))
                .filter(|value| !value.is_empty())
            else {
                continue;
            };
            if MEANINGLESS.contains(&keyword) {
                continue;
            }
            if SECRETS.contains(&keyword) {
                if self.password.is_none() {
                    drop(keyword, "use_primary_conninfo_password is not set".to_owned());
                }
            } else if keyword == "passfile" {
                drop(keyword, "it names a file of whoever wrote the string".to_owned());
            } else if !Conninfo::keyword_known_to(keyword, version) {
                drop(
                    keyword,
                    format!("PostgreSQL {} does not know it", version.major_name()),
                );
            } else {
                conninfo.set(keyword, value);
            }
        }
        for (keyword, value) in [("password", self.password), ("passfile", self.passfile)] {
            match value.filter(|value| !value.is_empty()) {
                Some(value) if Conninfo::keyword_known_to(keyword, version) => conninfo.set(keyword, value),
                Some(_) => drop(
                    keyword,
                    format!("PostgreSQL {} does not know it", version.major_name()),
                ),
                None => {}
            }
        }
        BuiltConninfo { conninfo, dropped }
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
        let asked = plain.password(Some("it's")).passfile(Some("/ours"));
        assert_eq!(
            asked.build(version(150_000)).conninfo.to_libpq_string(),
            "host=h user=u application_name=n password='it\\'s' passfile='/ours'"
        );
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
