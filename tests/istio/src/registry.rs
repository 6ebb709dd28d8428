//! A registry, and images of the module in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use testkit::cases::ClientRequest;
use testkit::http;

use crate::process::Process;
use crate::programs::Programs;

/// The registry that the manifests name; the lab's hosts file says that it is here.
pub const HOST: &str = "registry.example.com";
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

/// A running registry. Its images stay when it ends.
pub struct Registry(Process);

impl Registry {
    /// Starts Debian's docker-registry with the images of a folder, and the certificate `registry.crt` in it.
    ///
    /// # Panics
    /// Where it doesn't get ready.
    #[must_use]
    pub fn start(programs: &Programs, folder: &Path) -> Self {
        Self::start_with(programs, folder, &json!({}), 200)
    }

    /// As [`Registry::start`], with more configuration, ready when it answers with this status.
    ///
    /// # Panics
    /// As [`Registry::start`].
    #[must_use]
    pub fn start_with(programs: &Programs, folder: &Path, more: &Value, ready: u16) -> Self {
        let mut configuration = json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.join("images")}},
            "http": {"addr": ADDRESS.to_string(), "tls": {
                "certificate": folder.join("registry.crt"), "key": folder.join("registry.key"),
            }},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            configuration[name] = value.clone();
        }
        let file = folder.join("registry.yml");
        std::fs::write(&file, configuration.to_string()).expect("it can be written");
        let mut process = Process::start(
            "registry",
            Command::new(&programs.registry).arg("serve").arg(file),
            folder,
        );
        let mut request = ClientRequest::get(ADDRESS.ip(), HOST, "/v2/");
        request.tls = true;
        process.wait_until_ready(|| match http::send(ADDRESS, &request) {
            Ok(response) if response.status == ready => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Self(process)
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        self.0.tail()
    }
}

/// An image of a module, in a folder.
#[derive(Clone, Debug)]
pub struct Image {
    layout: PathBuf,
    version: String,
    /// Of the manifest, in hex.
    pub manifest: String,
    /// Of the module, in hex.
    pub module: String,
}

impl Image {
    /// Writes the image of a module as `./build.sh oci` does.
    ///
    /// # Panics
    /// Where that fails.
    #[must_use]
    pub fn write(programs: &Programs, module: &Path, version: &str, folder: &Path) -> Self {
        let layout = folder.join(format!("layout-{version}"));
        let output = Command::new(&programs.image_writer)
            .arg(module)
            .arg(&layout)
            .args([version, "org.opencontainers.image.title=trusted-lb"])
            .output()
            .expect("it can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let digest = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(what));
            line.unwrap_or_else(|| panic!("no {what} in {text}"))
                .trim()
                .to_owned()
        };
        Self {
            layout,
            version: version.to_owned(),
            manifest: digest("manifest"),
            module: digest("module"),
        }
    }

    /// Pushes it under a tag of `trusted-lb`.
    ///
    /// # Panics
    /// Where skopeo fails.
    pub fn push(&self, programs: &Programs, tag: &str, options: &[&str]) {
        let output = Command::new(&programs.skopeo)
            .args([
                "--insecure-policy",
                "copy",
                "--preserve-digests",
                "--dest-tls-verify=false",
            ])
            .args(options)
            .arg(format!("oci:{}:{}", self.layout.display(), self.version))
            .arg(format!("docker://{HOST}/trusted-lb:{tag}"))
            .output()
            .expect("skopeo can be run");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Writes a certificate that signs itself, as `NAME.crt` and `NAME.key`.
///
/// # Panics
/// Where it can't be written.
pub fn write_certificate(folder: &Path, name: &str, host: &str) {
    let certified =
        rcgen::generate_simple_self_signed(vec![host.to_owned()]).expect("it can be made");
    let write = |ending: &str, text: String| {
        std::fs::write(folder.join(format!("{name}.{ending}")), text).expect("it can be written");
    };
    write("crt", certified.cert.pem());
    write("key", certified.signing_key.serialize_pem());
}

/// The module with one more custom section: another file that does the same.
///
/// # Panics
/// Where it can't be read or written.
#[must_use]
pub fn another_version(module: &Path, folder: &Path, name: &str) -> PathBuf {
    let mut bytes = std::fs::read(module).expect("the module can be read");
    let length = u8::try_from(name.len()).expect("a short name");
    // Section 0, its size, then the name with its own length.
    bytes.extend([0, length + 1, length]);
    bytes.extend(name.as_bytes());
    let path = folder.join(format!("{name}.wasm"));
    std::fs::write(&path, bytes).expect("it can be written");
    path
}
