//! The beginning of a WAL segment.

use repmgr_types::SystemId;

/// `XLogPageHeaderData` ends at 20 and is padded to the alignment of the machine (PostgreSQL 10 to 19).
const SYSTEM_ID_AT: usize = 20_usize.next_multiple_of(align_of::<u64>());
const LONG_HEADER: u16 = 0x0002;

/// Whether these bytes begin like a page of WAL that is neither compressed nor encrypted, in this machine's byte order:
/// the magic is `D0xx` to PostgreSQL 10 and `D1xx` since.
pub fn is_plain_wal(first: &[u8]) -> bool {
    first.len() >= 2 && matches!(u16::from_ne_bytes([first[0], first[1]]) >> 8, 0xD0 | 0xD1)
}

/// The cluster that a segment belongs to, by its first bytes (32 are enough), in this machine's byte order. `None`
/// if they are not those of a WAL segment as PostgreSQL writes it: too few, compressed, or encrypted.
pub fn wal_system_id(first: &[u8]) -> Option<SystemId> {
    let two = |at: usize| Some(u16::from_ne_bytes(first.get(at..at + 2)?.try_into().ok()?));
    if !is_plain_wal(first) || two(2)? & LONG_HEADER == 0 {
        return None;
    }
    let id = first.get(SYSTEM_ID_AT..SYSTEM_ID_AT + 8)?;
    Some(SystemId(u64::from_ne_bytes(id.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_read_from_what_is_wal_and_from_nothing_else() {
        let mut page = [0_u8; 40];
        page[..2].copy_from_slice(&0xd113_u16.to_ne_bytes());
        page[2..4].copy_from_slice(&LONG_HEADER.to_ne_bytes());
        page[SYSTEM_ID_AT..SYSTEM_ID_AT + 8].copy_from_slice(&7_u64.to_ne_bytes());
        assert_eq!(wal_system_id(&page), Some(SystemId(7)));
        for length in 0..SYSTEM_ID_AT + 8 {
            assert_eq!(wal_system_id(&page[..length]), None, "{length}");
        }
        page[2] = 0;
        page[3] = 0;
        assert_eq!(wal_system_id(&page), None);
        assert_eq!(wal_system_id(&[0x28; 40]), None);
    }
}
