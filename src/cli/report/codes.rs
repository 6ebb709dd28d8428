//! The kinds of findings, each once: `check --explain CODE` and docs/findings.md are written from them.

/// A kind of finding.
#[derive(Debug)]
pub(in crate::cli) struct Code {
    /// In a word that machines can filter by.
    pub(in crate::cli) name: &'static str,
    /// What it means and what it leads to.
    pub(in crate::cli) meaning: &'static str,
    /// What to do about it.
    pub(in crate::cli) cure: &'static str,
}

/// Declares the kinds, and the list of all of them.
macro_rules! codes {
    ($($constant:ident = $name:literal, $meaning:literal, $cure:literal;)+) => {
        $(pub(in crate::cli) static $constant: Code = Code { name: $name, meaning: $meaning, cure: $cure };)+
        /// Every kind, by name.
        pub(in crate::cli) static ALL: &[&Code] = &[$(&$constant),+];
    };
}

codes! {
    UNREADABLE = "unreadable",
        "The file is no YAML that kubectl reads and no JSON, or it is too large or too deep.",
        "Mend it where the finding points. Of a Helm chart give what `helm template` prints.";
    NOTHING_FOUND = "nothing-found",
        "There is no configuration of trusted-lb in the files.",
        "Give a file that has one. Among resources of others this is a warning.";
    CONFIGURATION = "configuration",
        "The plugin configuration has a fault, or works differently than it seems to. The gateway refuses it with the same words if it is an error.",
        "docs/configuration.md has every field. The finding says what to write.";
    CONFIGURATION_MISSING = "configuration-missing",
        "The plugin is trusted-lb, by its name or module, and gets no configuration, which it refuses: every request is answered with 500 or 403.",
        "Write the configuration where the finding points.";
    CONFIGURATION_NOT_TEXT = "configuration-not-text",
        "Envoy hands over the text of a StringValue or the bytes of a BytesValue as they are. Any other message arrives in protobuf's encoding, which trusted-lb can't read.",
        "Write the configuration as JSON text into a google.protobuf.StringValue.";
    REFUSED_BY_ENVOY = "refused-by-envoy",
        "Envoy's Wasm filter has a field, type or value that Envoy doesn't know. Envoy refuses the file or the update.",
        "Write what the finding names.";
    REFUSED_BY_KUBERNETES = "refused-by-kubernetes",
        "The resource's own schema doesn't allow the value, so that the API server refuses the resource.",
        "Write what the finding names.";
    UNKNOWN_FIELD = "unknown-field",
        "The resource's own schema has no such field. kubectl refuses it; Argo CD, Flux and kubectl with --validate=false apply the resource without it.",
        "Correct the name, or move the field to where it belongs.";
    NO_NAMESPACE = "no-namespace",
        "A WasmPlugin or TrafficExtension reaches the workloads of its own namespace. Without one it goes to wherever kubectl points.",
        "Write the gateway's namespace under metadata.";
    NEVER_ON_A_GATEWAY = "never-on-a-gateway",
        "To Istio the listeners of a gateway are CLIENT, whoever connects. A plugin with `mode: SERVER` alone is for sidecars and never loaded on a gateway.",
        "Write `mode: CLIENT` or `CLIENT_AND_SERVER`, or leave `mode` out.";
    BEHIND_AUTHORIZATION = "behind-authorization",
        "Istio puts a plugin without a phase just before the router. Authentication and authorization run before it and see the scheme that Envoy has written.",
        "Write `phase: AUTHN`.";
    MODULE_CAN_CHANGE = "module-can-change",
        "A tag such as latest names another module after every push. A gateway that starts then loads it, others don't.",
        "Name a version or the digest.";
    EVERY_WORKLOAD = "every-workload",
        "Without selector and targetRefs a plugin is loaded into every proxy of the namespace, sidecars included; in Istio's root namespace into every proxy of the mesh.",
        "Select the gateway's pods.";
    TARGET_NEVER_HOLDS = "target-never-holds",
        "What targetRefs point to can't have the plugin, so that it is never loaded and every request passes without it.",
        "Point to a Gateway of the Gateway API in the same namespace that Istio deploys itself; for any other gateway write a selector.";
    REDIRECT_LOOPS = "redirect-loops",
        "An HTTPRoute or a VirtualService answers every request with a redirect to https. Behind a load balancer that ends TLS the browser comes back with the same plain request, so that it never ends. No filter can mend it: such a redirect doesn't look at the scheme.",
        "Redirect only requests with `x-forwarded-proto: http`, by a header match, and give the others a rule with backends. Of Istio's Gateway `httpsRedirect` works too.";
    SCHEME_WRITTEN_ELSEWHERE = "scheme-written-elsewhere",
        "A VirtualService, HTTPRoute, GRPCRoute or EnvoyFilter sets, adds or removes x-forwarded-proto. What a route does, Envoy does when it sends the request on, after every filter: services are told the same of every client, of one without TLS too. Of two filters the later one's value stands.",
        "Take it out: the plugin writes what is true of each request.";
    SOURCE_NAT = "source-nat",
        "With `externalTrafficPolicy: Cluster`, Kubernetes' default, a connection that arrives at a node's port reaches the gateway from a node's address. The load balancer and an attacker have the same one then, so that a rule with `ipBlocks` holds for neither, or for both.",
        "Write `externalTrafficPolicy: Local`, or let the load balancer send to the pods themselves. docs/source-nat.md has what works without either.";
    OPEN_WITHOUT_FILTER = "open-without-filter",
        "Envoy Gateway's failOpen lets requests pass if the filter can't be loaded. With clientIPDetection Envoy keeps a client's own x-forwarded-proto then.",
        "Leave failOpen out.";
    SEVERAL_PLUGINS = "several-plugins",
        "Two plugins of ours are for the same workload. Both run, and the later one overwrites the headers that the other wrote.",
        "Put everything into one configuration.";
    PORT_WITHOUT_LISTENER = "port-without-listener",
        "The `ports` of a rule, those of a WasmPlugin's own `match`, and `portNumber` of an EnvoyFilter are those of the gateway's container, not the Service's. No listener of the Gateway has this one, so that the rule never holds for it, or the plugin isn't loaded for it. Envoy Gateway adds 10000 to ports below 1024.",
        "Write the container's port; docs/installations.md has a table.";
    REPLACED_BY_POLICY = "replaced-by-policy",
        "Envoy Gateway applies one EnvoyExtensionPolicy. One on a route or a listener replaces that of the Gateway, unless it has a mergeType, and of two on the same Gateway the older one applies. The filter isn't there then.",
        "Write mergeType, or put the plugin into each of them.";
    SEES_UNCORRECTED_SCHEME = "sees-uncorrected-scheme",
        "Authorization or OpenID Connect looks at x-forwarded-proto, and runs before the plugin has corrected it: it sees the scheme of Envoy's own connection.",
        "Put the plugin in front: `phase: AUTHN`, before a CUSTOM policy an EnvoyFilter with INSERT_FIRST. With OpenID Connect write the redirectURL with https.";
    LUA_LEFT_IN_PLACE = "lua-left-in-place",
        "A Lua filter on the same workload writes x-forwarded-proto too. Whichever runs later overwrites the other, and the script writes it for everybody.",
        "Take the Lua filter out. `trusted-lb migrate` tells what of it the plugin has to do.";
    NOT_NATIVE = "not-native",
        "`check --target native` asks whether Envoy's own filters can do what the configuration says. They can't do this part of it.",
        "Write what the finding names, or keep the module; docs/comparison.md has both.";
    WRITTEN_TWICE = "written-twice",
        "A field stands twice in the same object. kubectl and Envoy take the last one in silence.",
        "Leave one of them out.";
    KUSTOMIZE_PATCH = "kustomize-patch",
        "What a patch comes to depends on its base, so that it can't be judged alone.",
        "Check what `kustomize build` prints.";
    OVERRIDDEN_BY_DEFAULTS = "overridden-by-defaults",
        "The plugin's `defaults` write x-envoy headers, which beat a route's own timeout and retries: those of a VirtualService, HTTPRoute, GRPCRoute or BackendTrafficPolicy.",
        "Add the `routes` entry that check prints, with `inherit`.";
    NOT_LOADED = "not-loaded",
        "A plugin is meant for a gateway, and what the gateway has loaded doesn't have it: requests pass without it, or wait.",
        "If it has just been applied, take the dump again. Else `istioctl proxy-status` and the control plane's log say why it isn't sent.";
    LOADED_DIFFERENTLY = "loaded-differently",
        "A gateway has loaded another configuration than the files have, mostly an older one.",
        "If the file has just been applied, take the dump again. Else apply it, and look for a refusal in the proxy's log.";
    UPDATE_REFUSED = "update-refused",
        "Envoy or the module has refused what the gateway got. What was loaded before serves on; a gateway that had nothing answers 500 or 403, or doesn't listen. Envoy's dump shows a configuration that the module refuses as if it were loaded.",
        "Mend what the finding says. The proxy's log has the field, and `trusted_lb_configuration_refused` counts it.";
    MODULE_NOT_FETCHED = "module-not-fetched",
        "Istio's agent couldn't fetch the module, and has put a filter in its place that answers every request with 403, or with FAIL_OPEN one that does nothing.",
        "The proxy's log says why: `error in converting the wasm config to local`. The agent tries again when the resource changes: `kubectl annotate` it.";
    OTHER_MODULE = "other-module",
        "The module that a gateway runs isn't the one that the files name, by its address or digest.",
        "If the resource has just been applied, take the dump again. Else see imagePullPolicy and the proxy's log.";
    LOADED_NOT_MEANT = "loaded-not-meant",
        "A gateway has a plugin of ours loaded that no file has, or that the files mean for other gateways.",
        "Give the files of all plugins of the gateway, or delete the resource that it comes from.";
    TOO_MANY_PLUGINS = "too-many-plugins",
        "There are more than 1,000 plugins of ours, or tens of thousands of resources. Not every plugin is judged with what stands around it, so that check ends in seconds.",
        "Check the files of each gateway by themselves.";
    WHOSE_DUMP = "whose-dump",
        "Listeners and extensions alone don't say whose Envoy has them, so that a missing plugin can't be told from one that is for others.",
        "Give the whole /config_dump, or add what `istioctl proxy-config bootstrap POD -o json` prints.";
}
