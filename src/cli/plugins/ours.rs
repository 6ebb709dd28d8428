//! Whose plugin it is.

use crate::cli::files::Located;
use crate::config;

/// Fields of ours that other plugins may have too.
const OURS_AND_OTHERS: &[&str] = &["untrusted", "defaults", "routes", "mode"];

/// Fields that other plugins may have under a name that is nearly the same.
const MISTAKABLE: &[&str] = &["peerAddress", "forwardedPort"];

/// Fields that no other plugin has.
fn ours_alone() -> impl Iterator<Item = &'static str> {
    let fields = config::top_fields().into_iter();
    fields.filter(|field| !OURS_AND_OTHERS.contains(field))
}

fn is_ours_alone(field: &str) -> bool {
    ours_alone().any(|known| known == field)
}

/// What a file says about a plugin.
#[derive(Default)]
pub(super) struct Evidence<'l> {
    /// Names that somebody gave it: of the resource, the filter, the root context.
    pub(super) names: Vec<&'l str>,
    /// Where its module comes from: URLs and files.
    pub(super) modules: Vec<&'l str>,
}

impl<'l> Evidence<'l> {
    pub(super) fn name(&mut self, located: Option<&'l Located>) {
        self.names.extend(located.and_then(Located::text));
    }

    pub(super) fn module(&mut self, located: Option<&'l Located>) {
        self.modules.extend(located.and_then(Located::text));
    }

    /// Whether the plugin is this filter. Its own name or module says so, or a configuration with fields that only
    /// this filter has, also if they are misspelled. A name with ours in it, such as `waf-beside-trusted-lb`, counts
    /// only if the configuration agrees.
    pub(super) fn is_ours(&self, configuration: Option<&Located>) -> bool {
        let modules = self.modules.iter().map(|module| last_segment(module));
        let known = modules
            .chain(self.names.iter().map(|name| last_name(name)))
            .map(likeness)
            .max()
            .unwrap_or(Likeness::None);
        known == Likeness::Same
            || configuration.is_some_and(|configuration| {
                has_own_fields(configuration)
                    || known == Likeness::Similar && has_fields(configuration)
                    || is_accepted(configuration)
            })
    }
}

/// Whether a configuration has a field that only ours have.
pub(super) fn has_own_fields(configuration: &Located) -> bool {
    let is_misspelled = |name: &str| {
        let mut unmistakable = ours_alone().filter(|name| !MISTAKABLE.contains(name));
        config::closest(name, &mut unmistakable).is_some()
    };
    configuration
        .fields()
        .any(|field| is_ours_alone(&field.name))
        || configuration
            .fields()
            .take(MOST_COMPARED)
            .any(|field| is_misspelled(&field.name))
}

/// Fields of one object that are compared with ours, letter by letter. More than a configuration of ours has.
const MOST_COMPARED: usize = 1_000;

/// Whether a configuration has any field of ours.
pub(super) fn has_fields(configuration: &Located) -> bool {
    has_own_fields(configuration)
        || configuration
            .fields()
            .any(|field| OURS_AND_OTHERS.contains(&field.name.as_str()))
}

/// Whether a configuration says something that only makes sense here.
fn is_accepted(configuration: &Located) -> bool {
    let says = |name: &str| configuration.get(name).is_some();
    (says("defaults") || says("routes") || says("untrusted"))
        && config::load_document(&configuration.node())
            .errors()
            .next()
            .is_none()
}

/// Whether a text that can't be read names a field that only ours have.
pub(super) fn text_names_fields(text: &str) -> bool {
    ours_alone().any(|field| text.contains(field))
}

/// Whether any text below names this filter or a field that only it has.
pub(super) fn is_mentioned(located: &Located) -> bool {
    located.text().is_some_and(|text| {
        text_names_fields(text)
            || text
                .split(|c: char| !c.is_ascii_alphanumeric() && !"-_".contains(c))
                .any(|word| likeness(word) == Likeness::Same)
    }) || located
        .fields()
        .any(|field| is_ours_alone(&field.name) || is_mentioned(&field.value))
        || located.items().iter().any(is_mentioned)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    None,
    Similar,
    Same,
}

/// How much a name is `trusted-lb`, beside words that say what kind of thing it is and versions.
fn likeness(name: &str) -> Likeness {
    const KIND: &[&str] = &[
        "wasm",
        "filter",
        "plugin",
        "module",
        "envoy",
        "istio",
        "proxy",
        "extension",
        "config",
        "configuration",
        "place",
        "http",
        "gateway",
    ];
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let at = words
        .windows(2)
        .position(|pair| pair == ["trusted", "lb"])
        .map(|at| (at, 2))
        .or_else(|| {
            words
                .iter()
                .position(|word| *word == "trustedlb")
                .map(|at| (at, 1))
        });
    let Some((at, length)) = at else {
        return Likeness::None;
    };
    let version = |word: &str| {
        word.strip_prefix('v')
            .unwrap_or(word)
            .starts_with(|c: char| c.is_ascii_digit())
    };
    let others = words
        .iter()
        .enumerate()
        .filter(|(index, _)| !(at..at + length).contains(index));
    let same = others
        .into_iter()
        .all(|(_, word)| KIND.contains(word) || version(word));
    if same {
        Likeness::Same
    } else {
        Likeness::Similar
    }
}

/// The repository or file of a URL, without tag, digest and ending.
fn last_segment(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or(url);
    let url = url.split('@').next().unwrap_or(url);
    let last = url.rsplit('/').find(|part| !part.is_empty()).unwrap_or(url);
    let last = last.split(':').next().unwrap_or(last);
    last.strip_suffix(".wasm").unwrap_or(last)
}

/// The plugin's own part of a name that Istio has put its namespace in front of.
fn last_name(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_ours_is_known_by_its_last_name_alone() {
        for url in [
            "oci://registry.example.com/trusted-lb:0.1.0",
            "registry.example.com:5000/infra/trusted_lb@sha256:00",
            "https://files.example.com/trusted_lb-0.1.0.wasm?x=y",
            "/etc/trusted-lb/trusted_lb.wasm",
            "oci://registry.example.com/envoy-trusted-lb-wasm:v2",
        ] {
            assert!(likeness(last_segment(url)) == Likeness::Same, "{url}");
        }
        for url in [
            "oci://registry.example.com/trusted-lb-stack/waf:0.4.0",
            "/etc/trusted-lb/guard.wasm",
            "oci://registry.example.com/waf@sha256:00",
        ] {
            assert!(likeness(last_segment(url)) == Likeness::None, "{url}");
        }
        assert!(likeness("waf-beside-trusted-lb") == Likeness::Similar);
        assert!(likeness(last_name("istio-ingress.trusted-lb")) == Likeness::Same);
    }
}
