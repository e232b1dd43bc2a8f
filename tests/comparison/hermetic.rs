//! The comparison means the same on every machine.

use std::path::Path;
use std::time::Duration;

use repmgr_lab::{check, in_odd_surroundings};

/// It failed where another `barman` came first on the PATH: the original was told another `barman_command`.
#[test]
fn other_programs_first_on_the_path_change_nothing() {
    let own = std::env::current_exe().unwrap();
    let odd = Path::new(env!("CARGO_TARGET_TMPDIR")).join("odd");
    let mut again = in_odd_surroundings(&own, &odd).unwrap();
    again.args(["--exact", "from_barman::a_plain_clone"]);
    let said = check(&mut again, Duration::from_secs(300)).unwrap();
    assert!(said.contains("1 passed"), "{said}");
}
