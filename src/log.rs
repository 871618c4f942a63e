//! Lines to stderr, for a person or for systemd's journal. stdout is never
//! touched: in `client`, `hook` and `proxy` it is protocol.

use std::fmt::Display;
use std::io::Write;
use std::sync::OnceLock;

struct Style {
    /// systemd reads `<N>` at the start of a line as its priority.
    priorities: bool,
    debug: bool,
}

fn style() -> &'static Style {
    static STYLE: OnceLock<Style> = OnceLock::new();
    STYLE.get_or_init(|| Style {
        priorities: std::env::var_os("JOURNAL_STREAM").is_some(),
        debug: std::env::var_os("NIX_GOCACHEPROG_LOG").is_some_and(|level| level == "debug"),
    })
}

fn line(priority: u8, text: &dyn Display) {
    let mut line = String::new();
    if style().priorities {
        line.push('<');
        line.push(char::from(b'0' + priority));
        line.push('>');
    } else {
        line.push_str("nix-gocacheprog: ");
    }
    // One line stays one line, whatever a peer put into it.
    for c in text.to_string().chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    if cfg!(test) {
        // The test that it belongs to shows it, when it fails.
        return eprint!("{line}");
    }
    // Nobody is left to tell when stderr is gone.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Something failed and somebody should look.
pub fn error(text: impl Display) {
    line(3, &text);
}

/// Something is off; work goes on.
pub fn warn(text: impl Display) {
    line(4, &text);
}

/// Start, stop, one line a session.
pub fn info(text: impl Display) {
    line(6, &text);
}

/// Each request; only with `NIX_GOCACHEPROG_LOG=debug`.
pub fn debug(text: impl FnOnce() -> String) {
    if style().debug {
        line(7, &text());
    }
}
