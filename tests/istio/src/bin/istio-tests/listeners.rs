//! The filter on an HTTP/3 listener.

use std::collections::BTreeMap;
use std::net::IpAddr;

use istio_lab::gateway::{ELSEWHERE, HTTPS, LOAD_BALANCER, Options, get, metric, outcome};
use istio_lab::lab::Lab;
use istio_lab::manifest::{documents, file, text};
use istio_lab::pod;
use istio_lab::report::Test;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::envoy::Envoy;
use testkit::http::{self, Response};

pub const TESTS: &[Test<Lab>] = &[(
    "on an HTTP/3 listener the load balancer is known by its address, and its word for the scheme is taken",
    http3,
)];

/// What a load balancer says that speaks HTTP/3 to the gateway for a client who used http.
const SAID: &[(&str, &str)] = &[("cloudfront-forwarded-proto", "http")];

/// An Envoy that sends on by HTTP/3, from one of these addresses on each of its listeners.
struct Http3Clients(Envoy);

impl Http3Clients {
    fn start(sources: &[IpAddr]) -> Self {
        let listeners: Vec<Value> = sources.iter().map(listener).collect();
        let clusters: Vec<Value> = sources.iter().map(cluster).collect();
        Self(Envoy::start(&json!({
            "static_resources": {"listeners": listeners, "clusters": clusters},
        })))
    }

    fn send(&self, source: IpAddr, headers: &[(&str, &str)]) -> Result<Response, String> {
        let listener = self.0.listener(&source.to_string());
        let request = get(listener.ip(), "/").with(headers);
        http::send(listener, &request).map_err(|error| error.to_string())
    }

    /// Waits until requests from this address with these headers have this outcome.
    fn expect(&self, source: IpAddr, headers: &[(&str, &str)], wanted: &str) {
        wait::until(&format!("expected {wanted} from {source}"), || {
            let found = outcome(&self.send(source, headers)?);
            if found == wanted { Ok(()) } else { Err(found) }
        });
    }
}

fn listener(source: &IpAddr) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": source.to_string()}});
    json!({
        "name": source.to_string(),
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "client",
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
                "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            },
        }]}],
    })
}

fn cluster(source: &IpAddr) -> Value {
    json!({
        "name": source.to_string(),
        "upstream_bind_config": {"source_address": {"address": source.to_string(), "port_value": 0}},
        "load_assignment": {"cluster_name": source.to_string(), "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {"address": HTTPS.ip().to_string(), "port_value": HTTPS.port()}},
        }}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http3_protocol_options": {}},
        }},
        "transport_socket": {
            "name": "envoy.transport_sockets.quic",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
                "upstream_tls_context": {"sni": "app.example.com"},
            },
        },
    })
}

fn http3(lab: &mut Lab) {
    let mut plugin = documents(&file("envoyfilter/wasmplugin.yaml")).remove(0);
    plugin["spec"]["pluginConfig"]["trustedLoadBalancers"][0]["forwardedProto"] =
        json!({"from": ["cloudfront-forwarded-proto"], "default": "https"});
    // Istio offers HTTP/3 if a Service has a UDP port of the HTTPS server's number.
    let ports = json!([
        {"name": "https", "port": HTTPS.port(), "protocol": "TCP"},
        {"name": "http3", "port": HTTPS.port(), "protocol": "UDP"},
    ]);
    lab.apply(&text(&[pod::pod(), pod::service("edge", &ports)]));
    pod::set_running(lab);
    lab.serve(&text(&[plugin]), &Options::default());
    let clients = Http3Clients::start(&[LOAD_BALANCER, ELSEWHERE]);
    clients.expect(LOAD_BALANCER, SAID, "200 http");
    clients.expect(LOAD_BALANCER, &[], "200 https");
    // Somebody else has a connection with TLS, and isn't believed about any other.
    clients.expect(ELSEWHERE, SAID, "200 https");
    let answer = clients.send(LOAD_BALANCER, &[]).expect("an answer");
    assert!(
        answer
            .header("alt-svc")
            .is_some_and(|offered| offered.contains("h3=")),
        "the listener says that it speaks HTTP/3: {answer:?}"
    );
    let requests: BTreeMap<&str, u64> = ["upstream_cx_http3_total", "upstream_rq_200"]
        .into_iter()
        .map(|name| {
            let value = clients.0.stat(&format!("cluster.{LOAD_BALANCER}.{name}"));
            (name, value)
        })
        .collect();
    assert!(requests.values().all(|count| *count > 0), "{requests:?}");
    wait::until_true("the rule has counted them", || {
        metric("trusted_lb_trusted_rule_0") > 0.0
    });
}
