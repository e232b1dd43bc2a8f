/// How a cluster divides its relations; fixed when PostgreSQL is compiled, recorded in its control file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLayout {
    page_size: u32,
    segment_pages: u32,
}

impl PageLayout {
    /// Pages of 8 kB, files of 1 GB: what nearly every PostgreSQL has.
    pub const DEFAULT: Self = Self {
        page_size: 8192,
        segment_pages: 131_072,
    };

    /// `None` for sizes PostgreSQL cannot be compiled with.
    pub fn new(page_size: u32, segment_pages: u32) -> Option<Self> {
        let possible =
            page_size.is_power_of_two() && (1024..=32_768).contains(&page_size) && segment_pages > 0;
        possible.then_some(Self {
            page_size,
            segment_pages,
        })
    }

    /// The size of a page in bytes (`BLCKSZ`): a power of two from 1,024 to 32,768.
    pub fn page_size(self) -> usize {
        self.page_size as usize
    }

    /// Pages in a file before the next one, `.1`, begins (`RELSEG_SIZE`).
    pub fn segment_pages(self) -> u32 {
        self.segment_pages
    }
}
