# A Go program without dependencies, for a first look at whether the stand-ins work.
{ ... }@args:
(import ./. args).buildGoModule {
  pname = "hello";
  version = "1";
  src = ./hello;
  vendorHash = null;
}
