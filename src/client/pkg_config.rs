//! What a .pc file says, as pkg-config reads it (<https://people.freedesktop.org/~dbn/pkg-config-guide.html>).

use std::collections::HashMap;

/// How much a value may grow to, in bytes.
const VALUE_MAX: usize = 64 << 10;

/// The values of its variables and its fields, expanded; `folder` stands for the one that the file is in. `None` if a value
/// needs something that the file does not say, or leads upward from the folder that a compiler runs in.
pub fn values(text: &[u8], folder: &str) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(text)
        .replace("\\\r\n", "")
        .replace("\\\n", "");
    // As pkg-config has them when nothing else is set.
    let known = [
        ("pcfiledir", folder),
        ("pc_sysrootdir", ""),
        ("pc_top_builddir", "$(top_builddir)"),
    ];
    let mut variables: HashMap<_, _> =
        HashMap::from(known.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let mut values = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let Some(end) = line.find(|c| !is_part(c)) else {
            continue;
        };
        let (name, rest) = (&line[..end], line[end..].trim_start());
        let (Some(rest), is_variable) = (rest.strip_prefix(['=', ':']), rest.starts_with('='))
        else {
            continue;
        };
        // Words for people.
        if !is_variable && ["Name", "Description", "URL"].contains(&name) {
            continue;
        }
        let value = expand(rest.trim(), &variables)?;
        if is_variable {
            variables.insert(name.to_owned(), value.clone());
        }
        if value.split_whitespace().any(leads_upward) {
            return None;
        }
        values.push(value);
    }
    Some(values)
}

fn expand(mut value: &str, variables: &HashMap<String, String>) -> Option<String> {
    let mut expanded = String::new();
    while let Some(at) = value.find('$') {
        expanded.push_str(&value[..at]);
        value = &value[at + 1..];
        if let Some(rest) = value.strip_prefix('$') {
            expanded.push('$');
            value = rest;
        } else if let Some(rest) = value.strip_prefix('{') {
            let (name, rest) = rest.split_once('}')?;
            expanded.push_str(variables.get(name)?);
            value = rest;
        } else {
            expanded.push('$');
        }
        if expanded.len() > VALUE_MAX {
            return None;
        }
    }
    expanded.push_str(value);
    Some(expanded)
}

fn leads_upward(word: &str) -> bool {
    let first = word.split('/').next().unwrap_or_default();
    first.trim_matches(['"', '\'']).ends_with("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_in_the_order_in_which_they_stand() {
        let text = b"prefix = ${pcfiledir}/../..\nlib=${prefix}/lib # here\n\
            Description: ${of nothing}\nCflags: -I${prefix}/include \\\n -DX=$${x}\nLibs: -L${lib}\n";
        let expected = [
            "/p/lib/pkgconfig/../..",
            "/p/lib/pkgconfig/../../lib",
            "-I/p/lib/pkgconfig/../../include  -DX=${x}",
            "-L/p/lib/pkgconfig/../../lib",
        ];
        let found = values(text, "/p/lib/pkgconfig").unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_the_file_does_not_say_is_not_guessed() {
        for text in [
            "Cflags: -I${nowhere}/x",
            "a=${b}\nb=1",
            "Cflags: -I${pcfiledir",
            "Cflags: -I../x",
            "a=..",
        ] {
            assert_eq!(values(text.as_bytes(), "/p"), None, "{text}");
        }
        let endless = "a=${pcfiledir}".to_owned() + &"\na=${a}${a}".repeat(40);
        assert_eq!(values(endless.as_bytes(), "/p"), None);
    }
}
