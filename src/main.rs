//! nix-gocacheprog: Go's build cache and module cache inside sandboxed Nix builds.

fn main() {}
