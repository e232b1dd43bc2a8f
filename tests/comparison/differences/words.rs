//! What is said otherwise in every run.

use super::Difference;

const WHICH_FILE: &str = "the configuration file is named";
const VERSION_4: &str = "messages in the words of repmgr 4";
const SECRETS: &str = "connection strings with passwords are not shown";
const FIGURES: &str = "what is copied is told in figures";
const PLAN: &str = "a dry run shows its plan";
const CHECKS: &str = "settings that are right are not listed";
const REWIND: &str = "pg_rewind needs one of two settings";
const COMMAND: &str = "pg_basebackup's command line";
const TEMPORARY: &str = "no temporary files are left";
const BARMANS_LOG: &str = "Barman's own warnings are not passed on";
const BASEBACKUP_PLACE: &str = "pg_basebackup writes into a directory of the clone's own";

pub(super) const WORDS: &[Difference] = &[
    Difference {
        why: WHICH_FILE,
        on: &["configured", "terse", "level"],
        lines: &["+ NOTICE: using configuration file \"CONF\""],
    },
    Difference {
        why: VERSION_4,
        on: &["barman", "terse"],
        lines: &[
            "- INFO: connecting to Barman server to verify backup for \"*\"",
            "+ INFO: connecting to Barman server to verify backup for *",
        ],
    },
    Difference {
        why: "what this host forbids is found before Barman is asked",
        on: &["refused before"],
        lines: &["- INFO: connecting to Barman server to verify backup for \"main\""],
    },
    Difference {
        why: VERSION_4,
        on: &["source", "terse"],
        lines: &[
            "- INFO: connecting to source node",
            "+ INFO: connecting to upstream node",
        ],
    },
    Difference {
        why: VERSION_4,
        on: &["source", "direct reached", "terse"],
        lines: &[
            "+ INFO: connected to source node, checking its state",
            "+ INFO: successfully connected to source node",
        ],
    },
    Difference {
        why: VERSION_4,
        on: &["copied"],
        lines: &["+ receiving file list ..."],
    },
    Difference {
        why: SECRETS,
        on: &["source", "direct"],
        lines: &["- DETAIL: connection string is: *"],
    },
    Difference {
        why: FIGURES,
        on: &["copied", "dry", "level"],
        lines: &["+ DETAIL: backup BACKUP: # files, # MB"],
    },
    Difference {
        why: FIGURES,
        on: &["copied"],
        lines: &["+ INFO: # files, # MB in # s*"],
    },
    Difference {
        why: PLAN,
        on: &["dry"],
        lines: &["+ DETAIL: backup BACKUP of server \"main\" on barmansrv (PostgreSQL *"],
    },
    Difference {
        why: PLAN,
        on: &["direct dry"],
        lines: &["+ DETAIL: host \"127.0.0.1\", port PRIMARY (PostgreSQL *"],
    },
    Difference {
        why: PLAN,
        on: &["dry", "direct dry"],
        lines: &[
            "+   data directory \"DATA\" *",
            "+   upstream node 1",
            "+   primary_conninfo = 'host=127.0.0.1 port=PRIMARY user=repmgr application_name=* connect_timeout=5'",
        ],
    },
    Difference {
        why: PLAN,
        on: &["slot dry run", "direct slot dry run"],
        lines: &["+   primary_slot_name = 'SLOT'"],
    },
    Difference {
        why: PLAN,
        on: &["dry", "direct dry, configured", "external dry run"],
        lines: &["+   restore_command = '*"],
    },
    Difference {
        why: CHECKS,
        on: &["no slot", "terse"],
        lines: &["- INFO: replication slot usage not requested;*"],
    },
    Difference {
        why: CHECKS,
        on: &["slot dry run", "direct slot dry run"],
        lines: &[
            "- INFO: parameter \"max_replication_slots\" set to 10",
            "- INFO: replication slots will be created by user \"repmgr\"",
            "+ INFO: replication slot \"SLOT\" would be created on the upstream node by user \"repmgr\"",
        ],
    },
    Difference {
        why: CHECKS,
        on: &["dry", "direct dry", "terse"],
        lines: &[
            "- INFO: parameter \"max_wal_senders\" set to 40",
            "+ INFO: replication connections to the upstream node are possible (1 required)",
        ],
    },
    Difference {
        why: CHECKS,
        on: &["direct checked"],
        lines: &[
            "- NOTICE: checking for available walsenders on the source node (* required)",
            "- NOTICE: checking replication connections can be made to the source server (* required)",
        ],
    },
    Difference {
        why: CHECKS,
        on: &["direct dry"],
        lines: &[
            "- INFO: sufficient walsenders available on the source node",
            "- DETAIL: * required, * available",
            "- INFO: required number of replication connections could be made to the source server",
            "- DETAIL: * replication connections required",
            "+ INFO: replication connections to the source node are possible (* required)",
        ],
    },
    Difference {
        why: REWIND,
        on: &["checked", "direct checked", "level"],
        lines: &[
            "- DETAIL: pg_rewind requires \"wal_log_hints\" to be enabled",
            "+ DETAIL: pg_rewind requires one of them; \"repmgr node rejoin\" could not use it",
        ],
    },
    Difference {
        why: COMMAND,
        on: &["direct dry"],
        lines: &[
            "- INFO: would execute:",
            "-   *pg_basebackup -l \"repmgr base backup\"  -D DATA *",
        ],
    },
    Difference {
        why: COMMAND,
        on: &["direct copied"],
        lines: &[
            "- INFO: executing:",
            "-   */pg_basebackup -l \"repmgr base backup\"  -D DATA *",
            "+ DETAIL: executing: */pg_basebackup -l 'repmgr base backup' -D DATA/repmgr/incoming -d *",
        ],
    },
    Difference {
        why: "the hint to -c comes with the copy",
        on: &["no configuration file"],
        lines: &["- HINT: consider using the -c/--fast-checkpoint option"],
    },
    Difference {
        why: BASEBACKUP_PLACE,
        on: &["direct copied"],
        lines: &["+ INFO: creating directory \"DATA/repmgr\"..."],
    },
    Difference {
        why: TEMPORARY,
        on: &["barman", "refused before", "terse", "level", "silent"],
        lines: &["- file tmp/repmgr_command.XXXXXX 600*"],
    },
    Difference {
        why: BARMANS_LOG,
        on: &["copied", "level"],
        lines: &["- WARNING: No backup strategy set for server '*"],
    },
];
