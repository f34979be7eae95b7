//! One PostgreSQL cluster per test process, or the one that `TANDEM_TEST_POSTGRES_URL` names.
//!
//! The cluster is run by a shell that waits on a pipe from this process. However this process ends, the pipe closes,
//! and the shell stops the server and removes its directory.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::str::FromStr as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use db::{Db, PostgresOptions};
use nix::unistd::{User, geteuid};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::sync::OnceCell;

/// Names an existing cluster by the URL of a database in it whose role may create databases; `make test` sets it.
pub const URL_VARIABLE: &str = "TANDEM_TEST_POSTGRES_URL";

/// Where Debian puts versions of the server, newest last.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";

/// Users that the server may run as when the tests run as root, which PostgreSQL refuses.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Begin of the names of our databases.
const PREFIX: &str = "tandem_test";

/// Arguments: directory, folder of the programs, then the words that change the user (none unless root).
const WATCHDOG: &str = r#"
dir=$1; bin=$2; shift 2
trap '' HUP
cd "$dir" || exit 1
if "$@" "$bin/initdb" -D "$dir/data" -U tandem -A trust -E UTF8 --locale=C -N >"$dir/log" 2>&1 &&
   "$@" "$bin/pg_ctl" -D "$dir/data" -l "$dir/server.log" -w -t 60 -o "$TANDEM_PG_OPTIONS" start >>"$dir/log" 2>&1
then echo ready
else tail -n 5 "$dir/log" "$dir/server.log" 2>/dev/null | tr '\n' ' '; echo
fi
exec >&-
cat >/dev/null
"$@" "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1
cd /
rm -rf "$dir"
"#;

struct Cluster {
    /// URL of the maintenance database.
    url: String,
    /// Held open while this process lives: its end is the signal to stop.
    lifeline: Option<ChildStdin>,
}

impl Cluster {
    const fn is_ours(&self) -> bool {
        self.lifeline.is_some()
    }
}

/// The URL of the maintenance database of the cluster, which is started when need be.
///
/// # Panics
/// When there is no PostgreSQL, with the remedy.
#[must_use]
pub fn cluster_url() -> &'static str {
    &cluster().url
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| match std::env::var(URL_VARIABLE) {
        Ok(url) if !url.is_empty() => Ok(Cluster { url, lifeline: None }),
        _ => start(),
    });
    cluster.as_ref().expect("tests need PostgreSQL (Debian: postgresql); `make test` installs it")
}

/// Makes a database of its own and gives its URL; `migrated` says whether it has the tables of the store.
///
/// # Panics
/// When there is no PostgreSQL, or it makes no database.
pub async fn fresh_database(migrated: bool) -> String {
    let source = if migrated { migrated_template().await } else { "template0" };
    create_database(source).await
}

/// Removes a database that [`fresh_database`] made, whoever is still connected. In a cluster of this process it stays:
/// the whole cluster goes with the process, and each drop costs a checkpoint.
///
/// # Panics
/// When the server refuses.
pub async fn drop_database(url: &str) {
    if cluster().is_ours() {
        return;
    }
    let options = PgConnectOptions::from_str(url).expect("the URL is ours");
    let name = options.get_database().expect("the URL names a database").to_owned();
    assert!(name.starts_with(PREFIX), "{name} is not ours to drop");
    execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
}

async fn create_database(source: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("{PREFIX}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    // A process of an earlier run with the same number may have left its own on a cluster that lives on.
    execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    execute(&format!("CREATE DATABASE {name} TEMPLATE {source}")).await;
    with_database(cluster_url(), &name)
}

/// The URL of another database of the same cluster.
fn with_database(url: &str, name: &str) -> String {
    let (before, query) = url.split_once('?').map_or((url, None), |(before, query)| (before, Some(query)));
    let authority = before.find("://").map_or(0, |at| at + 3);
    let end = before.get(authority..).and_then(|rest| rest.find('/')).map_or(before.len(), |at| authority + at);
    let server = before.get(..end).unwrap_or(before);
    query.map_or_else(|| format!("{server}/{name}"), |query| format!("{server}/{name}?{query}"))
}

/// Tables are made once per process and copied by the server: tens of milliseconds instead of hundreds.
async fn migrated_template() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let url = create_database("template0").await;
            let options = PostgresOptions { url: url.clone(), connections_max: 1 };
            let db = Db::connect_postgres(&options).await.expect("the fresh database can be reached");
            db.migrate().await.expect("a fresh store can be migrated");
            db.close().await;
            let options = PgConnectOptions::from_str(&url).expect("the URL is ours");
            options.get_database().expect("the URL names a database").to_owned()
        })
        .await
}

async fn execute(sql: &str) {
    let options = PgConnectOptions::from_str(cluster_url()).expect("a URL of PostgreSQL");
    let mut connection: PgConnection = options.connect().await.expect("the cluster can be reached");
    let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await;
    assert!(done.is_ok(), "{done:?}\nin: {sql}");
    connection.close().await.expect("a connection can be closed");
}

/// What a cluster for tests needs not: it outlives neither the machine nor the run.
const CHEAP: &str = "-c fsync=off -c full_page_writes=off -c shared_buffers=16MB -c max_connections=200 \
     -c autovacuum=off -c max_wal_size=256MB";

fn start() -> Result<Cluster, String> {
    let options = |dir: &Path| format!("-k {} -c listen_addresses= -c synchronous_commit=off {CHEAP}", dir.display());
    let Started { dir, lifeline, .. } = run(options)?;
    let url = format!("postgres://tandem@localhost/postgres?host={}", dir.display());
    Ok(Cluster { url, lifeline })
}

struct Started {
    dir: PathBuf,
    bin: PathBuf,
    /// The words that change the user.
    as_user: Vec<String>,
    /// The options of the server.
    options: String,
    lifeline: Option<ChildStdin>,
}

/// Makes a cluster in a directory of its own and starts it.
fn run(options: impl FnOnce(&Path) -> String) -> Result<Started, String> {
    let bin = programs().ok_or("initdb is neither beside `pg_config` nor on the PATH nor below /usr/lib/postgresql")?;
    // Not removed by Drop, which statics never see: the shell does it.
    let dir = tempfile::Builder::new().prefix("tandem-pg-").tempdir().map_err(|e| e.to_string())?.keep();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)).map_err(|e| e.to_string())?;
    let mut as_user = vec!["env".to_owned()];
    if geteuid().is_root() {
        let user = USERS.iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.ok_or("the tests run as root, and there is no user postgres or nobody to run the server as")?;
        std::os::unix::fs::chown(&dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).map_err(|e| e.to_string())?;
        let [reuid, regid] = [format!("--reuid={}", user.uid), format!("--regid={}", user.gid)];
        as_user = ["setpriv", &reuid, &regid, "--clear-groups", "--"].map(str::to_owned).to_vec();
    }
    let options = options(&dir);
    let mut shell = Command::new("sh")
        .arg("-c")
        .arg(WATCHDOG)
        .arg("tandem-test-postgres")
        .arg(&dir)
        .arg(&bin)
        .args(&as_user)
        .env("TANDEM_PG_OPTIONS", &options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // Its own group: an interrupt from the terminal must not take the shell before it has cleaned up.
        .process_group(0)
        .spawn()
        .map_err(|e| e.to_string())?;
    let lifeline = shell.stdin.take();
    let mut line = String::new();
    let stdout = shell.stdout.take().ok_or("the shell has no output")?;
    BufReader::new(stdout).read_line(&mut line).map_err(|e| e.to_string())?;
    if line.trim() != "ready" {
        return Err(format!("the server did not start: {}", line.trim()));
    }
    Ok(Started { dir, bin, as_user, options, lifeline })
}

/// A cluster of one test's own, on a TCP port of loopback, which can be stopped as a crash would, and started again.
/// What it has answered as committed is there then. It goes with this value, or with the process.
pub struct OwnCluster {
    started: Started,
    port: u16,
}

impl OwnCluster {
    /// Makes and starts it on `port`.
    ///
    /// # Panics
    /// When there is no PostgreSQL, with the remedy.
    #[must_use]
    pub fn start(port: u16) -> Self {
        let options = |dir: &Path| format!("-k {} -c listen_addresses=127.0.0.1 -c port={port} {CHEAP}", dir.display());
        let started = run(options).expect("tests need PostgreSQL (Debian: postgresql); `make test` installs it");
        Self { started, port }
    }

    /// As [`OwnCluster::start`], with what it commits on the disk, and the memory of a small server: for figures.
    ///
    /// # Panics
    /// As [`OwnCluster::start`].
    #[must_use]
    pub fn durable(port: u16) -> Self {
        let options = |dir: &Path| {
            format!("-k {} -c listen_addresses=127.0.0.1 -c port={port} -c shared_buffers=512MB", dir.display())
        };
        let started = run(options).expect("figures need PostgreSQL (Debian: postgresql)");
        Self { started, port }
    }

    /// The URL of its one database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://tandem@127.0.0.1:{}/postgres", self.port)
    }

    /// Stops the server at once: connections break, nothing is written any more.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn crash(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Starts it again; it recovers first.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&self) {
        let log = self.started.dir.join("server.log");
        self.control(&["-l", &log.to_string_lossy(), "-t", "60", "-o", &self.started.options, "start"]);
    }

    fn control(&self, arguments: &[&str]) {
        let Started { dir, bin, as_user, .. } = &self.started;
        let (program, words) = as_user.split_first().expect("there is a word");
        let mut command = Command::new(program);
        command.args(words).arg(bin.join("pg_ctl")).arg("-D").arg(dir.join("data")).arg("-w").args(arguments);
        // The server inherits them, and a pipe would stay open as long as it runs.
        let status = command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "pg_ctl {arguments:?}: {status:?}");
    }
}

/// The folder with `initdb` and `pg_ctl`.
fn programs() -> Option<PathBuf> {
    let has = |dir: &Path| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file();
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut packaged: Vec<PathBuf> = std::fs::read_dir(DEBIAN_ROOT)
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    packaged.sort();
    configured.into_iter().chain(on_path.unwrap_or_default()).chain(packaged.into_iter().rev()).find(|dir| has(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_same_cluster() {
        let check = |url, expected: &str| assert_eq!(with_database(url, "x"), expected);
        check("postgres://u@localhost/postgres?host=/run/pg", "postgres://u@localhost/x?host=/run/pg");
        check("postgres://u:p@127.0.0.1:5432/postgres", "postgres://u:p@127.0.0.1:5432/x");
        check("postgres://u@h", "postgres://u@h/x");
    }
}
