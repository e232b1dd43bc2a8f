use crate::quote::quote_value;
use crate::scan::{Entry, SyntaxError, scan};

/// A file that can be edited. Lines that are not edited keep every byte.
#[derive(Clone, Default)]
pub struct ConfigFile {
    lines: Vec<EditLine>,
}

#[derive(Clone)]
struct EditLine {
    raw: Vec<u8>,
    entry: Option<Entry>,
}

impl ConfigFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// The first line that PostgreSQL would refuse.
    pub fn parse(file: &[u8]) -> Result<Self, SyntaxError> {
        let lines = scan(file)
            .map(|line| {
                Ok(EditLine {
                    raw: line.raw.to_vec(),
                    entry: line.content?,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { lines })
    }

    /// All entries in order, repeated ones included.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.lines.iter().filter_map(|line| line.entry.as_ref())
    }

    /// The entry of `name` that counts: the last one.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries().filter(|entry| entry.is(name)).last()
    }

    /// Turns every entry of `name` into a comment that begins with `note` (one line), and
    /// says how many there were.
    pub fn comment_out(&mut self, name: &str, note: &str) -> usize {
        let mut count = 0;
        for line in &mut self.lines {
            if line.entry.take_if(|entry| entry.is(name)).is_some() {
                let mut raw = format!("# {}: ", note.replace('\n', " ")).into_bytes();
                raw.append(&mut line.raw);
                line.raw = raw;
                count += 1;
            }
        }
        count
    }

    /// Deletes the line of every entry of `name`, and says how many there were.
    pub fn remove(&mut self, name: &str) -> usize {
        let before = self.lines.len();
        self.lines
            .retain(|line| !line.entry.as_ref().is_some_and(|entry| entry.is(name)));
        before - self.lines.len()
    }

    /// Makes `name` stand once, at the end, with `value` quoted, as `ALTER SYSTEM` does.
    /// `name` must be a valid name and `value` free of NUL.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        if let Some(last) = self.lines.last_mut().filter(|last| !last.raw.ends_with(b"\n")) {
            last.raw.push(b'\n');
        }
        self.lines.push(EditLine {
            raw: format!("{name} = {}\n", quote_value(value)).into_bytes(),
            entry: Some(Entry {
                name: name.to_owned(),
                value: value.into(),
                line: self.lines.len() + 1,
            }),
        });
    }

    /// The file as it is now.
    pub fn into_bytes(self) -> Vec<u8> {
        self.lines.into_iter().flat_map(|line| line.raw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(file: ConfigFile) -> String {
        String::from_utf8(file.into_bytes()).unwrap()
    }

    #[test]
    fn bytes_that_are_not_utf8_survive_an_edit() {
        let mut file = ConfigFile::parse(b"# caf\xe9\ncluster_name = 'caf\xe9'\r\nport=1").unwrap();
        file.set("port", "2");
        assert_eq!(file.get("cluster_name").unwrap().value_str(), None);
        assert_eq!(
            file.into_bytes(),
            b"# caf\xe9\ncluster_name = 'caf\xe9'\r\nport = '2'\n"
        );
    }

    #[test]
    fn commenting_out_keeps_the_text_and_catches_every_spelling() {
        let mut file =
            ConfigFile::parse(b"Data_Directory '/a'\n data_directory='/b'\n#data_directory\n").unwrap();
        assert_eq!(file.comment_out("data_directory", "not\nhere"), 2);
        assert_eq!(file.get("data_directory"), None);
        assert_eq!(
            text(file),
            "# not here: Data_Directory '/a'\n# not here:  data_directory='/b'\n#data_directory\n"
        );
    }

    #[test]
    fn setting_leaves_one_entry_and_an_unfinished_last_line_is_finished() {
        let mut file = ConfigFile::parse(b"port=1\nx.y = 1\nPORT=2\nfoo = 'it''s'").unwrap();
        file.set("port", "it's \\");
        assert_eq!(file.entries().filter(|e| e.is("port")).count(), 1);
        assert_eq!(text(file), "x.y = 1\nfoo = 'it''s'\nport = 'it''s \\\\'\n");
    }

    #[test]
    fn a_broken_line_is_refused_with_its_number() {
        let error = ConfigFile::parse(b"\n\nport 1 2\n").map(|_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 3, column 8: unexpected text after the value"
        );
    }

    proptest! {
        #[test]
        fn an_unedited_file_comes_back_as_it_was(file in "([a-z]{1,3} = '[a-z]{0,3}'[ \t\r]*(#.{0,9})?\n|\n){0,9}") {
            let parsed = ConfigFile::parse(file.as_bytes()).unwrap();
            prop_assert_eq!(parsed.into_bytes(), file.as_bytes());
        }

        #[test]
        fn what_is_set_is_read_back(value in "[^\0]*", before in "([a-z]{1,3} = 1\n){0,3}") {
            let mut file = ConfigFile::parse(before.as_bytes()).unwrap();
            file.set("restore_command", &value);
            let bytes = file.into_bytes();
            let again = ConfigFile::parse(&bytes).unwrap();
            prop_assert_eq!(again.get("restore_command").unwrap().value_str(), Some(value.as_str()));
        }
    }
}
