//! One data page: its header and its checksum, as in PostgreSQL's `storage/checksum_impl.h` and
//! `storage/bufpage.h` (the same from 9.3 to 18).

use repmgr_types::Lsn;

/// Columns of 32-bit words that are summed side by side.
const LANES: usize = 32;
const ROW: usize = LANES * 4;
const FNV_PRIME: u32 = 16_777_619;
/// Where each lane starts; arbitrary numbers, part of the format.
#[rustfmt::skip]
pub(crate) const OFFSETS: [u32; LANES] = [
    0x5B1F_36E9, 0xB852_5960, 0x02AB_50AA, 0x1DE6_6D2A, 0x79FF_467A, 0x9BB9_F8A3, 0x217E_7CD2, 0x83E1_3D2C,
    0xF8D4_474F, 0xE39E_B970, 0x42C6_AE16, 0x9932_16FA, 0x7B09_3B5D, 0x98DA_FF3C, 0xF718_902A, 0x0B1C_9CDB,
    0xE58F_764B, 0x1876_36BC, 0x5D7B_3BB1, 0xE73D_E7DE, 0x92BE_C979, 0xCCA6_C0B2, 0x304A_0979, 0x85AA_43D4,
    0x7831_25BB, 0x6CA8_EAA2, 0xE407_EAC6, 0x4B5C_FC3E, 0x9FBF_8C76, 0x15CA_20BE, 0xF2CA_9FD3, 0x959B_D756,
];

// In `PageHeaderData`; all numbers are in the machine's byte order, which a standby shares with its primary.
const AT_CHECKSUM: usize = 8;
const AT_UPPER: usize = 14;

/// A whole page: a multiple of [`ROW`] bytes, not none, which every page size is.
#[derive(Clone, Copy)]
pub(crate) struct Page<'a>(pub(crate) &'a [u8]);

impl Page<'_> {
    /// The position in the WAL behind the last record that changed this page.
    pub(crate) fn lsn(self) -> Lsn {
        let word = |at: usize| u64::from(u32::from_ne_bytes(self.bytes(at)));
        Lsn(word(0) << 32 | word(4))
    }

    /// The checksum the page holds.
    pub(crate) fn stored_checksum(self) -> u16 {
        u16::from_ne_bytes(self.bytes(AT_CHECKSUM))
    }

    /// Extended, but never written with content (`PageIsNew`): such a page has no checksum.
    pub(crate) fn is_new(self) -> bool {
        u16::from_ne_bytes(self.bytes(AT_UPPER)) == 0
    }

    pub(crate) fn is_zero(self) -> bool {
        let (rows, rest) = self.0.as_chunks::<ROW>();
        rows.iter().all(|row| *row == [0; ROW]) && rest.iter().all(|byte| *byte == 0)
    }

    /// The checksum the page should hold as block `block` of its relation.
    pub(crate) fn checksum(self, block: u32) -> u16 {
        // Never zero. The cast is exact: the remainder is at most 65,534.
        ((self.sum() ^ block) % 65_535 + 1) as u16
    }

    /// Of the whole page but for the checksum itself, which counts as zero.
    ///
    /// Plain loops over arrays, so that the compiler makes vector instructions of them.
    fn sum(self) -> u32 {
        let mut sums = OFFSETS;
        let (rows, _) = self.0.as_chunks::<ROW>();
        if let Some((first, rows)) = rows.split_first() {
            let mut first = *first;
            first[AT_CHECKSUM..AT_CHECKSUM + 2].fill(0);
            mix(&mut sums, &words(&first));
            for row in rows {
                mix(&mut sums, &words(row));
            }
        }
        mix(&mut sums, &[0; LANES]);
        mix(&mut sums, &[0; LANES]);
        sums.iter().fold(0, |all, sum| all ^ sum)
    }

    fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        std::array::from_fn(|n| self.0[at + n])
    }
}

#[inline]
fn words(row: &[u8; ROW]) -> [u32; LANES] {
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(row.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

/// One round of FNV-1a on every lane, with the upper bits folded in, which plain FNV-1a mixes badly.
#[inline]
fn mix(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(FNV_PRIME) ^ (mixed >> 17);
    }
}
