//! The command as a static program and as an image, for pipelines.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use testkit::artifacts::repository;

use crate::skipped;

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("it is JSON")
}

fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let name = digest.strip_prefix("sha256:").expect("of SHA-256");
    layout.join("blobs/sha256").join(name)
}

/// The names of what a program is loaded with: a static one has none.
fn interpreters(program: &[u8]) -> usize {
    assert_eq!(
        program.get(..5),
        Some(&b"\x7fELF\x02"[..]),
        "a program of 64 bits"
    );
    let number = |at: usize, bytes: usize| {
        (0..bytes).rev().fold(0_usize, |all, byte| {
            all << 8 | usize::from(program[at + byte])
        })
    };
    let (headers, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count)
        .filter(|header| number(headers + header * size, 4) == 3)
        .count()
}

#[test]
fn the_commands_image_is_one_static_program_that_checks_a_folder_as_the_example_has_it() {
    if !cfg!(target_os = "linux") {
        return skipped("the command's image", "it is built on Linux");
    }
    let built = Command::new(repository().join("build.sh"))
        .args(["cli", "--image"])
        .output()
        .expect("build.sh can be run");
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let layout = repository().join("dist/oci-command");
    let index = json(&layout.join("index.json"));
    let manifest = json(&blob(&layout, &index["manifests"][0]));
    let config = json(&blob(&layout, &manifest["config"]));
    assert_eq!(config["os"], "linux");
    assert_eq!(
        config["config"]["Entrypoint"],
        serde_json::json!(["/trusted-lb"])
    );
    assert_ne!(config["config"]["User"], Value::Null, "not root");
    let layers = manifest["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 1);

    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let layer = std::fs::File::open(blob(&layout, &layers[0])).expect("it is there");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer));
    let mut entries = archive.entries().expect("a tar");
    let mut entry = entries.next().expect("a file").expect("a file");
    assert_eq!(
        entry.path().expect("a path").as_ref(),
        Path::new("trusted-lb")
    );
    assert_eq!(entry.header().mode().expect("a mode"), 0o755);
    let mut program = Vec::new();
    entry.read_to_end(&mut program).expect("its contents");
    drop(entry);
    assert!(entries.next().is_none(), "nothing else");
    assert_eq!(
        interpreters(&program),
        0,
        "it needs a library of the system"
    );

    let command = folder.path().join("trusted-lb");
    std::fs::write(&command, &program).expect("it can be written");
    std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    // As the example's step runs it.
    let task: Value = serde_saphyr::from_str(
        &std::fs::read_to_string(repository().join("examples/ci/tekton-task.yaml"))
            .expect("the example is there"),
    )
    .expect("it is YAML");
    let arguments: Vec<&str> = task["spec"]["steps"][0]["args"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let deploy = folder.path().join("deploy");
    std::fs::create_dir(&deploy).expect("a folder can be made");
    let run = || -> Output {
        Command::new(&command)
            .args(&arguments)
            .env_clear()
            .current_dir(folder.path())
            .output()
            .expect("the program runs without anything of this machine")
    };
    let plugin = |pattern: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {{name: trusted-lb, namespace: istio-system}}\n\
             spec:\n  selector: {{matchLabels: {{istio: ingressgateway}}}}\n  url: oci://registry.example.com/trusted-lb:0.1.0\n  \
             phase: AUTHN\n  failStrategy: FAIL_CLOSE\n  pluginConfig: {{{pattern}: {{timeout: 15s}}}}\n"
        )
    };
    std::fs::write(deploy.join("plugin.yaml"), plugin("defaults")).expect("it can be written");
    let right = run();
    assert_eq!(right.status.code(), Some(0), "{right:?}");
    std::fs::write(deploy.join("plugin.yaml"), plugin("default")).expect("it can be written");
    let wrong = run();
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    assert!(
        String::from_utf8_lossy(&wrong.stdout).contains("deploy/plugin.yaml:9"),
        "{wrong:?}"
    );
}
