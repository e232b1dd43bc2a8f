//! Help for people, by the same table that reads the command line.

use std::io;

use crate::args::command;

const TEMPLATE: &str = "\
repmgr: clone PostgreSQL standbys from Barman backups or from running nodes

Usage:
    repmgr [OPTIONS] standby clone [HOST]

HOST is the source node, as with -h. The base backup comes from the Barman server that barman_host
and barman_server in repmgr.conf name; without them it comes from the source node. All other
commands are handed over to the original repmgr: $REPMGR_ORIGINAL if that is set (none: there is
none), else the one in repmgr_bindir or pg_bindir, the next one on the PATH, or that of Debian's or
PGDG's packages.

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

/// Under which name packages install it, beside the original.
const PACKAGED: &str = "repmgr-rs";

/// What packages ship, from the same definition: a man page or completions for a shell.
///
/// # Errors
/// The page could not be written.
pub(crate) fn generate(what: &str) -> io::Result<Option<Vec<u8>>> {
    use clap_complete::Shell;
    let mut out = Vec::new();
    let shell = match what {
        "man" => {
            // The template's words are the page's too.
            let (about, rest) = TEMPLATE.split_once("{all-args}").unwrap_or((TEMPLATE, ""));
            let page = command()
                .name("repmgr-standby-clone")
                .about("clone PostgreSQL standbys from Barman backups");
            clap_mangen::Man::new(page.long_about(about.trim()).after_help(rest.trim())).render(&mut out)?;
            return Ok(Some(out));
        }
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => return Ok(None),
    };
    clap_complete::generate(shell, &mut command(), PACKAGED, &mut out);
    Ok(Some(out))
}

/// What `--help` prints, whatever the command words are: there is one command.
pub(crate) fn text() -> String {
    command().help_template(TEMPLATE).render_help().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_man_page_and_the_completions() {
        for what in ["man", "bash", "zsh", "fish"] {
            let text = String::from_utf8(generate(what).unwrap().unwrap())
                .unwrap()
                .replace('\\', "");
            for arg in command().get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(long) = arg.get_long() else { continue };
                assert!(text.contains(long), "{long} is not in {what}");
            }
        }
        assert!(generate("html").unwrap().is_none());
    }

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
