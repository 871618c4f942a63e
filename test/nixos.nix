# The NixOS VM test: two builds in the VM, the second from the cache, and a third with the daemon stopped.
{
  pkgs ? import <nixpkgs> { },
}:
let
  # What is built in the VM, where there is no network: `nonce` makes it a new derivation.
  program = pkgs.writeText "program.nix" ''
    { nonce }:
    let
      pkgs = import ${pkgs.path} { overlays = [ (import ${overlay}/overlay.nix) ]; };
    in
    pkgs.buildGoModule {
      pname = "program";
      version = nonce;
      src = ${source};
      vendorHash = null;
    }
  '';
  overlay = pkgs.runCommand "nix-gocacheprog-overlay" { } ''
    mkdir $out
    cp ${../overlay.nix} $out/overlay.nix
    cp ${../const.nix} $out/const.nix
    cp ${../hook.sh} $out/hook.sh
  '';
  source = pkgs.runCommand "program-source" { } ''
    mkdir $out
    cat >$out/go.mod <<END
    module example.com/program

    go 1.21
    END
    cat >$out/main.go <<END
    package main

    import "fmt"

    func main() { fmt.Println("built in a VM") }
    END
  '';
  # The same program once more, for all that its build takes.
  inputs =
    (import pkgs.path {
      inherit (pkgs.stdenv.hostPlatform) system;
      overlays = [ (import ../overlay.nix) ];
    }).buildGoModule
      {
        pname = "program";
        version = "inputs";
        src = source;
        vendorHash = null;
      };
in
pkgs.testers.runNixOSTest {
  name = "nix-gocacheprog";

  nodes.machine = {
    imports = [ ../module.nix ];
    services.nix-gocacheprog.enable = true;
    virtualisation = {
      cores = 2;
      memorySize = 3072;
      diskSize = 4096;
      writableStore = true;
      additionalPaths = [
        inputs.inputDerivation
        overlay
        pkgs.path
        program
      ];
    };
    nix.settings = {
      sandbox = true;
      substituters = pkgs.lib.mkForce [ ];
    };
  };

  testScript = ''
    import json


    def build(nonce: str) -> str:
        """Builds the program as a new derivation; the build's log."""
        log = machine.succeed(
            f"nix-build --no-out-link ${program} --argstr nonce {nonce} 2>&1"
        )
        assert "built in a VM" in machine.succeed(log.strip().splitlines()[-1] + "/bin/program")
        return log


    def counts() -> dict:
        return json.loads(machine.succeed("nix-gocacheprog stats --json"))["since_start"]


    machine.wait_for_unit("sockets.target")
    machine.succeed("test $(stat -c %a /run/nix-gocacheprog) = 755")
    machine.succeed("test $(stat -c %a /run/nix-gocacheprog/build/sock) = 666")
    machine.succeed("test $(stat -c %a /run/nix-gocacheprog/control) = 700")
    machine.succeed("test $(stat -c %U:%a /var/cache/nix-gocacheprog/builds) = nix-gocacheprog:711")

    with subtest("the first build starts the daemon and fills the cache"):
        machine.fail("systemctl is-active nix-gocacheprog.service")
        build("first")
        machine.succeed("systemctl is-active nix-gocacheprog.service")
        first = counts()
        assert first["puts"] > 50, first

    with subtest("the second build comes from the cache"):
        build("second")
        second = counts()
        gets = second["gets"] - first["gets"]
        hits = second["hits"] - first["hits"]
        assert gets > 50 and hits >= 0.9 * gets, (first, second)
        assert second["errors"] == 0, second

    with subtest("a build does not need the daemon"):
        machine.succeed(
            "systemctl stop nix-gocacheprog-build.socket nix-gocacheprog-control.socket nix-gocacheprog.service"
        )
        assert "without the shared" in build("third")

    with subtest("nor does it mind that the daemon is back"):
        machine.succeed(
            "systemctl start nix-gocacheprog-build.socket nix-gocacheprog-control.socket"
        )
        build("fourth")
        machine.succeed("systemctl is-active nix-gocacheprog.service")
  '';
}
