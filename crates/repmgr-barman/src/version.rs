use std::fmt;

/// A version of Barman. Pre-releases count as their release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarmanVersion {
    /// 3 of 3.13.2.
    pub major: u32,
    /// 13 of 3.13.2.
    pub minor: u32,
    /// 2 of 3.13.2, 0 when it is not given.
    pub patch: u32,
}

impl BarmanVersion {
    /// Reads what `barman --version` prints: up to 2.15 the number alone and lines about the project,
    /// later `3.19.1 Barman by EnterpriseDB (...)`.
    pub(crate) fn read(output: &str) -> Option<Self> {
        output
            .lines()
            .find_map(|line| line.split_whitespace().next().and_then(Self::parse))
    }

    fn parse(word: &str) -> Option<Self> {
        let mut parts = word.splitn(3, '.');
        let mut next = |may_miss: bool| match parts.next() {
            None => may_miss.then_some(0),
            Some(part) => {
                let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
                part[..end].parse::<u32>().ok()
            }
        };
        Some(Self {
            major: next(false)?,
            minor: next(false)?,
            patch: next(true)?,
        })
    }
}

impl fmt::Display for BarmanVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "{major}.{minor}")?;
        if *patch > 0 {
            write!(f, ".{patch}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_ages_are_read() {
        let read = |text| BarmanVersion::read(text).map(|v| v.to_string());
        for (text, version) in [
            ("3.19.1 Barman by EnterpriseDB (www.enterprisedb.com)\n", "3.19.1"),
            ("2.19 Barman by EnterpriseDB (www.enterprisedb.com)\n", "2.19"),
            ("3.4.0 Barman by EnterpriseDB", "3.4"),
            ("2.12\n\nBarman by 2ndQuadrant (www.2ndQuadrant.com)\n", "2.12"),
            ("/usr/lib/x.py: DeprecationWarning\n1.6.1\n", "1.6.1"),
            ("3.0a1 Barman", "3.0"),
        ] {
            assert_eq!(read(text).as_deref(), Some(version), "{text}");
        }
        for bad in ["", "Barman", "3", "x.y", "sh: barman: not found", "99999999999.1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let v = |major, minor, patch| BarmanVersion { major, minor, patch };
        assert!(v(2, 19, 0) < v(3, 4, 0) && v(3, 4, 0) < v(3, 13, 2) && v(3, 13, 1) < v(3, 13, 2));
    }
}
