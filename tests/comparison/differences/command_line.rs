//! Options, the configuration file, `--replication-conf-only`.

use super::Difference;

const PLACES: &str = "mistakes in repmgr.conf are told with file, line and parameter";

pub(super) const COMMAND_LINE: &[Difference] = &[
    Difference {
        why: "the version is our own where there is no original",
        on: &["version"],
        lines: &["- note printed repmgr 5.3.3", "+ note printed repmgr *"],
    },
    Difference {
        why: "--dump-config shows what counts",
        on: &["dump"],
        lines: &[
            "- note printed log_facility|",
            "+ note printed log_facility|STDERR",
            "- note printed log_level|",
            "+ note printed log_level|INFO",
            "+ note printed barman_command|",
            "+ note printed bdr_local_monitoring_only|false",
            "+ note printed bdr_recovery_timeout|30",
            "+ note printed pg_backupapi_*|",
            "+ note printed max_rate|",
            "+ note printed skip_page_checks|false",
            "+ note printed ssh_client|auto",
        ],
    },
    Difference {
        why: "without a configuration file it is said where it was looked for",
        on: &["no directory"],
        lines: &["+ DETAIL: there is no configuration file *"],
    },
    Difference {
        why: "mistakes on the command line are one list",
        on: &["dump with a command"],
        lines: &[
            "- --dump-config cannot be used in combination with a repmgr command",
            "+ The following command line errors were encountered:",
            "+   --dump-config cannot be used in combination with a repmgr command",
            "+ Try \"repmgr --help\" or \"repmgr standby --help\" for more information.",
        ],
    },
    Difference {
        why: "mistakes on the command line are one list",
        on: &["unknown option"],
        lines: &[
            "- */repmgr: unrecognized option '--no-such-option'",
            "+ The following command line errors were encountered:",
            "+   unknown option \"--no-such-option\"; did you mean \"--no-upstream-connection\"?",
            "+ Try \"repmgr --help\" for more information.",
        ],
    },
    Difference {
        why: "mistakes on the command line are one list",
        on: &["wrong values"],
        lines: &[
            "- *",
            "+   \"-d/--dbname\": invalid connection string: invalid connection option",
            "+   \"--recovery-min-apply-delay\": value must be a number from 0 on with a unit of ms, s, min, h or d (provided: \"soon\")",
            "+   invalid log level \"loud\" provided",
        ],
    },
    Difference {
        why: "mistakes on the command line are one list",
        on: &["words"],
        lines: &[
            "-   database connection parameters for the source node must be provided when executing STANDBY CLONE",
        ],
    },
    Difference {
        why: "mistakes on the command line are one list",
        on: &["host twice"],
        lines: &["-   too many command-line arguments (first extra is \"b\")"],
    },
    Difference {
        why: "options without effect are warned of",
        on: &["foreign options"],
        lines: &[
            "-   ----siblings-follow is not effective when executing STANDBY CLONE",
            "+   --siblings-follow is not effective when executing STANDBY CLONE",
        ],
    },
    Difference {
        why: "options without effect are warned of",
        on: &["no effect"],
        lines: &[
            "+   -D/--pgdata will be ignored if a repmgr configuration file is provided",
            "+   -R/--remote-user has no effect in Barman mode",
        ],
    },
    Difference {
        why: "a relative path of the configuration file is shown in full",
        on: &["no file"],
        lines: &[
            "- ERROR: provided configuration file \"nowhere.conf\" not found",
            "- DETAIL: No such file or directory",
            "+ ERROR: provided configuration file \"NODEDIR/cwd/nowhere.conf\" not found",
            "+ DETAIL: No such file or directory (os error 2)",
        ],
    },
    Difference {
        why: PLACES,
        on: &["wrong file"],
        lines: &[
            "-   \"node_id\": must be 1 or greater (provided: \"0\")",
            "-   \"use_replication_slots\": unable to interpret \"perhaps\" as a boolean value",
            "-   \"conninfo\": invalid connection option \"colour\"",
            "- \t(provided: \"host=x colour=blue\")",
            "+   file \"CONF\", line *: parameter \"node_id\": *",
            "+   file \"CONF\", line *: parameter \"use_replication_slots\": *",
            "+   file \"CONF\", line *: parameter \"conninfo\": *",
        ],
    },
    Difference {
        why: "a time may have a blank before its unit",
        on: &["wrong file"],
        lines: &[
            "-   value for \"recovery_min_apply_delay\" must be one of ms/s/min/h/d (provided: \"5 min\")",
        ],
    },
    Difference {
        why: PLACES,
        on: &["half an address"],
        lines: &[
            "-   use \"barman_host\" for the hostname of the Barman server",
            "-   use \"barman_server\" for the name of the [server] section in the Barman configuration file",
            "+   file \"CONF\", line *: parameter \"barman_host\": \"barman_server\" must be set too",
        ],
    },
    Difference {
        why: PLACES,
        on: &["warnings"],
        lines: &[
            "-   no_such_parameter='1': unknown name/value pair provided; ignoring",
            "-   parameter \"loglevel\" has been renamed to \"log_level\"",
            "+   file \"CONF\", line *: parameter \"no_such_parameter\": unknown, ignored",
            "+   file \"CONF\", line *: parameter \"loglevel\": renamed to \"log_level\"",
        ],
    },
    Difference {
        why: "repmgr.conf of repmgr 4 can be read",
        on: &["syntax error"],
        lines: &["- exit 1", "+ exit 0", "- *", "+ *"],
    },
    Difference {
        why: "include_if_exists accepts a missing file",
        on: &["include_if_exists"],
        lines: &["- exit 1", "+ exit 0", "- *", "+ *"],
    },
    Difference {
        why: "mistakes in repmgr.conf come before all else",
        on: &["application name"],
        lines: &[
            "- NOTICE: destination directory \"DATA\" provided",
            "+ NOTICE: destination directory \"DATA\" provided",
        ],
    },
    Difference {
        why: "--replication-conf-only tells what it does",
        on: &["conf only"],
        lines: &[
            "+ INFO: connecting to source node",
            "+ INFO: connected to source node, checking its state",
        ],
    },
    Difference {
        why: "--replication-conf-only tells what it does",
        on: &["conf only dry run", "recovery conf only"],
        lines: &[
            "+ INFO: \"repmgr\" extension is installed in database \"repmgr\"",
            "+ NOTICE: standby will attach to upstream node 1",
            "+ INFO: replication connections to the upstream node are possible (1 required)",
            "- DETAIL: ",
            "- primary_conninfo = 'user=repmgr connect_timeout=5 host=127.0.0.1 port=PRIMARY fallback_application_name=repmgr options=''-csearch_path='' application_name=NODE'",
            "- restore_command = '*",
            "+ DETAIL: primary_conninfo = 'host=127.0.0.1 port=PRIMARY user=repmgr application_name=NODE connect_timeout=5'",
            "+   restore_command = '*",
        ],
    },
    Difference {
        why: "--replication-conf-only tells what it does",
        on: &["conf only slot"],
        lines: &["- INFO: an inactive replication slot for this node exists on the upstream node"],
    },
    Difference {
        why: "--replication-conf-only writes what a clone writes",
        on: &["conf only, stopped", "conf only slot"],
        lines: &[
            "- in data/postgresql.auto.conf: primary_conninfo = 'user=repmgr connect_timeout=5 host=127.0.0.1 port=PRIMARY fallback_application_name=repmgr options=''-csearch_path='' application_name=NODE'",
            "+ in data/postgresql.auto.conf: primary_conninfo = 'host=127.0.0.1 port=PRIMARY user=repmgr application_name=NODE connect_timeout=5'",
        ],
    },
    Difference {
        why: "--replication-conf-only writes what a clone writes",
        on: &["conf only forced"],
        lines: &[
            "- note primary_conninfo = 'user=repmgr connect_timeout=5 host=127.0.0.1 port=PRIMARY fallback_application_name=repmgr options=''-csearch_path='' application_name=NODE'; *",
            "+ note primary_conninfo = 'host=127.0.0.1 port=PRIMARY user=repmgr application_name=NODE connect_timeout=5'; *",
        ],
    },
    Difference {
        why: "errors say what was found and what to do",
        on: &["conf only unregistered"],
        lines: &[
            "- HINT: standby must be registered before replication can be configured",
            "+ HINT: standby must be registered before replication can be configured: execute *",
        ],
    },
    Difference {
        why: "errors say what was found and what to do",
        on: &["conf only nothing"],
        lines: &[
            "- ERROR: specified data directory \"DATA\" does not exist",
            "+ ERROR: \"DATA\" holds no PostgreSQL instance that can be configured: it does not exist",
            "+ HINT: clone the standby first, or check data_directory in repmgr.conf",
        ],
    },
];
