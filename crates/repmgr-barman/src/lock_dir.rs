//! Where Barman has its lock files, from its configuration file alone: asking Barman would ask the primary.

use std::collections::HashMap;

/// `barman_lock_directory`, or else `barman_home`, of a configuration file; read as Python's ConfigParser
/// and Barman's quote rule do, as far as the section `[barman]` goes.
pub(crate) fn from_configuration(text: &str) -> Option<String> {
    let keys = barman_section(text);
    ["barman_lock_directory", "barman_home"]
        .into_iter()
        .find_map(|key| {
            let mut left = MAX_REFERENCES;
            let value = interpolate(keys.get(key)?, &keys, 0, &mut left)?;
            let value = unquote(&value);
            (value.starts_with('/') && !value.chars().any(char::is_control)).then(|| value.to_owned())
        })
}

fn barman_section(text: &str) -> HashMap<String, String> {
    let mut keys = HashMap::new();
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = section == "barman";
        } else if inside
            // Indented lines continue a value; none we look for has several.
            && !line.starts_with([' ', '\t'])
            && let Some((key, value)) = trimmed.split_once(['=', ':'])
        {
            keys.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    keys
}

/// References that are followed, also to values that refer to others: these multiply.
const MAX_REFERENCES: u32 = 1000;

/// Expands `%(key)s` and `%%`; `left` is how many references may still be followed.
fn interpolate(value: &str, keys: &HashMap<String, String>, depth: usize, left: &mut u32) -> Option<String> {
    const MAX_DEPTH: usize = 10;
    // More than a path can have; values that name each other could grow without end.
    const LONGEST: usize = 16 << 10;
    if depth > MAX_DEPTH {
        return None;
    }
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
        } else {
            let (key, after) = after.strip_prefix('(')?.split_once(")s")?;
            *left = left.checked_sub(1)?;
            out.push_str(&interpolate(
                keys.get(&key.to_lowercase())?,
                keys,
                depth + 1,
                left,
            )?);
            rest = after;
        }
        if out.len() > LONGEST {
            return None;
        }
    }
    Some(out + rest)
}

fn unquote(value: &str) -> &str {
    let inner = |quote| {
        value
            .strip_prefix(quote)
            .and_then(|v: &str| v.strip_suffix(quote))
    };
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_directory_is_read_as_barman_reads_it() {
        let read = |text: &str| from_configuration(text).unwrap_or_default();
        assert_eq!(
            read("[barman]\nbarman_home = /var/lib/barman\n"),
            "/var/lib/barman"
        );
        let both = "; note\n[barman]\nbarman_home=/b\n# x\nBarman_Lock_Directory : \"/run/bar man\"\n";
        assert_eq!(read(both), "/run/bar man");
        let inner = "[barman]\nbarman_home = '/b'\nroot=/r%%\nbarman_lock_directory = %(root)s/locks\n";
        assert_eq!(read(inner), "/r%/locks");
        let other =
            "[main]\nbarman_lock_directory=/wrong\n[barman]\nbarman_home=/b\n[x]\nbarman_home=/wrong\n";
        assert_eq!(read(other), "/b");
        let continued = "[barman]\nbarman_home=/b\n  barman_lock_directory=/part/of/it\n";
        assert_eq!(read(continued), "/b");
    }

    #[test]
    fn what_is_no_path_is_not_taken_for_one() {
        for bad in [
            "",
            "barman_home=/b",
            "[barman]\n",
            "[barman]\nbarman_home=relative",
            "[barman]\nbarman_home=%(barman_home)s/x",
            "[barman]\nbarman_home=%(nobody)s",
            "[barman]\nbarman_home=/a%b",
        ] {
            assert_eq!(from_configuration(bad), None, "{bad}");
        }
        let mut growing = "[barman]\nbarman_home=/%(k0)s\nk9=x\n".to_owned();
        for n in 0..9 {
            growing += &format!("k{n}={}\n", format!("%(k{})s", n + 1).repeat(1000));
        }
        assert_eq!(from_configuration(&growing), None);
        // Nothing grows, but there is no end of it either.
        assert_eq!(from_configuration(&growing.replace("k9=x", "k9=")), None);
    }
}
