//! Writes the module as an OCI image layout: one manifest with one layer, a gzipped tar that holds `plugin.wasm`. With
//! `--command` it is an image of the command, to be run by any container runtime.
//!
//! Istio's agent reads images of that form. The same module and annotations give the same bytes on any machine: no time,
//! no owner, and a compressor that Cargo.lock pins. Prints the two digests that a `WasmPlugin` may have to name.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use flate2::{Compression, GzBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const USAGE: &str =
    "usage: oci-image [--command ARCHITECTURE] FILE LAYOUT TAG [NAME=VALUE]...   (annotations)";

/// What is in the image.
enum Contents {
    /// The module, under the name that Istio looks for.
    Module,
    /// A static program for this architecture, as Go names it.
    Command(String),
}

impl Contents {
    fn file(&self) -> &'static str {
        match self {
            Contents::Module => "plugin.wasm",
            Contents::Command(_) => "trusted-lb",
        }
    }

    fn mode(&self) -> u32 {
        match self {
            Contents::Module => 0o644,
            Contents::Command(_) => 0o755,
        }
    }

    /// The image's configuration.
    fn config(&self, diff_id: &str) -> Value {
        let rootfs = json!({"type": "layers", "diff_ids": [diff_id]});
        match self {
            Contents::Module => {
                json!({"architecture": "wasm", "os": "wasip1", "config": {}, "rootfs": rootfs})
            }
            Contents::Command(architecture) => json!({
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": ["/trusted-lb"], "User": "65532:65532", "WorkingDir": "/"},
                "rootfs": rootfs,
            }),
        }
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// In gzip's header: an operating system that is not told.
const NO_SYSTEM: u8 = 255;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (contents, arguments) = match arguments.as_slice() {
        [option, architecture, rest @ ..] if option == "--command" => {
            (Contents::Command(architecture.clone()), rest)
        }
        all => (Contents::Module, all),
    };
    let [file, layout, tag, annotations @ ..] = arguments else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut named = Map::new();
    for annotation in annotations {
        let Some((name, value)) = annotation.split_once('=') else {
            eprintln!("error: the annotation {annotation} has no value\n{USAGE}");
            return ExitCode::from(2);
        };
        named.insert(name.to_owned(), value.into());
    }
    match write(&contents, Path::new(file), Path::new(layout), tag, &named) {
        Ok(written) => {
            let what = match contents {
                Contents::Module => "module",
                Contents::Command(_) => "command",
            };
            println!("manifest {}\n{what} {}", written.manifest, written.file);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The digests of what was written, in hexadecimal.
struct Written {
    manifest: String,
    file: String,
}

fn write(
    contents: &Contents,
    file: &Path,
    layout: &Path,
    tag: &str,
    annotations: &Map<String, Value>,
) -> io::Result<Written> {
    let at = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", path.display()))
    };
    let bytes = fs::read(file).map_err(|error| at(file, error))?;
    if layout.exists() {
        fs::remove_dir_all(layout).map_err(|error| at(layout, error))?;
    }
    let blobs = Blobs(layout.join("blobs/sha256").into_boxed_path());
    fs::create_dir_all(&blobs.0).map_err(|error| at(layout, error))?;

    let tar = archive(contents, &bytes)?;
    let layer = blobs.add(LAYER, &compressed(&tar)?)?;
    let config = blobs.add(
        CONFIG,
        &text(&contents.config(&format!("sha256:{}", sha256(&tar)))),
    )?;
    let manifest = blobs.add(
        MANIFEST,
        &text(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": annotations,
        })),
    )?;
    let mut tagged = manifest.descriptor();
    tagged.insert(
        "annotations".to_owned(),
        json!({"org.opencontainers.image.ref.name": tag}),
    );
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [tagged]});
    fs::write(layout.join("index.json"), text(&index))?;
    fs::write(
        layout.join("oci-layout"),
        text(&json!({"imageLayoutVersion": "1.0.0"})),
    )?;
    Ok(Written {
        manifest: manifest.sha256,
        file: sha256(&bytes),
    })
}

/// A folder of contents, each under its own digest.
struct Blobs(Box<Path>);

impl Blobs {
    fn add(&self, media_type: &'static str, contents: &[u8]) -> io::Result<Blob> {
        let sha256 = sha256(contents);
        fs::write(self.0.join(&sha256), contents)?;
        Ok(Blob {
            media_type,
            sha256,
            size: contents.len(),
        })
    }
}

/// Contents that others refer to.
struct Blob {
    media_type: &'static str,
    sha256: String,
    size: usize,
}

impl Blob {
    fn descriptor(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        fields.insert("mediaType".to_owned(), self.media_type.into());
        fields.insert(
            "digest".to_owned(),
            format!("sha256:{}", self.sha256).into(),
        );
        fields.insert("size".to_owned(), self.size.into());
        fields
    }
}

/// A tar of one file, readable by everybody.
fn archive(contents: &Contents, file: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_ustar();
    header.set_size(file.len() as u64);
    header.set_mode(contents.mode());
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, contents.file(), file)?;
    archive.into_inner()
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = GzBuilder::new()
        .mtime(0)
        .operating_system(NO_SYSTEM)
        .write(Vec::new(), Compression::best());
    writer.write_all(bytes)?;
    writer.finish()
}

/// In hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}"); // Nothing can go wrong with a String.
    }
    text
}

fn text(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}
