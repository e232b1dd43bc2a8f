//! One look at a backup on the Barman host: backup.info, marks, and what there is of files.

use std::iter::Peekable;

use repmgr_types::BackupId;

use crate::backup::Found;
use crate::form::Contents;
use crate::kind::Keep;

/// Arguments: the directory of the `ID-backup.info` files or nothing, then pairs of a directory of
/// backups and the id of one in it, most likely first. Describes the first that has a backup.info:
/// in `meta` beside that directory (Barman 3.13.2 and later) or else, perhaps outdated, with the backup.
///
/// With `all` and one directory instead of the pairs: describes every backup in it, and ends with `none`. Long values
/// that nobody asks for are left out.
///
/// A line of a file is printed after `|`, so that no content passes for a line of ours.
pub(crate) const SCRIPT: &str = r#"
lines() {
    sed -e '/^copy_stats *=/d' -e '/^included_files *=/d' -e '/^snapshots_info *=/d' -e 's/^/|/' "$1" || exit 3
    echo
}
elsewhere=$1 n=0 all=
shift
if [ "$1" = all ]; then
    all=1 base=$2 meta=${elsewhere:-${2%/*}/meta}
    set --
    for place in "$base" "$meta"; do
        if [ -d "$place" ] || [ "$place" = "$base" ]; then ls "$place" >/dev/null || exit 3; fi
    done
    for place in "$base"/*T*/ "$meta"/*T*-backup.info; do
        case $place in
            "$meta"/*-backup.info) id=${place%-backup.info} ;;
            *) id=${place%/} ;;
        esac
        id=${id##*/}
        case $id in
            *[!0-9T]*) continue ;;
            ????????T??????) ;;
            *) continue ;;
        esac
        case $place in
            "$meta"/*-backup.info) if [ -d "$base/$id" ]; then continue; fi ;;
        esac
        set -- "$@" "$base" "$id"
    done
fi
while [ $# -ge 2 ]; do
    meta=${elsewhere:-${1%/*}/meta} id=$2 dir=${1%/}/$2
    shift 2
    for info in "$meta/$id-backup.info" "$dir/backup.info"; do
        [ -f "$info" ] && break
        info=
    done
    if [ -n "$info" ]; then
        echo "candidate $n"
        echo "id $id"
        echo info
        lines "$info"
        for mark in keep delete_this; do
            for file in "$meta/$id-$mark" "$dir/annotations/$mark"; do
                if [ -e "$file" ]; then
                    echo "mark $mark"
                    lines "$file"
                    break
                fi
            done
        done
        if [ -d "$dir/data" ]; then
            echo data
            if ! [ -r "$dir/data" ] || ! [ -x "$dir/data" ]; then echo denied; fi
            if [ -f "$dir/data/PG_VERSION" ]; then echo plain; fi
            for file in "$dir"/data/*.tar*; do
                name=${file##*/}
                case $name in
                    *[!0-9a-z.]*) ;;
                    base.tar*|[0-9]*.tar*) if [ -f "$file" ]; then echo "tar $name"; fi ;;
                esac
            done
        fi
        for file in "$dir"/[0-9]*; do
            name=${file##*/}
            case $name in
                *[!0-9]*) ;;
                *) if [ -d "$file" ]; then echo "tablespace $name"; fi ;;
            esac
        done
        echo end
        if [ -z "$all" ]; then exit 0; fi
    fi
    n=$((n + 1))
done
echo none
"#;

/// The exit code of the script if a file is there, but cannot be read.
pub(crate) const CANNOT_READ: i32 = 3;

/// What the script printed.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// Which of the pairs it is about.
    pub(crate) candidate: usize,
    pub(crate) id: Option<BackupId>,
    info: Vec<u8>,
    pub(crate) keep: Option<Keep>,
    pub(crate) being_deleted: bool,
    contents: Contents,
}

impl Description {
    /// `Ok(None)`: none of the pairs has a backup.info. `Err`: which line is not as the script prints it.
    pub(crate) fn parse(output: &[u8]) -> Result<Option<Self>, String> {
        Self::next(&mut lines(output))
    }

    /// Those of every backup in a directory.
    pub(crate) fn parse_all(output: &[u8]) -> Result<Vec<Self>, String> {
        let mut lines = lines(output);
        let mut all = Vec::new();
        while let Some(description) = Self::next(&mut lines)? {
            all.push(description);
        }
        Ok(all)
    }

    fn next<'t>(lines: &mut Peekable<impl Iterator<Item = &'t [u8]>>) -> Result<Option<Self>, String> {
        let mut found = Self::default();
        let mut seen = (false, false);
        loop {
            let Some(line) = lines.next() else {
                return Err("it ends early".to_owned());
            };
            let odd = || format!("the line \"{}\"", crate::info::shown(line));
            let text = std::str::from_utf8(line).map_err(|_| odd())?;
            match text.split_once(' ').unwrap_or((text, "")) {
                ("none", "") => return Ok(None),
                ("candidate", n) => (found.candidate, seen.0) = (n.parse().map_err(|_| odd())?, true),
                ("id", id) => found.id = Some(id.parse().map_err(|_| odd())?),
                ("info", "") => (found.info, seen.1) = (file(lines), true),
                ("mark", "delete_this") => {
                    file(lines);
                    found.being_deleted = true;
                }
                ("mark", "keep") => found.keep = Some(keep(&file(lines))?),
                ("data", "") => found.contents.data = true,
                ("denied", "") => found.contents.denied = true,
                ("plain", "") => found.contents.plain = true,
                ("tar", name) => found.contents.tars.push(name.to_owned()),
                // A number too large for an oid is no tablespace.
                ("tablespace", oid) => found.contents.tablespaces.extend(oid.parse::<u32>()),
                ("end", "") if seen == (true, true) => return Ok(Some(found)),
                _ => return Err(odd()),
            }
        }
    }

    pub(crate) fn found(&self) -> Found<'_> {
        Found {
            info: &self.info,
            keep: self.keep,
            contents: self.contents.clone(),
        }
    }
}

fn lines(output: &[u8]) -> Peekable<impl Iterator<Item = &[u8]>> {
    output
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .peekable()
}

/// The lines of a file, which follow the one that announces it.
fn file<'t>(lines: &mut Peekable<impl Iterator<Item = &'t [u8]>>) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(line) = lines.next_if(|line| line.starts_with(b"|")) {
        text.extend_from_slice(&line[1..]);
        text.push(b'\n');
    }
    text
}

fn keep(mark: &[u8]) -> Result<Keep, String> {
    match mark.trim_ascii() {
        b"full" => Ok(Keep::Full),
        b"standalone" => Ok(Keep::Standalone),
        other => Err(format!("\"{}\" in the keep mark", crate::info::shown(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    use repmgr_remote::{Host, LocalHost, Output, ShellCommand, StartOptions, run};

    fn run_script(arguments: &[&str]) -> Output {
        let mut here = LocalHost::default().connect().unwrap();
        let command = ShellCommand::script(SCRIPT).args(arguments);
        run(&mut *here, &command, StartOptions::default(), 1 << 20).unwrap()
    }

    fn describe(arguments: &[&str]) -> Result<Option<Description>, String> {
        let output = run_script(arguments);
        assert!(output.exit.success(), "{output:?}");
        Description::parse(&output.stdout)
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    const ID: &str = "20261126T004606";

    #[test]
    fn the_newer_place_wins_and_no_content_passes_for_ours() {
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("it's a \"server\" %s");
        let backup = server.join("base").join(ID);
        write(&backup.join("backup.info"), "status=FAILED\n");
        write(
            &server.join(format!("meta/{ID}-backup.info")),
            "status=DONE\nend\n|x=1\nno newline at the end",
        );
        write(&server.join(format!("meta/{ID}-keep")), "standalone");
        write(&backup.join("data/PG_VERSION"), "15\n");
        write(&backup.join("data/base.tar.gz"), "");
        write(&backup.join("data/16396.tar.gz"), "");
        write(&backup.join("data/x y.tar"), "");
        fs::create_dir_all(backup.join("16396")).unwrap();
        fs::create_dir_all(backup.join("99999999999")).unwrap();
        let base = server.join("base").to_str().unwrap().to_owned();
        let none = dir.path().to_str().unwrap();
        let found = describe(&["", none, ID, &base, ID]).unwrap().unwrap();
        assert_eq!(found.candidate, 1);
        assert_eq!(found.info, b"status=DONE\nend\n|x=1\nno newline at the end\n");
        assert_eq!((found.keep, found.being_deleted), (Some(Keep::Standalone), false));
        let contents = Contents {
            data: true,
            denied: false,
            plain: true,
            tars: vec!["16396.tar.gz".into(), "base.tar.gz".into()],
            tablespaces: vec![16396],
        };
        assert_eq!(found.contents, contents);
        assert!(describe(&["", none, ID]).unwrap().is_none());
    }

    #[test]
    fn every_backup_of_a_directory_is_described() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        write(
            &base.join("20261126T000001/backup.info"),
            "status=FAILED\ncopy_stats={'x': 1}\n",
        );
        write(&base.join("20261126T000002/data/PG_VERSION"), "15\n");
        write(
            &dir.path().join("meta/20261126T000002-backup.info"),
            "status=DONE\n",
        );
        write(
            &dir.path().join("meta/20261126T000003-backup.info"),
            "status=DONE\n",
        );
        // Neither a backup, nor one that Barman still knows.
        write(&base.join("2026xxxxT000002/backup.info"), "status=DONE\n");
        fs::create_dir_all(base.join("20261126T000009")).unwrap();
        let arguments = ["", "all", base.to_str().unwrap()];
        let output = run_script(&arguments);
        let all = Description::parse_all(&output.stdout).unwrap();
        let seen: Vec<_> = all
            .iter()
            .map(|one| (one.id.clone().unwrap().to_string(), one.contents.plain))
            .collect();
        assert_eq!(
            seen,
            [
                ("20261126T000001".to_owned(), false),
                ("20261126T000002".to_owned(), true),
                ("20261126T000003".to_owned(), false)
            ]
        );
        assert_eq!(all[0].info, b"status=FAILED\n");
        let gone = dir.path().join("gone");
        let output = run_script(&["", "all", gone.to_str().unwrap()]);
        assert_eq!(output.exit.code, Some(CANNOT_READ));
    }

    #[test]
    fn marks_are_found_in_the_older_place_too() {
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("backups").join(ID);
        let meta = dir.path().join("home/main/meta");
        write(&meta.join(format!("{ID}-backup.info")), "status=DONE");
        write(&backup.join("annotations/keep"), "full");
        write(&backup.join("annotations/delete_this"), "");
        let base = dir.path().join("backups").to_str().unwrap().to_owned();
        assert!(describe(&["", &base, ID]).unwrap().is_none());
        let found = describe(&[meta.to_str().unwrap(), &base, ID]).unwrap().unwrap();
        assert_eq!((found.keep, found.being_deleted), (Some(Keep::Full), true));
        assert!(!found.contents.data);
        write(&backup.join("annotations/keep"), "for ever\x1b[2J");
        let error = describe(&[meta.to_str().unwrap(), &base, ID]).unwrap_err();
        assert_eq!(error, "\"for ever\\u{1b}[2J\" in the keep mark");
    }

    #[test]
    fn other_output_is_an_error() {
        for bad in [
            "",
            "candidate 0\nend\n",
            "info\n|a=1\nend\n",
            "candidate 0\ninfo\n|a=1\n",
            "candidate x\ninfo\nend\n",
            "candidate 0\ninfo\n|a=1\n<html>\nend\n",
            "\u{fffd}\n",
        ] {
            assert!(Description::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Description::parse(b"candidate 0\ninfo\n|\xff\n\xff\nend\n").is_err());
    }
}
