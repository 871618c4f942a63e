# Certificates for the derivations that may use the network.
# shellcheck shell=bash
export SSL_CERT_FILE=@bundle@ NIX_SSL_CERT_FILE=@bundle@
