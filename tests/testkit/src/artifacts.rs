//! Where the built module and Envoy are, made first where needed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("tests/testkit lies two folders deep")
        .to_owned()
}

/// The built module: `TRUSTED_LB_MODULE`, or what `./build.sh build` makes.
pub fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        if let Some(path) = std::env::var_os("TRUSTED_LB_MODULE") {
            return path.into();
        }
        build_sh(&["build", "--quiet"]);
        repository().join("dist/trusted_lb.wasm")
    })
}

/// An Envoy binary: `TRUSTED_LB_ENVOY`, or what `./build.sh envoy` fetches.
pub fn envoy() -> &'static Path {
    static ENVOY: OnceLock<PathBuf> = OnceLock::new();
    ENVOY.get_or_init(|| match std::env::var_os("TRUSTED_LB_ENVOY") {
        Some(path) => path.into(),
        None => build_sh(&["envoy"]).trim().into(),
    })
}

/// A program of Debian's, as `./build.sh tool NAME` unpacks it.
///
/// # Errors
/// Why this machine can't have it.
pub fn tool(name: &str) -> Result<Tool, String> {
    let output = run_build_sh(&["tool", name], Stdio::piped());
    if output.status.success() {
        let program = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        let root = program.with_file_name("root");
        Ok(Tool { program, root })
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

/// A search path on which there is a `curl`: this machine's own, or Debian's by a script in a folder.
///
/// # Errors
/// Why there is none.
///
/// # Panics
/// Where the link can't be made.
pub fn path_with_curl(folder: &Path) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let curl = Command::new("curl").arg("--version").output();
    if curl.is_ok_and(|output| output.status.success()) {
        return Ok(path);
    }
    let script = folder.join("curl");
    if !script.exists() {
        // No link: the program looks beside itself for what was unpacked with it.
        let text = format!(
            "#!/bin/sh\nexec '{}' \"$@\"\n",
            tool("curl")?.program.display()
        );
        std::fs::write(&script, text).expect("a file can be written");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
            .expect("it can be marked");
    }
    Ok(format!("{}:{path}", folder.display()))
}

/// A program that was unpacked and not installed.
#[derive(Clone, Debug)]
pub struct Tool {
    /// Runs it.
    pub program: PathBuf,
    /// Everything that was unpacked with it, as in a root file system.
    pub root: PathBuf,
}

fn run_build_sh(arguments: &[&str], errors: Stdio) -> Output {
    Command::new(repository().join("build.sh"))
        .args(arguments)
        .stderr(errors)
        .output()
        .expect("build.sh can be run")
}

fn build_sh(arguments: &[&str]) -> String {
    let output = run_build_sh(arguments, Stdio::inherit());
    assert!(
        output.status.success(),
        "./build.sh {} failed; run it by hand to see why",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).expect("build.sh prints text")
}
