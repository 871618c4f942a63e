//! Takes away what `install` has made, and puts back what stood in its place.

use super::hand_over::hand_over;
use super::layout::{self, Host, SOCKET_UNITS, USER};
use super::plan::{Content, File, temporary_name};
use super::process;
use super::record::{Ci, Record, kept_name};
use super::show_commands;
use crate::error::{Error, Result};
use crate::fs;
use crate::nix::conf::without_block;
use crate::output;
use std::fmt::Write as _;
use std::io::{BufRead, ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};

/// What to remove.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// What was installed for the user's own Nix.
    pub user: bool,
    /// Only show the changes.
    pub dry_run: bool,
    /// Whether the cache goes too; unsaid, it is asked.
    pub cache: Option<bool>,
}

/// Takes away what `install` has made.
///
/// # Errors
/// When a change cannot be made.
pub fn uninstall(removal: &Removal) -> Result<()> {
    let mut host = Host::live(removal.user)?;
    host.check(removal.dry_run)?;
    let Some(record) = Record::read(&host)? else {
        if !removal.dry_run {
            Record::remove_traces(&host)?;
        }
        return output::print(&format!(
            "nothing to remove: there is no {}\n",
            Record::path(&host).display()
        ));
    };
    if record.ci.is_some() {
        return Err(Error::input(
            "`ci start` has set this up: `nix-gocacheprog ci finish` undoes it",
        ));
    }
    host.find_cache(&record);
    if removal.dry_run {
        let shown = show(&host, &record, removal.cache)?;
        return output::print(&shown);
    }
    let remove_cache = match removal.cache {
        Some(remove) => remove,
        None => ask_about(&host.caches(&record)),
    };
    remove(&host, record, remove_cache)
}

/// All that `remove` does, as a person reads it.
pub fn show(host: &Host, record: &Record, cache: Option<bool>) -> Result<String> {
    let mut out = String::new();
    for file in confs(host, record)?.iter().chain(&files(host, record)) {
        if !file.is_made() {
            out.push_str(&file.diff());
        }
    }
    for (kept, path) in kept(host, record) {
        let _ = writeln!(out, "put {} back as {}", kept.display(), path.display());
    }
    let (before, after) = (commands(host), reload(host));
    show_commands(&mut out, before.iter().chain(&after));
    let caches = host.caches(record);
    let shown = in_words(&caches);
    let user = if record.user {
        format!(" and the user {USER}")
    } else {
        String::new()
    };
    let _ = match cache {
        Some(true) => writeln!(out, "\nremove the cache {shown}{user}"),
        Some(false) => writeln!(out, "\nkeep the cache {shown}{user}"),
        None => writeln!(out, "\nask whether to remove the cache {shown}{user}"),
    };
    for dir in record.directories.iter().rev() {
        if caches.contains(dir) && (cache != Some(true) || host.is_usual_cache(dir)) {
            continue;
        }
        let dir = host.at(dir);
        if dir.exists() {
            let _ = writeln!(out, "remove the directory {} if it is empty", dir.display());
        }
    }
    Ok(out)
}

/// Removes what the record names. What cannot be understood ends it before anything is changed.
pub fn remove(host: &Host, mut record: Record, remove_cache: bool) -> Result<()> {
    let mut host = host.locked()?;
    host.find_cache(&record);
    let host = &host;
    // Nix first, so that no build is sent to what is gone.
    for file in &confs(host, &record)? {
        host.change_conf(file)?;
        host.say(&format!("removed from {}\n", file.path.display()));
    }
    for conf in &record.confs {
        fs::remove_file(&temporary_name(&host.at(conf)))?;
    }
    if host.has_systemd() && !host.layout.user {
        host.run_all(&host.restart_nix())?;
        host.wait_for_workers()?;
    }
    for command in &stop_units(host) {
        // Units that an interrupted installation never wrote are no loss.
        let _ = host.run(command);
    }
    if record.ci.is_some() && host.is_live {
        process::stop(host)?;
    }
    for file in &files(host, &record) {
        fs::remove_file(&temporary_name(&file.path))?;
        if !file.is_made() {
            file.make()?;
            host.say(&format!("removed {}\n", file.path.display()));
        }
    }
    for (kept, path) in kept(host, &record) {
        fs::remove_file(&temporary_name(&path))?;
        fs::rename(&kept, &path)?;
        // Of two names of one file neither goes by that.
        fs::remove_file(&kept)?;
        host.say(&format!("put back {}\n", path.display()));
    }
    if let Some(command) = reload(host) {
        host.run(&command)?;
    }
    fs::remove_dir_all(&host.at(&host.layout.runtime_dir))?;
    let caches = host.caches(&record);
    let is_kept = !remove_cache && !caches.is_empty();
    if remove_cache {
        for dir in &caches {
            remove_cache_dir(host, dir)?;
        }
    }
    if let Some(ci) = record.ci.as_ref().filter(|_| is_kept) {
        give_back(host, &host.at(&host.layout.cache_dir), ci)?;
    }
    if record.user && (remove_cache || record.ci.is_some()) {
        host.remove_user()?;
    }
    // What holds the record goes after it.
    let (holding, others): (Vec<_>, Vec<_>) = record
        .directories
        .iter()
        .map(|dir| host.at(dir))
        .partition(|dir| host.at(&host.layout.lib).starts_with(dir));
    let remove_empty = |dirs: &[PathBuf]| {
        for dir in dirs.iter().rev() {
            // Somebody else may have put something there.
            let _ = std::fs::remove_dir(dir);
        }
    };
    remove_empty(&others);
    if is_kept && record.ci.is_none() {
        host.say(&format!(
            "kept {}{}; `nix-gocacheprog uninstall --remove-cache` removes {} later\n",
            in_words(&caches),
            if record.user { " and its user" } else { "" },
            if caches.len() + usize::from(record.user) == 1 {
                "it"
            } else {
                "them"
            },
        ));
        record.finished = false;
        record.files.clear();
        record.confs.clear();
        record.replaced.clear();
        record.write(host)?;
    } else {
        Record::remove(host)?;
        remove_empty(&holding);
    }
    Ok(())
}

/// Directories in a sentence.
fn in_words(dirs: &[PathBuf]) -> String {
    let shown: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    shown.join(" and ")
}

/// Removes the cache. A link to it, and the directory that somebody has made for it, stay.
fn remove_cache_dir(host: &Host, dir: &Path) -> Result<()> {
    let cache = &host.at(dir);
    if cache.is_symlink() || !host.is_usual_cache(dir) {
        let Ok(dir) = fs::canonicalize(cache) else {
            return Ok(());
        };
        for entry in fs::read_dir(&dir)? {
            fs::remove_dir_all(&entry?.path())?;
        }
        host.say(&format!("emptied {}\n", dir.display()));
    } else {
        fs::remove_dir_all(cache)?;
        host.say(&format!("removed {}\n", cache.display()));
    }
    if host.layout.user {
        // A private cache may be there, too.
        let _ = cache.parent().map(std::fs::remove_dir);
    }
    Ok(())
}

/// A cache that somebody keeps is theirs again, without what was for the builds of this daemon.
fn give_back(host: &Host, cache: &Path, ci: &Ci) -> Result<()> {
    let cache = fs::canonicalize(cache)?;
    for of_builds in ["builds", "registered"] {
        fs::remove_dir_all(&cache.join(of_builds))?;
    }
    let daemon = host.cache_owner().map(|(uid, _)| uid);
    hand_over(&cache, daemon, ci.cache_owner)
}

/// Nix's configuration, less the block.
fn confs(host: &Host, record: &Record) -> Result<Vec<File>> {
    let mut confs = Vec::new();
    for conf in &record.confs {
        let path = host.at(conf);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == Some(ErrorKind::NotFound) => continue,
            // With the block in it and the hook gone, every build would fail.
            Err(e) => return Err(e),
        };
        let left = without_block(&text);
        let content = if left.is_empty() && record.files.contains(conf) {
            Content::Absent
        } else {
            Content::Text(left, 0o644)
        };
        confs.push(File { path, content });
    }
    confs.retain(|file| !file.is_made());
    Ok(confs)
}

/// The other files, which go.
fn files(host: &Host, record: &Record) -> Vec<File> {
    let files = record.files.iter();
    files
        .filter(|path| !record.confs.contains(path) && !record.replaced.contains(path))
        .map(|path| File {
            path: host.at(path),
            content: Content::Absent,
        })
        .collect()
}

/// Files of somebody else's, with where they stood.
fn kept(host: &Host, record: &Record) -> Vec<(PathBuf, PathBuf)> {
    let paths = record.replaced.iter().map(|path| host.at(path));
    paths
        .map(|path| (kept_name(&path), path))
        .filter(|(kept, _)| kept.symlink_metadata().is_ok())
        .collect()
}

/// What is run before the files go.
fn commands(host: &Host) -> Vec<Vec<String>> {
    let nix = (host.has_systemd() && !host.layout.user).then(|| host.restart_nix());
    nix.into_iter().flatten().chain(stop_units(host)).collect()
}

fn stop_units(host: &Host) -> Vec<Vec<String>> {
    if !host.has_systemd() {
        return Vec::new();
    }
    let units = [&["disable", "--quiet", "--now"][..], &["stop"]].map(|args| {
        let mut args = args.to_vec();
        args.extend(SOCKET_UNITS);
        args.push(layout::SERVICE_UNIT);
        host.systemctl(&args)
    });
    units.into()
}

/// What is run when they are gone.
fn reload(host: &Host) -> Option<Vec<String>> {
    host.has_systemd()
        .then(|| host.systemctl(&["daemon-reload"]))
}

/// Whether a person wants the cache removed; where there is nobody to ask, it stays.
fn ask_about(caches: &[PathBuf]) -> bool {
    if caches.is_empty() || !std::io::stdin().is_terminal() {
        return false;
    }
    let question = format!("Remove the cache {} too? [y/N] ", in_words(caches));
    let mut answer = String::new();
    output::print(&question).is_ok()
        && std::io::stdin().lock().read_line(&mut answer).is_ok()
        && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}
