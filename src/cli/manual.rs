//! The man page, made from the table.

use super::help::{argument_text, flag_names, flag_text, usage};
use super::table::{
    ABOUT, ENVIRONMENT, EXIT_STATUS, Example, FILES, GENERAL, NOTES, SUBCOMMANDS, Subcommand,
};

/// The man page, as troff.
pub fn page(version: &str) -> String {
    let mut page = format!(".TH NIX\\-GOCACHEPROG 1 \"\" \"{}\"\n", version.trim());
    page.push_str(&format!(
        ".SH NAME\nnix\\-gocacheprog \\- {}\n.SH SYNOPSIS\n{}\n.SH DESCRIPTION\n",
        prose(ABOUT.trim_end_matches('.')),
        bold("nix-gocacheprog SUBCOMMAND [OPTION...]")
    ));
    let all = || SUBCOMMANDS.iter().copied().flatten();
    for subcommand in all() {
        page.push_str(&item(&bold(subcommand.name), subcommand.brief));
    }
    NOTES
        .iter()
        .for_each(|note| page.push_str(&paragraph(note)));
    for subcommand in all() {
        page.push_str(&section(subcommand));
    }
    page.push_str(".SH EXIT STATUS\n");
    page.push_str(&table(EXIT_STATUS));
    page.push_str(".SH ENVIRONMENT\n");
    page.push_str(&table(ENVIRONMENT));
    page.push_str(".SH FILES\n");
    page.push_str(&table(FILES));
    page.push_str(".SH EXAMPLES\n");
    let examples = all().flat_map(|subcommand| subcommand.examples);
    let examples: String = examples.map(example).collect();
    page.push_str(examples.trim_start_matches(".PP\n"));
    page.push_str(".SH SEE ALSO\n.BR nix.conf (5),\n.BR systemd.exec (5)\n");
    page
}

fn section(subcommand: &Subcommand) -> String {
    let mut text: String = subcommand.about.iter().copied().map(paragraph).collect();
    text.push_str(&format!(".PP\n{}\n", bold(&usage(subcommand))));
    for argument in subcommand.arguments {
        text.push_str(&item(&bold(argument.name), &argument_text(argument)));
    }
    for flag in subcommand.flags().chain(GENERAL.iter()) {
        text.push_str(&item(&bold(&flag_names(flag)), &flag_text(flag)));
    }
    text.extend(subcommand.notes.iter().copied().map(paragraph));
    format!(
        ".SH {}\n{}",
        subcommand.name.to_uppercase(),
        text.trim_start_matches(".PP\n")
    )
}

fn table(rows: &[(&str, &str)]) -> String {
    let rows = rows.iter();
    rows.map(|(names, text)| item(&bold(names), text)).collect()
}

fn example((command, what): &Example) -> String {
    format!(
        ".PP\n{}\n.PP\n.RS 4\n.nf\n{}\n.fi\n.RE\n",
        prose(what),
        bold(command)
    )
}

fn item(names: &str, text: &str) -> String {
    format!(".TP\n{names}\n{}\n", prose(text))
}

fn paragraph(text: &str) -> String {
    format!(".PP\n{}\n", prose(text))
}

fn bold(text: &str) -> String {
    format!("\\&\\fB{}\\fR", escaped(text))
}

/// A text, with what is between backticks in bold.
fn prose(text: &str) -> String {
    let mut out = String::from("\\&");
    for (nth, part) in text.split('`').enumerate() {
        let part = escaped(part);
        out.push_str(&if nth % 2 == 0 {
            part
        } else {
            format!("\\fB{part}\\fR")
        });
    }
    out
}

/// What troff would take for something else.
fn escaped(text: &str) -> String {
    let mut text = text.replace('\\', "\\e");
    for (c, name) in [("-", "\\-"), ("~", "\\(ti"), ("^", "\\(ha"), ("'", "\\(aq")] {
        text = text.replace(c, name);
    }
    text
}
