use std::time::Duration;

use repmgr_remote::{Input, ShellCommand, StartOptions, run};
use repmgr_types::Conninfo;
use serde::Deserialize;

use crate::error::BarmanError;
use crate::session::Barman;

/// A node of the cluster, as repmgr's metadata on the primary have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRecord {
    /// Its `node_id`.
    pub node_id: i32,
    /// How other nodes connect to it.
    pub conninfo: Conninfo,
    /// The role for replication connections to it.
    pub repluser: Option<String>,
}

#[derive(Deserialize)]
struct Row {
    node_id: i32,
    conninfo: String,
    repluser: Option<String>,
}

/// A node of repmgr's metadata as one line of JSON; `id` is empty for the primary.
const QUERY: &str = "SELECT row_to_json(r) FROM (SELECT node_id, conninfo, repluser::text FROM repmgr.nodes \
                     WHERE active AND CASE WHEN :'id' = '' THEN type = 'primary' ELSE node_id::text = :'id' END \
                     ORDER BY node_id LIMIT 1) r\n";

/// Connection string, password and query come on standard input: no other user of that host sees them,
/// and only there does psql fill in variables.
const PSQL: &str = r#"IFS= read -r conninfo && IFS= read -r PGPASSWORD || exit 1
if [ -n "$PGPASSWORD" ]; then export PGPASSWORD; else unset PGPASSWORD; fi
exec psql -AqtX -w -v ON_ERROR_STOP=1 -v id="$1" -d "$conninfo" -f -"#;

const LIMIT: Duration = Duration::from_secs(60);
const MAX_ANSWER: usize = 64 << 10;

impl Barman {
    /// What repmgr's metadata say of node `id`, or of the primary, asked from the Barman host, which
    /// reaches the primary where this host may not. `dbname` is the database with the metadata.
    ///
    /// Barman 2.9 or later connects to the primary for this (`show-server`), and `psql` must be there.
    ///
    /// # Errors
    /// Besides the usual ones, [`BarmanError::NoRecord`].
    pub fn upstream_record(
        &mut self,
        dbname: Option<&str>,
        id: Option<i32>,
    ) -> Result<UpstreamRecord, BarmanError> {
        let conninfo = self.primary_conninfo(dbname)?;
        let wanted = id.map(|id| id.to_string()).unwrap_or_default();
        let answer = self.psql(conninfo, &wanted)?;
        let shown = ShellCommand::new("psql");
        let answer = answer.trim();
        if answer.is_empty() {
            return Err(BarmanError::NoRecord {
                host: self.host().to_owned(),
                node_id: id,
            });
        }
        let row: Row = serde_json::from_str(answer)
            .map_err(|_| self.unexpected(&shown, "it is no record of a node".to_owned()))?;
        let conninfo = Conninfo::parse(&row.conninfo)
            .map_err(|error| self.unexpected(&shown, format!("the record has an {error}")))?;
        Ok(UpstreamRecord {
            node_id: row.node_id,
            conninfo,
            repluser: row.repluser.filter(|user| !user.is_empty()),
        })
    }

    fn psql(&mut self, mut conninfo: Conninfo, id: &str) -> Result<String, BarmanError> {
        let password = conninfo.remove("password").unwrap_or_default();
        let conninfo = conninfo.to_libpq_string();
        if conninfo.contains('\n') || password.contains('\n') {
            let command = ShellCommand::new("psql");
            return Err(self.unexpected(
                &command,
                "a line feed in the connection string of Barman".to_owned(),
            ));
        }
        let command = ShellCommand::script(PSQL).arg(id).env("LC_ALL", "C");
        let options = StartOptions {
            input: Input::Bytes(format!("{conninfo}\n{password}\n{QUERY}").into_bytes()),
            idle_timeout: LIMIT,
            total_timeout: Some(LIMIT),
            ..StartOptions::default()
        };
        let output = run(self.connection(), &command, options, MAX_ANSWER)?;
        if !output.exit.success() {
            return Err(BarmanError::Failed {
                host: self.host().to_owned(),
                call: "psql".to_owned(),
                status: output.exit.status(),
                message: output.exit.stderr_text(),
            });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How Barman connects to the primary.
    fn primary_conninfo(&mut self, dbname: Option<&str>) -> Result<Conninfo, BarmanError> {
        let server = self.address().server.clone();
        // On the console passwords are starred out, where there is JSON.
        let command = self.command(&["-f", "json", "show-server", &server]);
        let text = self.call(&command)?;
        let value = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|answer| answer[&server]["conninfo"].as_str().map(str::to_owned))
            .ok_or_else(|| self.unexpected(&command, "it has no \"conninfo\"".to_owned()))?;
        let mut conninfo = Conninfo::parse(&value)
            .map_err(|error| self.unexpected(&command, format!("its conninfo is an {error}")))?;
        if let Some(dbname) = dbname {
            conninfo.set("dbname", dbname);
        }
        if conninfo.get("connect_timeout").is_none() {
            conninfo.set("connect_timeout", "5");
        }
        Ok(conninfo)
    }
}
