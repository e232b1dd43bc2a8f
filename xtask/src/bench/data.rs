//! What is cloned.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use repmgr_lab::{Lab, LabBuilder, PrimaryOptions, Tablespace, check};

/// The shape of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scale {
    /// About 1.1 GB in 1,700 files, with two tablespaces
    Normal,
    /// 200,000 files of one page
    SmallFiles,
    /// One relation of 20 GB
    Large,
}

/// Tables as they are in use: pgbench's, orders with indexes, and many small ones. The large ones have so
/// many times their rows.
const USUAL: &[&str] = &[
    "create table pgbench_accounts (aid int not null, bid int not null, abalance int, filler char(84))",
    "insert into pgbench_accounts select n, (n - 1) / 100000 + 1, 0, '' from generate_series(1, $times * 3000000) n",
    "alter table pgbench_accounts add primary key (aid)",
    "create table orders (id bigint not null, customer int not null, state text not null, reference text not null, \
     amount numeric(12, 2) not null, placed timestamptz not null) tablespace fast",
    "insert into orders select n, (random() * 200000)::int, (array['new', 'paid', 'packed', 'sent', 'returned'])[1 + \
     n % 5], md5(n::text), (random() * 1000)::numeric(12, 2), '2024-01-01'::timestamptz + n * interval '7.3 s' from \
     generate_series(1, $times * 2600000) n",
    "alter table orders add primary key (id) using index tablespace fast",
    "create index on orders (customer) tablespace fast",
    "create index on orders (placed) tablespace fast",
    "create table events tablespace history as select n as id, now() - n * interval '1 s' as at, \
     jsonb_build_object('user', n % 9973, 'action', (array['view', 'click', 'buy'])[1 + n % 3], 'session', \
     md5((n / 20)::text)) as body from generate_series(1, $times * 1000000) n",
    "create index on events (at) tablespace history",
    "do $$ begin for n in 1..110 loop execute format('create table settings_%s (key int primary key, value text); \
     insert into settings_%1$s select g, md5(g::text) from generate_series(1, 200) g', n); end loop; end $$",
];

/// Pages full of random bytes, as pictures and encrypted columns are.
const RANDOM: &[&str] = &[
    "create extension pgcrypto",
    "create table documents (id int, body bytea)",
    "alter table documents alter body set storage external",
    "insert into documents select n, gen_random_bytes(980) || gen_random_bytes(980) from generate_series(1, 250000) n",
    "create table pictures tablespace fast as select n as id, gen_random_bytes(980) || gen_random_bytes(980) as body \
     from generate_series(1, 250000) n",
    "do $$ begin for n in 1..110 loop execute format('create table settings_%s (key int primary key, value text); \
     insert into settings_%1$s select g, md5(g::text) from generate_series(1, 200) g', n); end loop; end $$",
];

const SETTLE: &[&str] = &["vacuum analyze", "checkpoint"];

/// Names of the primary's tablespaces.
pub(crate) const TABLESPACES: [&str; 2] = ["fast", "history"];

/// Puts the data into a lab to be, or so many times as much.
pub(crate) fn fill(builder: LabBuilder, scale: Scale, incompressible: bool, times: u32) -> LabBuilder {
    let statements = match (scale, incompressible) {
        (Scale::Normal, false) => USUAL,
        (Scale::Normal, true) => RANDOM,
        (Scale::SmallFiles | Scale::Large, _) => &[],
    };
    let conf = [
        "shared_buffers = 256MB",
        "maintenance_work_mem = 256MB",
        "max_wal_size = 8GB",
        // Nothing moves while clocks run.
        "autovacuum = off",
        "checkpoint_timeout = 1h",
    ];
    builder
        .primary(PrimaryOptions {
            conf: conf.map(str::to_owned).to_vec(),
            sql: statements
                .iter()
                .chain(SETTLE)
                .map(|sql| sql.replace("$times", &times.to_string()))
                .collect(),
            ..PrimaryOptions::default()
        })
        .tablespaces(TABLESPACES.map(Tablespace::from))
}

/// Makes the backup larger than the primary: a server would need an hour for as much.
pub(crate) fn inflate(lab: &Lab, scale: Scale) -> Result<()> {
    const RELATIONS: u64 = 200_000;
    const SEGMENTS: u64 = 20;
    let data = lab
        .barman()
        .backup_dir(lab.server(), lab.backup_id()?)
        .join("data");
    let database = lab
        .primary()
        .sql("select oid from pg_database where datname = 'repmgr'")?;
    let dir = data.join("base").join(database);
    match scale {
        Scale::Normal => return Ok(()),
        Scale::SmallFiles => {
            let mut page = [0; 8192];
            File::open(data.join("base/1/1259"))?.read_exact(&mut page)?;
            for relation in 0..RELATIONS {
                let mut file = File::create(dir.join((1_000_000 + relation).to_string()))?;
                file.write_all(&page)?;
            }
        }
        Scale::Large => {
            for segment in 0..SEGMENTS {
                let name = match segment {
                    0 => "1000000".to_owned(),
                    n => format!("1000000.{n}"),
                };
                File::create(dir.join(name))?.set_len(1 << 30)?;
            }
        }
    }
    let owner = format!("{}:", lab.scratch().account().name);
    let mut chown = std::process::Command::new("chown");
    check(chown.args(["-R", &owner]).arg(&dir), Duration::from_secs(120)).map(drop)
}

/// Files and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Adds up a directory, links not followed. With `read` everything is read, so that it is in memory.
pub(crate) fn size_of(dir: &Path, read: bool) -> Result<Size> {
    let mut size = Size::default();
    let mut buffer = vec![0; 1 << 20];
    walk(dir, &mut |path, bytes| {
        size.files += 1;
        size.bytes += bytes;
        if read {
            let mut file = File::open(path)?;
            while file.read(&mut buffer)? > 0 {}
        }
        Ok(())
    })?;
    Ok(size)
}

/// Shows all regular files below a directory with their sizes, links not followed.
pub(crate) fn walk(dir: &Path, show: &mut dyn FnMut(&Path, u64) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("no \"{}\"", dir.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), show)?;
        } else if kind.is_file() {
            show(&entry.path(), entry.metadata()?.len())?;
        }
    }
    Ok(())
}

/// That a copy has about as much as the backup: no way may be fast by leaving things out.
pub(crate) fn check_copy(name: &str, copy: Size, backup: Size) -> Result<()> {
    // WAL, temporary and configuration files differ.
    let enough = |has: u64, wants: u64| has >= wants / 100 * 97;
    if enough(copy.bytes, backup.bytes) && enough(copy.files, backup.files) {
        return Ok(());
    }
    bail!("{name} made {copy:?} of {backup:?}")
}
