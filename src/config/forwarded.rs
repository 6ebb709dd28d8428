//! Headers by which proxies tell services about the client: its scheme, its address, the host it asked for. Some of them
//! are known as signals. None of them means anything when a client sends it.

use super::signal_form::SignalForm;

/// One line for each header: what it says, who writes or reads it, and, if it can stand in `from`, how its value reads.
/// A new one is one line here.
macro_rules! known_headers {
    ($($name:literal: $meaning:literal $(, $form:expr, $values:literal)?;)+) => {
        /// Removed from an untrusted peer's request unless the configuration keeps them.
        pub const FAMILY: &[&str] = &[$($name),+];

        /// Those whose form as a signal is known.
        pub(crate) const KNOWN_SIGNALS: &[&str] = &[$($(only!($name, $form),)?)+];

        /// How a header's value reads as a signal.
        pub(crate) fn known_signal(name: &str) -> Option<SignalForm> {
            $($(
                if name == $name {
                    return Some($form);
                }
            )?)+
            None
        }

        /// Name, meaning and form of each, for the reference.
        #[cfg(feature = "cli")]
        pub(crate) const FAMILY_TEXTS: &[(&str, &str, &str)] = &[$(($name, $meaning, concat!($($values)?))),+];
    };
}

macro_rules! only {
    ($name:literal, $form:expr) => {
        $name
    };
}

known_headers! {
    "x-forwarded-proto": "The client's scheme. Never removed: it is overwritten, as `forwardedProto` says",
        SignalForm::Scheme, "`http` or `https`, also `ws` and `wss`, in any case; of a list the right-most";
    "x-forwarded-scheme": "The client's scheme. Rack and Rails read it", SignalForm::Scheme, "as x-forwarded-proto";
    "x-forwarded-protocol": "The client's scheme. gunicorn reads `ssl` as https";
    "x-forwarded-ssl": "Whether the client used TLS. Rack, Rails and gunicorn read it",
        SignalForm::OnOff, "`on` or `off`, in any case";
    "x-url-scheme": "The client's scheme", SignalForm::Scheme, "as x-forwarded-proto";
    "x-scheme": "The client's scheme. ingress-nginx writes it, Tornado reads it";
    "x-client-proto": "The client's scheme", SignalForm::Scheme, "as x-forwarded-proto";
    "x-original-proto": "The scheme before ASP.NET Core's middleware changed it";
    "front-end-https": "Whether the client used TLS. Microsoft's applications and Yii read it",
        SignalForm::OnOff, "`on` or `off`, in any case";
    "x-arr-ssl": "The certificate that IIS's Application Request Routing served. iisnode and other applications behind it take \
        it for https", SignalForm::Present, "present means https";
    "cf-visitor": "The client's scheme, as Cloudflare writes it. WordPress plugins read it",
        SignalForm::CfVisitor, "JSON, `{\"scheme\":\"https\"}`";
    "cloudfront-forwarded-proto": "The client's scheme, as CloudFront writes it",
        SignalForm::Scheme, "as x-forwarded-proto";
    "fastly-ssl": "Whether the client used TLS, as Fastly writes it", SignalForm::Present,
        "present means https. Fastly passes a client's own fastly-ssl on: [rather set a header in \
        VCL](../examples/load-balancers/fastly)";
    "forwarded": "Scheme, host and address of the client (RFC 7239). Spring, Quarkus and others read it",
        SignalForm::Forwarded, "`proto` of the right-most element";
    "x-forwarded-port": "The port that the client connected to. Rack, Rails, Spring and Werkzeug read it",
        SignalForm::Port { https: vec![443], http: vec![80] },
        "443 is https, 80 is http; of a list the right-most (Envoy makes one list of several lines); other ports with `{header: x-forwarded-port, https: [8443]}`";
    "x-forwarded-host": "The host that the client asked for. Rails, Django, Express, Spring and Werkzeug read it";
    "x-original-host": "The host that the client asked for, as Azure Application Gateway writes it";
    "x-forwarded-server": "The proxy's own name, as Apache and Traefik write it";
    "x-forwarded-prefix": "The path that a proxy took off. Spring and Werkzeug put it into links";
    "x-forwarded-path": "The path that the client asked for, as Kong writes it";
    "x-forwarded-uri": "The URI that the client asked for, as Traefik's and Caddy's forward authentication write it";
    "x-forwarded-method": "The method that the client used, as Traefik's and Caddy's forward authentication write it";
    "x-forwarded-tls-client-cert": "The client's certificate, as Traefik writes it";
    "x-forwarded-tls-client-cert-info": "Who the client's certificate names, as Traefik writes it";
    "x-real-ip": "The client's address. nginx set-ups write it; Tornado, Gin and chi read it";
    "x-client-ip": "The client's address";
    "x-cluster-client-ip": "The client's address";
    "true-client-ip": "The client's address, as Akamai and Cloudflare write it";
    "cf-connecting-ip": "The client's address, as Cloudflare writes it";
    "fastly-client-ip": "The client's address, as Fastly writes it";
}
