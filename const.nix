# The paths and names that the Nix side and the Rust side agree on. A test
# holds this file against src/config.rs.
{
  # The setup hook's derivation name: the pre-build-hook looks for it among a
  # derivation's inputs.
  setupHookName = "nix-gocacheprog-hook";
  # Inside a sandbox.
  sandboxDir = "/gocache";
  sandboxClient = "/gocache/client";
  sandboxRuntimeDir = "/gocache/run";
  # On the host.
  cacheDir = "/var/cache/nix-gocacheprog";
  runtimeDir = "/run/nix-gocacheprog";
  # What a credential says that systemd could not load.
  missingCredential = "nix-gocacheprog-missing-credential";
}
