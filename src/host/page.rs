//! `report`: one self-contained HTML page about what the cache did. It loads nothing, runs no script, and is readable in
//! dark and light and on a phone. Every name in it comes from a build and is escaped.

use crate::error::{Error, Result};
use crate::host::admin::{self, Form, Target, Task};
use crate::output;
use crate::protocol::control::Reply;
use crate::report::{BuildRecord, NO_NAME, Report, whose};
use crate::size::{count, show_age, show_count, show_duration, show_size};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: u64 = 24 * 60 * 60;

/// The newest builds that get a row of their own.
const ROWS: usize = 100;

/// The longest name that is shown, in characters, and the longest of which all is said.
const NAME_MAX: usize = 60;
const NAME_MAX_ALL: usize = 211;

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2024;--dim:#667078;--line:#d8dee4;--card:#fff;--back:#f5f7f9;--hit:#2f7d5b;--miss:#d08a2e;--save:#3a6fb0}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--dim:#98a2ab;--line:#333b43;--card:#1c2228;--back:#12161a;--hit:#57b98c;--miss:#e0a552;--save:#76a9e6}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:960px;margin:0 auto;padding:24px 16px}h1{font-size:22px;margin:0}h2{font-size:16px;margin:0 0 8px}
p{margin:4px 0;color:var(--dim)}section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:16px;margin-top:16px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px}
.figures div{border-left:3px solid var(--line);padding-left:10px}.figures b{display:block;font-size:22px;font-variant-numeric:tabular-nums}
.figures b{white-space:nowrap}.figures span{color:var(--dim);font-size:13px}
.chart{display:grid;grid-template-columns:auto 1fr;gap:2px 10px;color:var(--dim);font-size:13px;font-variant-numeric:tabular-nums}
.chart svg{grid-area:1/2/3/3;display:block;width:100%;height:170px;border-bottom:1px solid var(--line)}
.chart .least{align-self:end;text-align:right}.chart .most{text-align:right;white-space:nowrap}
.chart .days{grid-area:3/2;display:flex;justify-content:space-between}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px 4px 0;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;max-width:18em;overflow:hidden;text-overflow:ellipsis}th{color:var(--dim);font-weight:500;font-size:13px}
.key{font-size:13px;color:var(--dim)}.key i{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 4px 0 12px}
.bar{height:10px;background:var(--line);border-radius:5px;overflow:hidden}.bar i{display:block;height:100%;background:var(--hit)}
@media(max-width:600px){main{padding:16px 10px}section{padding:12px}.figures{grid-template-columns:1fr 1fr}.figures b{font-size:18px}
th:first-child,td:first-child{max-width:9em}th,td{padding-right:8px}}
";

/// Writes the page to a file, or to stdout.
///
/// # Errors
/// When the daemon and the cache directory cannot be asked, or the page cannot be written.
pub fn run(place: &Target, since: Duration, file: Option<&Path>) -> Result<()> {
    let answer = |task| admin::ask(place, task, &mut |_| {});
    let (stats, builds) = (
        answer(Task::Stats(Form::Json))?,
        answer(Task::Builds {
            since,
            json: true,
            live: false,
        })?,
    );
    let (Reply::Stats(report), Reply::Builds { builds }) = (stats, builds) else {
        return Err(Error::peer(
            "unexpected answer: is the daemon of another version?",
        ));
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let page = page(&report, &builds, since, now.as_secs());
    match file {
        Some(file) => std::fs::write(file, page).map_err(|e| Error::io("write", file, e)),
        None => output::print(&page),
    }
}

/// What happened on one day.
#[derive(Clone, Copy, Debug, Default)]
struct Day {
    hits: u64,
    misses: u64,
    saved_ms: u64,
    evicted: u64,
}

/// The page. `now` is in seconds since 1970, `since` is how far back `builds` reach.
pub fn page(report: &Report, builds: &[BuildRecord], since: Duration, now: u64) -> String {
    let mut out = String::with_capacity(16 << 10);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>nix-gocacheprog report</title><style>{STYLE}</style></head><body><main>\
         <h1>nix-gocacheprog</h1><p>The last {}, as of {} UTC. Version {}.</p>",
        show_age(since),
        date_and_time(now),
        escape(&report.version)
    );
    figures(&mut out, builds);
    let days = by_day(builds, since, now);
    if builds.is_empty() {
        out.push_str("<section><h2>Builds</h2><p>No build has ended in this time.</p></section>");
    } else {
        chart(
            &mut out,
            "Gets by day",
            &days,
            now,
            &[("hits", "hit"), ("misses", "miss")],
            |day| vec![day.hits, day.misses],
            &show_count,
        );
        chart(
            &mut out,
            "Compiling saved by day",
            &days,
            now,
            &[("saved", "save")],
            |day| vec![day.saved_ms],
            &show_duration,
        );
    }
    store(&mut out, report);
    evicted(&mut out, report, since, now);
    if let Some(remote) = &report.remote {
        let _ = write!(
            out,
            "<section><h2>Remote</h2><p>{} ({})</p><div class=\"figures\">",
            escape(&remote.url),
            escape(&remote.mode)
        );
        for (value, name) in [
            (show_count(remote.hits), "hits"),
            (show_count(remote.ahead), "fetched ahead"),
            (show_size(remote.received), "received"),
            (show_size(remote.sent), "sent"),
            (show_count(remote.queue), "uploads waiting"),
            (show_count(remote.errors), "failed requests"),
        ] {
            figure(&mut out, &value, name);
        }
        out.push_str("</div></section>");
    }
    users(&mut out, builds);
    recent(&mut out, builds);
    out.push_str("</main></body></html>\n");
    out
}

fn figure(out: &mut String, value: &str, name: &str) {
    let _ = write!(out, "<div><b>{value}</b><span>{name}</span></div>");
}

fn figures(out: &mut String, builds: &[BuildRecord]) {
    let (mut gets, mut hits, mut bytes, mut saved, mut alone) = (0, 0, 0, 0, 0);
    for build in builds {
        gets += build.counts.gets;
        hits += build.counts.hits;
        bytes += build.counts.bytes_read;
        saved += build.saved_ms;
        alone += u64::from(build.broken_off);
    }
    let rate = match hits * 1000 / u64::max(gets, 1) {
        _ if gets == 0 => "-".into(),
        permille => format!("{}.{}%", permille / 10, permille % 10),
    };
    out.push_str("<section><div class=\"figures\">");
    let plural = if builds.len() == 1 { "build" } else { "builds" };
    figure(out, &show_count(builds.len() as u64), plural);
    figure(out, &rate, "of gets were hits");
    figure(out, &show_duration(saved), "of compiling saved");
    figure(out, &show_size(bytes), "from the cache");
    figure(out, &show_count(alone), "went on alone");
    out.push_str("</div></section>");
}

/// The first day of the time, counted from 1970, and nothing on each of its days; a long time is cut to its last 60 days.
fn empty_days(since: Duration, now: u64) -> (u64, Vec<Day>) {
    let count = (since.as_secs().div_ceil(DAY)).clamp(1, 60);
    let first = (now / DAY).saturating_sub(count - 1);
    (first, vec![Day::default(); count as usize])
}

/// One entry for each day of the time, oldest first.
fn by_day(builds: &[BuildRecord], since: Duration, now: u64) -> Vec<Day> {
    let (first, mut days) = empty_days(since, now);
    for build in builds {
        let Some(day) = (build.ended / DAY).checked_sub(first) else {
            continue;
        };
        if let Some(day) = days.get_mut(day as usize) {
            day.hits += build.counts.hits;
            day.misses += build.counts.gets.saturating_sub(build.counts.hits);
            day.saved_ms += build.saved_ms;
        }
    }
    days
}

/// Stacked bars, one for each day.
fn chart(
    out: &mut String,
    title: &str,
    days: &[Day],
    now: u64,
    parts: &[(&str, &str)],
    values: impl Fn(&Day) -> Vec<u64>,
    show: &dyn Fn(u64) -> String,
) {
    let (width, height) = (900.0, 170.0);
    let most = days.iter().map(|day| values(day).iter().sum()).max();
    let most = most.unwrap_or(0).max(1);
    let _ = write!(out, "<section><h2>{title}<span class=\"key\">");
    if parts.len() > 1 {
        for (name, colour) in parts {
            let _ = write!(out, "<i style=\"background:var(--{colour})\"></i>{name}");
        }
    }
    // The drawing is stretched to whatever width there is; its text is not in it.
    let _ = write!(
        out,
        "</span></h2><div class=\"chart\"><span class=\"most\">{}</span><span class=\"least\">0</span>\
         <svg viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{title}\">",
        show(most)
    );
    let step = width / days.len() as f64;
    let first = now / DAY + 1 - days.len() as u64;
    for (nth, day) in days.iter().enumerate() {
        let x = step * nth as f64;
        let date = date(first + nth as u64);
        let mut top = height;
        for (value, (name, colour)) in values(day).into_iter().zip(parts) {
            let tall = value as f64 / most as f64 * (height - 4.0);
            top -= tall;
            if value > 0 {
                let _ = write!(
                    out,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"var(--{colour})\">\
                     <title>{date}: {} {name}</title></rect>",
                    (step * 0.8).max(1.0),
                    show(value)
                );
            }
        }
    }
    let _ = write!(
        out,
        "</svg><div class=\"days\"><span>{}</span><span>{}</span></div></div></section>",
        date(first),
        date(now / DAY)
    );
}

/// What was evicted by day, if anything was.
fn evicted(out: &mut String, report: &Report, since: Duration, now: u64) {
    let (first, mut days) = empty_days(since, now);
    for of in &report.evicted {
        let at = of
            .day
            .checked_sub(first)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(day) = at.and_then(|at| days.get_mut(at)) {
            day.evicted += of.bytes;
        }
    }
    if days.iter().any(|day| day.evicted > 0) {
        chart(
            out,
            "Evicted by day",
            &days,
            now,
            &[("evicted", "miss")],
            |day| vec![day.evicted],
            &show_size,
        );
    }
}

fn store(out: &mut String, report: &Report) {
    let share = report.contents.bytes as f64 / report.max_size.max(1) as f64 * 100.0;
    let _ = write!(
        out,
        "<section><h2>Size</h2><div class=\"bar\"><i style=\"width:{:.1}%\"></i></div><p>{} of {}: {}, {}. \
         {} free on the disk, {} of it reserved.</p></section>",
        share.min(100.0),
        show_size(report.contents.bytes),
        show_size(report.max_size),
        count(report.contents.outputs, "output"),
        count(report.contents.actions, "action"),
        show_size(report.free),
        show_size(report.min_free)
    );
}

fn users(out: &mut String, builds: &[BuildRecord]) {
    let mut users: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for build in builds {
        let user = users.entry(&build.name).or_default();
        user.0 += 1;
        user.1 += build.counts.bytes_read + build.counts.bytes_written;
        user.2 += build.saved_ms;
    }
    let mut users: Vec<_> = users.into_iter().collect();
    users.sort_by_key(|(_, user)| std::cmp::Reverse(user.1));
    if users.is_empty() {
        return;
    }
    out.push_str(
        "<section><h2>Largest users</h2><div class=\"scroll\"><table><tr><th>name<th>builds<th>size<th>saved</tr>",
    );
    for (name, (builds, bytes, saved)) in users.iter().take(20) {
        let _ = write!(
            out,
            "<tr>{}<td>{}<td>{}<td>{}</tr>",
            name_cell(&whose(name)),
            show_count(*builds),
            show_size(*bytes),
            show_duration(*saved)
        );
    }
    out.push_str("</table></div></section>");
}

fn recent(out: &mut String, builds: &[BuildRecord]) {
    if builds.is_empty() {
        return;
    }
    let shown = builds.len().min(ROWS) as u64;
    let _ = write!(
        out,
        "<section><h2>The last {}</h2><div class=\"scroll\"><table><tr><th>name<th>ended \
         (UTC)<th>took<th>hits<th>misses<th>rate<th>from cache<th>saved<th>mode</tr>",
        count(shown, "build")
    );
    for build in builds.iter().rev().take(ROWS) {
        let _ = write!(
            out,
            "<tr>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}{}</tr>",
            name_cell(if build.name.is_empty() {
                NO_NAME
            } else {
                &build.name
            }),
            date_and_time(build.ended),
            show_duration(build.ended.saturating_sub(build.started) * 1000),
            show_count(build.counts.hits),
            show_count(build.counts.misses()),
            build.counts.rate(),
            show_size(build.counts.bytes_read),
            show_duration(build.saved_ms),
            escape(&build.mode),
            if build.broken_off { ", alone" } else { "" }
        );
    }
    out.push_str("</table></div></section>");
}

/// A derivation's name as a person reads it: as much as there is room for, and all of it under the mouse.
fn name_cell(name: &str) -> String {
    let mut short: String = name.chars().take(NAME_MAX).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    let all: String = name.chars().take(NAME_MAX_ALL).collect();
    format!("<td title=\"{}\">{}", escape(&all), escape(&short))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// `2026-11-26` for a number of days since 1970.
fn date(days: u64) -> String {
    // Proleptic Gregorian calendar, in years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-26 18:05` for seconds since 1970.
pub fn date_and_time(seconds: u64) -> String {
    format!(
        "{} {:02}:{:02}",
        date(seconds / DAY),
        seconds / 3600 % 24,
        seconds / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::Counts;

    const NOW: u64 = 1_795_716_300;

    fn build(nth: u64, name: &str) -> BuildRecord {
        BuildRecord {
            build: format!("{nth:08x}"),
            name: name.into(),
            started: NOW - nth * 600 - 90,
            ended: NOW - nth * 600,
            counts: Counts {
                gets: 3000,
                hits: 3000 - nth % 7,
                bytes_read: 480 << 20,
                ..Counts::default()
            },
            saved_ms: 70_000 + nth,
            mode: "on".into(),
            ..BuildRecord::default()
        }
    }

    fn report() -> Report {
        serde_json::from_str(
            r#"{"version":"0.1.0","cache":"/c","max_size":1,"max_age":1,"min_free":0,"free":0,"contents":{"outputs":0,
            "bytes":0,"live_bytes":0,"actions":0,"oldest":0},"builds":0,"sessions":0,"running":0,"since_start":{},
            "last_day":{},"users":[]}"#,
        )
        .unwrap()
    }

    #[test]
    fn a_page_of_no_build_one_and_ten_thousand_is_bounded() {
        let month = Duration::from_secs(30 * DAY);
        for count in [0, 1, 10_000] {
            let builds: Vec<_> = (0..count)
                .rev()
                .map(|nth| build(nth, "containerd"))
                .collect();
            let page = page(&report(), &builds, month, NOW);
            assert!(page.len() < 100_000, "{count}: {}", page.len());
            assert!(page.contains("</html>"));
            assert_eq!(page.contains("No build has ended"), count == 0);
        }
    }

    #[test]
    fn a_name_from_a_build_is_text_and_nothing_else() {
        let odd = format!(
            "<script>alert(\"1\")</script>'&{}\u{1b}\u{fffd}",
            "x".repeat(200)
        );
        let page = page(
            &report(),
            &[build(1, &odd), build(2, "")],
            Duration::from_secs(DAY),
            NOW,
        );
        assert!(!page.contains("<script") && !page.contains('\u{1b}'));
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;x"));
        assert!(page.contains(">(dev shells)<") && page.contains(">(dev shell)<"));
        let shown = page.matches(&"x".repeat(100)).count();
        assert_eq!(
            shown, 2,
            "under the mouse, in each of the two tables, and not in a cell"
        );
    }

    #[test]
    fn dates_are_written_as_people_write_them() {
        assert_eq!(date_and_time(NOW), "2026-11-26 18:05");
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(59 + 365 * 2 + 1), "1972-03-01");
    }
}
