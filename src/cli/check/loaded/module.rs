//! Which module a filter runs, and which one is meant.

use sha2::{Digest, Sha256};

use crate::cli::files::Located;

/// Where a module is meant to come from.
pub(super) struct Module<'r> {
    pub(super) url: &'r str,
    /// `sha256`, where somebody has written it.
    pub(super) sha256: Option<&'r str>,
}

impl Module<'_> {
    /// What is different in the module that runs, by `code` of an `envoy.extensions.wasm.v3.VmConfig`. None also if
    /// that can't be told: of an image by its tag nobody knows the digest.
    pub(super) fn other(&self, code: &Located) -> Option<String> {
        let file = code
            .proto_at(&["local", "filename"])
            .and_then(Located::text);
        if let Some(file) = file {
            return match file_of_agent(file) {
                Some((name, digest)) => self.other_of_agent(name, digest),
                None => self
                    .path()
                    .filter(|meant| *meant != file)
                    .map(|meant| format!("{file} instead of {meant}")),
            };
        }
        let uri = code
            .proto_at(&["remote", "http_uri", "uri"])
            .and_then(Located::text)?;
        let sha256 = code.proto_at(&["remote", "sha256"]).and_then(Located::text);
        if let (Some(meant), Some(loaded)) = (self.digest(), sha256.filter(|it| !it.is_empty()))
            && !meant.eq_ignore_ascii_case(loaded)
        {
            return Some(format!("its sha256 is {loaded} instead of {meant}"));
        }
        (uri != self.url && uri != format!("oci://{}", self.url))
            .then(|| format!("{uri} instead of {}", self.url))
    }

    /// The agent keeps a module as `SHA-256 of its name/digest.wasm`: the digest of the image's manifest, or of the
    /// module that came by HTTP (Istio's pkg/wasm/cache.go).
    fn other_of_agent(&self, name: &str, digest: &str) -> Option<String> {
        if let Some(meant) = self.digest()
            && !meant.eq_ignore_ascii_case(digest)
        {
            return Some(format!("its digest is {digest} instead of {meant}"));
        }
        let meant = self.name()?;
        (hexadecimal(&Sha256::digest(meant.as_bytes())) != name)
            .then(|| format!("it doesn't come from {meant}"))
    }

    fn digest(&self) -> Option<&str> {
        let in_url = self.url.split_once("@sha256:").map(|(_, digest)| digest);
        self.sha256.or(in_url).filter(|digest| !digest.is_empty())
    }

    /// The file that is meant.
    fn path(&self) -> Option<&str> {
        self.url
            .strip_prefix("file://")
            .or_else(|| self.url.starts_with('/').then_some(self.url))
    }

    /// What the agent calls the module: the URL, of an image without tag and digest. None for images whose name has no
    /// registry, which the agent writes out.
    fn name(&self) -> Option<String> {
        if self.url.starts_with("http://") || self.url.starts_with("https://") {
            return Some(self.url.to_owned());
        }
        let image = self.url.strip_prefix("oci://").unwrap_or(self.url);
        let image = image.split('@').next().unwrap_or(image);
        let (host, path) = image.split_once('/')?;
        let is_host = host.contains(['.', ':']) || host == "localhost";
        if !is_host || host.ends_with("docker.io") {
            return None;
        }
        let path = path.split(':').next().unwrap_or(path);
        Some(format!("oci://{host}/{path}"))
    }
}

/// The two parts of a file in the agent's cache.
fn file_of_agent(file: &str) -> Option<(&str, &str)> {
    let mut parts = file.rsplit('/');
    let digest = parts.next()?.strip_suffix(".wasm")?;
    let name = parts.next()?;
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hash(name) && is_hash(digest)).then_some((name, digest))
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
