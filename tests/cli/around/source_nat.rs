//! Services that put a node's address in the place of the load balancer's.

use super::findings;

const PLUGIN: &str = "---\napiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: trusted-lb, namespace: edge}\nspec:\n  \
                      selector: {matchLabels: {istio: ingress}}\n  url: oci://registry.example.com/trusted-lb:1\n  phase: AUTHN\n  pluginConfig:\n    \
                      trustedLoadBalancers: [{name: a, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]\n";

const SERVICE: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: gateway, namespace: edge, annotations: {a: b}, labels: {c: d}}\nspec:\n  \
                       type: LoadBalancer\n  externalTrafficPolicy: Cluster\n  selector: {istio: ingress}\n  ports: [{port: 80}]\n";

const HIDDEN: &[&str] = &["warning source-nat"];

/// What is found after each change to the two of them.
fn changed(changes: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in changes {
        let both = format!("{PLUGIN}{SERVICE}");
        assert!(both.contains(from), "{from}");
        assert_eq!(
            findings(&both.replacen(from, to, 1)),
            *expected,
            "{from} -> {to}"
        );
    }
}

#[test]
fn a_service_that_hides_the_load_balancers_address_is_named_where_rules_go_by_address() {
    changed(&[
        ("type: LoadBalancer", "type: LoadBalancer", HIDDEN),
        ("type: LoadBalancer", "type: NodePort", HIDDEN),
        ("type: LoadBalancer", "type: ClusterIP", &[]),
        ("  type: LoadBalancer\n", "", &[]),
        (
            "externalTrafficPolicy: Cluster",
            "externalTrafficPolicy: Local",
            &[],
        ),
        // Kubernetes' default, which kubectl prints. A manifest by hand may be for a load balancer that sends to the pods.
        ("  externalTrafficPolicy: Cluster\n", "", &[]),
        (
            "a: b",
            "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip",
            &[],
        ),
        (
            "a: b",
            "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: instance",
            HIDDEN,
        ),
        (
            "a: b",
            "service.beta.kubernetes.io/aws-load-balancer-type: nlb-ip",
            &[],
        ),
        ("a: b", "cloud.google.com/neg: '{\"ingress\": true}'", &[]),
        // Pods of others.
        (
            "  selector: {istio: ingress}",
            "  selector: {istio: other}",
            &[],
        ),
        (
            "name: gateway, namespace: edge",
            "name: gateway, namespace: other",
            &[],
        ),
        ("  selector: {istio: ingress}\n", "", &[]),
        // No rule by address.
        (
            "ipBlocks: [10.0.12.0/24]",
            "headers: [{name: x-verify, fromEnv: SECRET}]",
            &["error configuration trustedLoadBalancers[0].match.headers[0].fromEnv"],
        ),
        (
            "ipBlocks: [10.0.12.0/24]",
            "clientCertificate: {uriSans: [\"spiffe://edge\"]}",
            &[],
        ),
    ]);
}

#[test]
fn a_load_balancer_that_sends_to_the_pods_themselves_hides_nothing() {
    let ingress = |kind: &str, backend: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: alb\n  namespace: edge\n  \
             annotations: {{alb.ingress.kubernetes.io/target-type: {kind}}}\nspec: {backend}\n"
        )
    };
    let path = |name: &str| {
        format!(
            "{{rules: [{{http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}]}}}}]}}"
        )
    };
    let default = "{defaultBackend: {service: {name: gateway, port: {number: 80}}}}";
    let binding = |kind: &str, name: &str| {
        format!(
            "---\napiVersion: elbv2.k8s.aws/v1beta1\nkind: TargetGroupBinding\nmetadata: {{name: b, namespace: edge}}\nspec:\n  \
             targetType: {kind}\n  serviceRef: {{name: {name}, port: 80}}\n"
        )
    };
    for (more, expected) in [
        (ingress("ip", &path("gateway")), &[][..]),
        (ingress("ip", default), &[]),
        (ingress("instance", &path("gateway")), HIDDEN),
        (ingress("ip", &path("other")), HIDDEN),
        (binding("ip", "gateway"), &[]),
        (binding("instance", "gateway"), HIDDEN),
        (binding("ip", "other"), HIDDEN),
    ] {
        assert_eq!(
            findings(&format!("{PLUGIN}{SERVICE}{more}")),
            expected,
            "{more}"
        );
    }
}

#[test]
fn envoy_gateways_service_is_that_of_its_gateway() {
    let policy = "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nmetadata: {name: edge, namespace: edge}\nspec:\n  \
                  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: public}]\n  wasm:\n  - name: trusted-lb\n    \
                  code: {type: Image, image: {url: registry.example.com/trusted-lb:1}}\n    config:\n      \
                  trustedLoadBalancers: [{name: a, match: {ipBlocks: [10.0.12.0/24]}, forwardedProto: {default: https}}]\n";
    let owned = |name: &str| {
        let labels = format!(
            "gateway.envoyproxy.io/owning-gateway-namespace: edge, gateway.envoyproxy.io/owning-gateway-name: {name}"
        );
        let service = SERVICE.replace("namespace: edge", "namespace: envoy-gateway-system");
        format!("{policy}{}", service.replace("c: d", &labels))
    };
    assert_eq!(findings(&owned("public")), HIDDEN);
    assert_eq!(findings(&owned("inner")), [""; 0]);
    let proxy = |policy: &str| {
        format!(
            "---\napiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyProxy\nmetadata: {{name: proxy, namespace: edge}}\nspec:\n  \
             provider: {{type: Kubernetes, kubernetes: {{envoyService: {{externalTrafficPolicy: {policy}}}}}}}\n"
        )
    };
    assert_eq!(findings(&format!("{policy}{}", proxy("Cluster"))), HIDDEN);
    assert_eq!(findings(&format!("{policy}{}", proxy("Local"))), [""; 0]);
    assert_eq!(findings(&format!("{PLUGIN}{}", proxy("Cluster"))), [""; 0]);
}
