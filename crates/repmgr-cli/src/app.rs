//! From the command line to an exit code.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use repmgr_clone::Source;
use repmgr_config::{ConfigError, Loaded, LogLevel};
use repmgr_remote::{SshHost, SshOptions};

use crate::args::CommandLine;
use crate::failure::{Failure, exit, lines};
use crate::log::{Destination, Entry, Filter, Log, Sink};
use crate::observer::Json;
use crate::request::Given;
use crate::signals::Signals;
use crate::standby_clone::Reach;
use crate::values::{Output, Values};
use crate::{handover, help, standby_clone, words};

/// PostgreSQL's sysconfdir: Debian's, and that of the PGDG packages for Red Hat.
const SYSCONFDIRS: &[&str] = &["/etc/postgresql-common", "/etc/sysconfig/pgsql"];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What this run writes to.
struct Session {
    log: Log,
    json: Option<Json>,
}

/// A program in our own directory.
fn beside_us(name: &str) -> Option<PathBuf> {
    let program = env::current_exe().ok()?.with_file_name(name);
    program.is_file().then_some(program)
}

/// Whether a program reads the output, for when the arguments cannot be read.
fn wants_json(arguments: &[OsString]) -> bool {
    let apart = arguments.windows(2).any(|pair| pair == ["--output", "json"]);
    apart || arguments.iter().any(|argument| argument == "--output=json")
}

/// Does what the arguments ask for; the first is the program's own name. Returns the exit code.
pub(crate) fn run(arguments: Vec<OsString>) -> u8 {
    let program = arguments.first().map(Path::new).and_then(Path::file_name);
    let program = program.map_or("repmgr".into(), |name| name.to_string_lossy().into_owned());
    let wants_json = wants_json(&arguments);
    if let Err(failure) = handover::unless_ours(&arguments) {
        return Session::without_options(wants_json).fail(&failure);
    }
    let line = match CommandLine::parse(arguments) {
        Ok(line) => line,
        Err(error) => return Session::without_options(wants_json).fail(&Failure::usage(vec![error], &[])),
    };
    let args = &line.args;
    if args.version {
        return print(&format!("{program} {VERSION}\n"));
    }
    if args.version_number {
        return print(&format!("{}\n", version_number()));
    }
    if args.help {
        return print(&help::text());
    }
    if let Some(what) = &args.generate {
        return generate(what);
    }
    let (values, errors) = Values::read(&line);
    let mut session = Session {
        log: Log::new(filter(&line, &values, LogLevel::Info), false, Sink::Stderr),
        json: (values.output == Output::Json).then(|| Json::new(io::stdout())),
    };
    let done = session.run(&line, &values, errors);
    match done {
        Ok(()) => exit::SUCCESS,
        Err(failure) => session.fail(&failure),
    }
}

impl Session {
    /// For what goes wrong before the options are known.
    fn without_options(wants_json: bool) -> Self {
        let filter = Filter {
            level: LogLevel::Info,
            terse: false,
        };
        Self {
            log: Log::new(filter, false, Sink::Stderr),
            json: wants_json.then(|| Json::new(io::stdout())),
        }
    }

    fn run(&mut self, line: &CommandLine, values: &Values, errors: Vec<String>) -> Result<(), Failure> {
        let args = &line.args;
        if rustix::process::geteuid().is_root() {
            return Err(Failure::refused(
                "repmgr cannot be run as root",
                "run it as the user that owns the data directory and runs PostgreSQL, for example with \
                 \"sudo -u postgres\"",
            ));
        }
        if !errors.is_empty() {
            return Err(Failure::usage(errors, &[]));
        }
        let clone = match (args.dump_config, args.words.as_slice()) {
            (true, []) => None,
            (true, _) => {
                let error = "--dump-config cannot be used in combination with a repmgr command";
                return Err(Failure::usage(vec![error.to_owned()], &args.words));
            }
            (false, all) => Some(words::clone_host(all).map_err(|error| Failure::usage(vec![error], all))?),
        };
        let loaded = self.load(line)?;
        let Some(host) = clone else {
            let settings = loaded.map(|loaded| loaded.settings).unwrap_or_default();
            let dump = settings.dump().map(|(name, value)| format!("{name}|{value}\n"));
            print(&dump.collect::<String>());
            return Ok(());
        };
        self.open_log(line, values, loaded.as_ref())?;
        self.log.install();
        if let Some(loaded) = &loaded {
            let text = format!("using configuration file \"{}\"", loaded.path.display());
            self.notice("using_configuration_file", &text);
            self.warn(
                "the following problems were found in the configuration file:",
                &lines(&loaded.warnings),
            );
            self.json
                .iter()
                .for_each(|json| json.configuration_warnings(&loaded.warnings));
            self.tell_application_name(loaded);
        }
        let given = Given {
            line,
            values,
            host,
            loaded: loaded.as_ref(),
            password: env::var("PGPASSWORD").ok(),
            wal_restore: beside_us("repmgr-wal-restore"),
            unnamed_user,
        };
        let warnings = given.warnings();
        self.warn(
            "following problems with command line parameters detected:",
            &warnings,
        );
        for text in &warnings {
            self.to_json("command_line", &one_line(LogLevel::Warning, text));
        }
        let signals = Signals::catch().map_err(|error| Failure::Refused {
            text: "cannot catch signals".to_owned(),
            detail: Some(error.to_string()),
            hint: None,
        })?;
        if args.replication_conf_only {
            let request = given.reconfiguration()?;
            let json = self.json.as_ref();
            return standby_clone::reconfigure(&request, args.dry_run.is_some(), &self.log, json, &signals);
        }
        let reach = Reach {
            log: &self.log,
            cancel: signals.token(),
            client: values.ssh_client,
        };
        let request = given.request(&reach)?;
        if let (Some(command), Some(loaded)) = (&request.replication.restore_command, &loaded)
            && loaded.settings.restore_command.is_none()
        {
            self.tell("own_restore_command", &Entry {
                level: LogLevel::Notice,
                text: "\"restore_command\" is not set in repmgr.conf; WAL will be fetched from Barman by repmgr-wal-restore",
                detail: Some(&format!("restore_command = '{command}'")),
                hints: &[],
            });
        }
        if let (None, Source::Barman(_)) = (&request.replication.restore_command, &request.source) {
            self.tell("no_restore_command", &Entry {
                level: LogLevel::Warning,
                text: "the standby will have no \"restore_command\": when its upstream node no longer has WAL that it \
                       needs, it will not get it from Barman",
                detail: Some("\"restore_command\" is not set in repmgr.conf, and repmgr-wal-restore is not beside this program"),
                hints: &["install repmgr-wal-restore beside this program, or set restore_command in repmgr.conf"],
            });
        }
        standby_clone::run(&request, values.depth, &self.log, self.json.as_ref(), &signals)
    }

    /// Finds and reads the configuration file; `None` if there is none.
    fn load(&self, line: &CommandLine) -> Result<Option<Loaded>, Failure> {
        let explicit = line.args.config_file.as_deref();
        let found = find_configuration(explicit)?;
        if line.args.verbose && explicit.is_none() {
            self.tell_search(found.as_deref());
        }
        let Some(path) = found else { return Ok(None) };
        let loaded = repmgr_config::load(&path).map_err(Failure::Config)?;
        loaded.node().map_err(Failure::Config)?;
        Ok(Some(loaded))
    }

    /// As repmgr tells it.
    fn tell_application_name(&self, loaded: &Loaded) {
        let Ok(node) = loaded.node() else { return };
        if node
            .conninfo
            .get("application_name")
            .is_some_and(|name| name != node.name)
        {
            let text = "\"application_name\" is set in repmgr.conf but will be replaced by the node name";
            self.notice("application_name_replaced", text);
        }
    }

    fn notice(&self, code: &str, text: &str) {
        self.tell(code, &one_line(LogLevel::Notice, text));
    }

    /// Tells people and programs.
    fn tell(&self, code: &str, entry: &Entry<'_>) {
        self.log.write(entry);
        self.to_json(code, entry);
    }

    fn to_json(&self, code: &str, entry: &Entry<'_>) {
        self.json.iter().for_each(|json| json.entry(code, entry));
    }

    fn tell_search(&self, found: Option<&Path>) {
        for candidate in searched() {
            let is_found = Some(candidate.as_path()) == found;
            let text = match is_found {
                true => format!("configuration file found at: \"{}\"", candidate.display()),
                false => format!("no configuration file at: \"{}\"", candidate.display()),
            };
            self.log.line(LogLevel::Info, &text);
            if is_found {
                break;
            }
        }
    }

    /// Puts the log where `--log-to-file` wants it, and lets the file's `log_level` count.
    fn open_log(
        &mut self,
        line: &CommandLine,
        values: &Values,
        loaded: Option<&Loaded>,
    ) -> Result<(), Failure> {
        let settings = loaded.map(|loaded| &loaded.settings);
        let filter = filter(
            line,
            values,
            settings.map_or(LogLevel::Info, |settings| settings.log_level),
        );
        let settings = settings.filter(|_| line.args.log_to_file);
        let Some(settings) = settings else {
            self.log = Log::new(filter, line.args.log_to_file, Sink::Stderr);
            return Ok(());
        };
        let facility = settings.log_facility.as_str();
        let destination = match (facility.parse(), &settings.log_file) {
            (Ok(facility), _) => Destination::Syslog(facility),
            (Err(()), _) if facility != "STDERR" => {
                return Err(Failure::refused(
                    format!("invalid log facility \"{facility}\""),
                    "set \"log_facility\" to STDERR, USER or one of LOCAL0 to LOCAL7",
                ));
            }
            (Err(()), Some(path)) => Destination::File(path),
            (Err(()), None) => Destination::Stderr,
        };
        let log = Log::open(filter, &destination).map_err(|error| cannot_log(&destination, &error))?;
        match destination {
            Destination::File(path) => {
                let text = format!("redirecting logging output to \"{}\"", path.display());
                self.log.line(LogLevel::Notice, &text);
            }
            Destination::Syslog(_) => {
                let text = format!("sending logging output to syslog, facility {facility}");
                self.log.line(LogLevel::Notice, &text);
            }
            Destination::Stderr => {}
        }
        self.log = log;
        Ok(())
    }

    /// A list of warnings, which `-t` hides.
    fn warn(&self, heading: &str, items: &[String]) {
        if !items.is_empty() && !self.log.is_terse() {
            self.log.list(LogLevel::Warning, heading, items);
        }
    }

    fn fail(&self, failure: &Failure) -> u8 {
        let code = failure.exit_code();
        failure.report(&self.log);
        if let Some(json) = &self.json {
            json.failure(failure, code);
        }
        code
    }
}

/// Finds the configuration file; `None` if there is none.
pub(crate) fn find_configuration(explicit: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    let here = env::current_dir().map_err(|error| Failure::Refused {
        text: "the current directory cannot be used".to_owned(),
        detail: Some(error.to_string()),
        hint: Some("change to another directory".into()),
    })?;
    repmgr_config::find(explicit, &here, SYSCONFDIRS).map_err(not_found)
}

/// Where the configuration file is looked for.
pub(crate) fn searched() -> Vec<PathBuf> {
    let here = env::current_dir().unwrap_or_default();
    let directories = [here.as_path(), Path::new("/etc")]
        .into_iter()
        .chain(SYSCONFDIRS.iter().map(Path::new));
    directories
        .map(|directory| directory.join("repmgr.conf"))
        .collect()
}

fn one_line(level: LogLevel, text: &str) -> Entry<'_> {
    Entry {
        level,
        text,
        detail: None,
        hints: &[],
    }
}

/// The level that counts, with the file's or the default where no option says it.
fn filter(line: &CommandLine, values: &Values, file: LogLevel) -> Filter {
    let args = &line.args;
    let at_least_info = args.dry_run.is_some() || args.verbose;
    Filter::new(values.log_level, file, args.quiet, at_least_info, args.terse)
}

/// The message users of the original know.
fn not_found(error: ConfigError) -> Failure {
    let (path, source) = match error {
        ConfigError::Read { path, source } => (path, source),
        error => return Failure::Config(error),
    };
    let hint = match source.kind() {
        io::ErrorKind::IsADirectory => {
            let file = path.join("repmgr.conf");
            Some(format!("name the file, for example -f {}", file.display()))
        }
        _ => None,
    };
    Failure::NoConfiguration { path, source, hint }
}

fn cannot_log(destination: &Destination<'_>, error: &io::Error) -> Failure {
    let text = match destination {
        Destination::File(path) => {
            format!(
                "unable to open specified log file \"{}\" for writing",
                path.display()
            )
        }
        Destination::Syslog(_) | Destination::Stderr => "unable to reach the system's log".to_owned(),
    };
    Failure::Refused {
        text,
        detail: Some(error.to_string()),
        hint: Some("check \"log_file\" and \"log_facility\", or leave --log-to-file out".into()),
    }
}

/// Writes to the standard output; a reader that has seen enough is no mistake.
fn print(text: &str) -> u8 {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => exit::INTERNAL,
        _ => exit::SUCCESS,
    }
}

/// For who makes packages.
fn generate(what: &str) -> u8 {
    match help::generate(what).map(|made| made.map(String::from_utf8)) {
        Ok(Some(Ok(text))) => print(&text),
        Ok(None) => {
            let error =
                format!("\"--generate\": value must be one of man, bash, zsh, fish (provided: \"{what}\")");
            Session::without_options(false).fail(&Failure::usage(vec![error], &[]))
        }
        Ok(Some(Err(_))) | Err(_) => exit::INTERNAL,
    }
}

/// As `--version-number` prints it: 50303 for 5.3.3.
fn version_number() -> u32 {
    let parts = VERSION.split(['.', '-']).take(3);
    parts.fold(0, |number, part| number * 100 + part.parse::<u32>().unwrap_or(0))
}

/// The user to log in as on a host for which nobody names one; `None` where somebody does.
///
/// A configuration that cannot be read is no error here: connecting reads it again, and says so.
fn unnamed_user(host: &str) -> Option<String> {
    const MARK: &str = "named-by-nobody";
    let user = |default_user: Option<String>| {
        let options = SshOptions {
            default_user,
            ..SshOptions::default()
        };
        SshHost::new(host, options).ok()?.user().ok()
    };
    (user(Some(MARK.to_owned()))? == MARK).then(|| user(None))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_number_has_two_digits_for_each_part() {
        let parts: Vec<u32> = VERSION.split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(version_number(), parts[0] * 10_000 + parts[1] * 100 + parts[2]);
    }
}
