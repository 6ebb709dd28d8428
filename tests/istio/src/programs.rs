//! Where the programs are; `scripts/istio.sh` makes them and says it by environment variables.

use std::path::PathBuf;

/// The programs that a lab is made of.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    /// `etcd`.
    pub etcd: PathBuf,
    /// Debian's `docker-registry`.
    pub registry: PathBuf,
    /// `skopeo`, which pushes images.
    pub skopeo: PathBuf,
    /// The project's own writer of OCI layouts.
    pub image_writer: PathBuf,
    /// The built module.
    pub module: PathBuf,
    /// The `trusted-lb` command.
    pub command: PathBuf,
    /// An Envoy binary.
    pub envoy: PathBuf,
}

impl Programs {
    /// Reads the variables.
    ///
    /// # Panics
    /// Where one is missing: the program was not started by build.sh.
    #[must_use]
    pub fn from_environment() -> Self {
        let path = |name: &str| -> PathBuf {
            std::env::var_os(name)
                .unwrap_or_else(|| panic!("{name} is not set; ./build.sh test --istio sets it"))
                .into()
        };
        Self {
            folder: path("TRUSTED_LB_LAB"),
            etcd: std::env::var_os("TRUSTED_LB_ETCD")
                .unwrap_or_default()
                .into(),
            registry: path("TRUSTED_LB_REGISTRY"),
            skopeo: path("TRUSTED_LB_SKOPEO"),
            image_writer: path("TRUSTED_LB_IMAGE_WRITER"),
            module: path("TRUSTED_LB_MODULE"),
            command: path("TRUSTED_LB_COMMAND"),
            envoy: path("TRUSTED_LB_ENVOY"),
        }
    }

    /// A program that was built from Go modules.
    #[must_use]
    pub fn built(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// A file that came with Istio's sources.
    #[must_use]
    pub fn share(&self, name: &str) -> PathBuf {
        self.folder.join("share").join(name)
    }
}
