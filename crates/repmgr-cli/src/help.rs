//! Help for people, by the same table that reads the command line.

use crate::args::command;

const TEMPLATE: &str = "\
repmgr: clone PostgreSQL standbys from Barman backups or from running nodes

Usage:
    repmgr [OPTIONS] standby clone [HOST]

HOST is the source node, as with -h. The base backup comes from the Barman server that barman_host
and barman_server in repmgr.conf name; without them it comes from the source node. The other
commands of repmgr are not part of this program; those of the original take the same
configuration file.

{all-args}

Exit codes:
    0  the standby is complete, or with --dry-run nothing stands against it
    1  command line, configuration file, data directory, or a node that is not fit for it
    6  no connection to the source or upstream node
    7  the source or upstream node did not answer a question
   14  files of the backup are damaged, or pg_basebackup failed
   19  Barman, the way to its host, or the backup
  130  interrupted (128 and the number of the signal); the same command continues
";

/// What `--help` prints, whatever the command words are: there is one command.
pub(crate) fn text() -> String {
    command().help_template(TEMPLATE).render_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_we_have_is_in_the_help_and_no_other() {
        let text = text();
        for arg in command().get_arguments() {
            let Some(long) = arg.get_long() else { continue };
            let listed = text
                .split_whitespace()
                .filter_map(|word| word.strip_prefix("--")?.split(['[', '"']).next())
                .any(|word| word == long);
            assert_eq!(listed, !arg.is_hide_set(), "{long}\n{text}");
        }
    }
}
