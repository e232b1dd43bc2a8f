/// The name of the file, directly below the data directory.
pub const POSTMASTER_PID: &str = "postmaster.pid";

/// The process that wrote this `postmaster.pid`, by its first line; always positive.
///
/// A stand-alone backend (`postgres --single`) writes its id negative; it owns the directory no less.
/// `None` when the file is empty or damaged: such an id is of nobody.
pub fn postmaster_pid(content: &[u8]) -> Option<i32> {
    let line = content.split(|b| *b == b'\n').next()?;
    let number: i32 = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    number.checked_abs().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_line_names_the_process() {
        for (content, pid) in [
            ("4711\n/srv/pg\n", Some(4711)),
            ("4711", Some(4711)),
            (" 4711 \r\n", Some(4711)),
            ("-4711\n/srv/pg\n", Some(4711)),
            ("", None),
            ("\n4711\n", None),
            ("abc\n", None),
            ("0\n", None),
            ("-2147483648\n", None),
            ("99999999999\n", None),
        ] {
            assert_eq!(postmaster_pid(content.as_bytes()), pid, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(pid in 1..=i32::MAX, alone in any::<bool>(), rest in "(\n.*)?") {
            let sign = if alone { "-" } else { "" };
            prop_assert_eq!(postmaster_pid(format!("{sign}{pid}{rest}").as_bytes()), Some(pid));
        }

        #[test]
        fn whatever_it_holds_an_id_is_positive(content: Vec<u8>) {
            prop_assert!(postmaster_pid(&content).is_none_or(|pid| pid > 0));
        }
    }
}
