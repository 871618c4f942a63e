//! Real servers to keep a cache on: bazel-remote with its defaults, and Debian's nginx with WebDAV's PUT.

use crate::support::TempDir;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a server takes to start on the slowest machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What is in the file of users: `me:secret`.
const HTPASSWD: &str = "me:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";

/// The server's certificate and the client's, with their keys.
pub const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/test/data/tls");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    BazelRemote,
    /// With `--storage_mode uncompressed`.
    BazelRemoteUncompressed,
    Nginx,
    /// An object store, which answers only who signs.
    S3,
}

/// What the object store's only user signs with, as `aws configure` writes it.
pub const S3_CREDENTIALS: &str =
    "[default]\naws_access_key_id = me\naws_secret_access_key = a-long-secret\n";

/// Whom a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    Everybody,
    /// Who says a name and a password.
    Password,
    /// Who says a token.
    Token,
    /// Who shows a certificate.
    Certificate,
}

impl Answers {
    /// What the client's file of credentials says.
    pub fn credentials(self) -> Option<&'static str> {
        match self {
            Self::Password => Some("me:secret\n"),
            Self::Token => Some("secret-token\n"),
            Self::Everybody | Self::Certificate => None,
        }
    }
}

/// How a server is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    pub kind: Kind,
    pub tls: bool,
    pub answers: Answers,
}

impl Setup {
    pub const fn plain(kind: Kind) -> Self {
        Self {
            kind,
            tls: false,
            answers: Answers::Everybody,
        }
    }

    pub fn name(self) -> String {
        let kind = match self.kind {
            Kind::BazelRemote => "bazel-remote",
            Kind::BazelRemoteUncompressed => "bazel-remote, uncompressed",
            Kind::Nginx => "nginx",
            Kind::S3 => "S3",
        };
        let tls = if self.tls { ", TLS" } else { "" };
        let answers = match self.answers {
            Answers::Everybody => "",
            Answers::Password => ", password",
            Answers::Token => ", token",
            Answers::Certificate => ", client certificate",
        };
        format!("{kind}{tls}{answers}")
    }
}

/// A server that runs until this is dropped.
pub struct Server {
    pub address: String,
    pub url: String,
    /// Where it keeps what it is given.
    pub storage: PathBuf,
    kind: Kind,
    child: Child,
    _dir: TempDir,
}

impl Server {
    pub fn start(setup: Setup) -> Self {
        let dir = TempDir::new();
        let storage = dir.path().join("storage");
        Self::start_in(setup, dir, &storage, "127.0.0.1", &[])
    }

    /// Starts one that keeps everything in `storage`, behind a command that ends in the one that it is given.
    pub fn start_in(
        setup: Setup,
        dir: TempDir,
        storage: &Path,
        host: &str,
        behind: &[&str],
    ) -> Self {
        std::fs::create_dir_all(storage).unwrap();
        let port = free_port();
        let address = format!("{host}:{port}");
        let bin = PathBuf::from(std::env::var_os("NIX_GOCACHEPROG_REMOTES").expect(
            "NIX_GOCACHEPROG_REMOTES names what test/fetch-remotes has made: start this with test/remote",
        ))
        .join("bin");
        let tls = Path::new(TLS);
        let users = dir.path().join("htpasswd");
        std::fs::write(&users, HTPASSWD).unwrap();
        let program = match setup.kind {
            Kind::BazelRemote | Kind::BazelRemoteUncompressed => bin.join("bazel-remote"),
            Kind::Nginx => bin.join("nginx"),
            Kind::S3 => {
                let folder = std::env::var_os("NIX_GOCACHEPROG_S3");
                let folder =
                    folder.expect("NIX_GOCACHEPROG_S3 is what `test/fetch-remotes s3` prints");
                PathBuf::from(folder).join("bin/versitygw")
            }
        };
        let mut command = match behind.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        match setup.kind {
            Kind::BazelRemote | Kind::BazelRemoteUncompressed => {
                if setup.kind == Kind::BazelRemoteUncompressed {
                    command.args(["--storage_mode", "uncompressed"]);
                }
                command.args([
                    "--max_size",
                    "20",
                    "--grpc_address",
                    "none",
                    "--access_log_level",
                    "none",
                ]);
                command.arg("--dir").arg(storage);
                command.arg("--http_address").arg(&address);
                match setup.answers {
                    Answers::Everybody => {}
                    Answers::Password => {
                        command.arg("--htpasswd_file").arg(&users);
                    }
                    Answers::Certificate => {
                        command.arg("--tls_ca_file").arg(tls.join("client.pem"));
                    }
                    Answers::Token => panic!("bazel-remote knows no tokens"),
                }
                if setup.tls {
                    command.arg("--tls_cert_file").arg(tls.join("server.pem"));
                    command.arg("--tls_key_file").arg(tls.join("server.key"));
                }
            }
            Kind::S3 => {
                std::fs::create_dir_all(storage.join("bucket")).unwrap();
                command.env("ROOT_ACCESS_KEY", "me");
                command.env("ROOT_SECRET_KEY", "a-long-secret");
                command.args(["--quiet", "--region", "eu-north-7", "--port", &address]);
                if setup.tls {
                    command.arg("--cert").arg(tls.join("server.pem"));
                    command.arg("--key").arg(tls.join("server.key"));
                }
                command.args(["posix", "--nometa"]).arg(storage);
            }
            Kind::Nginx => {
                let configuration = nginx(setup, &address, storage, dir.path(), tls, &users);
                let path = dir.path().join("nginx.conf");
                std::fs::write(&path, configuration).unwrap();
                command.arg("-p").arg(dir.path()).arg("-c").arg(&path);
                command.arg("-e").arg(dir.path().join("error.log"));
            }
        }
        let log = std::fs::File::create(dir.path().join("server.log")).unwrap();
        let child = command
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let scheme = if setup.tls { "https" } else { "http" };
        let mut server = Self {
            url: match setup.kind {
                Kind::S3 => {
                    format!("s3://bucket/go?endpoint={scheme}://{address}&region=eu-north-7")
                }
                _ => format!("{scheme}://{address}"),
            },
            address,
            storage: storage.into(),
            kind: setup.kind,
            child,
            _dir: dir,
        };
        server.wait(behind);
        server
    }

    /// Waits until it listens, as whoever is behind that command sees it.
    fn wait(&mut self, behind: &[&str]) {
        let start = Instant::now();
        let is_there = |address: &str| match behind.split_first() {
            None => TcpStream::connect(address).is_ok(),
            Some((first, rest)) => {
                let mut look = Command::new(first);
                let port = format!(": </dev/tcp/{}", address.replace(':', "/"));
                look.args(rest)
                    .args(["bash", "-c", &port])
                    .stderr(Stdio::null());
                look.status().unwrap().success()
            }
        };
        while !is_there(&self.address) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the server ended: {}", self.log());
            assert!(
                start.elapsed() < LIMIT,
                "the server does not listen: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self._dir.path().join(name));
        format!(
            "{}{}",
            read("server.log").unwrap_or_default(),
            read("error.log").unwrap_or_default()
        )
    }

    /// Where entries and outputs are, on one that keeps each in a file of its name.
    pub fn names(&self) -> PathBuf {
        match self.kind {
            Kind::S3 => self.storage.join("bucket/go"),
            Kind::BazelRemote | Kind::BazelRemoteUncompressed | Kind::Nginx => self.storage.clone(),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nginx(
    setup: Setup,
    address: &str,
    storage: &Path,
    dir: &Path,
    tls: &Path,
    users: &Path,
) -> String {
    let (storage, dir, tls) = (storage.display(), dir.display(), tls.display());
    let (listen, certificate) = if setup.tls {
        (
            " ssl",
            format!("ssl_certificate {tls}/server.pem; ssl_certificate_key {tls}/server.key;"),
        )
    } else {
        ("", String::new())
    };
    let answers = match setup.answers {
        Answers::Everybody => String::new(),
        Answers::Password => {
            let users = users.display();
            format!("auth_basic cache; auth_basic_user_file {users};")
        }
        Answers::Token => {
            r#"if ($http_authorization != "Bearer secret-token") { return 401; }"#.into()
        }
        Answers::Certificate => {
            format!("ssl_verify_client on; ssl_client_certificate {tls}/client.pem;")
        }
    };
    // Only the whole server can ask for a certificate.
    let (of_server, of_names) = match setup.answers {
        Answers::Certificate => (answers, String::new()),
        _ => (String::new(), answers),
    };
    format!(
        "daemon off; master_process off; user root; pid {dir}/pid;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off; client_max_body_size 0;\n\
         client_body_temp_path {storage}/tmp; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         server {{ listen {address}{listen}; {certificate} {of_server} root {storage};\n\
         location / {{ dav_methods PUT; create_full_put_path on; {of_names} }} }}\n\
         }}\n"
    )
}

/// A port on which nobody listens just now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
