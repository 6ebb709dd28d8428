//! The listeners that are compared: without a filter, with Lua, with Envoy's own filters, with the module.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use testkit::artifacts;
use testkit::gateway::{Listener, merge, plugin, plugin_of, typed};
use testkit::workloads::{self, LOAD_BALANCER};
use trusted_lb::cli::native_listener;
use trusted_lb::config;

use crate::floor;
use crate::options::Options;

/// The listener without a filter.
pub(crate) const BASELINE: &str = "no-filter";
/// The same with a route table of a size that platforms have.
pub(crate) const BASELINE_HOSTS: &str = "no-filter-500-hosts";

/// One listener, and who sends to it.
#[derive(Clone)]
pub(crate) struct Variant {
    pub(crate) name: String,
    /// The variant without a filter that it is compared with.
    pub(crate) baseline: &'static str,
    pub(crate) peer: &'static str,
    pub(crate) listener: Listener,
}

impl Variant {
    pub(crate) fn is_baseline(&self) -> bool {
        self.name == self.baseline
    }

    fn new(name: &str, set_up: impl FnOnce(Listener) -> Listener) -> Self {
        let listener = Listener::new(name)
            .unobserved()
            .virtual_hosts(virtual_hosts(1));
        Self {
            name: name.to_owned(),
            baseline: BASELINE,
            peer: LOAD_BALANCER,
            listener: set_up(listener),
        }
    }

    fn with_500_hosts(mut self) -> Self {
        self.name = if self.is_baseline() {
            BASELINE_HOSTS.to_owned()
        } else {
            format!("{}-500-hosts", self.name)
        };
        self.baseline = BASELINE_HOSTS;
        self.listener = self
            .listener
            .named(&self.name)
            .virtual_hosts(virtual_hosts(500));
        self
    }
}

/// What the options ask for, each with what it is compared with; `of_budgets` if they ask for the budgets. Modules that are
/// made are put into the folder.
pub(crate) fn chosen<'b>(
    options: &Options,
    of_budgets: impl Iterator<Item = &'b str>,
    folder: &Path,
) -> Vec<Variant> {
    let mut variants = all(folder);
    for (name, file) in &options.modules {
        let plugin = plugin_of(file, &workloads::full_job("source"), &BTreeMap::new());
        variants.push(Variant::new(name, |listener| listener.filter(plugin)));
    }
    let mut only = options.only.clone();
    for name in &only {
        assert!(
            variants.iter().any(|variant| variant.name == *name),
            "there is no variant {name}"
        );
    }
    if options.budgets {
        only.extend(of_budgets.map(ToOwned::to_owned));
    } else if options.instructions && only.is_empty() {
        // The number of virtual hosts is a matter of caches, which instructions don't show.
        variants.retain(|variant| variant.baseline == BASELINE);
    }
    if !only.is_empty() {
        only.extend(options.modules.iter().map(|(name, _)| name.clone()));
        let needed: Vec<&str> = variants
            .iter()
            .filter(|variant| only.contains(&variant.name))
            .map(|variant| variant.baseline)
            .collect();
        variants.retain(|variant| {
            only.contains(&variant.name)
                || (variant.is_baseline() && needed.contains(&variant.baseline))
        });
    }
    variants
}

fn all(folder: &Path) -> Vec<Variant> {
    let full_job_lua = lua(include_str!("full-job.lua"));
    let one_liner_lua = lua(include_str!("one-liner.lua"));
    let mut variants = vec![
        Variant::new(BASELINE, |listener| listener),
        Variant::new("lua-one-liner", |listener| listener.filter(one_liner_lua)),
        Variant::new("lua-full-job", |listener| listener.filter(full_job_lua)),
        Variant::new("header-mutation", |listener| {
            listener.filter(header_mutation())
        }),
    ];
    variants.extend(native());
    variants.extend(rendered());
    let nothing = json!({"untrusted": {"forwardedProto": "keep"}});
    let unconfigured = plugin(&nothing, &BTreeMap::<String, String>::new());
    variants.push(Variant::new("module-unconfigured", |listener| {
        listener.filter(unconfigured)
    }));
    for workload in workloads::all() {
        let plugin = plugin(&workload.config, &BTreeMap::<String, String>::new());
        let mut variant = Variant::new(&module_name(workload.name), |listener| {
            listener.filter(plugin)
        });
        variant.peer = workload.peer;
        variants.push(variant);
    }
    for (name, calls) in floor::FLOORS {
        let file = floor::write(folder, name, calls);
        let plugin = plugin_of(&file, &workloads::full_job("source"), &BTreeMap::new());
        variants.push(Variant::new(name, |listener| listener.filter(plugin)));
    }
    let large: Vec<Variant> = variants
        .iter()
        .filter(|variant| {
            [
                BASELINE,
                "lua-one-liner",
                "lua-full-job",
                "module-xfp",
                "module-full",
            ]
            .contains(&variant.name.as_str())
        })
        .cloned()
        .map(Variant::with_500_hosts)
        .collect();
    variants.extend(large);
    variants
}

/// `xfp only, auto` is `module-xfp-auto`.
fn module_name(workload: &str) -> String {
    let words = workload.replace(" only", "").replace(" job", "");
    let mut name = "module".to_owned();
    for word in words.split(|c: char| !c.is_ascii_alphanumeric()) {
        if !word.is_empty() {
            name.push('-');
            name.push_str(&word.to_ascii_lowercase());
        }
    }
    name
}

/// Virtual hosts that answer by themselves; the request's is the last.
fn virtual_hosts(count: usize) -> Value {
    let answer = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok"}}}]);
    let mut hosts: Vec<Value> = (1..count)
        .map(|index| {
            json!({"name": format!("tenant-{index}"), "domains": [format!("tenant-{index}.example.com")], "routes": answer})
        })
        .collect();
    hosts.push(json!({"name": "app", "domains": ["app.example.com"], "routes": answer}));
    // Shows before the measurement that the filter does its work.
    hosts.push(json!({
        "name": "check", "domains": ["check.example.com"], "routes": answer,
        "response_headers_to_add": [{"header": {
            "key": "x-seen",
            "value": "%REQ(x-forwarded-proto)% %REQ(:scheme)% %REQ(x-envoy-max-retries)%",
        }}],
    }));
    json!(hosts)
}

fn lua(script: &str) -> Value {
    let mut filter = typed("extensions.filters.http.lua.v3.Lua");
    merge(
        &mut filter,
        json!({"default_source_code": {"inline_string": script}}),
    );
    json!({"name": "envoy.filters.http.lua", "typed_config": filter})
}

fn set(key: &str, value: &str, action: &str) -> Value {
    json!({"append": {"header": {"key": key, "value": value}, "append_action": action}})
}

fn mutations(list: &[Value]) -> Value {
    let mut filter = typed("extensions.filters.http.header_mutation.v3.HeaderMutation");
    merge(
        &mut filter,
        json!({"mutations": {"request_mutations": list}}),
    );
    json!({"name": "envoy.filters.http.header_mutation", "typed_config": filter})
}

fn four_defaults() -> Vec<Value> {
    [
        ("x-envoy-upstream-rq-timeout-ms", "15000"),
        ("x-envoy-max-retries", "2"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "5000"),
        ("x-envoy-retry-on", "connect-failure,refused-stream"),
    ]
    .map(|(name, value)| set(name, value, "ADD_IF_ABSENT"))
    .to_vec()
}

/// What Envoy can do without any decision.
fn header_mutation() -> Value {
    let mut list = vec![set(
        "x-forwarded-proto",
        "https",
        "OVERWRITE_IF_EXISTS_OR_ADD",
    )];
    list.extend(four_defaults());
    mutations(&list)
}

/// Envoy's own filters, with the decision made once a connection.
fn native() -> Vec<Variant> {
    let state = |key: &str, format: &str| {
        json!({
            "object_key": key, "factory_key": "envoy.string", "read_only": true,
            "format_string": {"text_format_source": {"inline_string": format}},
        })
    };
    let network = |length: u8| {
        state(
            &format!("trusted-lb.net{length}"),
            &format!("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT({length})%"),
        )
    };
    let decision = "%CEL(filter_state['trusted-lb.net16'] in [b'10.0.0.0/16'] || filter_state['trusted-lb.net31'] in [b'127.0.0.2/31'] \
                    || filter_state['trusted-lb.net56'] in [b'2001:db8::/56'] ? 'https' : 'http')%";
    let mut set_state = typed("extensions.filters.network.set_filter_state.v3.Config");
    merge(
        &mut set_state,
        json!({"on_new_connection": [network(16), network(31), network(56), state("trusted-lb.proto", decision)]}),
    );
    let set_state =
        json!({"name": "envoy.filters.network.set_filter_state", "typed_config": set_state});
    let variant = |name: &str, exact: bool, full: bool| {
        let mut list = vec![set(
            "x-forwarded-proto",
            "%FILTER_STATE(trusted-lb.proto:PLAIN)%",
            "OVERWRITE_IF_EXISTS_OR_ADD",
        )];
        if exact {
            for name in [
                "x_forwarded_proto",
                "x-forwarded_proto",
                "x_forwarded-proto",
            ] {
                list.push(json!({"remove": name}));
            }
        }
        let mut early =
            typed("extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation");
        merge(&mut early, json!({"mutations": list}));
        Variant::new(name, |listener| {
            let mut listener = listener
                .network_filter(set_state.clone())
                .setting("xff_num_trusted_hops", json!(1))
                .setting(
                    "early_header_mutation_extensions",
                    json!([{"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": early}]),
                );
            if !exact {
                listener = listener.setting(
                    "common_http_protocol_options",
                    json!({"headers_with_underscores_action": "DROP_HEADER"}),
                );
            }
            if full {
                listener = listener.filter(mutations(&four_defaults()));
            }
            listener
        })
    };
    vec![
        variant("native-xfp", false, false),
        variant("native-full", false, true),
        variant("native-xfp-exact", true, false),
        variant("native-full-exact", true, true),
    ]
}

/// What `trusted-lb render native` makes of the configurations that the module is given.
fn rendered() -> Vec<Variant> {
    let recipe = recipe();
    let mut variants = Vec::new();
    for (name, config) in [
        ("xfp", workloads::xfp_and_scheme("source")),
        ("full", workloads::full_job("source")),
        ("recipe", recipe.clone()),
    ] {
        let loaded = config::load(config.to_string().as_bytes());
        let config = loaded.config.expect("it is valid");
        for (form, chains) in [("one-chain", false), ("chains", true)] {
            // What has no chains is told apart by one chain.
            if name == "recipe" && chains {
                continue;
            }
            let fields = native_listener(&config, chains).expect("it can be rendered");
            variants.push(Variant::new(
                &format!("rendered-{name}-{form}"),
                |listener| listener.rendered(fields),
            ));
        }
    }
    let plugin = plugin(&recipe, &BTreeMap::<String, String>::new());
    variants.push(Variant::new("module-recipe", |listener| {
        listener.filter(plugin)
    }));
    variants
}

/// The recipe for AWS's Application Load Balancer, with the bench's load balancer.
fn recipe() -> Value {
    let file = artifacts::repository().join("examples/load-balancers/aws-alb/wasmplugin.yaml");
    let text = std::fs::read_to_string(file).expect("the recipe is there");
    let text = text.replace("10.0.12.0/24", "127.0.0.2");
    let resource: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    resource["spec"]["pluginConfig"].clone()
}
