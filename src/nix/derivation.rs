//! Reads what the hook needs of a derivation: the names of its inputs.
//!
//! A `.drv` file is a term in ATerm's text form, as Nix writes it
//! (`Derivation::unparse` in its `libstore/derivations.cc`):
//!
//! ```text
//! Derive([outputs],[input derivations],[input sources],"system","builder",[arguments],[environment])
//! DrvWithVersion("xp-dyn-drv",[outputs],[input derivations],…)
//! ```
//!
//! The parser reads any such term, in memory that is bounded by the text's length. Nix's JSON
//! form of a derivation is read as well.

use crate::error::{Error, Result};
use serde_json::Value;

/// Terms may be nested this deep; Nix needs five levels.
const DEPTH_MAX: usize = 64;

/// A term.
#[derive(Debug, PartialEq, Eq)]
enum Term<'a> {
    /// A string, with its escapes as they stand.
    Text(&'a [u8]),
    /// A list, a tuple, or a constructor's arguments.
    Many(Vec<Term<'a>>),
}

/// Whether a derivation, as a term or as JSON, has an input of such a name.
///
/// # Errors
/// When the text is not a derivation.
pub fn has_input(text: &[u8], is_wanted: fn(&str) -> bool) -> Result<bool> {
    if text.first() == Some(&b'{') {
        return json_has_input(text, is_wanted);
    }
    Ok(input_names(text)?.into_iter().any(is_wanted))
}

/// The forms up to version 3 have `inputDrvs` and `inputSrcs`; version 4 has `inputs`, which is a list
/// when the derivation is resolved.
fn json_has_input(text: &[u8], is_wanted: fn(&str) -> bool) -> Result<bool> {
    let json: Value = serde_json::from_slice(text)
        .map_err(|e| Error::input(format!("malformed derivation in JSON: {e}")))?;
    let inputs = &json["inputs"];
    let paths = [
        inputs,
        &inputs["drvs"],
        &inputs["srcs"],
        &json["inputDrvs"],
        &json["inputSrcs"],
    ];
    if paths.iter().all(|paths| paths.is_null()) {
        return Err(Error::input("the derivation has no inputs"));
    }
    Ok(paths.into_iter().any(|paths| match paths {
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .any(|path| name(path.as_bytes()).is_some_and(is_wanted)),
        Value::Object(table) => table
            .keys()
            .any(|path| name(path.as_bytes()).is_some_and(is_wanted)),
        _ => false,
    }))
}

/// Whether the output is fixed by a hash, so that the build may use the network.
///
/// # Errors
/// When the text is not a derivation.
pub fn has_fixed_output(text: &[u8]) -> Result<bool> {
    if text.first() == Some(&b'{') {
        let json: Value = serde_json::from_slice(text)
            .map_err(|e| Error::input(format!("malformed derivation in JSON: {e}")))?;
        let Value::Object(outputs) = &json["outputs"] else {
            return Err(Error::input("the derivation has no outputs"));
        };
        return Ok(outputs
            .values()
            .any(|output| !output["hash"].is_null() || output["impure"] == true));
    }
    let arguments = arguments(text)?;
    let Some(Term::Many(outputs)) = arguments.first() else {
        return Err(Error::input("the derivation has no outputs"));
    };
    // Name, path, algorithm, hash. Those of a content-addressed derivation have an algorithm alone, those of an impure one
    // have "impure" for a hash, and the network.
    Ok(outputs.iter().any(|output| match output {
        Term::Many(fields) => {
            matches!(&fields[..], [_, _, _, Term::Text(hash)] if !hash.is_empty())
        }
        Term::Text(_) => false,
    }))
}

/// An environment variable of the build; `None` when the derivation does not set it.
///
/// # Errors
/// When the text is not a derivation.
pub fn variable(text: &[u8], name: &str) -> Result<Option<String>> {
    if text.first() == Some(&b'{') {
        let json: Value = serde_json::from_slice(text)
            .map_err(|e| Error::input(format!("malformed derivation in JSON: {e}")))?;
        let found = json["env"][name].as_str().map(String::from);
        let attributes = [&json["structuredAttrs"], &json["env"]["__json"]];
        return Ok(found.or_else(|| {
            attributes
                .into_iter()
                .find_map(|attributes| match attributes {
                    Value::String(text) => structured(text, name),
                    attributes => structured_in(attributes, name),
                })
        }));
    }
    let arguments = arguments(text)?;
    let Some(Term::Many(environment)) = arguments.get(6) else {
        return Err(Error::input("the derivation has no environment"));
    };
    let value = |wanted: &str| {
        environment.iter().find_map(|pair| match pair {
            Term::Many(pair) => match &pair[..] {
                [Term::Text(name), Term::Text(value)] if *name == wanted.as_bytes() => {
                    Some(unescaped(value))
                }
                _ => None,
            },
            Term::Text(_) => None,
        })
    };
    Ok(value(name).or_else(|| structured(&value("__json")?, name)))
}

/// A variable among structured attributes, which are the variables' values by name, or have them in `env`.
fn structured(json: &str, name: &str) -> Option<String> {
    structured_in(&serde_json::from_str(json).ok()?, name)
}

fn structured_in(attributes: &Value, name: &str) -> Option<String> {
    let found = [&attributes["env"][name], &attributes[name]];
    found.into_iter().find_map(Value::as_str).map(String::from)
}

/// A string's text, as `printString` in Nix's `libstore/derivations.cc` escapes it.
fn unescaped(text: &[u8]) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(other) => *other,
                None => break,
            },
            other => *other,
        });
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The names (without directory and hash) of the store paths that a derivation takes as
/// inputs: derivations, ending in `.drv`, and sources.
///
/// # Errors
/// When the text is not a term of a derivation.
pub fn input_names(text: &[u8]) -> Result<Vec<&str>> {
    let arguments = arguments(text)?;
    let (Some(Term::Many(derivations)), Some(Term::Many(sources))) =
        (arguments.get(1), arguments.get(2))
    else {
        return Err(Error::input("the derivation has no lists of inputs"));
    };
    let derivations = derivations.iter().filter_map(|input| match input {
        Term::Many(pair) => pair.first(),
        Term::Text(_) => None,
    });
    Ok(derivations
        .chain(sources)
        .filter_map(|term| match term {
            Term::Text(path) => name(path),
            Term::Many(_) => None,
        })
        .collect())
}

/// The arguments of a term of a derivation.
fn arguments(text: &[u8]) -> Result<Vec<Term<'_>>> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
    };
    let arguments = if parser.take(b"Derive") {
        parser.many(b'(', b')')?
    } else if parser.take(b"DrvWithVersion") {
        let mut arguments = parser.many(b'(', b')')?;
        arguments.drain(..1.min(arguments.len()));
        arguments
    } else {
        return Err(Error::input(
            "it does not begin with Derive or DrvWithVersion",
        ));
    };
    Ok(arguments)
}

/// The name in a store path: what comes after the directory, the hash and a dash.
pub fn name(path: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(path).ok()?;
    let base = path.rsplit('/').next()?;
    base.split_once('-').map(|(_, name)| name)
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn term(&mut self) -> Result<Term<'a>> {
        match self.text.get(self.at) {
            Some(b'"') => self.string().map(Term::Text),
            Some(b'[') => self.many(b'[', b']').map(Term::Many),
            Some(b'(') => self.many(b'(', b')').map(Term::Many),
            _ => Err(self.unexpected()),
        }
    }

    fn many(&mut self, open: u8, close: u8) -> Result<Vec<Term<'a>>> {
        self.expect(open)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::input("the derivation is nested too deeply"));
        }
        let mut terms = Vec::new();
        if !self.take(&[close]) {
            loop {
                terms.push(self.term()?);
                if self.take(&[close]) {
                    break;
                }
                self.expect(b',')?;
            }
        }
        self.depth -= 1;
        Ok(terms)
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.unexpected()),
            }
        }
        self.at += 1;
        Ok(&self.text[start..self.at - 1])
    }

    fn take(&mut self, what: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(what);
        if found {
            self.at += what.len();
        }
        found
    }

    fn expect(&mut self, what: u8) -> Result<()> {
        if self.take(&[what]) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn unexpected(&self) -> Error {
        Error::input(match self.text.get(self.at) {
            Some(c) => format!(
                "it has an unexpected {:?} at byte {}",
                char::from(*c),
                self.at
            ),
            None => "it is cut off".to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRV: &str = concat!(
        r#"Derive([("out","/nix/store/5x6k4w3f6m3a5j8v6y6r8p3h6w9q2k1z-hello","","")],"#,
        r#"[("/nix/store/0c5ggqh1mpps8ci8x6mcchrv5d3mbmhn-bash-5.2.drv",["out"]),"#,
        r#"("/nix/store/1s1wbl8w5kcmzgjrcbzl4sx1mb93yxk5-nix-gocacheprog-hook.drv",["dev","out"])],"#,
        r#"["/nix/store/6s0fywvdp3kckmwqkl0q4i8rrmbvx1dz-builder.sh"],"#,
        r#""x86_64-linux","/bin/sh",["-e","a \"quoted\" \\ one"],[("name","hello"),("text","a\nb")])"#
    );

    #[test]
    fn the_names_of_all_inputs_are_found() {
        assert_eq!(
            input_names(DRV.as_bytes()).unwrap(),
            ["bash-5.2.drv", "nix-gocacheprog-hook.drv", "builder.sh"]
        );
    }

    #[test]
    fn a_derivation_with_dynamic_inputs_is_read_too() {
        let text = r#"DrvWithVersion("xp-dyn-drv",[],[("/nix/store/a-x.drv",(["out"],[("out",["out"])]))],["/s/b-y"],"","",[],[])"#;
        assert_eq!(input_names(text.as_bytes()).unwrap(), ["x.drv", "y"]);
    }

    #[test]
    fn what_is_no_derivation_is_an_error_at_every_length() {
        for length in 0..DRV.len() {
            // The last two lists say nothing of the inputs, but must be whole all the same.
            assert!(input_names(&DRV.as_bytes()[..length]).is_err(), "{length}");
        }
        for text in [
            "{\"name\":\"x\"}",
            "Derive()",
            "Derive([],\"\",\"\")",
            "Derive(x)",
        ] {
            assert!(input_names(text.as_bytes()).is_err(), "{text}");
        }
        let deep = format!("Derive({}", "[".repeat(1 << 20));
        assert!(input_names(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_hook_named_in_the_environment_alone_is_no_input() {
        let text = r#"Derive([],[],[],"","",[],[("x","/nix/store/a-nix-gocacheprog-hook")])"#;
        assert_eq!(input_names(text.as_bytes()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_derivation_in_json_is_read_in_every_version() {
        let wanted: fn(&str) -> bool = |name| name == "hook" || name == "hook.drv";
        for (text, expected) in [
            (
                r#"{"version":4,"inputs":{"drvs":{"a-hook.drv":{}},"srcs":[]}}"#,
                Some(true),
            ),
            (
                r#"{"version":4,"inputs":{"drvs":{},"srcs":["b-hook"]}}"#,
                Some(true),
            ),
            (
                r#"{"version":4,"inputs":{"drvs":{"a-go.drv":{}},"srcs":["b-x"]}}"#,
                Some(false),
            ),
            (
                r#"{"version":4,"inputs":["/nix/store/a-x","/nix/store/b-hook"]}"#,
                Some(true),
            ),
            (
                r#"{"version":4,"inputs":[],"env":{"x":"a-hook"}}"#,
                Some(false),
            ),
            (
                r#"{"inputDrvs":{"/nix/store/a-hook.drv":["out"]},"inputSrcs":[]}"#,
                Some(true),
            ),
            (
                r#"{"inputDrvs":{},"inputSrcs":["/nix/store/a-hook"]}"#,
                Some(true),
            ),
            (r#"{"name":"x"}"#, None),
            (r#"{"inputs":"#, None),
        ] {
            let found = has_input(text.as_bytes(), wanted).ok();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_fixed_output_is_seen_in_every_form_of_a_derivation() {
        let term = |output: &str| {
            format!(
                r#"Derive([("out","/nix/store/o",{output})],[],[],"x86_64-linux","/bin/sh",[],[])"#
            )
        };
        for (text, expected) in [
            (term(r#""",""#), None),
            (term(r#""","""#), Some(false)),
            (term(r#""r:sha256","""#), Some(false)),
            (term(r#""r:sha256","0a1b""#), Some(true)),
            (term(r#""r:sha256","impure""#), Some(true)),
            (r#"{"outputs":{"out":{"path":"o"}}}"#.into(), Some(false)),
            (
                r#"{"outputs":{"out":{"hash":"0a","method":"nar"}}}"#.into(),
                Some(true),
            ),
            (
                r#"{"outputs":{"out":{"hash":{"format":"base64"}}}}"#.into(),
                Some(true),
            ),
            (r#"{"outputs":{"out":{"impure":true}}}"#.into(), Some(true)),
            (r#"{"inputs":{}}"#.into(), None),
        ] {
            assert_eq!(has_fixed_output(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_variable_is_found_in_every_form_of_a_derivation() {
        let term = |environment: &str| {
            format!(
                r#"Derive([("out","/nix/store/o","","")],[],[],"x86_64-linux","/bin/sh",[],[{environment}])"#
            )
        };
        let structured = r#"("__json","{\"env\":{\"MODE\":\"audit\"},\"name\":\"x\"}")"#;
        for (text, expected) in [
            (
                term(r#"("A","b"),("MODE","read\"only\n")"#),
                Some("read\"only\n"),
            ),
            (term(r#"("A","MODE")"#), None),
            (term(structured), Some("audit")),
            (r#"{"env":{"MODE":"off"},"inputs":{}}"#.into(), Some("off")),
            (
                r#"{"env":{},"structuredAttrs":{"MODE":"on"}}"#.into(),
                Some("on"),
            ),
            (r#"{"env":{"__json":"{\"MODE\":\"x\"}"}}"#.into(), Some("x")),
        ] {
            let found = variable(text.as_bytes(), "MODE").unwrap();
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        assert!(variable(b"nonsense", "MODE").is_err());
    }
}
