//! Manifests as Istio's own types and those of Kubernetes and Flux, made from its resource definitions. A key that they don't have is an error: a cluster
//! would drop it in silence.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service};
use kcr_extensions_istio_io::v1alpha1::wasmplugins::WasmPlugin;
use kcr_image_toolkit_fluxcd_io::v1::imagepolicies::ImagePolicy;
use kcr_image_toolkit_fluxcd_io::v1::imagerepositories::ImageRepository;
use kcr_image_toolkit_fluxcd_io::v1::imageupdateautomations::ImageUpdateAutomation;
use kcr_kustomize_toolkit_fluxcd_io::v1::kustomizations::Kustomization;
use kcr_networking_istio_io::v1::gateways::Gateway;
use kcr_networking_istio_io::v1::virtualservices::VirtualService;
use kcr_networking_istio_io::v1alpha3::envoyfilters::EnvoyFilter;
use kcr_source_toolkit_fluxcd_io::v1::gitrepositories::GitRepository;
use kcr_source_toolkit_fluxcd_io::v1::ocirepositories::OciRepository;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A resource that Istio reads.
#[derive(Debug)]
pub enum Resource {
    /// Loads a plugin. A TrafficExtension is read as one.
    WasmPlugin(Box<WasmPlugin>),
    /// Changes what Istio hands to Envoy.
    EnvoyFilter(Box<EnvoyFilter>),
    /// Routes; read for its mistakes only.
    VirtualService,
    /// Listens; read for its mistakes only.
    Gateway,
    /// Somebody else's.
    Other(String),
}

/// The resources of a YAML text.
///
/// # Errors
/// Where the text is no YAML, a field has a value that its type doesn't have, or there is no such field.
pub fn read(text: &str) -> Result<Vec<Resource>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    documents.into_iter().map(resource).collect()
}

fn resource(document: Value) -> Result<Resource, String> {
    let field = |name: &str| document[name].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (field("apiVersion"), field("kind"));
    Ok(match (version.as_str(), kind.as_str()) {
        ("extensions.istio.io/v1alpha1", "WasmPlugin") => {
            Resource::WasmPlugin(Box::new(typed(document)?))
        }
        ("extensions.istio.io/v1alpha1", "TrafficExtension") => {
            Resource::WasmPlugin(Box::new(typed(as_wasm_plugin(document)?)?))
        }
        ("networking.istio.io/v1alpha3", "EnvoyFilter") => {
            Resource::EnvoyFilter(Box::new(typed(document)?))
        }
        ("networking.istio.io/v1", "VirtualService") => {
            typed::<VirtualService>(document)?;
            Resource::VirtualService
        }
        ("networking.istio.io/v1", "Gateway") => {
            typed::<Gateway>(document)?;
            Resource::Gateway
        }
        ("image.toolkit.fluxcd.io/v1", "ImagePolicy") => others::<ImagePolicy>(document)?,
        ("image.toolkit.fluxcd.io/v1", "ImageRepository") => others::<ImageRepository>(document)?,
        ("image.toolkit.fluxcd.io/v1", "ImageUpdateAutomation") => {
            others::<ImageUpdateAutomation>(document)?
        }
        ("kustomize.toolkit.fluxcd.io/v1", "Kustomization") => others::<Kustomization>(document)?,
        ("source.toolkit.fluxcd.io/v1", "GitRepository") => others::<GitRepository>(document)?,
        ("source.toolkit.fluxcd.io/v1", "OCIRepository") => others::<OciRepository>(document)?,
        ("apps/v1", "Deployment") => of_kubernetes::<Deployment>(document)?,
        ("batch/v1", "Job") => of_kubernetes::<Job>(document)?,
        ("v1", "ConfigMap") => of_kubernetes::<ConfigMap>(document)?,
        ("v1", "Namespace") => of_kubernetes::<Namespace>(document)?,
        ("v1", "Service") => of_kubernetes::<Service>(document)?,
        (version, kind) if version.contains("istio.io/") || version.contains("fluxcd.io/") => {
            return Err(format!(
                "{version} has no {kind}, or none that is known here"
            ));
        }
        (_, kind) => Resource::Other(kind.to_owned()),
    })
}

/// A TrafficExtension as the WasmPlugin that says the same, for which there is a type: the fields of `wasm` stand beside the
/// others there.
fn as_wasm_plugin(mut document: Value) -> Result<Value, String> {
    let spec = document["spec"].as_object_mut().ok_or("there is no spec")?;
    let Some(Value::Object(wasm)) = spec.remove("wasm") else {
        return Err("there is no spec.wasm".to_owned());
    };
    for (name, value) in wasm {
        if spec.insert(name.clone(), value).is_some() {
            return Err(format!("there is no spec.{name}"));
        }
    }
    Ok(document)
}

/// Read for its mistakes only.
fn others<T: DeserializeOwned>(document: Value) -> Result<Resource, String> {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    typed::<T>(document).map(|_| Resource::Other(kind))
}

/// As [`others`]; these types want their version and kind.
fn of_kubernetes<T: DeserializeOwned>(document: Value) -> Result<Resource, String> {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    strict::<T>(document).map(|_| Resource::Other(kind))
}

fn typed<T: DeserializeOwned>(mut document: Value) -> Result<T, String> {
    // Read already, and not among the types' fields.
    for read in ["apiVersion", "kind"] {
        document
            .as_object_mut()
            .and_then(|fields| fields.remove(read));
    }
    strict(document)
}

fn strict<T: DeserializeOwned>(document: Value) -> Result<T, String> {
    let mut unknown = Vec::new();
    let resource: T = serde_ignored::deserialize(document, |path| unknown.push(path.to_string()))
        .map_err(|error| error.to_string())?;
    if unknown.is_empty() {
        Ok(resource)
    } else {
        Err(format!("there is no {}", unknown.join(", no ")))
    }
}
