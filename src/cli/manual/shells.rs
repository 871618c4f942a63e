//! Completions for Bash, zsh and fish. They know no more than the help says, and start no program.

use super::{Block, Subcommand, blocks};

/// What a word in capitals stands for, where that is known.
const WORDS: [(&str, &[&str]); 1] = [("MODE", &["read", "write", "read-write"])];

/// Words in capitals that stand for a path.
const PATHS: [&str; 3] = ["DIR", "FILE", "PROGRAM"];

/// An option, or a word that can stand in its place.
struct Choice<'a> {
    name: &'a str,
    /// What it takes, or nothing.
    takes: &'a str,
    /// All that it can be given, where that is known.
    words: Vec<&'a str>,
    /// In short.
    says: String,
}

/// The completions for a shell, to be sourced.
pub fn completions(shell: &str, help: &str, subcommands: &[Subcommand]) -> Option<String> {
    let make = match shell {
        "bash" => bash,
        "zsh" => zsh,
        "fish" => fish,
        _ => return None,
    };
    let options: Vec<_> = subcommands
        .iter()
        .map(|(name, help)| (*name, choices(help)))
        .collect();
    Some(make(&choices(help), &options))
}

type Options<'a> = [(&'a str, Vec<Choice<'a>>)];

fn bash(names: &[Choice<'_>], subcommands: &Options<'_>) -> String {
    let mut cases = format!("    '0 '*) words='{}' ;;\n", joined(names));
    for (name, choices) in subcommands {
        for choice in choices.iter().filter(|choice| !choice.takes.is_empty()) {
            let offer = if choice.takes_path() {
                "files=yes".into()
            } else {
                format!("words='{}'", choice.words.join(" "))
            };
            cases.push_str(&format!("    '1 {name} {}') {offer} ;;\n", choice.name));
        }
        cases.push_str(&format!(
            "    '1 {name} '*) words='{}' ;;\n",
            joined(choices)
        ));
    }
    BASH.replace("CASES\n", &cases)
}

const BASH: &str = r#"_nix_gocacheprog() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words='' files=''
    # Bash takes --option=value for three words.
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD - 2]}
    fi
    case "$((COMP_CWORD > 1)) ${COMP_WORDS[1]} $prev" in
CASES
    esac
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    fi
}
complete -F _nix_gocacheprog nix-gocacheprog
"#;

fn zsh(names: &[Choice<'_>], subcommands: &Options<'_>) -> String {
    let mut cases = String::new();
    for (name, choices) in subcommands {
        cases.push_str(&format!("{name}) _arguments"));
        for choice in choices.iter().filter(|choice| choice.is_option()) {
            let says = choice.says.replace('[', "\\[").replace(']', "\\]");
            let takes = match choice.takes {
                "" => String::new(),
                takes if choice.takes_path() => format!(":{takes}:_files"),
                takes => format!(":{takes}:({})", choice.words.join(" ")),
            };
            let equals = if takes.is_empty() { "" } else { "=" };
            let spec = format!("{}{equals}[{says}]{takes}", choice.name);
            cases.push_str(&format!(" {}", quoted(&spec)));
        }
        let words: Vec<_> = choices
            .iter()
            .filter(|word| !word.is_option())
            .map(|word| word.name)
            .collect();
        if !words.is_empty() {
            cases.push_str(&format!(" '1: :({})'", words.join(" ")));
        }
        cases.push_str(" ;;\n");
    }
    let names = names
        .iter()
        .map(|name| quoted(&format!("{}:{}", name.name, name.says)) + " ");
    ZSH.replace("NAMES", names.collect::<String>().trim_end())
        .replace("CASES\n", &cases)
}

const ZSH: &str = r#"#compdef nix-gocacheprog
_nix-gocacheprog() {
    local -a names=(NAMES)
    if ((CURRENT == 2)); then
        _describe subcommand names
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
CASES
    esac
}
# Found in $fpath it is called at once.
if [[ $funcstack[1] == _nix-gocacheprog ]]; then
    _nix-gocacheprog "$@"
else
    compdef _nix-gocacheprog nix-gocacheprog
fi
"#;

fn fish(names: &[Choice<'_>], subcommands: &Options<'_>) -> String {
    let mut out = "complete -c nix-gocacheprog -f\n".to_string();
    let mut add = |when: &str, choice: &Choice<'_>| {
        let what = match choice.name.strip_prefix("--") {
            Some(option) => format!("-l {option}"),
            None => format!("-a {}", choice.name),
        };
        let takes = match choice.takes {
            "" => String::new(),
            _ if choice.takes_path() => " -r -F".into(),
            _ => format!(" -x -a {}", quoted(&choice.words.join(" "))),
        };
        let (when, says) = (quoted(when), quoted(&choice.says));
        out.push_str(&format!(
            "complete -c nix-gocacheprog -n {when} {what}{takes} -d {says}\n"
        ));
    };
    let first = "test (count (commandline -opc)) = 1";
    names.iter().for_each(|name| add(first, name));
    for (name, choices) in subcommands {
        let when = format!("contains {name} (commandline -opc)[2]");
        choices.iter().for_each(|choice| add(&when, choice));
    }
    out
}

fn joined(choices: &[Choice<'_>]) -> String {
    let names: Vec<_> = choices.iter().map(|choice| choice.name).collect();
    names.join(" ")
}

impl Choice<'_> {
    fn is_option(&self) -> bool {
        self.name.starts_with('-')
    }

    fn takes_path(&self) -> bool {
        PATHS.contains(&self.takes)
    }
}

/// A word of a shell's: of all three, they agree here.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What can be written after what a help is of.
fn choices(help: &str) -> Vec<Choice<'_>> {
    let mut found: Vec<Choice<'_>> = Vec::new();
    for block in blocks(help) {
        let Block::Item(names, says) = block else {
            continue;
        };
        let brief = says.split([';', ':', '(']).next().unwrap_or_default();
        let brief = brief.replace('`', "").trim().to_string();
        for name in names.split(", ") {
            let (name, takes) = name.split_once(' ').unwrap_or((name, ""));
            let known = WORDS.iter().find(|(capitals, _)| *capitals == takes);
            let words = match known {
                Some((_, words)) => words.to_vec(),
                None if takes.is_empty() || takes.to_uppercase() == takes => Vec::new(),
                None => vec![takes],
            };
            match found.iter_mut().find(|choice| choice.name == name) {
                Some(again) => {
                    again.words.extend(words);
                    // What is said is said of each word.
                    again.says.clear();
                }
                None => found.push(Choice {
                    name,
                    takes,
                    words,
                    says: brief.clone(),
                }),
            }
        }
    }
    for (name, says) in [
        ("--help", "say what there is"),
        ("--version", "say which release this is"),
    ] {
        found.push(Choice {
            name,
            takes: "",
            words: Vec::new(),
            says: says.into(),
        });
    }
    found
}
