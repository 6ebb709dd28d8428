//! What stands around a configuration in Istio's resources: fields that don't exist, words that mean nothing, and plugins
//! that are never loaded or stand in the wrong place.

mod place;
mod schema;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::cli::files::Located;
use crate::cli::report::Diagnostic;
use crate::cli::setup::{Resource, Setup};

/// Findings about the resources that hold plugins of ours. A file that is a patch has only a part of its resource.
pub(super) fn findings(setup: &Setup<'_>, patches: &[PathBuf]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut schemas: HashMap<&str, Option<Located>> = HashMap::new();
    let patches: HashSet<&Path> = patches.iter().map(PathBuf::as_path).collect();
    let is_whole = |resource: &&Resource| {
        resource.is_ours && !patches.contains(Path::new(&resource.source.name))
    };
    for resource in setup.resources.iter().filter(is_whole) {
        let schema = schemas
            .entry(&resource.kind)
            .or_insert_with(|| schema::of(&resource.kind));
        if let Some(schema) = schema {
            schema::check(&resource.source, &resource.document, schema, &mut found);
        }
        place::check(resource, setup, &mut found);
    }
    found
}
