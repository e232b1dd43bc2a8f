use repmgr_codec::Codec;
use repmgr_remote::Host;

/// What a far side may be asked for.
pub(crate) const ON_THE_WIRE: [Codec; 4] = [Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::None];

/// How bytes are compressed on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// zstd or lz4, whichever of those that the far side has turns out to be faster, and nothing for
    /// files that do not shrink: each batch is tried by a part of its largest one.
    #[default]
    Auto,
    /// zstd at its fastest ordinary level; an error if the far side does not have it.
    Zstd,
    /// lz4; an error if the far side does not have it.
    Lz4,
    /// gzip, slow and everywhere.
    Gzip,
    /// Nothing. The choice for a host that is reached without a network.
    None,
}

impl Compression {
    /// The same for a host that is reached over a network, and [`None`](Self::None) for this one.
    #[must_use]
    pub fn towards(self, host: &dyn Host) -> Self {
        if host.is_local() { Self::None } else { self }
    }

    /// What the far side may choose from, best first.
    pub(crate) fn choices(self) -> &'static str {
        match self {
            Self::Auto => "zstd lz4 none",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::None => "none",
        }
    }
}
