//! Whether an answer can be what was asked for.
//!
//! A login page, a proxy's error with status 200 or half a file would end a build with an error that nobody understands;
//! kept, it would do so in every later build too. So anything else than the file is refused here.

use super::body::Body;
use super::path::{Kind, Module, ModulePath, Sumdb, Version};
use super::zip::Directory;
use crate::error::{Error, Result};

/// The largest `.info` or `.mod` file that is kept, in bytes; `go` takes no larger `go.mod`
/// (golang.org/x/mod/zip, `MaxGoMod`).
const TEXT_MAX: u64 = 16 << 20;

/// Fails with what is wrong with an answer, if anything is.
///
/// # Errors
/// When it is not what was asked for.
pub fn check(path: &ModulePath, body: &Body) -> Result<()> {
    match path {
        ModulePath::File(_, version, Kind::Info) => {
            let canonical = version.is_canonical().then_some(version);
            check_info(canonical, &text(body)?)
        }
        ModulePath::Latest(_) => check_info(None, &text(body)?),
        ModulePath::File(_, _, Kind::Mod) => check_mod(&text(body)?),
        ModulePath::File(module, version, Kind::Zip) => check_zip(module, version, body),
        ModulePath::Sumdb(_, Sumdb::Tile(tile)) => match tile.length() {
            Some(length) if length != body.len() => wrong("a tile of another length"),
            _ => Ok(()),
        },
        ModulePath::List(_) | ModulePath::Sumdb(..) => check_text(&text(body)?),
    }
}

fn wrong(what: &str) -> Result<()> {
    Err(Error::peer(what))
}

fn text(body: &Body) -> Result<String> {
    if body.len() > TEXT_MAX {
        return Err(Error::peer("the file is too long for its kind"));
    }
    let bytes = body.slice(0, TEXT_MAX as usize)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Takes any text that is not HTML.
fn check_text(text: &str) -> Result<()> {
    if text.contains('\0') || text.trim_start().starts_with('<') {
        return wrong("HTML, or not text at all");
    }
    Ok(())
}

/// Takes the description of this version, or of any.
fn check_info(version: Option<&Version>, text: &str) -> Result<()> {
    let Ok(info) = serde_json::from_str::<serde_json::Value>(text) else {
        return wrong("not JSON");
    };
    match (info["Version"].as_str(), version) {
        (Some(found), Some(version)) if found != version.as_str() => {
            wrong("the description of another version")
        }
        (Some(_), _) => Ok(()),
        (None, _) => wrong("JSON without a version"),
    }
}

/// Looks for a line that only a `go.mod` has.
fn check_mod(text: &str) -> Result<()> {
    let names_module = |line: &str| {
        line.trim_start()
            .strip_prefix("module")
            .is_some_and(|rest| rest.starts_with([' ', '\t', '"', '`', '(']))
    };
    check_text(text)?;
    if !text.lines().any(names_module) {
        return wrong("a go.mod that names no module");
    }
    Ok(())
}

/// Follows a zip's directory from the end of the file, where it is cut off first, to the
/// last entry. What is in the files is for `go` to check, by their hash.
fn check_zip(module: &Module, version: &Version, body: &Body) -> Result<()> {
    let directory = Directory::find(body)?;
    let prefix = format!("{}@{}/", module.as_str(), version.as_str());
    for entry in directory.entries() {
        if !entry?.name.starts_with(prefix.as_bytes()) {
            return wrong("the zip of another module or version");
        }
    }
    if body.slice(0, 4)? != b"PK\x03\x04" {
        return wrong("a zip with a damaged beginning");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::zip::{END_LEN, number};

    /// A zip as Go's archive/zip writes it, of stored files.
    fn zip(names: &[&str]) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            let offset = (out.len() as u32).to_le_bytes();
            let length = (name.len() as u16).to_le_bytes();
            out.extend(b"PK\x03\x04");
            out.extend([0; 22]);
            out.extend(length);
            out.extend([0; 2]);
            out.extend(name.as_bytes());
            directory.extend(b"PK\x01\x02");
            directory.extend([0; 24]);
            directory.extend(length);
            directory.extend([0; 12]);
            directory.extend(offset);
            directory.extend(name.as_bytes());
        }
        let offset = out.len() as u32;
        out.extend(&directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend((names.len() as u16).to_le_bytes());
        out.extend((names.len() as u16).to_le_bytes());
        out.extend((directory.len() as u32).to_le_bytes());
        out.extend(offset.to_le_bytes());
        out.extend([0; 2]);
        out
    }

    fn checked(path: &str, bytes: &[u8]) -> Result<()> {
        check(
            &ModulePath::parse(path).unwrap(),
            &Body::Memory(bytes.into()),
        )
    }

    const ZIP: &str = "/a.example/!m/@v/v1.0.0.zip";

    #[test]
    fn a_whole_zip_of_the_module_is_taken() {
        let good = zip(&["a.example/M@v1.0.0/go.mod", "a.example/M@v1.0.0/m.go"]);
        checked(ZIP, &good).unwrap();
        let mut commented = good.clone();
        let at = commented.len() - 2;
        commented[at] = 5;
        commented.extend(b"hello");
        checked(ZIP, &commented).unwrap();
    }

    #[test]
    fn a_zip_that_is_cut_damaged_or_another_is_refused() {
        let good = zip(&["a.example/M@v1.0.0/go.mod", "a.example/M@v1.0.0/m.go"]);
        for length in 0..good.len() {
            assert!(checked(ZIP, &good[..length]).is_err(), "{length}");
        }
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 0xff;
            // Total, whatever it says.
            let _ = checked(ZIP, &damaged);
        }
        for bad in [
            zip(&[]),
            zip(&["a.example/M@v1.0.1/go.mod"]),
            zip(&["a.example/M@v1.0.0/go.mod", "../../x"]),
            b"<html>Please log in</html>".to_vec(),
            [b"junk".to_vec(), good].concat(),
        ] {
            assert!(checked(ZIP, &bad).is_err());
        }
    }

    #[test]
    fn the_large_form_of_a_zip_is_followed() {
        let plain = zip(&["a.example/M@v1.0.0/go.mod"]);
        let (front, end) = plain.split_at(plain.len() - END_LEN);
        let large = |entries: u64, length: u64, offset: u64| {
            let mut out = front.to_vec();
            let record_at = out.len() as u64;
            out.extend(b"PK\x06\x06");
            out.extend([0; 20]);
            for n in [entries, entries, length, offset] {
                out.extend(n.to_le_bytes());
            }
            out.extend(b"PK\x06\x07\0\0\0\0");
            out.extend(record_at.to_le_bytes());
            out.extend([1, 0, 0, 0]);
            out.extend(&end[..8]);
            out.extend([0xff; 12]);
            out.extend([0; 2]);
            out
        };
        let length = number(end, 12, 4).unwrap();
        let offset = number(end, 16, 4).unwrap();
        checked(ZIP, &large(1, length, offset)).unwrap();
        assert!(checked(ZIP, &large(2, length, offset)).is_err());
        assert!(checked(ZIP, &large(1, u64::MAX, offset)).is_err());
        assert!(checked(ZIP, &large(1, length, u64::MAX)).is_err());
    }

    #[test]
    fn texts_must_be_what_was_asked_for() {
        let info = "/a.example/m/@v/v1.0.0.info";
        checked(
            info,
            br#"{"Version":"v1.0.0","Time":"2020-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        for bad in [
            &b""[..],
            b"{}",
            b"[1]",
            b"{\"Version\":\"v1.0.1\"}",
            b"{\"Version\":\"v1.0.0\"",
            b"<!DOCTYPE html>",
        ] {
            assert!(checked(info, bad).is_err());
        }
        let go_mod = "/a.example/m/@v/v1.0.0.mod";
        for good in [
            "module a.example/m\n",
            "// hello\n\nmodule \"a.example/m\"\r\n\ngo 1.21\n",
            "module (\n a.example/m\n)\n",
        ] {
            checked(go_mod, good.as_bytes()).unwrap();
        }
        for bad in [
            &b""[..],
            b"go 1.21\n",
            b"modules\n",
            b"<html>\nmodule x\n",
            b"module x\n\0",
            b"\xff\xfe",
        ] {
            assert!(checked(go_mod, bad).is_err());
        }
    }

    #[test]
    fn a_tile_has_its_length() {
        let tile = "/sumdb/x/tile/8/0/001";
        checked(tile, &[7; 8192]).unwrap();
        assert!(checked(tile, &[7; 8191]).is_err());
        checked("/sumdb/x/tile/8/0/001.p/2", &[7; 64]).unwrap();
        assert!(checked("/sumdb/x/tile/8/0/001.p/1", &[7; 64]).is_err());
        checked("/sumdb/x/tile/8/data/001", &[7; 33]).unwrap();
    }

    #[test]
    fn a_login_page_is_nothing_that_anybody_asks_for() {
        for path in [
            "/a.example/m/@v/list",
            "/a.example/m/@latest",
            "/a.example/m/@v/main.info",
            "/a.example/m/@v/v1.0.0.info",
            "/a.example/m/@v/v1.0.0.mod",
            "/a.example/m/@v/v1.0.0.zip",
            "/sumdb/x/supported",
            "/sumdb/x/latest",
            "/sumdb/x/lookup/a.example/m@v1.0.0",
            "/sumdb/x/tile/8/0/001",
        ] {
            let page = b" \n<!DOCTYPE html>\n<pre>\nmodule x\n</pre>";
            assert!(checked(path, page).is_err(), "{path}");
        }
        checked("/a.example/m/@v/list", b"").unwrap();
        checked("/a.example/m/@v/list", b"v1.0.0\nv1.1.0 2020-01-01\n").unwrap();
        checked("/a.example/m/@latest", br#"{"Version":"v1.0.0"}"#).unwrap();
        checked("/a.example/m/@v/main.info", br#"{"Version":"v1.0.0"}"#).unwrap();
        checked("/sumdb/x/supported", b"").unwrap();
    }
}
