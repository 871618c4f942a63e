//! `why`: what the last builds of a name have missed, and what was different from the build before. It compares what the
//! journal has of both; what is not recorded it does not guess, but says that it is missing.

use crate::cache::history::family;
use crate::client::connection;
use crate::client::parts::{self, COUNTS};
use crate::config::control_socket;
use crate::error::{Error, Result};
use crate::host::admin::{self, Target, Task};
use crate::host::page;
use crate::output::{self, Paint};
use crate::protocol::control::Reply;
use crate::report::{BuildRecord, Cause, NO_NAME};
use crate::size::{count, show_count, show_duration};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How many builds are explained when none is named by its ID.
const BUILDS: usize = 3;

/// How many packages are named.
const PACKAGES: usize = 8;

/// The fewest digits by which a build is named.
const DIGITS_MIN: usize = 4;

/// Explains the last builds, or those of a name, or the one of an ID.
///
/// # Errors
/// When nobody can be asked, or no such build is recorded.
pub fn run(place: &Target, what: Option<&str>, since: Duration) -> Result<()> {
    let records = records(place, since)?;
    let chosen = choose(&records, what);
    if chosen.is_empty() {
        return Err(Error::input(match what {
            Some(what) => format!(
                "no build is recorded that has the name or the ID {what:?}: `nix-gocacheprog stats --builds` lists them"
            ),
            None => "no build is recorded yet: one is as soon as it has asked for something".into(),
        }));
    }
    let colours = output::has_colour();
    let texts = chosen.iter().map(|at| {
        let build = &records[*at];
        text(build, before(&records[..*at], build), colours)
    });
    output::print(&texts.collect::<Vec<_>>().join("\n"))
}

/// The records that this user may see, oldest first: root all, everybody else those of their own builds.
fn records(place: &Target, since: Duration) -> Result<Vec<BuildRecord>> {
    let control = UnixStream::connect(control_socket(&place.runtime_dir));
    if control.is_err_and(|e| e.kind() == ErrorKind::PermissionDenied) {
        return connection::records(&place.runtime_dir);
    }
    let task = Task::Builds {
        since,
        json: true,
        live: true,
    };
    match admin::ask(place, task, &mut |_| {})? {
        Reply::Builds { builds } => Ok(builds),
        _ => Err(Error::peer(
            "unexpected answer: is the daemon of another version?",
        )),
    }
}

/// Which builds are meant, by their places, oldest first.
fn choose(records: &[BuildRecord], what: Option<&str>) -> Vec<usize> {
    let all = |is_meant: &dyn Fn(&BuildRecord) -> bool| -> Vec<usize> {
        let places = records.iter().enumerate();
        places
            .filter(|(_, record)| is_meant(record))
            .map(|(at, _)| at)
            .collect()
    };
    let last = |mut places: Vec<usize>| places.split_off(places.len().saturating_sub(BUILDS));
    let Some(what) = what else {
        return last(all(&|_| true));
    };
    let named = all(&|record| record.name == what);
    let related = all(&|record| family(&record.name) == family(what));
    match (named.is_empty(), related.is_empty()) {
        (false, _) => last(named),
        (_, false) => last(related),
        _ if what.len() >= DIGITS_MIN => last(all(&|record| record.build.starts_with(what))),
        _ => Vec::new(),
    }
}

/// The last build of the same name, in whatever version, before this one.
fn before<'a>(earlier: &'a [BuildRecord], build: &BuildRecord) -> Option<&'a BuildRecord> {
    let is_alike = |other: &&BuildRecord| {
        family(&other.name) == family(&build.name)
            && (!build.name.is_empty() || other.tier == build.tier)
    };
    earlier.iter().rev().find(is_alike)
}

/// What there is to say of a build.
fn text(build: &BuildRecord, before: Option<&BuildRecord>, colours: bool) -> String {
    let counts = &build.counts;
    let mut out = format!(
        "{}, build {}, {} UTC, {}: {}, {} ({})\n",
        Paint::Bold.of(shown(&build.name), colours),
        build.build,
        page::date_and_time(build.ended),
        show_duration(build.ended.saturating_sub(build.started) * 1000),
        count(counts.hits, "hit"),
        count(counts.misses(), "miss"),
        counts.rate()
    );
    match before {
        Some(before) => {
            let _ = writeln!(
                out,
                "  before it: {}, build {}, {} UTC",
                shown(&before.name),
                before.build,
                page::date_and_time(before.ended)
            );
        }
        None => out.push_str("  before it: no build of this name is recorded\n"),
    }
    if counts.misses() == 0 {
        out.push_str("  nothing was missed\n");
        return out;
    }
    let differences = before.map(|before| Differences::between(before, build));
    let differences = differences.unwrap_or_default();
    let reasons = reasons(build, before, &differences);
    let _ = writeln!(
        out,
        "  {}: {}",
        count(counts.misses(), "miss"),
        if reasons.is_empty() {
            "nothing differs that is recorded".into()
        } else {
            Paint::Yellow.of(&reasons.join("; "), colours)
        }
    );
    if !has_c(build) && !differences.of_c.is_empty() {
        let _ = writeln!(
            out,
            "  differs too, and counts for C alone, of which nothing was compiled: {}",
            differences.of_c.join("; ")
        );
    }
    for line in compiled(build) {
        let _ = writeln!(out, "  {line}");
    }
    for missing in not_known(build, before) {
        let _ = writeln!(out, "  not known: {missing}");
    }
    out
}

fn shown(name: &str) -> &str {
    if name.is_empty() { NO_NAME } else { name }
}

/// What differs from the build before, and what else makes builds miss.
fn reasons(
    build: &BuildRecord,
    before: Option<&BuildRecord>,
    differences: &Differences,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if build.mode == "audit" {
        reasons.push("an audit takes nothing from the cache".into());
    }
    match before {
        None => reasons.push("it is the first build of this name".into()),
        Some(before) => {
            reasons.extend_from_slice(&differences.of_go);
            if has_c(build) {
                reasons.extend_from_slice(&differences.of_c);
            }
            for (name, then, now) in [
                ("mode", &before.mode, &build.mode),
                ("tier", &before.tier, &build.tier),
            ] {
                if then != now && !then.is_empty() {
                    reasons.push(format!("{name}: {then} -> {now}"));
                }
            }
        }
    }
    if build.evicted > 0 {
        let outputs = count(build.evicted, "output");
        reasons.push(format!("{outputs} of an earlier build evicted"));
    }
    let changed = build
        .compiled
        .iter()
        .filter(|of| of.cause == Cause::Changed);
    if reasons.is_empty() {
        let changed: Vec<_> = changed.map(|of| of.package.clone()).collect();
        if !changed.is_empty() {
            reasons.push(format!(
                "changed: {}",
                first(&changed, changed.len() as u64)
            ));
        }
    }
    if reasons.is_empty() && build.counts.puts == 0 && !is_readonly(build) {
        reasons.push(
            "nothing was put after them: `go` looks for some things that it never keeps, as programs that it links".into(),
        );
    }
    reasons
}

/// The packages that were compiled.
fn compiled(build: &BuildRecord) -> Vec<String> {
    let of = |cause| -> Vec<String> {
        let packages = build.compiled.iter().filter(|of| of.cause == cause);
        packages.map(|of| of.package.clone()).collect()
    };
    let mut lines = Vec::new();
    if build.packages > 0 {
        lines.push(format!("{} compiled", count(build.packages, "package")));
    }
    let unlisted = build.packages.saturating_sub(build.compiled.len() as u64);
    for (cause, what) in [
        (Cause::Changed, "changed"),
        (Cause::Evicted, "evicted"),
        (Cause::Depends, "depends on it"),
    ] {
        let packages = of(cause);
        if !packages.is_empty() {
            // The list is of the first ones, and most of the others depend on them.
            let more = if cause == Cause::Depends { unlisted } else { 0 };
            lines.push(format!(
                "{what}: {}",
                first(&packages, packages.len() as u64 + more)
            ));
        }
    }
    lines
}

fn first(names: &[String], count: u64) -> String {
    let named = names.len().min(PACKAGES);
    let text = names[..named].join(", ");
    match count - named as u64 {
        0 => text,
        more => format!("{text} and {} more", show_count(more)),
    }
}

/// Whether the build put nothing because it was not to.
fn is_readonly(build: &BuildRecord) -> bool {
    build.mode == "readonly"
}

/// What would have to be recorded to say more.
fn not_known(build: &BuildRecord, before: Option<&BuildRecord>) -> Vec<&'static str> {
    let mut missing = Vec::new();
    let says = |record: &BuildRecord| record.environment.iter().any(|(name, _)| name != "remote");
    if !says(build) {
        missing.push("what separates this build from others, which its client does not say: is it an older one?");
    } else if before.is_some_and(|before| !says(before)) {
        missing.push("what separated the build before from others, which its client did not say");
    }
    if is_readonly(build) {
        missing
            .push("what was compiled: a readonly build puts nothing, so it misses the same again");
    } else if build.packages == 0 && build.counts.puts > 0 {
        missing.push("which packages were compiled: what was put is no archive of Go's, or its record is too old");
    }
    missing
}

/// What differs between two environments, in words.
#[derive(Debug, Default)]
struct Differences {
    /// In what counts for all actions.
    of_go: Vec<String>,
    /// In what C can depend on, and pure Go does not.
    of_c: Vec<String>,
}

impl Differences {
    fn between(then: &BuildRecord, now: &BuildRecord) -> Self {
        let is_whole = says_all(then) && says_all(now);
        let (then, now) = (by_name(&then.environment), by_name(&now.environment));
        let mut names: BTreeSet<_> = then.keys().chain(now.keys()).copied().collect();
        names.remove(COUNTS);
        if !is_whole {
            // What only one of them says is no difference: the other one may have had it too.
            names.retain(|name| then.contains_key(name) && now.contains_key(name));
        }
        let of = |is_wanted: &dyn Fn(&str) -> bool| {
            // What has changed in the same way is said once.
            let mut changes: Vec<(Change, Vec<&str>)> = Vec::new();
            for name in names.iter().copied().filter(|name| is_wanted(name)) {
                let Some(change) = Change::of(then.get(name), now.get(name)) else {
                    continue;
                };
                match changes.iter_mut().find(|(other, _)| *other == change) {
                    Some((_, names)) => names.push(name),
                    None => changes.push((change, vec![name])),
                }
            }
            let said = changes.iter().map(|(change, names)| change.said(names));
            said.collect::<Vec<_>>()
        };
        // The Go package first: with it, everything else is as good as certain to differ.
        let mut of_go = of(&|name| name == "go");
        of_go.extend(of(&|name| name != "go" && counts_for_go(name)));
        Self {
            of_go,
            of_c: of(&|name| !counts_for_go(name)),
        }
    }
}

/// Whether a client has said everything, or only what it knew at once.
fn says_all(build: &BuildRecord) -> bool {
    build.environment.iter().any(|(name, _)| name == COUNTS)
}

/// Whether what C can depend on counts for anything that was compiled. A client that does not say so is older.
fn has_c(build: &BuildRecord) -> bool {
    !says_all(build) || build.environment.contains(&parts::counts(true))
}

/// What `go` puts into its own keys, or we into all of ours.
fn counts_for_go(name: &str) -> bool {
    name.starts_with("GO") || ["go", "flags", "CGO_ENABLED", "remote"].contains(&name)
}

/// A part as a person calls it.
fn title(name: &str) -> &str {
    match name {
        "NIX_CC" => "the compiler wrapper",
        "NIX_BINTOOLS" => "the linker wrapper",
        name => name,
    }
}

/// The values of each name. Several commands of one build may have several, of which the order says nothing.
type ByName<'a> = BTreeMap<&'a str, Words<'a>>;

fn by_name(environment: &[(String, String)]) -> ByName<'_> {
    let mut words = ByName::new();
    for (name, value) in environment {
        let words = words.entry(name).or_default();
        value.split(' ').for_each(|word| words.add(word));
    }
    words
}

/// The words of a value, each with what hashes are behind it; those behind no word are of the value as a whole.
#[derive(Debug, Default, PartialEq, Eq)]
struct Words<'a>(BTreeMap<&'a str, BTreeSet<&'a str>>);

impl<'a> Words<'a> {
    fn add(&mut self, word: &'a str) {
        let is_hash =
            |hash: &str| hash.len() == 8 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
        let (word, hash) = match word.rsplit_once('#') {
            Some((word, hash)) if is_hash(hash) => (word, Some(hash)),
            _ => (word, None),
        };
        self.0.entry(word).or_default().extend(hash);
    }

    fn words(&self) -> BTreeSet<&'a str> {
        self.0
            .keys()
            .copied()
            .filter(|word| !word.is_empty())
            .collect()
    }
}

/// How a part differs.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// It was not there before.
    Added,
    /// It was there before.
    Removed,
    /// Nothing more is known.
    Changed,
    /// In words.
    Words(String),
}

impl Change {
    fn of(then: Option<&Words<'_>>, now: Option<&Words<'_>>) -> Option<Self> {
        let none = Words::default();
        if then == now {
            return None;
        }
        let (then_words, now_words) = (then.unwrap_or(&none).words(), now.unwrap_or(&none).words());
        if then_words.is_empty() && now_words.is_empty() {
            return Some(match (then, now) {
                (None, _) => Self::Added,
                (_, None) => Self::Removed,
                _ => Self::Changed,
            });
        }
        let mut text = change(&then_words, &now_words);
        for word in then_words.intersection(&now_words) {
            let [then, now] = [then, now].map(|of| of.and_then(|words| words.0.get(word)));
            if then != now {
                let comma = if text.is_empty() { "" } else { ", " };
                let _ = write!(text, "{comma}{} changed", package(word));
            }
        }
        // The order of the words, or what is left out of them.
        Some(if text.is_empty() {
            Self::Changed
        } else {
            Self::Words(text)
        })
    }

    fn said(&self, names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| title(name).to_string()).collect();
        let names = first(&names, names.len() as u64);
        match self {
            Self::Added => format!("{names} added"),
            Self::Removed => format!("{names} removed"),
            Self::Changed => format!("{names} changed"),
            Self::Words(words) => format!("{names}: {words}"),
        }
    }
}

/// `openssl-3.0.14 -> openssl-3.0.15`, `without zlib-1.3`, `with zlib-1.3`.
fn change(then: &BTreeSet<&str>, now: &BTreeSet<&str>) -> String {
    let gone: Vec<_> = then.difference(now).copied().collect();
    let mut new: Vec<_> = now.difference(then).copied().collect();
    let is_one = then.len() == 1 && now.len() == 1;
    let mut changes = Vec::new();
    let mut without = Vec::new();
    for old in gone {
        let same = new
            .iter()
            .position(|new| is_one || name_of(new) == name_of(old));
        match same.map(|at| new.remove(at)) {
            Some(new) if package(new) == package(old) => {
                changes.push(format!("{} built anew", package(new)));
            }
            Some(new) => changes.push(format!("{} -> {}", package(old), package(new))),
            None => without.push(package(old)),
        }
    }
    if !without.is_empty() {
        changes.push(format!("without {}", without.join(", ")));
    }
    if !new.is_empty() {
        let new: Vec<_> = new.into_iter().map(package).collect();
        changes.push(format!("with {}", new.join(", ")));
    }
    changes.join(", ")
}

/// A word without the digits of a store path's hash: `zlib-1.3`.
fn package(word: &str) -> &str {
    match word.split_once('-') {
        Some((hash, name))
            if hash.len() == 8 && hash.bytes().all(|c| c.is_ascii_alphanumeric()) =>
        {
            name
        }
        _ => word,
    }
}

/// A package's name without its version, as Nix splits them: `zlib`. What follows the version, as `-dev`, counts too.
fn name_of(word: &str) -> String {
    let words = package(word).split('-');
    let name: Vec<_> = words
        .filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    name.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Counts;
    use crate::report::Compiled;

    fn build(id: &str, name: &str, environment: &[(&str, &str)]) -> BuildRecord {
        let environment = environment.iter();
        BuildRecord {
            build: id.into(),
            name: name.into(),
            mode: "on".into(),
            tier: "shared".into(),
            counts: Counts {
                gets: 3025,
                hits: 4,
                puts: 3021,
                ..Counts::default()
            },
            packages: 1,
            environment: environment
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..BuildRecord::default()
        }
    }

    const ONE: &[(&str, &str)] = &[
        ("go", "0123abcd-go-1.26.2"),
        (
            "NIX_CFLAGS_COMPILE",
            "aaaaaaaa-openssl-3.0.14-dev bbbbbbbb-zlib-1.3-dev -O2",
        ),
        ("remote", "none"),
        ("counts", "all"),
    ];

    fn said(environment: &[(&str, &str)], change: impl FnOnce(&mut BuildRecord)) -> String {
        let mut build = build("bbbb", "hello-1.1", environment);
        change(&mut build);
        text(&build, Some(&self::build("aaaa", "hello-1.0", ONE)), false)
    }

    fn line(environment: &[(&str, &str)], change: impl FnOnce(&mut BuildRecord)) -> String {
        let text = said(environment, change);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("  3,021 misses: "));
        line.unwrap_or(&text).to_string()
    }

    #[test]
    fn what_differs_is_said_in_words() {
        for (go, flags, expected) in [
            ("4567abcd-go-1.26.3", ONE[1].1, "go: go-1.26.2 -> go-1.26.3"),
            ("4567abcd-go-1.26.2", ONE[1].1, "go: go-1.26.2 built anew"),
            (
                "4567abcd-go-1.26.3",
                "cccccccc-openssl-3.0.15-dev bbbbbbbb-zlib-1.3-dev -O2",
                "go: go-1.26.2 -> go-1.26.3; NIX_CFLAGS_COMPILE: openssl-3.0.14-dev -> openssl-3.0.15-dev",
            ),
            (
                ONE[0].1,
                "aaaaaaaa-openssl-3.0.14-dev -O2 -g",
                "NIX_CFLAGS_COMPILE: without zlib-1.3-dev, with -g",
            ),
            (
                ONE[0].1,
                "aaaaaaaa-openssl-3.0.14-dev cccccccc-zlib-1.3-dev -O2",
                "NIX_CFLAGS_COMPILE: zlib-1.3-dev built anew",
            ),
        ] {
            let environment = [
                ("go", go),
                ("NIX_CFLAGS_COMPILE", flags),
                ("remote", "none"),
                ("counts", "all"),
            ];
            assert_eq!(line(&environment, |_| {}), expected);
        }
        assert_eq!(
            line(&[ONE[0], ONE[1], ("remote", "read"), ONE[3]], |_| {}),
            "remote: none -> read"
        );
        assert_eq!(
            line(ONE, |build| build.tier = "user 7".into()),
            "tier: shared -> user 7"
        );
        assert_eq!(
            line(ONE, |build| build.evicted = 12),
            "12 outputs of an earlier build evicted"
        );
    }

    /// What differs in what a client says, from one build to the next.
    fn difference(then: &[(&str, &str)], now: &[(&str, &str)]) -> String {
        let [then, now] = [then, now].map(|said| {
            let mut build = build("aaaa", "hello-1.0", said);
            build.environment.push(parts::counts(true));
            build
        });
        let differences = Differences::between(&then, &now);
        [differences.of_go, differences.of_c].concat().join("; ")
    }

    #[test]
    fn each_kind_of_part_has_its_words() {
        for (then, now, expected) in [
            (
                &[("include/v.h", "#00000001"), ("old.h", "#00000001")][..],
                &[("include/v.h", "#00000002"), ("new.h", "#00000001")][..],
                "include/v.h changed; new.h added; old.h removed",
            ),
            (
                &[("a.h", "#00000001"), ("b.h", "#00000001")],
                &[("a.h", "#00000002"), ("b.h", "#00000002")],
                "a.h, b.h changed",
            ),
            (
                &[
                    ("NIX_CC", "aaaaaaaa-gcc-wrapper-13"),
                    ("C tools", "aaaaaaaa-gcc-wrapper-13"),
                ],
                &[
                    ("NIX_CC", "bbbbbbbb-gcc-wrapper-14"),
                    ("C tools", "bbbbbbbb-gcc-wrapper-14"),
                ],
                "C tools, the compiler wrapper: gcc-wrapper-13 -> gcc-wrapper-14",
            ),
            (
                &[("go", "/opt/go/bin/go#00000001")],
                &[("go", "/opt/go/bin/go#00000002")],
                "go: /opt/go/bin/go changed",
            ),
            (
                &[("go", "/opt/go1.26/bin/go#00000001")],
                &[("go", "/opt/go1.27/bin/go#00000002")],
                "go: /opt/go1.26/bin/go -> /opt/go1.27/bin/go",
            ),
            (
                &[("NIX_LDFLAGS", "-lz aaaaaaaa-zlib-1.3 #00000001")],
                &[("NIX_LDFLAGS", "-lz aaaaaaaa-zlib-1.3 #00000002")],
                "NIX_LDFLAGS changed",
            ),
            (
                &[("NIX_HARDENING_ENABLE", "format pic"), ("X", "#00000001")],
                &[("NIX_HARDENING_ENABLE", "format"), ("GOARCH", "arm64")],
                "GOARCH: with arm64; NIX_HARDENING_ENABLE: without pic; X removed",
            ),
            (&[("x", "-DA#define")], &[("x", "-DA#define")], ""),
        ] {
            assert_eq!(difference(then, now), expected);
        }
    }

    #[test]
    fn what_c_alone_depends_on_is_no_reason_where_nothing_of_c_was_compiled() {
        let with = |counts, value| [("counts", counts), ("v.h", value)];
        let then = build("aaaa", "hello-1.0", &with("all", "#00000001"));
        let of = |counts| {
            text(
                &build("bbbb", "hello-1.1", &with(counts, "#00000002")),
                Some(&then),
                false,
            )
        };
        assert!(of("all").contains("  3,021 misses: v.h changed\n"));
        let said = of("go");
        assert!(
            said.contains("nothing was compiled: v.h changed\n"),
            "{said}"
        );
        assert!(
            said.contains("  3,021 misses: nothing differs that is recorded\n"),
            "{said}"
        );
    }

    #[test]
    fn what_an_older_client_did_not_say_is_no_difference() {
        let then = build("aaaa", "hello-1.0", &ONE[..3]);
        let now = build(
            "bbbb",
            "hello-1.1",
            &[ONE[0], ("v.h", "#00000001"), ("counts", "all")],
        );
        assert!(Differences::between(&then, &now).of_c.is_empty());
        assert!(Differences::between(&now, &then).of_c.is_empty());
    }

    #[test]
    fn packages_are_said_with_the_reason_why() {
        let compiled = |package: &str, cause| Compiled {
            package: package.into(),
            cause,
        };
        let text = said(ONE, |build| {
            build.compiled = vec![
                compiled("m/b", Cause::Changed),
                compiled("m/a", Cause::Depends),
                compiled("main", Cause::Depends),
            ];
            build.packages = 1003;
        });
        assert!(text.contains("\n  3,021 misses: changed: m/b\n"), "{text}");
        assert!(
            text.ends_with(
                "\n  1,003 packages compiled\n  changed: m/b\n  depends on it: m/a, main and 1,000 more\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let text = said(&[("remote", "none")], |_| {});
        assert!(
            text.contains("  not known: what separates this build"),
            "{text}"
        );
        let text = said(ONE, |build| {
            build.mode = "readonly".into();
            build.packages = 0;
        });
        assert!(text.contains("mode: on -> readonly\n"), "{text}");
        assert!(
            text.contains("  not known: what was compiled: a readonly build"),
            "{text}"
        );
        let first = self::text(&build("aaaa", "", ONE), None, false);
        assert!(first.starts_with("(dev shell), build aaaa"), "{first}");
        assert!(
            first.contains("it is the first build of this name"),
            "{first}"
        );
    }

    #[test]
    fn builds_are_found_by_name_family_and_id() {
        let records = [
            build("aaaa1111", "hello-1.0", ONE),
            build("bbbb1111", "world-1.0", ONE),
            build("cccc1111", "hello-1.1", ONE),
        ];
        assert_eq!(choose(&records, None), [0, 1, 2]);
        assert_eq!(choose(&records, Some("hello-1.0")), [0]);
        assert_eq!(choose(&records, Some("hello")), [0, 2]);
        assert_eq!(choose(&records, Some("bbbb")), [1]);
        assert!(choose(&records, Some("b")).is_empty());
        assert_eq!(before(&records[..2], &records[2]), Some(&records[0]));
        assert_eq!(before(&records[..1], &records[1]), None);
    }
}
