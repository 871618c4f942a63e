//! Which processor this is. A C compiler asks for it when a flag says `-march=native` or the like, and makes other code on
//! another one.

use crate::client::unknown;
use crate::sha256::Sha256;

/// What such flags end with.
const NATIVE: &[u8] = b"=native";

/// What says of a processor which instructions it has, in /proc/cpuinfo on x86 and on ARM.
const FEATURES: [&str; 12] = [
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "Features",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "CPU revision",
];

/// Whether a text has a flag by which a C compiler asks which processor this is.
pub fn is_asked_for(text: &[u8]) -> bool {
    memchr::memmem::find(text, NATIVE).is_some()
}

/// A hash over what this processor is; where nobody can tell, it is like no other.
pub fn hash() -> [u8; 32] {
    let cpuinfo = std::fs::read("/proc/cpuinfo").unwrap_or_default();
    of(&String::from_utf8_lossy(&cpuinfo)).unwrap_or_else(unknown::nonce)
}

fn of(cpuinfo: &str) -> Option<[u8; 32]> {
    let mut is_known = false;
    let mut hash = Sha256::new_with_prefix("nix-gocacheprog: a processor\0");
    for line in cpuinfo.lines().take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':')
            && FEATURES.contains(&name.trim())
        {
            is_known = true;
            hash.update(name.trim());
            hash.update([0]);
            hash.update(value.trim());
            hash.update([0]);
        }
    }
    is_known.then(|| hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_what_it_can_do_and_not_how_fast_it_runs() {
        let text = |flags: &str, speed: &str| {
            format!(
                "processor\t: 0\nmodel\t\t: 1\ncpu MHz\t\t: {speed}\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
            )
        };
        assert_eq!(of(&text("sse avx", "2000")), of(&text("sse avx", "3000")));
        assert_ne!(of(&text("sse avx", "2000")), of(&text("sse", "2000")));
        assert_eq!(of(""), None);
        assert_eq!(of("bogomips : 2000\n"), None);
    }

    #[test]
    fn a_flag_asks_for_it_wherever_it_stands() {
        for text in ["-O2 -march=native", "#cgo CFLAGS: -mtune=native -g"] {
            assert!(is_asked_for(text.as_bytes()), "{text}");
        }
        assert!(!is_asked_for(b"-march=x86-64-v3 native"));
    }
}
