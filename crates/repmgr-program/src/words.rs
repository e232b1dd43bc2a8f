//! What is kept of a program's output.

use std::collections::VecDeque;

/// The last bytes of an output.
#[derive(Debug, Clone)]
pub struct LastBytes {
    kept: Vec<u8>,
    limit: usize,
}

impl LastBytes {
    /// Keeps `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            kept: Vec::new(),
            limit,
        }
    }

    /// More output.
    pub fn add(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let excess = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..excess);
    }

    /// The last bytes that came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.kept
    }
}

/// The last lines of an output.
#[derive(Debug, Clone)]
pub struct LastLines {
    kept: VecDeque<String>,
    limit: usize,
}

impl LastLines {
    /// Keeps `limit` lines.
    pub fn new(limit: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            limit,
        }
    }

    /// One more line.
    pub fn add(&mut self, line: &str) {
        self.kept.push_back(line.to_owned());
        let excess = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..excess);
    }

    /// The last lines that came.
    pub fn into_vec(self) -> Vec<String> {
        self.kept.into()
    }
}

/// Makes lines of bytes: ended by a line feed or a carriage return, without blanks at the end, empty ones
/// left out, printable. A line longer than [`MAX_LINE`](Self::MAX_LINE) bytes is given in pieces.
#[derive(Debug, Default)]
pub struct LineSplitter(Vec<u8>);

impl LineSplitter {
    /// The longest line, in bytes.
    pub const MAX_LINE: usize = 4096;

    /// More output, and who gets the lines it ends.
    pub fn add(&mut self, bytes: &[u8], on_line: &mut dyn FnMut(&str)) {
        for &byte in bytes {
            let ends = matches!(byte, b'\n' | b'\r');
            if ends || self.0.len() == Self::MAX_LINE {
                self.finish(on_line);
            }
            if !ends {
                self.0.push(byte);
            }
        }
    }

    /// The output ended: gives the line that nothing else ends.
    pub fn finish(&mut self, on_line: &mut dyn FnMut(&str)) {
        let line: String = String::from_utf8_lossy(&self.0)
            .trim_end()
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '?' } else { c })
            .collect();
        self.0.clear();
        if !line.is_empty() {
            on_line(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(output: &[u8], piece: usize) -> Vec<String> {
        let mut lines = Vec::new();
        let mut splitter = LineSplitter::default();
        for bytes in output.chunks(piece) {
            splitter.add(bytes, &mut |line| lines.push(line.to_owned()));
        }
        splitter.finish(&mut |line| lines.push(line.to_owned()));
        lines
    }

    #[test]
    fn lines_end_at_either_sign_and_are_made_printable() {
        let output = b"  1/2 kB\r  2/2 kB\n\nwarn\x1b[0ming  \nout\n\xff\tlast";
        for piece in [1, 7, 100] {
            assert_eq!(
                lines(output, piece),
                ["  1/2 kB", "  2/2 kB", "warn?[0ming", "out", "\u{fffd}\tlast"]
            );
        }
    }

    #[test]
    fn a_flood_without_a_line_end_takes_no_memory() {
        let lines = lines(&[b'x'; 100_000], 8192);
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), 100_000);
        assert!(lines.iter().all(|line| line.len() <= LineSplitter::MAX_LINE));
    }

    #[test]
    fn the_last_is_kept() {
        let mut bytes = LastBytes::new(5);
        for piece in ["ab", "cdef", "", "0123456789", "x"] {
            bytes.add(piece.as_bytes());
        }
        assert_eq!(bytes.as_bytes(), b"6789x");
        let mut lines = LastLines::new(2);
        ["a", "b", "c"].iter().for_each(|line| lines.add(line));
        assert_eq!(lines.into_vec(), ["b", "c"]);
    }
}
