//! Where the built module and Envoy are, made first where needed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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

fn build_sh(arguments: &[&str]) -> String {
    let output = Command::new(repository().join("build.sh"))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .expect("build.sh can be run");
    assert!(
        output.status.success(),
        "./build.sh {} failed; run it by hand to see why",
        arguments.join(" ")
    );
    String::from_utf8(output.stdout).expect("build.sh prints text")
}
