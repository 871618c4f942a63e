# A program as nixpkgs builds it, each folder and each folder's tests, with the times at which its phases begin and end in
# its log. `src` and `vendor` are store paths.
{
  name,
  src,
  vendor,
  withHook ? true,
  withC ? false,
  # A pattern of tests that are not run.
  skipped ? "",
  ...
}@args:
let
  packages = import ./. (
    {
      inherit (args) tools cacert go;
      cc = args.cc or null;
    }
    // (if withHook then { } else { overlays = [ ]; })
  );
  clock = at: ''echo "clock: ${at} $EPOCHREALTIME" >&2'';
in
packages.buildGoModule {
  pname = name;
  version = "1";
  src = builtins.storePath src;
  vendor = builtins.storePath vendor;
  vendorHash = null;
  nativeBuildInputs = if withC then [ packages.c.cc1 ] else [ ];
  env = {
    CGO_ENABLED = if withC then "1" else "0";
    GOFLAGS = "-mod=vendor -trimpath";
    # Some tests write there.
    HOME = "/build/home";
  };
  checkFlags = if skipped == "" then [ ] else [ "-skip=${skipped}" ];
  postConfigure = ''
    cp -r "$vendor" vendor
    chmod -R u+w vendor
  '';
  preBuild = ''
    mkdir $HOME
    ${clock "build-begins"}
  '';
  postBuild = clock "build-ends";
  preCheck = clock "check-begins";
  postCheck = clock "check-ends";
}
