//! What stands around the filter on a gateway: redirects, routes, authorization, and the Gateway API.

use istio_lab::gateway::{
    ELSEWHERE, HTTP, LOAD_BALANCER, Options, expect, get, http_filters, outcome, outcome_of, send,
};
use istio_lab::lab::{DIRECT_PEER, Lab, to_echo};
use istio_lab::manifest::{NAMESPACE, documents, file, text};
use istio_lab::pod;
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};

pub const TESTS: &[Test<Lab>] = &[
    (
        "httpsRedirect serves the load balancer's https clients and redirects everybody else",
        https_redirect,
    ),
    (
        "a Gateway of the Gateway API gets the plugin by targetRefs, its redirects need the header match",
        gateway_api,
    ),
    (
        "timeouts of named routes and VirtualServices are kept with inherit, overridden without",
        routes,
    ),
    (
        "a VirtualService that sets x-forwarded-proto, or redirects everything, undoes what the plugin wrote",
        routes_that_undo,
    ),
    (
        "CUSTOM authorization sees the uncorrected scheme from a WasmPlugin, and the right one from envoyfilter.yaml",
        custom_authorization,
    ),
    (
        "an AuthorizationPolicy may ask for https, with the filter in front of it and not behind",
        authorization_policy,
    ),
    (
        "JWT and the policies on its claims run behind the filter",
        jwt,
    ),
];

fn plugin() -> Value {
    documents(&file("envoyfilter/wasmplugin.yaml")).remove(0)
}

fn https_redirect(lab: &mut Lab) {
    let base = documents(&lab.base());
    let mut redirecting = base[0].clone();
    redirecting["spec"]["servers"][0]["tls"] = json!({"httpsRedirect": true});
    lab.serve(&text(&[redirecting.clone(), plugin()]), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    expect(
        &get(ELSEWHERE, "/").with(&[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "10.0.12.5"),
        ]),
        "301",
    );
    let place = send(HTTP, &get(ELSEWHERE, "/basket")).header("location");
    assert_eq!(place.as_deref(), Some("https://app.example.com/basket"));
    // The other way round: without the filter the load balancer's clients are sent in circles.
    lab.cluster
        .run(&["delete", "wasmplugin", "trusted-lb", "-n", NAMESPACE]);
    expect(&get(LOAD_BALANCER, "/"), "301");
}

/// A Gateway that Istio doesn't deploy itself, with the Pod and the Service by which it finds the one that runs.
fn gateway_api_objects() -> Vec<Value> {
    vec![
        pod::service(
            "public",
            &json!([{"name": "http", "port": 80, "targetPort": HTTP.port()}]),
        ),
        pod::pod(),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "public", "namespace": NAMESPACE},
            "spec": {
                "gatewayClassName": "istio",
                "addresses": [{"type": "Hostname", "value": format!("public.{NAMESPACE}.svc.cluster.local")}],
                "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
            },
        }),
    ]
}

fn http_route(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"name": "public"}], "rules": rules},
    })
}

/// A filter that changes nothing, on the listener with this port.
fn nothing_on_port(port: u16) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
        "metadata": {"name": format!("nothing-on-{port}"), "namespace": NAMESPACE},
        "spec": {"configPatches": [{
            "applyTo": "HTTP_FILTER",
            "match": {"context": "GATEWAY", "listener": {
                "portNumber": port,
                "filterChain": {"filter": {"name": "envoy.filters.network.http_connection_manager"}},
            }},
            "patch": {"operation": "INSERT_FIRST", "value": {
                "name": format!("nothing-on-{port}"),
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"},
            }},
        }]},
    })
}

fn gateway_api(lab: &mut Lab) {
    let backend = json!([{"group": "networking.istio.io", "kind": "Hostname", "name": "echo.internal", "port": 80}]);
    let https = json!({"requestRedirect": {"scheme": "https", "statusCode": 301}, "type": "RequestRedirect"});
    let prefix = |path: &str| json!({"path": {"type": "PathPrefix", "value": path}});
    let rules = json!([
        // A redirect of everything loops, with the filter or without it: it doesn't look at the scheme.
        {"matches": [prefix("/loop")], "filters": [https]},
        // The form that works looks at it.
        {
            "matches": [{
                "path": {"type": "PathPrefix", "value": "/shop"},
                "headers": [{"name": "x-forwarded-proto", "value": "http"}],
            }],
            "filters": [https],
        },
        {"matches": [prefix("/shop")], "backendRefs": backend},
        // What a route writes stands for everybody.
        {
            "matches": [prefix("/own")],
            "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "X-Forwarded-Proto", "value": "https"}]}}],
            "backendRefs": backend,
        },
        {"matches": [prefix("/timed")], "timeouts": {"request": "3s"}, "backendRefs": backend},
        {"matches": [prefix("/")], "backendRefs": backend},
    ]);
    let mut plugin = documents(&file("envoyfilter/wasmplugin-gateway-api.yaml")).remove(0);
    plugin["spec"]["pluginConfig"]["trustedLoadBalancers"][0]["match"] =
        json!({"ipBlocks": ["10.0.12.0/24"]});
    plugin["spec"]["pluginConfig"]["routes"] = json!([{"name": "timed", "match": {"paths": [{"prefix": "/timed"}]}, "timeout": "inherit"}]);
    // A plugin's ports are those of the container's listeners, not the Service's.
    plugin["spec"]["match"] = json!([{"ports": [{"number": HTTP.port()}]}]);
    let mut of_service_port = plugin.clone();
    of_service_port["metadata"]["name"] = json!("of-service-port");
    of_service_port["spec"]["match"] = json!([{"ports": [{"number": 80}]}]);
    // Without the Gateway of Istio's API that all other tests have.
    let service = documents(&lab.base()).remove(1);
    let mut manifests = vec![
        service,
        http_route("routes", &rules),
        plugin,
        of_service_port,
    ];
    manifests.extend([nothing_on_port(80), nothing_on_port(HTTP.port())]);
    manifests.extend(gateway_api_objects());
    lab.apply(&text(&manifests));
    lab.apply(&file(DIRECT_PEER));
    pod::set_running(lab);
    lab.launch(&Options::default());
    lab.gateway().wait_until_ready();
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    expect(
        &get(ELSEWHERE, "/").with(&[("x-forwarded-proto", "https")]),
        "200 http",
    );
    expect(&get(LOAD_BALANCER, "/shop"), "200 https");
    expect(
        &get(ELSEWHERE, "/shop").with(&[("x-forwarded-proto", "https")]),
        "301",
    );
    let filters = http_filters(HTTP.port());
    let of_service_port = filters.iter().find(|name| name.contains("of-service-port"));
    assert_eq!(of_service_port, None);
    let of_filters: Vec<&String> = filters
        .iter()
        .filter(|name| name.contains("nothing"))
        .collect();
    assert_eq!(of_filters, [&format!("nothing-on-{}", HTTP.port())]);
    expect(&get(LOAD_BALANCER, "/loop"), "301");
    expect(&get(ELSEWHERE, "/own"), "200 https");
    let timeout = |path: &str| {
        send(HTTP, &get(LOAD_BALANCER, path)).received_one("x-envoy-expected-rq-timeout-ms")
    };
    assert_eq!(
        timeout("/timed").as_deref(),
        Some("3000"),
        "the route's own"
    );
    assert_eq!(
        timeout("/shop").as_deref(),
        Some("15000"),
        "the plugin's default"
    );
}

fn virtual_service(name: &str, host: &str, http: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"hosts": [host], "gateways": ["lab"], "http": http},
    })
}

fn routes(lab: &mut Lab) {
    let mut plugin = plugin();
    plugin["spec"]["pluginConfig"]["defaults"] = json!({"timeout": "15s"});
    plugin["spec"]["pluginConfig"]["routes"] = json!([
        {"name": "named", "match": {"routes": ["reports"]}, "timeout": "inherit"},
        {"name": "all-of-it", "match": {"virtualServices": [format!("{NAMESPACE}/archive")]}, "timeout": "inherit"},
    ]);
    let timed = |name: &str, path: &str| json!({"name": name, "match": [{"uri": {"prefix": path}}], "timeout": "3s", "route": [to_echo()]});
    let shop = virtual_service(
        "shop",
        "app.example.com",
        &json!([timed("reports", "/reports"), timed("basket", "/basket")]),
    );
    let archive = virtual_service(
        "archive",
        "archive.example.com",
        &json!([timed("old", "/old")]),
    );
    lab.serve(&text(&[plugin, shop, archive]), &Options::default());
    let timeout_of = |host: &str, path: &str| {
        let mut request = get(LOAD_BALANCER, path);
        host.clone_into(&mut request.authority);
        send(HTTP, &request)
            .received_one("x-envoy-expected-rq-timeout-ms")
            .unwrap_or_default()
    };
    wait::until_true("the VirtualServices are there", || {
        timeout_of("app.example.com", "/reports") == "3000"
    });
    assert_eq!(
        timeout_of("app.example.com", "/basket"),
        "15000",
        "the plugin's default beats a route's own"
    );
    assert_eq!(timeout_of("archive.example.com", "/old"), "3000");
}

fn routes_that_undo(lab: &mut Lab) {
    let of = |path: &str, what: &Value| {
        let mut rule = json!({"match": [{"uri": {"prefix": path}}], "route": [to_echo()]});
        if let (Some(rule), Some(what)) = (rule.as_object_mut(), what.as_object()) {
            if what.contains_key("redirect") {
                rule.remove("route");
            }
            rule.extend(what.clone());
        }
        rule
    };
    let sets = json!({"headers": {"request": {"set": {"x-forwarded-proto": "https"}}}});
    let redirects = json!({"redirect": {"scheme": "https"}});
    let mut plain_only = of("/shop", &redirects);
    plain_only["match"][0]["headers"] = json!({"x-forwarded-proto": {"exact": "http"}});
    let rules = json!([
        of("/own", &sets),
        of("/loop", &redirects),
        plain_only,
        of("/", &json!({})),
    ]);
    let service = virtual_service("shop", "app.example.com", &rules);
    lab.serve(&text(&[plugin(), service]), &Options::default());
    wait::until_true("the VirtualService is there", || {
        outcome_of(&get(LOAD_BALANCER, "/loop")) == "301"
    });
    expect(&get(ELSEWHERE, "/own"), "200 https");
    expect(&get(ELSEWHERE, "/"), "200 http");
    expect(&get(LOAD_BALANCER, "/shop"), "200 https");
    expect(&get(ELSEWHERE, "/shop"), "301");
}

fn custom_authorization(lab: &mut Lab) {
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "login", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"istio": "ingressgateway"}}, "action": "CUSTOM",
            "provider": {"name": "authorizer"}, "rules": [{"to": [{"operation": {"paths": ["/account*"]}}]}],
        },
    });
    // The authorizer answers with what it was told, and the service is told that.
    let told = || {
        let response = send(HTTP, &get(LOAD_BALANCER, "/account"));
        let echo = response.received_one("x-asked").unwrap_or_default();
        (outcome(&response), echo)
    };
    lab.serve(&text(&[plugin(), policy.clone()]), &Options::default());
    wait::until("the authorizer is asked, and told http", || {
        let found = told();
        if found == ("200 https".to_owned(), "http".to_owned()) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    lab.clear();
    let manifests = format!("{}\n---\n{policy}", file("envoyfilter/envoyfilter.yaml"));
    lab.serve(&manifests, &Options::default());
    wait::until("the authorizer is asked, and told https", || {
        let found = told();
        if found == ("200 https".to_owned(), "https".to_owned()) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
}

fn authorization_policy(lab: &mut Lab) {
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "https-only", "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"istio": "ingressgateway"}}, "action": "ALLOW",
            "rules": [{"when": [{"key": "request.headers[x-forwarded-proto]", "values": ["https"]}]}],
        },
    });
    lab.serve(&text(&[plugin(), policy]), &Options::default());
    expect(&get(LOAD_BALANCER, "/"), "200 https");
    expect(
        &get(ELSEWHERE, "/").with(&[("x-forwarded-proto", "https")]),
        "403",
    );
    // Without a phase it stands just in front of the router, behind authorization.
    let mut late = plugin();
    if let Some(spec) = late["spec"].as_object_mut() {
        spec.remove("phase");
    }
    lab.cluster
        .run(&["delete", "wasmplugin", "trusted-lb", "-n", NAMESPACE]);
    expect(&get(LOAD_BALANCER, "/"), "403");
    lab.apply(&text(&[late]));
    wait::until_true("the plugin is back", || {
        !istio_lab::gateway::extensions().is_empty()
    });
    assert_eq!(outcome_of(&get(LOAD_BALANCER, "/")), "403");
}

/// The claims `{"iss": "https://login.example.com", "sub": "somebody"}`, by the key of [`KEYS`].
const CLAIMS: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InRlc3QifQ.\
                      eyJpc3MiOiJodHRwczovL2xvZ2luLmV4YW1wbGUuY29tIiwic3ViIjoic29tZWJvZHkifQ.\
                      4G2pt9Be8Y8kVgTd6K76PHazDZ1CLR-lF76d0kIuA2I";
/// The bytes `not-a-secret: the test's own key`.
const KEYS: &str = r#"{"keys": [{"kty": "oct", "alg": "HS256", "kid": "test", "k": "bm90LWEtc2VjcmV0OiB0aGUgdGVzdCdzIG93biBrZXk"}]}"#;

fn jwt(lab: &mut Lab) {
    let workload = json!({"matchLabels": {"istio": "ingressgateway"}});
    let authentication = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "login", "namespace": NAMESPACE},
        "spec": {"selector": workload, "jwtRules": [{"issuer": "https://login.example.com", "jwks": KEYS}]},
    });
    let policy = json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "somebody-by-https", "namespace": NAMESPACE},
        "spec": {"selector": workload, "action": "ALLOW", "rules": [{
            "from": [{"source": {"requestPrincipals": ["https://login.example.com/somebody"]}}],
            "when": [{"key": "request.headers[x-forwarded-proto]", "values": ["https"]}],
        }]},
    });
    let token = ("authorization", &*format!("Bearer {CLAIMS}"));
    for manifests in [text(&[plugin()]), file("envoyfilter/envoyfilter.yaml")] {
        lab.clear();
        let policies = text(&[authentication.clone(), policy.clone()]);
        lab.serve(&format!("{manifests}\n{policies}"), &Options::default());
        expect(&get(LOAD_BALANCER, "/").with(&[token]), "200 https");
        expect(&get(LOAD_BALANCER, "/"), "403");
        let forged = ("authorization", "Bearer e30.e30.c2lnbmVk");
        expect(&get(LOAD_BALANCER, "/").with(&[forged]), "401");
        expect(
            &get(ELSEWHERE, "/").with(&[token, ("x-forwarded-proto", "https")]),
            "403",
        );
        let filters = http_filters(HTTP.port());
        let place = |word: &str| filters.iter().position(|name| name.contains(word));
        assert!(place("trusted-lb").is_some() && place("jwt_authn").is_some());
        assert!(place("trusted-lb") < place("jwt_authn"), "{filters:?}");
    }
}
