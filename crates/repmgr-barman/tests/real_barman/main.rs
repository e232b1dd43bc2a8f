//! Real Barmans of three ages, over a real sshd.

mod bench;
mod finding;
mod holding;
mod primary_gone;

use repmgr_lab::BackupMethod::{Postgres, Rsync};
use repmgr_lab::BarmanVersion::{V2_19, V3_4, V3_19};

/// Each scenario with each Barman.
macro_rules! with_every_barman {
    ($($file:ident::$test:ident)*) => {
        mod barman_2_19_postgres { use super::*; $(#[test] fn $test() { $file::$test(&bench::bench(V2_19, Postgres)); })* }
        mod barman_3_4_rsync { use super::*; $(#[test] fn $test() { $file::$test(&bench::bench(V3_4, Rsync)); })* }
        mod barman_3_19_postgres { use super::*; $(#[test] fn $test() { $file::$test(&bench::bench(V3_19, Postgres)); })* }
    };
}

with_every_barman! {
    finding::a_backup_is_found_by_shortcut_and_id_and_is_what_the_primary_says
    finding::a_barman_on_this_host_needs_no_ssh
    finding::words_that_are_no_backup_are_told_apart
    finding::a_server_without_backups_says_so
    finding::settings_that_are_wrong_are_told_apart
    finding::backups_that_are_not_complete_are_refused_with_their_status
    finding::damaged_metadata_and_files_we_may_not_read_are_refused
    finding::keep_marks_and_deletion_marks_are_seen
    finding::changes_of_a_known_backup_are_seen
    finding::wal_is_in_the_archive_or_not
    finding::all_backups_are_listed
    finding::a_hole_in_the_archive_is_found
    finding::an_archive_elsewhere_is_found
    holding::barman_does_not_delete_what_is_held
    holding::a_lock_that_barman_holds_is_waited_for_and_then_an_error
    holding::locks_elsewhere_are_found_and_missing_ones_are_an_error_of_their_own
    holding::a_killed_sshd_ends_the_hold_on_both_sides
    primary_gone::a_stopped_primary_does_not_matter
    primary_gone::a_primary_that_never_answers_does_not_matter
}

#[test]
fn barman_3_4_waits_for_a_dead_primary_with_compression_only_so_long() {
    primary_gone::a_primary_that_every_call_waits_for_is_waited_for_a_few_seconds(&bench::bench(V3_4, Rsync));
}

#[test]
fn barman_3_19_waits_for_a_dead_primary_with_compression_only_so_long() {
    primary_gone::a_primary_that_every_call_waits_for_is_waited_for_a_few_seconds(&bench::bench(
        V3_19, Postgres,
    ));
}

#[test]
fn barman_3_19_may_keep_backups_away_from_its_notes() {
    finding::backups_may_be_kept_away_from_their_notes(&bench::bench(V3_19, Postgres));
}

#[test]
fn barman_3_19_makes_tar_files_and_names_backups() {
    finding::tar_files_and_names(&bench::bench(V3_19, Postgres));
}

#[test]
fn barman_3_4_does_not_serve_inactive_servers() {
    finding::inactive_servers(&bench::bench(V3_4, Rsync));
}
