//! Control files of real clusters, with and without page checksums.

use std::fs;
use std::time::Duration;

use repmgr_lab::{PgInstall, Scratch, check};
use repmgr_verify::{ClusterPages, ControlFileError, PageLayout};

const LIMIT: Duration = Duration::from_secs(90);

fn of_major(major: u32) {
    let install = PgInstall::get(major).unwrap();
    let scratch = Scratch::new().unwrap();
    for checksums in [false, true] {
        let name = format!("data-{checksums}");
        let data_dir = scratch.path().join(&name);
        let mut initdb = scratch.command(install.program("initdb").unwrap());
        initdb.arg("-D").arg(&data_dir);
        initdb.args(["-A", "trust", "-U", "postgres", "--locale=C", "-N"]);
        match (checksums, major) {
            (true, _) => drop(initdb.arg("-k")),
            (false, 18) => drop(initdb.arg("--no-data-checksums")),
            (false, _) => {}
        }
        check(&mut initdb, LIMIT).unwrap();

        let bytes = fs::read(data_dir.join("global/pg_control")).unwrap();
        let pages = ClusterPages::from_pg_control(&bytes).unwrap();
        let expected = ClusterPages {
            checksums,
            layout: PageLayout::DEFAULT,
        };
        assert_eq!(pages, expected);

        // Of its own version only; others complain of the CRC.
        let judge = install.bin_dir().join("pg_controldata");
        if judge.exists() {
            let said = check(scratch.command(judge).arg(&data_dir), LIMIT).unwrap();
            let value = |name: &str| {
                let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.trim().to_owned()
            };
            assert_eq!(
                value("Data page checksum version:"),
                u32::from(checksums).to_string()
            );
            assert_eq!(value("Database block size:"), "8192");
            assert_eq!(value("Blocks per segment of large relation:"), "131072");
        }

        let mut damaged = bytes;
        damaged[250] ^= 1;
        let error = ClusterPages::from_pg_control(&damaged).unwrap_err();
        assert!(matches!(error, ControlFileError::Crc { .. }), "{error}");
    }
}

macro_rules! majors {
    ($($name:ident: $major:literal;)*) => {
        $(#[test] fn $name() { of_major($major); })*
    };
}

majors! {
    postgresql_10_tells_of_its_pages: 10;
    postgresql_11_tells_of_its_pages: 11;
    postgresql_12_tells_of_its_pages: 12;
    postgresql_13_tells_of_its_pages: 13;
    postgresql_15_tells_of_its_pages: 15;
    postgresql_17_tells_of_its_pages: 17;
    postgresql_18_tells_of_its_pages: 18;
}
