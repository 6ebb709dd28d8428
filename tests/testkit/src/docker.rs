//! A Docker engine of our own, for as long as its handle lives, and images made here in place of public ones.
//!
//! The engine runs in namespaces of its own: its networks, published ports and packet filter rules are not this machine's,
//! and its containers end with it, however the test ends. Engines and containers that were there before aren't seen.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::artifacts;

/// How long the engine may take to start or to stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which Docker Compose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compose {
    /// The one of this machine's Debian: 1.29 where it is Debian 12.
    OfThisDebian,
    /// Compose 2.
    Two,
}

/// A running engine.
pub struct Engine {
    process: Child,
    folder: TempDir,
    tools: PathBuf,
    cgroup: String,
}

impl Engine {
    /// Starts an engine.
    ///
    /// # Errors
    /// Why there can be none on this machine.
    ///
    /// # Panics
    /// Where there could be one but it doesn't start, with its log.
    pub fn start() -> Result<Self, String> {
        let user = Command::new("id").arg("-u").output();
        if !user.is_ok_and(|output| output.stdout.trim_ascii() == b"0") {
            return Err("a Docker engine needs root".to_owned());
        }
        let tools = artifacts::tool("dockerd")?.root;
        let mut namespaces = unshare();
        if !namespaces
            .arg("true")
            .output()
            .is_ok_and(|output| output.status.success())
        {
            return Err("a Docker engine needs namespaces, which can't be made here".to_owned());
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        let log = fs::File::create(at("log")).expect("a log can be written");
        let cgroup = format!("trusted-lb-{}", std::process::id());
        let process = unshare()
            .args([
                "sh",
                "-ec",
                "busybox ifconfig lo up; exec dockerd \"$@\"",
                "dockerd",
            ])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--cgroup-parent", &format!("/{cgroup}")])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("exec"))
            .arg("--pidfile")
            .arg(at("pid"))
            .arg("--host")
            .arg(host(folder.path()))
            .env("PATH", search_path(&tools))
            .env("LD_LIBRARY_PATH", joined(&libraries(&tools)))
            .env("XTABLES_LIBDIR", joined(&plugins(&tools)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a process can be started");
        let mut engine = Self {
            process,
            folder,
            tools,
            cgroup,
        };
        let deadline = Instant::now() + PATIENCE;
        while !engine
            .docker(&["version"])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            let ended = engine.process.try_wait().ok().flatten();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "the Docker engine does not start:\n{}",
                engine.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(engine)
    }

    /// The `docker` command on this engine.
    #[must_use]
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.tools.join("usr/bin/docker"));
        command
            .args(arguments)
            .env("DOCKER_HOST", host(self.folder.path()))
            .env("DOCKER_CONFIG", self.folder.path());
        command
    }

    /// What `docker` prints.
    ///
    /// # Panics
    /// Where it fails.
    #[must_use]
    pub fn ask(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments).output().expect("docker can be run");
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes an image under a name, in place of the public one.
    ///
    /// # Panics
    /// Where it can't be made.
    pub fn import(&self, name: &str, image: &Image) {
        let mut tar = Command::new("tar")
            .arg("-c")
            .arg("-C")
            .arg(image.root.path())
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar can be run");
        let packed = tar.stdout.take().expect("its output is a pipe");
        let mut import = self.docker(&["import"]);
        for change in &image.changes {
            import.args(["--change", change]);
        }
        let output = import
            .args(["-", name])
            .stdin(packed)
            .output()
            .expect("docker can be run");
        let packed = tar.wait().expect("tar ends");
        assert!(
            packed.success() && output.status.success(),
            "{name}: {output:?}"
        );
    }

    /// A shell at a folder of this repository, in the engine's network, whose `docker compose` is this one.
    ///
    /// # Errors
    /// Why this machine can't have that Compose.
    ///
    /// # Panics
    /// Where no shell can be started.
    pub fn shell(&self, compose: Compose) -> Result<Shell, String> {
        let command = match compose {
            Compose::OfThisDebian => self.compose_of_this_debian()?,
            Compose::Two => quoted(&artifacts::tool("docker-compose-2")?.program),
        };
        let commands = self.folder.path().join(format!("{compose:?}"));
        fs::create_dir_all(&commands).expect("a folder can be made");
        let docker = format!(
            "#!/bin/sh\nif [ \"$1\" = compose ]; then shift; exec {command} \"$@\"; fi\nexec {} \"$@\"\n",
            quoted(&self.tools.join("usr/bin/docker")),
        );
        let shim = commands.join("docker");
        fs::write(&shim, docker).expect("a file can be written");
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).expect("it can be marked");
        let path = artifacts::path_with_curl(&commands)?;
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.process.id()))
            .args(["bash", "--norc"])
            .current_dir(artifacts::repository())
            .env("PATH", format!("{}:{path}", commands.display()))
            .env("DOCKER_HOST", host(self.folder.path()))
            .env("DOCKER_CONFIG", self.folder.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("COMPOSE_PARALLEL_LIMIT", "4")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        Ok(Shell { child })
    }

    /// Debian's docker-compose may be the one written in Python: it runs on Debian's own Python, its modules unpacked.
    fn compose_of_this_debian(&self) -> Result<String, String> {
        let script = self.tools.join("usr/bin/docker-compose");
        if !script.exists() {
            let plugin = self
                .tools
                .join("usr/libexec/docker/cli-plugins/docker-compose");
            return Ok(quoted(&plugin));
        }
        let python = Path::new("/usr/bin/python3");
        if !python.exists() {
            return Err("docker-compose 1.29 needs Debian's own python3".to_owned());
        }
        let modules = self.tools.join("usr/lib/python3/dist-packages");
        Ok(format!(
            "env PYTHONPATH={} {} {}",
            quoted(&modules),
            quoted(python),
            quoted(&script)
        ))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // The engine by its own way, which takes along the containers that a failed test left.
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let engine = fs::read_to_string(children).unwrap_or_default();
        let asked = engine.split_whitespace().any(|pid| {
            let kill = Command::new("kill").args(["-TERM", pid]).status();
            kill.is_ok_and(|status| status.success())
        });
        let deadline = Instant::now() + PATIENCE;
        while asked && Instant::now() < deadline && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        remove_cgroups(&self.cgroup);
    }
}

/// Runs what follows in namespaces of its own, where it ends with this thread.
fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--net",
            "--mount",
            "--pid",
            "--mount-proc",
        ])
        .args(["--fork", "--kill-child"]);
    command
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("socket").display())
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}

fn joined(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    folders.join(":")
}

fn search_path(tools: &Path) -> String {
    let own = ["usr/sbin", "usr/bin", "sbin", "bin"].map(|folder| tools.join(folder));
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}:/usr/sbin:/sbin", joined(&own))
}

/// Where unpacked packages have their libraries.
#[must_use]
pub fn libraries(tools: &Path) -> Vec<PathBuf> {
    ["usr/lib", "lib"]
        .iter()
        .filter_map(|folder| fs::read_dir(tools.join(folder)).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("-linux-gnu"))
        .collect()
}

fn plugins(tools: &Path) -> Vec<PathBuf> {
    libraries(tools)
        .iter()
        .map(|folder| folder.join("xtables"))
        .filter(|folder| folder.exists())
        .collect()
}

/// An engine that was killed leaves its groups behind, empty.
fn remove_cgroups(name: &str) {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    let controllers = fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten();
    roots.extend(controllers.map(|entry| entry.path()));
    for root in roots {
        remove_folders(&root.join(name));
    }
}

fn remove_folders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_folders(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// An image's files and settings.
pub struct Image {
    root: TempDir,
    changes: Vec<String>,
}

impl Image {
    /// An image with the files that every other one has too.
    ///
    /// # Panics
    /// Where files can't be written.
    #[must_use]
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder can be made");
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))
            .expect("it can be marked");
        let image = Self {
            root,
            changes: Vec::new(),
        };
        for folder in ["tmp", "etc", "usr/local/bin", "bin"] {
            fs::create_dir_all(image.at(folder)).expect("a folder can be made");
        }
        fs::write(image.at("etc/passwd"), "root:x:0:0::/:/bin/sh\n")
            .expect("a file can be written");
        image
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// A line of a Dockerfile, such as `CMD [...]`.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.changes.push(line.to_owned());
        self
    }

    /// A file of this machine.
    ///
    /// # Panics
    /// Where it isn't there.
    #[must_use]
    pub fn file(self, from: &Path, to: &str) -> Self {
        let to = self.at(to);
        fs::create_dir_all(to.parent().expect("it has a folder")).expect("a folder can be made");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        self
    }

    /// A link.
    ///
    /// # Panics
    /// Where it can't be made.
    #[must_use]
    pub fn link(self, to: &str, at: &str) -> Self {
        let at = self.at(at);
        fs::create_dir_all(at.parent().expect("it has a folder")).expect("a folder can be made");
        symlink(to, at).expect("a link can be made");
        self
    }

    /// A program with the libraries that it is linked to, those of `tools` first.
    ///
    /// # Panics
    /// Where it can't be found out which.
    #[must_use]
    pub fn program(mut self, from: &Path, to: &str, tools: &Path) -> Self {
        let output = Command::new("ldd")
            .arg(from)
            .env("LD_LIBRARY_PATH", joined(&libraries(tools)))
            .output()
            .expect("ldd can be run");
        // `name => path (address)`; the loader as `path (address)`.
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let line = line.trim().split(" (").next().unwrap_or_default();
            let (to, from) = match line.split_once(" => ") {
                Some((name, path)) => (
                    format!("lib/{}", name.rsplit('/').next().unwrap_or(name)),
                    path,
                ),
                None if line.starts_with('/') => (line.to_owned(), line),
                None => continue,
            };
            self = self.file(Path::new(from), &to);
        }
        self.file(from, to).with_library_path()
    }

    fn with_library_path(mut self) -> Self {
        let line = "ENV LD_LIBRARY_PATH=/lib".to_owned();
        if !self.changes.contains(&line) {
            self.changes.push(line);
        }
        self
    }
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

/// A shell that runs one command after the other, as a person would in one terminal.
pub struct Shell {
    child: Child,
}

impl Shell {
    /// What the commands print on standard output, and whether they succeeded.
    ///
    /// # Panics
    /// Where the shell is gone.
    pub fn run(&mut self, commands: &str) -> (String, bool) {
        const MARK: &str = "=== the commands ended with ";
        let stdin = self.child.stdin.as_mut().expect("its input is a pipe");
        write!(stdin, "{commands}\nprintf '%s%s\\n' '{MARK}' $?\n").expect("the shell reads");
        stdin.flush().expect("the shell reads");
        let stdout = self.child.stdout.as_mut().expect("its output is a pipe");
        let mut printed = Vec::new();
        let mut byte = [0];
        loop {
            assert_eq!(
                stdout.read(&mut byte).expect("the shell answers"),
                1,
                "the shell ended"
            );
            printed.push(byte[0]);
            let text = String::from_utf8_lossy(&printed);
            if byte[0] == b'\n'
                && let Some((before, status)) = text.split_once(MARK)
            {
                return (before.to_owned(), status.trim() == "0");
            }
        }
    }

    /// Ends the shell; everything that was printed on standard error.
    #[must_use]
    pub fn end(mut self) -> String {
        drop(self.child.stdin.take());
        let output: Option<Output> = self.child.wait_with_output().ok();
        output.map_or_else(String::new, |output| {
            String::from_utf8_lossy(&output.stderr).into_owned()
        })
    }
}
