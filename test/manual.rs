//! The man page and the completions, as `man` and the shells understand them.

use crate::support::{TempDir, binary, text};
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

fn said(args: &[&str]) -> String {
    let output = Command::new(binary()).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{args:?}: {}",
        text(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// What a program of somebody else's makes of an input.
fn made_by(command: &[&str], input: &str) -> String {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}: install the package of that name", command[0]));
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The words that begin the indented lines of a help: subcommands, options, and what they may be.
fn items(help: &str) -> Vec<&str> {
    let lines = help.lines().filter_map(|line| line.strip_prefix("  "));
    lines.filter(|line| !line.starts_with(' ')).collect()
}

fn subcommands() -> Vec<String> {
    let help = said(&["--help"]);
    let names = items(&help)
        .into_iter()
        .map(|item| item.split("  ").next().unwrap().to_string());
    let names: Vec<_> = names.collect();
    for known in ["daemon", "client", "hook", "gc", "doctor", "completions"] {
        assert!(names.iter().any(|name| name == known), "{known}: {names:?}");
    }
    names
}

/// A subcommand, which may have two words, and what follows it.
fn with<'a>(subcommand: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    subcommand.split(' ').chain(args.iter().copied()).collect()
}

/// The options of a subcommand, as its help has them.
fn options(subcommand: &str) -> BTreeSet<String> {
    let help = said(&with(subcommand, &["--help"]));
    let items = items(&help).into_iter();
    let names = items.map(|item| item.split("  ").next().unwrap());
    names
        .flat_map(|names| names.split(", "))
        .map(|name| name.split(' ').next().unwrap().to_string())
        .chain(["--help".into(), "--version".into()])
        .collect()
}

/// What is typed, word by word, and all that is to be offered then.
fn cases() -> Vec<(Vec<String>, BTreeSet<String>)> {
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_string()).collect();
    let typed = |line: &str| line.split(' ').map(String::from).collect();
    let general = ["--help", "--version"];
    let mut first: BTreeSet<_> = subcommands().into_iter().collect();
    first.retain(|name| name.starts_with('d'));
    let mut cases = vec![
        (typed("d"), first),
        (typed("--"), set(&general)),
        (
            typed("daemon --remote-mode "),
            set(&["read", "write", "read-write"]),
        ),
        (typed("daemon --remote-mode w"), set(&["write"])),
        (typed("install --mode "), set(&["hook", "static"])),
        (
            typed("install --mode hook --remote-m"),
            set(&["--remote-mode"]),
        ),
        (typed("help v"), set(&["verify"])),
        (typed("c"), set(&["ci", "client", "completions"])),
        (typed("ci "), set(&["start", "finish"])),
        (typed("ci f"), set(&["finish"])),
        (typed("ci start --remote-mode w"), set(&["write"])),
        (typed("completions b"), set(&["bash"])),
        (typed("completions f"), set(&["fish"])),
        (typed("completions z"), set(&["zsh"])),
        (typed("daemon --max-size "), set(&[])),
        (typed("daemon --cache-dir here/"), set(&["here/file"])),
    ];
    for name in subcommands() {
        let line = format!("{name} --");
        let mut offered = options(&name);
        offered.retain(|word| word.starts_with('-'));
        cases.push((typed(&line), offered));
    }
    cases
}

/// Offers what this says, in a folder with a file `here/file`.
fn offered(command: &[&str], script: &str) -> BTreeSet<String> {
    let dir = TempDir::new();
    std::fs::create_dir(dir.path().join("here")).unwrap();
    std::fs::write(dir.path().join("here/file"), "").unwrap();
    let script = format!("cd {}\n{script}", dir.path().display());
    let said = made_by(command, &script);
    let lines = said.lines().filter(|line| !line.is_empty());
    lines.map(str::to_string).collect()
}

#[test]
fn the_man_page_says_all_that_the_helps_say() {
    let page = said(&["man"]);
    let complaints = made_by(&["mandoc", "-T", "lint", "-W", "warning"], &page);
    let mut complaints = complaints.lines();
    // It has none, so that it is the same whenever it was made.
    assert!(
        complaints
            .next()
            .is_some_and(|line| line.contains("missing date"))
    );
    assert_eq!(complaints.next(), None);

    let shown = made_by(&["mandoc", "-T", "utf8"], &page);
    let mut plain = String::new();
    for c in shown.chars() {
        // A letter, a step back, and the letter again is a bold one.
        if c == '\u{8}' {
            plain.pop();
        } else {
            plain.push(c);
        }
    }
    let in_one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = in_one_line(&plain);
    let mut lines = 0;
    let helps = subcommands()
        .into_iter()
        .map(|name| said(&with(&name, &["--help"])));
    for help in helps.chain([said(&["--help"])]) {
        for line in help.lines() {
            let line = line.strip_prefix("Usage: ").unwrap_or(line);
            // A command that goes on in the next line.
            let line = line.strip_suffix(" \\").unwrap_or(line);
            let line = in_one_line(&line.replace('`', ""));
            assert!(
                plain.contains(line.trim_end_matches('.')),
                "{line:?} is not in {plain}"
            );
            lines += 1;
        }
    }
    assert!(lines > 100, "{lines}");
    for section in subcommands()
        .iter()
        .map(|name| name.to_uppercase())
        .chain(["EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"].map(String::from))
    {
        assert!(plain.contains(&section), "{section}");
    }
}

#[test]
fn help_is_found_in_each_of_the_usual_ways_and_fits_the_terminal() {
    assert_eq!(said(&["help"]), said(&["--help"]));
    for name in subcommands() {
        let words: Vec<_> = name.split(' ').collect();
        let help = [&["help"], &words[..]].concat();
        assert_eq!(said(&help), said(&with(&name, &["--help"])), "{name}");
        assert_eq!(said(&help), said(&with(&name, &["-h"])), "{name}");
        let output = Command::new(binary())
            .args(help)
            .env("COLUMNS", "40")
            .output()
            .unwrap();
        let help = text(&output.stdout);
        // An example is one line, to be copied.
        for line in help
            .lines()
            .filter(|line| !line.starts_with("    nix-") && !line.starts_with("    sudo "))
        {
            let is_one_word = !line.trim().contains(' ');
            assert!(
                line.chars().count() <= 40 || is_one_word || line.starts_with("  --"),
                "{line}"
            );
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_a_reader_that_stops_is_not() {
    for args in [
        &["--help"][..],
        &["--version"],
        &["daemon", "--help"],
        &["man"],
        &["completions", "zsh"],
        &["doctor", "--json"],
    ] {
        let full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let output = Command::new(binary())
            .args(args)
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output.stderr);
        assert!(said.contains("stdout: No space left"), "{args:?}: {said}");
    }
    for args in [&["--help"][..], &["man"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = Command::new(binary())
            .args(args)
            .stdout(writer)
            .status()
            .unwrap();
        assert!(status.success(), "{args:?}");
    }
}

#[test]
fn bash_completes_what_the_helps_name() {
    let completions = said(&["completions", "bash"]);
    assert_eq!(made_by(&["bash", "-n"], &completions), "");
    for (typed, expected) in cases() {
        let mut forms = vec![typed.clone()];
        if let [subcommand, option, value] = &typed[..]
            && option.starts_with("--")
        {
            // As Bash has --option=value.
            let mut form = vec![subcommand.clone(), option.clone(), "=".into()];
            form.extend(Some(value.clone()).filter(|value| !value.is_empty()));
            forms.push(form);
        }
        for typed in forms {
            let words = typed.iter().map(|word| format!(" '{word}'"));
            let script = format!(
                "{completions}\nCOMP_WORDS=(nix-gocacheprog{})\nCOMP_CWORD={}\n\
                 complete -p nix-gocacheprog >how\nread -r _ _ function _ <how\n$function\n\
                 [[ ! ${{COMPREPLY[*]}} ]] || printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
                words.collect::<String>(),
                typed.len()
            );
            assert_eq!(offered(&["bash"], &script), expected, "{typed:?}");
        }
    }
}

#[test]
fn bash_completes_names_with_colons() {
    let completions = said(&["completions", "bash"]);
    // Bash cuts words at a colon, and puts what it is given after the last one.
    let script = format!(
        "{completions}\ntouch here/a:b:one\nCOMP_WORDS=(nix-gocacheprog daemon --remote-ca here/a : b : o)\n\
         COMP_CWORD=7\n_nix_gocacheprog\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let expected = BTreeSet::from(["one".to_string()]);
    assert_eq!(offered(&["bash"], &script), expected);
}

#[test]
fn fish_completes_what_the_helps_name() {
    let completions = said(&["completions", "fish"]);
    for (typed, expected) in cases() {
        let script = format!(
            "{completions}\ncomplete -C 'nix-gocacheprog {}' | string replace -r '\\t.*' ''\n",
            typed.join(" ")
        );
        assert_eq!(
            offered(&["fish", "--no-config"], &script),
            expected,
            "{typed:?}"
        );
    }
}

/// What zsh itself makes of the specifications needs a terminal: these are its own functions, less that.
const ZSH: &str = r#"
compdef() { }
_describe() { print -l -- ${${(P)2}%%:*} }
_arguments() {
    local spec
    for spec in "${@#\*}"; do
        if [[ $words[CURRENT-1] == ${spec%%[=\[]*} ]]; then
            case ${spec##*:} in
            _files) print -l -- $words[CURRENT]* ;;
            *) print -l -- ${=${${spec##*:\(}%\)}} ;;
            esac
            return
        fi
    done
    for spec in "${@#\*}"; do
        case $spec in
        1:*) print -l -- ${=${${spec##*:\(}%\)}} ;;
        *) print -l -- ${spec%%[=\[]*} ;;
        esac
    done
}
"#;

#[test]
fn zsh_completes_what_the_helps_name() {
    let completions = said(&["completions", "zsh"]);
    assert_eq!(made_by(&["zsh", "-f", "-n"], &completions), "");
    for (typed, expected) in cases() {
        let script = format!(
            "{ZSH}\n{completions}\nwords=(nix-gocacheprog {})\nCURRENT={}\n_nix-gocacheprog\n",
            typed
                .iter()
                .map(|word| format!("'{word}' "))
                .collect::<String>(),
            typed.len() + 1
        );
        let mut offered = offered(&["zsh", "-f"], &script);
        // zsh does this by itself.
        offered.retain(|word| word.starts_with(typed.last().unwrap()));
        assert_eq!(offered, expected, "{typed:?}");
    }
}
