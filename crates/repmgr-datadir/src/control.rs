pub use repmgr_pgfile::{ControlError, PG_CONTROL, PG_CONTROL_SIZE, PgControlHead};

/// A plausible control file, for this crate's tests.
#[cfg(test)]
pub(crate) fn sample_control() -> Vec<u8> {
    let mut bytes = vec![0; PG_CONTROL_SIZE];
    bytes[..8].copy_from_slice(&7_412_345_678_901_234_567_u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&1300_u32.to_ne_bytes());
    bytes[12..16].copy_from_slice(&202_209_061_u32.to_ne_bytes());
    bytes[16..20].copy_from_slice(&1_u32.to_ne_bytes());
    bytes
}
