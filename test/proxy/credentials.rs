//! Credentials, certificates and HTTP proxies.

use super::*;

const AUTHORITY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/tls/ca.pem");

/// An upstream over TLS that shows its module to `me` with the password `s3cret` only.
fn private_upstream() -> Upstream {
    Upstream::start_tls(|asked, to| {
        // me:s3cret
        if asked.head.contains("authorization: Basic bWU6czNjcmV0\r\n") {
            module(asked, to)
        } else {
            reply(to, "401 Unauthorized", "", b"who are you?\n")
        }
    })
}

#[test]
fn credentials_open_an_upstream_and_are_part_of_the_key() {
    let daemon = Daemon::start();
    let upstream = private_upstream();
    let address = upstream.address();
    let start = |list: &str, netrc: &str| {
        Proxy::start_with(list, |command| {
            let file = daemon
                .cache_dir()
                .with_file_name(format!("netrc-{}", netrc.len()));
            std::fs::write(&file, netrc).unwrap();
            command.arg("--runtime-dir").arg(daemon.runtime_dir());
            command.env("SSL_CERT_FILE", AUTHORITY).env("NETRC", file);
        })
    };
    let in_url = format!("https://me:s3cret@{address}");
    let plain = format!("https://{address}");
    let netrc = format!("machine {address}\n login me\n password s3cret\n");

    let proxy = start(&in_url, "");
    assert_eq!(proxy.get(ZIP).status, 200);
    let other = start(&plain, &netrc);
    assert_eq!(other.get(ZIP).status, 200);
    let stranger = start(&plain, "");
    let refused = stranger.get(ZIP);
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (401, "who are you?\n")
    );
    let liar = start(&format!("https://me:wrong@{address}"), "");
    assert_eq!(liar.get(ZIP).status, 401);
    // In the cache under the key that the credentials are part of, and for nobody else.
    let asked = upstream.heads().len();
    assert_eq!(start(&in_url, "").get(ZIP).status, 200);
    assert_eq!(start(&plain, &netrc).get(ZIP).status, 200);
    assert_eq!(upstream.heads().len(), asked);
    for proxy in [&proxy, &other, &stranger, &liar] {
        for secret in ["s3cret", "czNjcmV0", "wrong"] {
            assert!(!proxy.log().contains(secret), "{}", proxy.log());
        }
    }
}

#[test]
fn credentials_are_not_sent_over_plain_http_or_to_where_a_redirect_leads() {
    let daemon = Daemon::start();
    let elsewhere = Upstream::start_tls(module);
    let insecure = Upstream::start(module);
    let (to, plain) = (elsewhere.url.clone(), insecure.url.clone());
    let upstream = Upstream::start_tls(move |asked, out| match asked.path {
        ZIP => reply(out, "302 Found", &format!("Location: {to}{ZIP}\r\n"), b""),
        MOD => reply(
            out,
            "302 Found",
            &format!("Location: {plain}{MOD}\r\n"),
            b"",
        ),
        INFO if asked.before == 0 => reply(out, "307 Again", &format!("Location: {INFO}\r\n"), b""),
        _ => module(asked, out),
    });
    let list = format!("https://me:s3cret@{}", upstream.address());
    let proxy = Proxy::start_with(&list, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.env("NIX_SSL_CERT_FILE", AUTHORITY);
    });
    assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
    assert_eq!(proxy.get(INFO).status, 200);
    // From https to http: refused, as `go` refuses it.
    assert_eq!(proxy.get(MOD).status, 502);
    assert_eq!(insecure.heads().len(), 0);
    for head in upstream.heads() {
        assert!(head.contains("authorization: "), "{head}");
    }
    assert_eq!(elsewhere.count(ZIP), 1);
    for head in elsewhere.heads() {
        assert!(!head.contains("authorization: "), "{head}");
    }

    let list = format!("http://me:s3cret@{}", insecure.address());
    let got = Proxy::start(&daemon, &list).get(ZIP);
    assert_eq!(got.status, 502);
    assert!(!got.text().contains("s3cret"), "{}", got.text());
    assert_eq!(insecure.heads().len(), 0);
}

#[test]
fn an_authority_that_nobody_knows_is_not_believed() {
    let daemon = Daemon::start();
    let upstream = Upstream::start_tls(module);
    let proxy = Proxy::start(&daemon, &upstream.url);
    let got = proxy.get(ZIP);
    assert_eq!(got.status, 502, "{}", got.text());
    assert!(got.text().contains("certificate"), "{}", got.text());
    assert_eq!((upstream.heads().len(), daemon.actions()), (0, 0));
}

#[test]
fn an_http_proxy_is_gone_through_unless_no_proxy_says_otherwise() {
    let daemon = Daemon::start();
    let upstream = Upstream::start(module);
    // An HTTP proxy, and what is at the other end of its tunnels.
    let forward = Upstream::start(|asked, to| {
        if !asked.head.starts_with("CONNECT ") {
            return module(asked, to);
        }
        let _ = to.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        Then::Keep
    });
    let list = "http://module.example";
    let proxy = Proxy::start_with(list, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.env(
            "HTTP_PROXY",
            format!("http://me:s3cret@{}", forward.address()),
        );
    });
    assert_eq!(proxy.get(INFO).body, file(INFO).unwrap());
    let heads = forward.heads();
    assert!(
        heads[0].starts_with("CONNECT module.example:80 "),
        "{heads:?}"
    );
    assert!(
        heads[0]
            .to_ascii_lowercase()
            .contains("proxy-authorization: basic "),
        "{heads:?}"
    );
    assert!(!proxy.log().contains("s3cret"), "{}", proxy.log());

    let seen = forward.heads().len();
    let proxy = Proxy::start_with(&upstream.url, |command| {
        command.arg("--runtime-dir").arg(daemon.runtime_dir());
        command.env("HTTP_PROXY", format!("http://{}", forward.address()));
        command.env("NO_PROXY", "127.0.0.0/8");
    });
    assert_eq!(proxy.get(INFO).status, 200);
    assert_eq!(forward.heads().len(), seen);
}

#[test]
fn credentials_that_appear_after_the_proxy_began_are_seen() {
    let daemon = Daemon::start();
    let upstream = private_upstream();
    let address = upstream.address();
    let netrc = |password: &str| format!("machine {address}\n login me\n password {password}\n");
    // In the usual place, and where a build without a home has one later.
    for in_build in [false, true] {
        let dir = TempDir::new();
        let proxy = Proxy::start_with(&upstream.url, |command| {
            command.arg("--runtime-dir").arg(daemon.runtime_dir());
            command.env("SSL_CERT_FILE", AUTHORITY);
            command.env("NIX_BUILD_TOP", dir.path());
            if in_build {
                command.env("HOME", "/homeless-shelter");
                command.args(["--build", &std::process::id().to_string()]);
            } else {
                command.env("HOME", dir.path());
            }
        });
        let refused = if in_build { 404 } else { 401 };
        assert_eq!(proxy.get(LIST).status, refused);
        std::fs::write(dir.path().join(".netrc"), netrc("wrong")).unwrap();
        assert_eq!(proxy.get(LIST).status, refused);
        std::fs::write(dir.path().join(".netrc"), netrc("s3cret")).unwrap();
        assert_eq!(proxy.get(LIST).status, 200);
        assert_eq!(proxy.get(ZIP).body, file(ZIP).unwrap());
    }
    // The second build's zip came from the cache: the key is that of the credentials.
    assert_eq!(upstream.count(ZIP), 1);
}
