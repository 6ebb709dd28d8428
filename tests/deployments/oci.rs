//! The image: made twice, pushed to a registry, read back as Istio's agent reads it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use testkit::artifacts::repository;
use testkit::cases::ClientRequest;
use testkit::http::{self, Response};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const SOURCE: &str = "https://git.example.com/trusted-lb";

fn build_sh(arguments: &[&str]) -> Output {
    Command::new(repository().join("build.sh"))
        .args(arguments)
        .env("TRUSTED_LB_SOURCE", SOURCE)
        .stderr(Stdio::inherit())
        .output()
        .expect("build.sh can be run")
}

/// Tests that write into dist/ do so one after the other.
static DIST: Mutex<()> = Mutex::new(());

/// What build.sh prints.
fn printed(arguments: &[&str]) -> String {
    let output = build_sh(arguments);
    assert!(output.status.success(), "./build.sh {arguments:?} failed");
    String::from_utf8(output.stdout).expect("build.sh prints text")
}

/// A program of Debian's, or nothing where it can't be had, which is said.
fn tool(name: &str) -> Option<PathBuf> {
    let output = build_sh(&["tool", name]);
    if !output.status.success() {
        eprintln!("SKIPPED: {name} can't be had here, so the image is not pushed to a registry");
        return None;
    }
    Some(
        String::from_utf8(output.stdout)
            .expect("a path")
            .trim()
            .into(),
    )
}

fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

/// The 64 hexadecimal digits in the line that ends like this.
fn digest_in<'t>(text: &'t str, line_end: &str) -> &'t str {
    let line = text
        .lines()
        .find(|line| line.ends_with(line_end))
        .expect("the line is there");
    line.trim()
        .strip_prefix("sha256: \"")
        .and_then(|rest| rest.get(..64))
        .expect("a digest")
}

/// The folder of contents in an image layout.
struct Layout(PathBuf);

impl Layout {
    fn blob(&self, digest: &Value) -> Vec<u8> {
        let name = digest
            .as_str()
            .and_then(|text| text.strip_prefix("sha256:"))
            .expect("a digest");
        let bytes = std::fs::read(self.0.join("blobs/sha256").join(name)).expect("it is there");
        assert_eq!(sha256(&bytes), name);
        bytes
    }

    fn descriptor(&self) -> Value {
        let index = json(&std::fs::read(self.0.join("index.json")).expect("it is there"));
        let manifests = index["manifests"].as_array().expect("a list").clone();
        assert_eq!(manifests.len(), 1, "one manifest, no choice of platforms");
        manifests[0].clone()
    }
}

/// As Istio's agent reads an image: the last layer, as gzipped tar, and in it the file `plugin.wasm`.
fn module_in(layer: &[u8]) -> Vec<u8> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer));
    let mut entries = archive.entries().expect("a tar");
    let mut entry = entries.next().expect("a file").expect("a file");
    assert_eq!(
        entry.path().expect("a path").as_ref(),
        Path::new("plugin.wasm")
    );
    let header = entry.header();
    let fixed =
        [header.mtime(), header.uid(), header.gid()].map(|number| number.expect("a number"));
    assert_eq!((fixed, header.mode().expect("a mode")), ([0; 3], 0o644));
    let mut module = Vec::new();
    entry.read_to_end(&mut module).expect("its contents");
    assert!(entries.next().is_none(), "nothing else");
    module
}

/// Debian's docker-registry on a loopback port.
struct Registry {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Registry {
    fn start(program: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port can be had");
        let address = free.local_addr().expect("it has an address");
        drop(free);
        let configuration = folder.path().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            folder.path().join("images").display()
        );
        std::fs::write(&configuration, text).expect("it can be written");
        let child = Command::new(program)
            .arg("serve")
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry can be run");
        let registry = Self {
            child,
            address,
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !http::try_get(address, "/v2/").is_ok_and(|response| response.status == 200) {
            assert!(Instant::now() < deadline, "the registry isn't ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    fn get(&self, path: &str) -> Response {
        let request =
            ClientRequest::get(Ipv4Addr::LOCALHOST.into(), &self.address.to_string(), path)
                .with(&[("accept", MANIFEST)]);
        let response = http::send(self.address, &request).expect("the registry answers");
        assert_eq!(response.status, 200, "{path}");
        response
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_image_is_the_same_each_time_and_a_registry_gives_istio_what_it_reads() {
    let _one_at_a_time = DIST.lock().unwrap_or_else(PoisonError::into_inner);
    let text = printed(&["oci"]);
    let manifest_digest = digest_in(&text, "# of the image's manifest").to_owned();
    let module = std::fs::read(repository().join("dist/trusted_lb.wasm")).expect("it is built");
    assert_eq!(digest_in(&text, "# of the module"), sha256(&module));

    let layout = Layout(repository().join("dist/oci"));
    let descriptor = layout.descriptor();
    assert_eq!(descriptor["digest"], format!("sha256:{manifest_digest}"));
    assert_eq!(descriptor["mediaType"], MANIFEST);
    let manifest_bytes = layout.blob(&descriptor["digest"]);
    let manifest = json(&manifest_bytes);
    let layers = manifest["layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 1);
    assert_eq!(
        layers[0]["mediaType"],
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let layer = layout.blob(&layers[0]["digest"]);
    assert!(
        module_in(&layer) == module,
        "the layer holds another module"
    );
    let annotation =
        |name: &str| manifest["annotations"][format!("org.opencontainers.image.{name}")].as_str();
    assert_eq!(annotation("title"), Some("trusted-lb"));
    assert_eq!(annotation("version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(annotation("licenses"), Some("Apache-2.0"));
    assert_eq!(annotation("source"), Some(SOURCE));
    assert!(annotation("revision").is_some_and(|revision| !revision.is_empty()));

    let (Some(_), Some(registry)) = (tool("skopeo"), tool("docker-registry")) else {
        return;
    };
    let registry = Registry::start(&registry);
    let reference = format!("{}/edge/trusted-lb", registry.address);
    let text = printed(&["oci", "--push", &reference, "--dest-tls-verify=false"]);
    assert_eq!(
        digest_in(&text, "# of the image's manifest"),
        manifest_digest,
        "made again, it differs"
    );
    let pushed = format!("pushed  oci://{reference}@sha256:{manifest_digest}");
    assert!(text.lines().any(|line| line == pushed), "{pushed}\n{text}");

    let by_tag = registry.get(&format!(
        "/v2/edge/trusted-lb/manifests/{}",
        env!("CARGO_PKG_VERSION")
    ));
    assert_eq!(by_tag.header("content-type").as_deref(), Some(MANIFEST));
    assert_eq!(
        by_tag.header("docker-content-digest"),
        Some(format!("sha256:{manifest_digest}"))
    );
    assert_eq!(by_tag.body, manifest_bytes);
    let layer_path = layers[0]["digest"].as_str().expect("a digest");
    let pulled = registry.get(&format!("/v2/edge/trusted-lb/blobs/{layer_path}"));
    assert!(
        module_in(&pulled.body) == module,
        "the registry gives another module"
    );
}

#[test]
fn the_bill_of_materials_lists_what_is_linked_into_the_module_and_nothing_else() {
    let _one_at_a_time = DIST.lock().unwrap_or_else(PoisonError::into_inner);
    printed(&["oci"]);
    let bill =
        json(&std::fs::read(repository().join("dist/trusted_lb.cdx.json")).expect("it is written"));
    let components = bill["components"].as_array().expect("a list");
    // The module's packages as ARCHITECTURE.md names them, and what these need in turn.
    let linked = [
        "allocator-api2",
        "equivalent",
        "foldhash",
        "hashbrown",
        "ipnet",
        "itoa",
        "log",
        "memchr",
        "proxy-wasm",
        "serde",
        "serde_core",
        "serde_json",
        "zmij",
    ];
    let names: BTreeSet<&str> = components
        .iter()
        .filter(|component| component["purl"].is_string())
        .filter_map(|component| component["name"].as_str())
        .collect();
    assert_eq!(names, BTreeSet::from(linked));
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).expect("it is there");
    for component in components.iter().filter(|each| each["purl"].is_string()) {
        let name = component["name"].as_str().expect("a name");
        let version = component["version"].as_str().expect("a version");
        assert_eq!(component["purl"], format!("pkg:cargo/{name}@{version}"));
        assert!(
            lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")),
            "{name} {version} is not in Cargo.lock"
        );
    }
    assert!(
        components
            .iter()
            .all(|component| component["licenses"][0]["expression"].is_string())
    );
    let module = std::fs::read(repository().join("dist/trusted_lb.wasm")).expect("it is built");
    assert_eq!(
        bill["metadata"]["component"]["hashes"][0]["content"],
        sha256(&module)
    );
}
