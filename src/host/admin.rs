//! `stats`, `gc` and `verify` as a person sees them. They ask the daemon, and where none
//! runs they work on the cache directory themselves, as the user to whom it belongs.

use crate::cache::store::{Limits, Store};
use crate::config;
use crate::counts::Counts;
use crate::daemon::policy;
use crate::daemon::service::Service;
use crate::error::{Error, Result};
use crate::fs;
use crate::host::{install, page};
use crate::metrics;
use crate::output::{self, Paint};
use crate::protocol::control::{self, Ask, Gc, Question, Reply};
use crate::report::{BuildRecord, NO_NAME, Report, Swept, Verified, whose};
use crate::size::{count, show_age, show_count, show_duration, show_size};
use crate::sys;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A walk over a large store on a slow disk takes minutes, and says nothing meanwhile.
const WALK_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Figures are at hand; a daemon that does not say them by then hangs.
const FIGURES_LIMIT: Duration = Duration::from_secs(30);

/// The most builds that are listed.
const BUILDS_MAX: usize = 20_000;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Say how things are.
    Stats(Form),
    /// List the builds that have ended.
    Builds {
        /// How far back.
        since: Duration,
        /// Those too that have not ended.
        live: bool,
        /// For programs.
        json: bool,
    },
    /// Evict.
    Gc {
        /// What.
        what: Gc,
        /// Only say what would go.
        dry_run: bool,
    },
    /// Read everything and look whether it is whole.
    Verify {
        /// Remove what is damaged.
        repair: bool,
    },
}

/// In which form figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For a person.
    Table,
    /// For programs.
    Json,
    /// For Prometheus.
    Prometheus,
}

/// Where the daemon and the cache are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The cache directory.
    pub cache_dir: PathBuf,
    /// It was named on the command line.
    pub is_named: bool,
    /// Where the daemon's sockets are.
    pub runtime_dir: PathBuf,
}

impl Target {
    /// Sets the cache directory that the command line names.
    pub fn name(&mut self, cache_dir: PathBuf) {
        self.cache_dir = cache_dir;
        self.is_named = true;
    }
}

/// Does it, and prints what there is to say.
///
/// # Errors
/// When it cannot be done, or something is damaged and stays so.
pub fn run(place: &Target, task: Task) -> Result<()> {
    let mut bar = Bar::new();
    let mut printed = Ok(());
    let mut is_served = true;
    let reply = ask_either(place, task, &mut is_served, &mut |reply| match reply {
        Reply::Progress { done, total } => bar.draw(done, total),
        Reply::Damaged { what } => {
            bar.clear();
            if printed.is_ok() {
                printed = output::print(&format!("{what}\n"));
            }
        }
        _ => {}
    })?;
    bar.clear();
    let mut done = Ok(());
    let text = match (reply, task) {
        (Reply::Stats(report), Task::Stats(Form::Json)) => json_text(&*report)?,
        (Reply::Stats(report), Task::Stats(Form::Prometheus)) => metrics::text(&report),
        (Reply::Builds { builds }, Task::Builds { json: true, .. }) => json_text(&BuildsReport {
            schema: 1,
            builds: &builds,
        })?,
        (Reply::Builds { builds }, Task::Builds { .. }) => {
            builds_table(&builds, output::has_colour())
        }
        (Reply::Stats(report), _) => {
            let usual = || PathBuf::from(config::CACHE_DIR);
            let installed = install::dirs().map_or_else(usual, |(cache, _)| cache);
            if !is_served && report.cache == installed {
                done = Err(Error::input(
                    "no daemon is running: these figures are those of the cache directory",
                ));
            }
            table(&report, output::has_colour())
        }
        (Reply::Swept(swept), Task::Gc { dry_run, .. }) => tell_swept(&swept, dry_run),
        (Reply::Verified(verified), Task::Verify { repair }) => {
            if verified.damaged + verified.actions > 0 && !repair {
                done = Err(Error::input(
                    "the cache is damaged: `nix-gocacheprog verify --repair` removes what is damaged",
                ));
            }
            tell_verified(&verified, repair)
        }
        _ => {
            return Err(Error::peer(
                "unexpected answer: is the daemon of another version?",
            ));
        }
    };
    printed.and(output::print(&text)).and(done)
}

/// What `stats --builds --json` prints.
#[derive(Serialize)]
struct BuildsReport<'a> {
    /// The version of this format: fields are added without a new one.
    schema: u32,
    /// Oldest first.
    builds: &'a [BuildRecord],
}

fn json_text(what: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string_pretty(what).map_err(|e| Error::input(e.to_string()))?;
    Ok(format!("{json}\n"))
}

fn builds_table(builds: &[BuildRecord], colours: bool) -> String {
    let head = format!(
        "{:<16} {:<36} {:>12} {:>9} {:>7} {:>6} {:>10} {:>12} {:>10}",
        "ended (UTC)", "name", "took", "hits", "misses", "rate", "from cache", "saved", "tier"
    );
    let mut out = Paint::Bold.of(&head, colours) + "\n";
    for build in builds {
        let name = if build.name.is_empty() {
            NO_NAME
        } else {
            &build.name
        };
        let short: String = name.chars().take(36).collect();
        let _ = writeln!(
            out,
            "{:<16} {short:<36} {:>12} {:>9} {:>7} {:>6} {:>10} {:>12} {:>10}",
            page::date_and_time(build.ended),
            show_duration(build.ended.saturating_sub(build.started) * 1000),
            show_count(build.counts.hits),
            show_count(build.counts.misses()),
            build.counts.rate(),
            show_size(build.counts.bytes_read),
            show_duration(build.saved_ms),
            build.tier
        );
    }
    if builds.is_empty() {
        out = "no build has ended in that time\n".into();
    }
    out
}

/// Asks the daemon and, where none runs, the cache directory itself.
///
/// # Errors
/// When neither can answer.
pub fn ask(place: &Target, task: Task, meanwhile: &mut impl FnMut(Reply)) -> Result<Reply> {
    ask_either(place, task, &mut true, meanwhile)
}

/// As [`ask`], and says whether a daemon has answered.
fn ask_either(
    place: &Target,
    task: Task,
    is_served: &mut bool,
    meanwhile: &mut impl FnMut(Reply),
) -> Result<Reply> {
    let cache = place.is_named.then(|| place.cache_dir.clone());
    let ask = match task {
        Task::Stats(_) => Ask::Stats,
        Task::Builds { since, live, .. } => Ask::Builds {
            since: since.as_secs(),
            limit: BUILDS_MAX,
            live,
        },
        Task::Gc { what, dry_run } => Ask::Gc { what, dry_run },
        Task::Verify { repair } => Ask::Verify { repair },
    };
    let question = Question { cache, ask };
    let socket = config::control_socket(&place.runtime_dir);
    let ask = |meanwhile| match task {
        Task::Stats(_) | Task::Builds { .. } => {
            control::ask(&socket, &question, FIGURES_LIMIT, meanwhile)
        }
        // A daemon that answers this much is alive, and may take long over the rest.
        Task::Gc { .. } | Task::Verify { .. } => {
            match control::ask(&socket, &Ask::Live.into(), FIGURES_LIMIT, &mut |_| {}) {
                Err(e) if e.kind().is_some() => Err(e),
                // An older one may not know that question.
                _ => control::ask(&socket, &question, WALK_LIMIT, meanwhile),
            }
        }
    };
    match ask(meanwhile) {
        // The daemon there has another cache than this one.
        Ok(Reply::Elsewhere { .. }) => {}
        Err(e)
            if matches!(
                e.kind(),
                Some(std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
            ) => {}
        Err(e) if e.kind() == Some(std::io::ErrorKind::PermissionDenied) => {
            return Err(control::only_root(e));
        }
        done => return done,
    }
    *is_served = false;
    let parts = open(place).map_err(control::only_root)?;
    let reply = parts.answer(question, meanwhile)?;
    parts.store.close()?;
    Ok(reply)
}

/// Opens the cache directory itself, for no daemon has it.
fn open(place: &Target) -> Result<Service> {
    let dir = &place.cache_dir;
    // Another one is not made into a cache by being looked at.
    fs::metadata(&dir.join("format")).map_err(|e| {
        Error::input(format!(
            "no daemon answers at {}, and there is no cache in {}: {}",
            config::control_socket(&place.runtime_dir).display(),
            dir.display(),
            e.chain()
        ))
    })?;
    // What root writes, the daemon could not write later.
    let owner = fs::metadata(dir)?;
    if sys::effective_uid() == 0 && owner.uid() != 0 {
        sys::drop_privileges(owner.uid(), owner.gid())?;
    }
    Service::open(
        Store::open(dir)?,
        Limits::default(),
        policy::Options::default(),
        None,
    )
}

fn table(report: &Report, colours: bool) -> String {
    let contents = &report.contents;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let name = Paint::Bold.of(&format!("{name:<14}"), colours);
        let _ = writeln!(out, "{name} {value}");
    };
    line("cache", report.cache.display().to_string());
    line(
        "size",
        format!(
            "{} of {} ({}%)",
            show_size(contents.bytes),
            show_size(report.max_size),
            contents.bytes * 100 / report.max_size.max(1)
        ),
    );
    line(
        "entries",
        format!(
            "{}, {}",
            count(contents.actions, "action"),
            count(contents.outputs, "output")
        ),
    );
    line(
        "oldest entry",
        if contents.outputs == 0 {
            "none".into()
        } else {
            format!(
                "last used {} ago (kept for {} at most)",
                show_age(Duration::from_secs(contents.oldest)),
                show_age(Duration::from_secs(report.max_age))
            )
        },
    );
    if contents.set_aside > 0 {
        line(
            "set aside",
            format!(
                "{} of an older version, evicted as needed",
                show_size(contents.set_aside)
            ),
        );
    }
    line(
        "disk",
        format!(
            "{} free ({} reserved)",
            show_size(report.free),
            show_size(report.min_free)
        ),
    );
    line(
        "builds",
        format!(
            "{} with {}, using {} of the cache",
            count(report.builds as u64, "build"),
            count(report.sessions as u64, "session"),
            show_size(contents.live_bytes)
        ),
    );
    let day = &report.last_day;
    if day.compared > 0 {
        line(
            "audits",
            format!(
                "{} of {} differed from the cache in the last day{}",
                show_count(day.different),
                count(day.compared, "action"),
                if day.different > 0 {
                    " (see the daemon's log)"
                } else {
                    ""
                }
            ),
        );
    }
    if day.replaced > 0 {
        line(
            "replaced",
            format!(
                "{} by other ones of the same action in the last day (see the daemon's log)",
                count(day.replaced, "output")
            ),
        );
    }
    if let Some(remote) = &report.remote {
        out.push_str(&remote.table());
    }
    let _ = writeln!(
        out,
        "\n{:<24} {:>9} {:>9} {:>7} {:>11} {:>10} {:>13}",
        "", "hits", "misses", "rate", "from cache", "added", "saved"
    );
    let mut counts = |name: String, counts: &Counts| {
        let _ = writeln!(
            out,
            "{name:<24} {:>9} {:>9} {:>7} {:>11} {:>10} {:>13}",
            show_count(counts.hits),
            show_count(counts.misses()),
            counts.rate(),
            show_size(counts.bytes_read),
            show_size(counts.bytes_written),
            show_duration(counts.saved_ms)
        );
    };
    counts(
        format!(
            "since start ({})",
            show_age(Duration::from_secs(report.running))
        ),
        &report.since_start,
    );
    counts("last day".into(), &report.last_day);
    if !report.users.is_empty() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let _ = writeln!(
            out,
            "\n{:<51} {:>11} {:>10}  last build",
            "largest users", "from cache", "added"
        );
        for (name, user) in &report.users {
            let name = whose(name);
            let _ = writeln!(
                out,
                "{name:<51} {:>11} {:>10}  {} ago",
                show_size(user.read),
                show_size(user.written),
                show_age(Duration::from_secs(now.saturating_sub(user.last)))
            );
        }
    }
    out
}

fn tell_swept(swept: &Swept, dry_run: bool) -> String {
    let Swept {
        outputs,
        actions,
        left_outputs,
        left_actions,
        ..
    } = swept;
    let (verb, stay) = if dry_run {
        ("would evict", "would stay")
    } else {
        ("evicted", "stay")
    };
    let mut out = format!(
        "{verb} {} and {}, {}\n{} in {} and {} {stay}",
        count(*outputs, "output"),
        count(*actions, "action"),
        show_size(swept.bytes),
        show_size(swept.left_bytes),
        count(*left_outputs, "output"),
        count(*left_actions, "action"),
    );
    if swept.live_bytes > 0 {
        let _ = write!(
            out,
            ", of which live builds use {}",
            show_size(swept.live_bytes)
        );
    }
    out.push('\n');
    if swept.set_aside > 0 {
        let _ = writeln!(
            out,
            "{verb} {} that an older version has left",
            show_size(swept.set_aside)
        );
    }
    out
}

fn tell_verified(verified: &Verified, repair: bool) -> String {
    let Verified {
        outputs,
        damaged,
        actions,
        ..
    } = verified;
    let read = format!(
        "{} read, {}",
        count(*outputs, "output"),
        show_size(verified.bytes)
    );
    if damaged + actions == 0 {
        return format!("{read}: no damage\n");
    }
    let verb = if repair { "removed" } else { "found" };
    format!(
        "{read}: {verb} {} and {}, damaged\n",
        count(*damaged, "output"),
        count(*actions, "action")
    )
}

/// A progress bar, where a person can see it.
struct Bar {
    visible: bool,
    drawn: bool,
}

impl Bar {
    const WIDTH: u64 = 40;

    fn new() -> Self {
        Self {
            visible: std::io::stderr().is_terminal(),
            drawn: false,
        }
    }

    fn draw(&mut self, done: u64, total: u64) {
        if !self.visible {
            return;
        }
        self.drawn = true;
        let filled = done * Self::WIDTH / total.max(1);
        let bar: String = (0..Self::WIDTH)
            .map(|i| if i < filled { '#' } else { '.' })
            .collect();
        let _ = write!(
            std::io::stderr(),
            "\r[{bar}] {} of {} ",
            show_size(done),
            show_size(total)
        );
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
