//! The man page and the shells' completions, made from the help texts: these are the one description
//! of the command line, and nothing here knows a subcommand or an option by name.
//!
//! A help is read as a person reads it. A line at the margin belongs to a paragraph; the one with
//! `Usage:` is the synopsis. Two spaces begin an item: its names, two more spaces or a new line, and
//! what it is, further in. What an option takes is a word in capitals, or the word to write; an item
//! of another kind is a word to write by itself.

mod shells;

pub use shells::completions;

/// A subcommand's name and its help.
pub type Subcommand = (&'static str, &'static str);

/// A part of a help.
enum Block<'a> {
    Text(String),
    /// Names as they are written, and what they are.
    Item(&'a str, String),
}

/// The man page, as troff.
pub fn page(version: &str, help: &str, subcommands: &[Subcommand]) -> String {
    let mut page = format!(".TH NIX\\-GOCACHEPROG 1 \"\" \"{}\"\n", version.trim());
    for (nth, block) in blocks(help).iter().enumerate() {
        match (nth, block) {
            (0, Block::Text(text)) => page.push_str(&format!(
                ".SH NAME\nnix\\-gocacheprog \\- {}\n.SH SYNOPSIS\n",
                prose(text.trim_end_matches('.'))
            )),
            (1, Block::Text(text)) => page.push_str(&format!("{}\n.SH DESCRIPTION\n", prose(text))),
            _ => page.push_str(&troff(block)),
        }
    }
    for (name, help) in subcommands {
        let section: String = blocks(help).iter().map(troff).collect();
        let section = section.trim_start_matches(".PP\n");
        page.push_str(&format!(".SH {}\n{section}", name.to_uppercase()));
    }
    page
}

fn blocks(help: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut goes_on = false;
    for line in help.lines() {
        let indent = line.len() - line.trim_start().len();
        match (indent, blocks.last_mut()) {
            _ if line.is_empty() => {}
            (0, Some(Block::Text(text))) if goes_on => text.push_str(&format!(" {line}")),
            (0, _) => blocks.push(Block::Text(line.into())),
            (3.., Some(Block::Item(_, says))) if goes_on => {
                says.push_str(&format!(" {}", line.trim()))
            }
            _ => {
                let (names, says) = line.trim().split_once("  ").unwrap_or((line.trim(), ""));
                blocks.push(Block::Item(names, says.trim().into()));
            }
        }
        goes_on = !line.is_empty();
    }
    blocks
}

/// A part of a help as troff has it.
fn troff(block: &Block<'_>) -> String {
    match block {
        Block::Text(text) => format!(".PP\n{}\n", prose(text)),
        Block::Item(names, says) => format!(
            ".TP\n{}\n{}\n",
            prose(&format!("`{names}`")),
            prose(says.trim())
        ),
    }
}

/// A text, with what is between backticks in bold, and a synopsis wholly.
fn prose(text: &str) -> String {
    let synopsis = text.strip_prefix("Usage: ");
    let parts = match synopsis {
        Some(usage) => vec!["", usage],
        None => text.split('`').collect(),
    };
    let mut out = String::from("\\&");
    for (nth, part) in parts.into_iter().enumerate() {
        // What troff would take for something else.
        let mut part = part.replace('\\', "\\e");
        for (c, name) in [("-", "\\-"), ("~", "\\(ti"), ("^", "\\(ha"), ("'", "\\(aq")] {
            part = part.replace(c, name);
        }
        out.push_str(&if nth % 2 == 0 {
            part
        } else {
            format!("\\fB{part}\\fR")
        });
    }
    out
}
