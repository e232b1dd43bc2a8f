use std::fmt;

use openssl::sha::{Sha224, Sha256, Sha384, Sha512};

/// The checksums a backup manifest can hold (`--manifest-checksums` of `pg_basebackup`; its `NONE` is the
/// absence of one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumAlgorithm {
    /// CRC-32C, PostgreSQL's default: against accidents, not against malice.
    Crc32c,
    /// SHA-224.
    Sha224,
    /// SHA-256; the only one Barman writes.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Crc32c,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
    ];

    /// As a manifest spells it: `CRC32C`, `SHA256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// From its name in a manifest, in whatever case, as PostgreSQL reads it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// The length of a checksum in bytes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => MAX_SIZE,
        }
    }
}

impl fmt::Display for ChecksumAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

const MAX_SIZE: usize = 64;

/// A checksum and how it was made. Prints as a manifest writes it, in lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    algorithm: ChecksumAlgorithm,
    // Zeros behind the algorithm's size, so that the derived equality holds.
    bytes: [u8; MAX_SIZE],
}

impl Checksum {
    /// From raw bytes; `None` if there are not as many as the algorithm makes.
    ///
    /// A CRC-32C is in the byte order of the machine, as PostgreSQL keeps it.
    pub fn new(algorithm: ChecksumAlgorithm, raw: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_SIZE];
        if raw.len() != algorithm.size() {
            return None;
        }
        bytes[..raw.len()].copy_from_slice(raw);
        Some(Self { algorithm, bytes })
    }

    pub(crate) fn from_hex(algorithm: ChecksumAlgorithm, text: &str) -> Option<Self> {
        let mut bytes = [0; MAX_SIZE];
        decode_hex(text, &mut bytes[..algorithm.size()]).then_some(Self { algorithm, bytes })
    }

    /// How it was made.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.size()]
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm)
    }
}

/// Fills `into` from hexadecimal digits; `false` if they are not exactly as many as it takes.
pub(crate) fn decode_hex(text: &str, into: &mut [u8]) -> bool {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() || pairs.len() != into.len() {
        return false;
    }
    for (byte, [high, low]) in into.iter_mut().zip(pairs) {
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
            return false;
        };
        *byte = (high << 4 | low) as u8;
    }
    true
}

/// A checksum in the making, over a stream in chunks of any size.
#[derive(Clone)]
pub struct FileDigest(State);

#[derive(Clone)]
enum State {
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    // These two are large, and there is one for each file under way.
    Sha384(Box<Sha384>),
    Sha512(Box<Sha512>),
}

impl FileDigest {
    /// Of no bytes yet.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self(match algorithm {
            ChecksumAlgorithm::Crc32c => State::Crc32c(0),
            ChecksumAlgorithm::Sha224 => State::Sha224(Sha224::new()),
            ChecksumAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha384 => State::Sha384(Box::default()),
            ChecksumAlgorithm::Sha512 => State::Sha512(Box::default()),
        })
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, bytes),
            State::Sha224(sha) => sha.update(bytes),
            State::Sha256(sha) => sha.update(bytes),
            State::Sha384(sha) => sha.update(bytes),
            State::Sha512(sha) => sha.update(bytes),
        }
    }

    /// The checksum of all bytes.
    pub fn finish(self) -> Checksum {
        let algorithm = self.algorithm();
        let mut bytes = [0; MAX_SIZE];
        let place = &mut bytes[..algorithm.size()];
        match self.0 {
            State::Crc32c(crc) => place.copy_from_slice(&crc.to_ne_bytes()),
            State::Sha224(sha) => place.copy_from_slice(&sha.finish()),
            State::Sha256(sha) => place.copy_from_slice(&sha.finish()),
            State::Sha384(sha) => place.copy_from_slice(&sha.finish()),
            State::Sha512(sha) => place.copy_from_slice(&sha.finish()),
        }
        Checksum { algorithm, bytes }
    }

    fn algorithm(&self) -> ChecksumAlgorithm {
        match self.0 {
            State::Crc32c(_) => ChecksumAlgorithm::Crc32c,
            State::Sha224(_) => ChecksumAlgorithm::Sha224,
            State::Sha256(_) => ChecksumAlgorithm::Sha256,
            State::Sha384(_) => ChecksumAlgorithm::Sha384,
            State::Sha512(_) => ChecksumAlgorithm::Sha512,
        }
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileDigest({})", self.algorithm())
    }
}

/// One file against its size and, if it has one, its checksum; from [`ManifestEntry::check`].
///
/// [`ManifestEntry::check`]: crate::ManifestEntry::check
#[derive(Debug, Clone)]
pub struct FileCheck {
    expected_size: u64,
    size: u64,
    checksum: Option<(Checksum, FileDigest)>,
}

impl FileCheck {
    /// A file that is to have this size in bytes and this checksum.
    pub fn new(size: u64, checksum: Option<Checksum>) -> Self {
        Self {
            expected_size: size,
            size: 0,
            checksum: checksum.map(|checksum| (checksum, FileDigest::new(checksum.algorithm))),
        }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some((_, digest)) = &mut self.checksum {
            digest.update(bytes);
        }
    }

    /// The verdict.
    ///
    /// # Errors
    /// If there were more or fewer bytes, or others.
    pub fn finish(self) -> Result<(), FileFault> {
        if self.size != self.expected_size {
            return Err(FileFault::Size {
                expected: self.expected_size,
                found: self.size,
            });
        }
        match self
            .checksum
            .map(|(expected, digest)| (expected, digest.finish()))
        {
            Some((expected, found)) if expected != found => Err(FileFault::Checksum {
                expected: Box::new(expected),
                found: Box::new(found),
            }),
            _ => Ok(()),
        }
    }
}

/// How a file differs from what was recorded of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileFault {
    /// In size.
    #[error("it has {found} bytes instead of {expected}")]
    Size {
        /// Bytes recorded.
        expected: u64,
        /// Bytes received.
        found: u64,
    },
    /// In content.
    #[error("its {} checksum is {found} instead of {expected}", .expected.algorithm())]
    Checksum {
        /// As recorded.
        expected: Box<Checksum>,
        /// Of the bytes received.
        found: Box<Checksum>,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hex(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> String {
        let mut digest = FileDigest::new(algorithm);
        digest.update(bytes);
        digest.finish().to_string()
    }

    #[test]
    fn known_texts_have_known_checksums() {
        // The check value of CRC-32C is E3069283; PostgreSQL writes its bytes as they lie in memory.
        #[cfg(target_endian = "little")]
        assert_eq!(hex(ChecksumAlgorithm::Crc32c, b"123456789"), "839206e3");
        // FIPS 180-2, appendices.
        let sha = [
            (
                ChecksumAlgorithm::Sha224,
                "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            ),
            (
                ChecksumAlgorithm::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                ChecksumAlgorithm::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                 8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                ChecksumAlgorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ];
        for (algorithm, expected) in sha {
            assert_eq!(hex(algorithm, b"abc"), expected);
        }
    }

    #[test]
    fn a_checksum_reads_back_from_its_digits() {
        for algorithm in ChecksumAlgorithm::ALL {
            let checksum = FileDigest::new(algorithm).finish();
            let text = checksum.to_string();
            assert_eq!(
                Checksum::from_hex(algorithm, &text.to_uppercase()),
                Some(checksum)
            );
            assert_eq!(Checksum::new(algorithm, checksum.as_bytes()), Some(checksum));
            let bad = [
                &text[1..],
                &text[2..],
                &format!("{text}00"),
                &format!("g{}", &text[1..]),
                &format!("+{}", &text[1..]),
            ];
            for bad in bad {
                assert_eq!(Checksum::from_hex(algorithm, bad), None, "{bad}");
            }
            assert_eq!(ChecksumAlgorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(ChecksumAlgorithm::from_name("NONE"), None);
    }

    #[test]
    fn a_file_is_right_only_with_its_size_and_content() {
        let mut digest = FileDigest::new(ChecksumAlgorithm::Sha256);
        digest.update(b"abc");
        let expected = digest.finish();
        let verdict = |size, checksum, bytes: &[u8]| {
            let mut check = FileCheck::new(size, checksum);
            check.update(bytes);
            check.finish()
        };
        assert_eq!(verdict(3, Some(expected), b"abc"), Ok(()));
        assert_eq!(verdict(3, None, b"abd"), Ok(()));
        assert_eq!(
            verdict(3, None, b"abcd"),
            Err(FileFault::Size {
                expected: 3,
                found: 4
            })
        );
        let fault = verdict(3, Some(expected), b"abd").unwrap_err();
        assert!(
            fault
                .to_string()
                .starts_with("its SHA256 checksum is a52d159f262b"),
            "{fault}"
        );
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8)) {
            for algorithm in ChecksumAlgorithm::ALL {
                let mut digest = FileDigest::new(algorithm);
                chunks.iter().for_each(|chunk| digest.update(chunk));
                prop_assert_eq!(digest.finish().to_string(), hex(algorithm, &chunks.concat()));
            }
        }
    }
}
