//! The help, made from the table: plain text, wrapped to the width of the terminal.

use super::table::{ABOUT, Flag, GENERAL, NOTES, SUBCOMMANDS, Subcommand};
use std::fmt::Write;

/// The widest help, in columns.
const WIDTH_MAX: usize = 100;

/// The narrowest: below it a terminal's own wrapping reads no worse.
const WIDTH_MIN: usize = 40;

/// Where the explanation of an option begins, at most.
const COLUMN_MAX: usize = 24;

/// The main help.
pub fn main() -> String {
    let width = width();
    let mut out = String::new();
    paragraph(&mut out, ABOUT, width);
    paragraph(
        &mut out,
        "Usage: nix-gocacheprog SUBCOMMAND [OPTION...]",
        width,
    );
    let all = SUBCOMMANDS.iter().copied().flatten();
    let column = all
        .map(|subcommand| subcommand.name.len())
        .max()
        .unwrap_or(0)
        + 4;
    for group in SUBCOMMANDS {
        for subcommand in *group {
            item(&mut out, subcommand.name, subcommand.brief, column, width);
        }
        out.push('\n');
    }
    NOTES
        .iter()
        .for_each(|note| paragraph(&mut out, note, width));
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The help of a subcommand.
pub fn of(subcommand: &Subcommand) -> String {
    of_width(subcommand, width())
}

fn of_width(subcommand: &Subcommand, width: usize) -> String {
    let mut out = String::new();
    for text in subcommand.about {
        paragraph(&mut out, text, width);
    }
    paragraph(&mut out, &format!("Usage: {}", usage(subcommand)), width);
    let mut items: Vec<(String, String)> = subcommand
        .arguments
        .iter()
        .map(|argument| (argument.name.into(), argument_text(argument)))
        .collect();
    items.extend(
        subcommand
            .flags()
            .chain(GENERAL.iter())
            .map(|flag| (flag_names(flag), flag_text(flag))),
    );
    let lengths = items.iter().map(|(names, _)| names.len() + 4);
    let longest = COLUMN_MAX.min(width / 2);
    let column = lengths
        .filter(|length| *length <= longest)
        .max()
        .unwrap_or(longest);
    for (names, text) in &items {
        item(&mut out, names, text, column, width);
    }
    out.push('\n');
    for note in subcommand.notes {
        paragraph(&mut out, note, width);
    }
    for (command, what) in subcommand.examples {
        paragraph(&mut out, what, width);
        for line in wrapped_command(command, width) {
            let _ = writeln!(out, "    {line}");
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// How a subcommand is called.
pub fn usage(subcommand: &Subcommand) -> String {
    if let Some(usage) = subcommand.usage {
        return usage.into();
    }
    let mut usage = format!("nix-gocacheprog {}", subcommand.name);
    if !subcommand.flags.is_empty() {
        usage.push_str(" [OPTION...]");
    }
    for argument in subcommand.arguments {
        let _ = if argument.required {
            write!(usage, " {}", argument.name)
        } else {
            write!(usage, " [{}]", argument.name)
        };
    }
    usage
}

/// An option as it is written, with what it takes.
pub fn flag_names(flag: &Flag) -> String {
    format!("--{} {}", flag.name, flag.takes.placeholder())
        .trim_end()
        .into()
}

/// What an option does, with its default and the variables that stand in for it.
pub fn flag_text(flag: &Flag) -> String {
    let mut facts = Vec::new();
    if let Some(default) = flag.usually.or(flag.default) {
        facts.push(format!("default: {default}"));
    }
    if flag.repeats {
        facts.push("may be given several times".into());
    }
    // The first is a person's; the others are systemd's.
    if let Some(name) = flag.env.first() {
        facts.push(format!("or {name}"));
    }
    if facts.is_empty() {
        flag.help.into()
    } else {
        format!("{} ({})", flag.help, facts.join("; "))
    }
}

/// What an argument is, with all that it can be.
pub fn argument_text(argument: &super::table::Argument) -> String {
    match argument.takes.words() {
        [] => argument.help.into(),
        words => format!("{}: {}", argument.help, words.join(", ")),
    }
}

/// What COLUMNS says, which shells and `man` set, within reason.
fn width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .or_else(crate::sys::terminal_columns)
        .unwrap_or(80)
        .clamp(WIDTH_MIN, WIDTH_MAX)
}

fn paragraph(out: &mut String, text: &str, width: usize) {
    for line in wrapped(text, width) {
        out.push_str(&line);
        out.push('\n');
    }
    out.push('\n');
}

/// Two spaces, the names, and from `column` on the text.
fn item(out: &mut String, names: &str, text: &str, column: usize, width: usize) {
    let mut lines = wrapped(text, width.saturating_sub(column)).into_iter();
    let first = lines.next().unwrap_or_default();
    if names.len() + 4 <= column {
        let _ = writeln!(out, "  {names:<pad$}{first}", pad = column - 2);
    } else {
        let _ = writeln!(out, "  {names}\n{:column$}{first}", "");
    }
    for line in lines {
        let _ = writeln!(out, "{:column$}{line}", "");
    }
}

/// Lines of whole words, none longer than `width` unless a word is.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

/// The lines of a command, less their indent of four columns. A shell joins them again.
fn wrapped_command(command: &str, width: usize) -> Vec<String> {
    const CONTINUES: &str = " \\";
    // Where it fits whole it needs no mark; a word after the first line stands four columns further in.
    if command.chars().count() + 4 <= width || command.contains(['\'', '"', '\n']) {
        return vec![command.into()];
    }
    let mut lines = wrapped(command, width.saturating_sub(8 + CONTINUES.len()));
    let last = lines.len() - 1;
    for line in &mut lines[..last] {
        line.push_str(CONTINUES);
    }
    for line in &mut lines[1..] {
        line.insert_str(0, "    ");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_too_wide_goes_on_in_the_next_line_for_a_shell_too() {
        assert_eq!(
            wrapped_command("sudo tool install --one A --two B", 24),
            ["sudo tool \\", "    install --one \\", "    A --two B"]
        );
        assert_eq!(wrapped_command("short enough", 16), ["short enough"]);
        let quoted = "tool 'a  text in quotes that stays as it is'";
        assert_eq!(wrapped_command(quoted, 24), [quoted]);
    }

    #[test]
    fn no_help_is_wider_than_a_narrow_terminal_but_for_single_words() {
        for subcommand in SUBCOMMANDS.iter().copied().flatten() {
            for line in of_width(subcommand, WIDTH_MIN).lines() {
                let words = line.split_whitespace().filter(|word| *word != "\\");
                assert!(
                    line.chars().count() <= WIDTH_MIN || words.count() == 1,
                    "{}: {line}",
                    subcommand.name
                );
            }
        }
    }

    #[test]
    fn lines_are_no_wider_than_they_may_be() {
        let text = "one two three four";
        assert_eq!(wrapped(text, 9), ["one two", "three", "four"]);
        assert_eq!(wrapped(text, 2), ["one", "two", "three", "four"]);
        assert_eq!(wrapped("", 9), Vec::<String>::new());
    }
}
