//! Completions for Bash, zsh and fish, made from the table. They start no program.

use super::table::{Flag, GENERAL, SUBCOMMANDS, Subcommand, Takes, second_words};

/// For Bash, to be sourced.
pub fn bash() -> String {
    let mut cases = format!("    '1 '*) words='{}' ;;\n", first_words().join(" "));
    for subcommand in all() {
        for flag in flags(subcommand).filter(|flag| flag.takes != Takes::Nothing) {
            let offer = if flag.takes.is_path() {
                "files=yes".into()
            } else {
                format!("words='{}'", flag.takes.words().join(" "))
            };
            cases.push_str(&format!(
                "    '2 {} --{}') {offer} ;;\n",
                subcommand.name, flag.name
            ));
        }
        let mut words: Vec<_> = flags(subcommand)
            .map(|flag| format!("--{}", flag.name))
            .collect();
        words.extend(argument_words(subcommand));
        cases.push_str(&format!(
            "    '2 {} '*) words='{}' ;;\n",
            subcommand.name,
            words.join(" ")
        ));
    }
    for group in groups() {
        let seconds: Vec<_> = second_words(group).collect();
        cases.push_str(&format!(
            "    '2 {group} '*) words='{}' ;;\n",
            seconds.join(" ")
        ));
    }
    BASH.replace("CASES\n", &cases)
        .replace("GROUPS", &groups().join(" "))
}

const BASH: &str = r#"_nix_gocacheprog() {
    local typed=() word glue='' i
    # Bash takes --option=value for three words, and cuts at colons.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i > 1)) && [[ $glue || $word == [:=]* ]]; then
            typed[${#typed[@]}-1]+=$word
        else
            typed+=("$word")
        fi
        glue=''
        [[ $word != *[:=] ]] || glue=yes
    done
    # A subcommand may have two words.
    if ((${#typed[@]} > 3)) && [[ " GROUPS " == *" ${typed[1]} "* ]]; then
        typed=("${typed[0]}" "${typed[1]} ${typed[2]}" "${typed[@]:3}")
    fi
    local count=${#typed[@]} words='' files=''
    local cur=${typed[count - 1]} prev=''
    ((count < 3)) || prev=${typed[count - 2]}
    if [[ $cur == --*=* ]]; then
        prev=${cur%%=*} cur=${cur#*=}
    fi
    case "$((count > 2 ? 2 : 1)) ${typed[1]} $prev" in
CASES
    esac
    if [[ $files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
    fi
    if [[ $cur == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${cur%"${cur##*:}"}"}")
    fi
}
complete -F _nix_gocacheprog nix-gocacheprog
"#;

/// For zsh, to be sourced or kept in a folder of `$fpath`.
pub fn zsh() -> String {
    let mut cases = String::new();
    for group in groups() {
        let seconds: Vec<_> = second_words(group).collect();
        cases.push_str(&format!(
            "{group}) _arguments '1: :({})' ;;\n",
            seconds.join(" ")
        ));
    }
    for subcommand in all() {
        cases.push_str(&format!("'{}') _arguments", subcommand.name));
        for flag in flags(subcommand) {
            let takes = match flag.takes {
                Takes::Nothing => String::new(),
                takes if takes.is_path() => format!(":{}:_files", takes.placeholder()),
                Takes::OneOf(words) => format!(":{}:({})", flag.name, words.join(" ")),
                takes => format!(":{}:( )", takes.placeholder()),
            };
            let equals = if takes.is_empty() { "" } else { "=" };
            let many = if flag.repeats { "*" } else { "" };
            let brief = escaped(&brief(flag.help), &['[', ']', ':', '\\']);
            let spec = format!("{many}--{}{equals}[{brief}]{takes}", flag.name);
            cases.push_str(&format!(" {}", quoted(&spec)));
        }
        let words = argument_words(subcommand);
        if !words.is_empty() {
            cases.push_str(&format!(" '1: :({})'", words.join(" ")));
        }
        cases.push_str(" ;;\n");
    }
    let mut names: Vec<_> = all()
        .map(|subcommand| (first_word(subcommand).to_string(), subcommand.brief))
        .collect();
    names.dedup_by(|second, first| second.0 == first.0);
    let general = GENERAL
        .iter()
        .map(|flag| (format!("--{}", flag.name), flag.help));
    let names = names
        .into_iter()
        .chain(general)
        .map(|(name, says)| quoted(&format!("{name}:{}", brief(says))));
    ZSH.replace("NAMES", &names.collect::<Vec<_>>().join(" "))
        .replace("CASES\n", &cases)
        .replace("GROUPS", &groups().join(" "))
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
    # A subcommand may have two words.
    if [[ " GROUPS " == *" $words[1] "* ]] && ((CURRENT > 2)); then
        words=("$words[1] $words[2]" "${(@)words[3,-1]}")
        ((CURRENT--))
    fi
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

/// For fish, to be sourced.
pub fn fish() -> String {
    let mut out = "complete -c nix-gocacheprog -f\n".to_string();
    let mut add = |when: &str, what: &str, says: &str| {
        out.push_str(&format!(
            "complete -c nix-gocacheprog -n {} {what} -d {}\n",
            quoted(when),
            quoted(&brief(says))
        ));
    };
    let first = "test (count (commandline -opc)) = 1";
    let mut offered = "";
    for subcommand in all() {
        let (word, brief) = (first_word(subcommand), subcommand.brief);
        if word != offered {
            add(first, &format!("-a {word}"), brief);
        }
        offered = word;
        if let Some((_, second)) = subcommand.name.split_once(' ') {
            let when = format!(
                "test (count (commandline -opc)) = 2; and contains {word} (commandline -opc)[2]"
            );
            add(&when, &format!("-a {second}"), brief);
        }
    }
    for flag in &GENERAL {
        add(first, &format!("-l {}", flag.name), flag.help);
    }
    for subcommand in all() {
        let when = match subcommand.name.split_once(' ') {
            None => format!("contains {} (commandline -opc)[2]", subcommand.name),
            Some((word, second)) => format!(
                "contains {word} (commandline -opc)[2]; and contains {second} (commandline -opc)[3]"
            ),
        };
        for flag in flags(subcommand) {
            let takes = match flag.takes {
                Takes::Nothing => String::new(),
                takes if takes.is_path() => " -r -F".into(),
                takes => format!(" -x -a {}", quoted(&takes.words().join(" "))),
            };
            add(&when, &format!("-l {}{takes}", flag.name), flag.help);
        }
        for word in argument_words(subcommand) {
            add(&when, &format!("-a {word}"), "");
        }
    }
    out
}

fn all() -> impl Iterator<Item = &'static Subcommand> {
    SUBCOMMANDS.iter().copied().flatten()
}

fn flags(subcommand: &Subcommand) -> impl Iterator<Item = &'static Flag> + use<> {
    subcommand.flags().chain(GENERAL.iter())
}

/// What can stand in the place of the subcommand.
fn first_words() -> Vec<String> {
    let general = GENERAL.iter().map(|flag| format!("--{}", flag.name));
    let mut words: Vec<_> = all()
        .map(|subcommand| first_word(subcommand).into())
        .collect();
    words.dedup();
    words.extend(general);
    words
}

fn first_word(subcommand: &Subcommand) -> &'static str {
    let name = subcommand.name;
    name.split_once(' ').map_or(name, |(first, _)| first)
}

/// The first words of subcommands of two words.
fn groups() -> Vec<&'static str> {
    let mut groups: Vec<_> = all()
        .filter_map(|subcommand| Some(subcommand.name.split_once(' ')?.0))
        .collect();
    groups.dedup();
    groups
}

/// What a subcommand's first argument can be, where that is known.
fn argument_words(subcommand: &Subcommand) -> Vec<String> {
    match subcommand.arguments.first().map(|argument| argument.takes) {
        Some(Takes::OneOf(words)) => words.iter().map(|word| (*word).to_string()).collect(),
        Some(Takes::Text("SUBCOMMAND")) => {
            let mut words: Vec<_> = all()
                .map(|subcommand| first_word(subcommand).to_string())
                .collect();
            words.dedup();
            words
        }
        _ => Vec::new(),
    }
}

/// The first part of a help, which fits beside the word that it explains.
fn brief(text: &str) -> String {
    let brief = text.split([';', ':', '(']).next().unwrap_or_default();
    brief.replace('`', "").trim().to_string()
}

fn escaped(text: &str, special: &[char]) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if special.contains(&c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A word of a shell's: all three agree here.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
