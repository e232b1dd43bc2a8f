//! Service files (`~/.pg_service.conf`, `pg_service.conf`), read as libpq 15 does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use repmgr_types::Conninfo;

use crate::{ConnectError, Environment};

/// Where Debian's and the PGDG's packages of libpq look when PGSYSCONFDIR is unset.
const SYSCONF_DIRS: &[&str] = &["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

/// The parameters of `service`. `named_file` is what `servicefile` or PGSERVICEFILE says.
pub(crate) fn lookup(
    service: &str,
    named_file: Option<&str>,
    env: &Environment,
) -> Result<Vec<(String, String)>, ConnectError> {
    let user_file = named_file
        .map(PathBuf::from)
        .or_else(|| Some(env.home()?.join(".pg_service.conf")));
    if let Some(path) = user_file
        && let Some(text) = read(&path, named_file.is_some())?
        && let Some(found) = parse(&text, service, &path)?
    {
        return Ok(found);
    }
    let system_dirs: Vec<PathBuf> = match env.variable("PGSYSCONFDIR")? {
        Some(dir) => vec![dir.into()],
        None => SYSCONF_DIRS.iter().map(PathBuf::from).collect(),
    };
    for path in system_dirs.iter().map(|dir| dir.join("pg_service.conf")) {
        if let Some(text) = read(&path, false)?
            && let Some(found) = parse(&text, service, &path)?
        {
            return Ok(found);
        }
    }
    Err(ConnectError::UnknownService {
        service: service.to_owned(),
    })
}

fn read(path: &Path, must_exist: bool) -> Result<Option<String>, ConnectError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e)
            if !must_exist && matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(source) => Err(ConnectError::File {
            purpose: "service file",
            path: path.to_owned(),
            source,
        }),
    }
}

/// The `keyword=value` lines of the section `[service]`; the first value of a keyword counts.
fn parse(text: &str, service: &str, path: &Path) -> Result<Option<Vec<(String, String)>>, ConnectError> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            inside = section.strip_suffix(']') == Some(service);
            if inside {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(params) = found.as_mut().filter(|_| inside) else {
            continue;
        };
        let bad = |reason: String| ConnectError::BadFile {
            purpose: "service file",
            path: path.to_owned(),
            reason: format!("line {}: {reason}", index + 1),
        };
        let (keyword, value) = line
            .split_once('=')
            .ok_or_else(|| bad("expected keyword=value".to_owned()))?;
        if keyword == "service" {
            return Err(bad("a service cannot name another".to_owned()));
        }
        if !Conninfo::keywords().any(|known| known == keyword) {
            return Err(bad(format!("unknown parameter \"{keyword}\"")));
        }
        if !params.iter().any(|(known, _)| known == keyword) {
            params.push((keyword.to_owned(), value.to_owned()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[a]\nhost=h1\n\n  port=1 \nport=2\n[b]\nhost=h2\n[broken]\nnonsense\n";

    #[test]
    fn a_section_gives_its_parameters_and_no_others() {
        let path = Path::new("f");
        let a = parse(FILE, "a", path).unwrap().unwrap();
        assert_eq!(a, [("host".into(), "h1".into()), ("port".into(), "1".into())]);
        assert_eq!(parse(FILE, "c", path).unwrap(), None);
        let error = parse(FILE, "broken", path).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot use service file \"f\": line 10: expected keyword=value"
        );
        assert!(parse("[a]\nservice=b", "a", path).is_err());
        assert!(parse("[a]\nnosuch=b", "a", path).is_err());
    }

    #[test]
    fn the_users_file_comes_first_then_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let (home, sys) = (dir.path().join("home"), dir.path().join("sys"));
        fs::create_dir(&home).unwrap();
        fs::create_dir(&sys).unwrap();
        fs::write(home.join(".pg_service.conf"), "[a]\nhost=user\n").unwrap();
        fs::write(
            sys.join("pg_service.conf"),
            "[a]\nhost=system\n[b]\nhost=system\n",
        )
        .unwrap();
        let env = Environment::empty()
            .with_home(&home)
            .with_variable("PGSYSCONFDIR", &sys);
        let host = |service| lookup(service, None, &env).map(|p| p[0].1.clone());
        assert_eq!(host("a").unwrap(), "user");
        assert_eq!(host("b").unwrap(), "system");
        assert!(matches!(host("c"), Err(ConnectError::UnknownService { .. })));
        assert!(matches!(
            lookup("a", Some("/nonexistent"), &env),
            Err(ConnectError::File { .. })
        ));
    }
}
