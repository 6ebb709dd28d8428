//! How a trusted load balancer tells the client's scheme: the signals that are known, and those of an operator's own.

#[cfg(feature = "cli")]
use super::declare::Kind;
use super::declare::{Distinct, Name, Notation, Rule, Set, object, text};
use super::document::{Node, quoted};
use super::forwarded::{KNOWN_SIGNALS, known_signal};
use super::headers::{self, HeaderCopy, HeaderName, HeaderToken, HeaderValue, PORT, PROTO};
use super::port::Port;
use super::problem::closest;
use super::read::At;
use super::signal_form::SignalForm;

/// The scheme a client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The value as it is written into headers: always lower-case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The scheme's default port, as `x-forwarded-port` carries it.
    #[must_use]
    pub fn default_port(self) -> &'static str {
        match self {
            Scheme::Http => "80",
            Scheme::Https => "443",
        }
    }

    /// The scheme's default port.
    fn port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

object! {
    /// Writes `x-forwarded-proto`, and `:scheme` as `rewriteScheme` says.
    pub struct ForwardedProto = "ForwardedProto", "forwardedProto", "{default: https}", Rule::AtLeastOneOf {
        names: &[Name::Field("from"), Name::Field("default")],
        message: "neither a signal nor a default tells the scheme here",
        help: "write {default: https} if every client of this load balancer uses https, or name its signals in from",
    };
    derive Default;

    /// Signals, in this order: an absent one passes the question on, the first that is present answers it. One that
    /// can't be understood, or stands on several lines, ends in `default`. List only headers that *this* load balancer
    /// always overwrites. x-forwarded-proto is refused under `peerAddress: auto` and `source`: Envoy has overwritten it.
    /// `header:NAME` reads a copy that an early header mutation made.
    from: Vec<Signal> = optional "from": Distinct<Signal>, "[]", "[x-forwarded-port, cloudfront-forwarded-proto]";
    /// The scheme where no signal tells; `connection` is what the connection to the gateway is.
    default: DefaultScheme = optional "default": DefaultScheme, "connection", "https";
}

/// What a trusted load balancer's request is taken for if no signal tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum DefaultScheme {
    /// This scheme.
    Scheme(Scheme),
    /// What the connection to the gateway is.
    #[default]
    Connection,
}

impl DefaultScheme {
    const WORDS: [(&'static str, DefaultScheme); 3] = [
        ("https", DefaultScheme::Scheme(Scheme::Https)),
        ("http", DefaultScheme::Scheme(Scheme::Http)),
        ("connection", DefaultScheme::Connection),
    ];
}

impl Notation for DefaultScheme {
    type Value = Self;
    const EXAMPLE: &'static str = "https";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Words(&super::declare::words_of(&DefaultScheme::WORDS));

    fn read(at: At<'_>) -> Option<Self> {
        at.word(&Self::WORDS)
    }
}

/// A header by which a load balancer tells the client's scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Signal {
    /// The header.
    pub name: HeaderName,
    /// How its value reads.
    pub form: SignalForm,
}

impl Signal {
    /// What this filter writes into the header and this form takes for the other scheme, and that scheme.
    pub(super) fn contradicts(&self, writes_port: bool) -> Option<(&'static str, &'static str)> {
        let both = |written: [&'static str; 2], https_is_http: bool, http_is_https: bool| {
            let [https, http] = written;
            if https_is_http {
                Some((https, "http"))
            } else {
                http_is_https.then_some((http, "https"))
            }
        };
        let [plain, tls] = [Scheme::Http, Scheme::Https];
        match &self.form {
            SignalForm::Port { https, http } if writes_port => both(
                [tls.default_port(), plain.default_port()],
                http.contains(&tls.port()),
                https.contains(&plain.port()),
            ),
            SignalForm::Values { https, http } if self.name.as_str() == PROTO => both(
                [tls.as_str(), plain.as_str()],
                http.iter().any(|value| value == tls.as_str()),
                https.iter().any(|value| value == plain.as_str()),
            ),
            _ => None,
        }
    }

    /// Adds what this filter writes into the header.
    pub(super) fn read_back(&mut self, writes_port: bool) {
        match &mut self.form {
            SignalForm::Port { https, http } if writes_port => {
                add(https, Scheme::Https.port());
                add(http, Scheme::Http.port());
            }
            SignalForm::Values { https, http } if self.name.as_str() == PROTO => {
                add(https, Scheme::Https.as_str().to_owned());
                add(http, Scheme::Http.as_str().to_owned());
            }
            _ => {}
        }
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, one: T) {
    if !list.contains(&one) {
        list.push(one);
    }
}

impl Notation for Signal {
    type Value = Self;
    const EXAMPLE: &'static str =
        "x-forwarded-port, or {header: x-lb-tls, https: [\"1\"], http: [\"0\"]}";
    #[cfg(feature = "cli")]
    const KIND: Kind = Kind::Either(&[
        Kind::Words(KNOWN_SIGNALS),
        Kind::Text {
            what: "one of these in another case",
            pattern: || headers::any_case(KNOWN_SIGNALS),
        },
        HeaderCopy::KIND,
        CustomSignal::KIND,
        PortSignal::KIND,
    ]);

    fn read(at: At<'_>) -> Option<Self> {
        match at.node {
            Node::Text(text) => named(at, text),
            Node::Object(_) if at.node.get("header").is_some_and(is_port) => {
                let PortSignal {
                    header,
                    https,
                    http,
                } = PortSignal::read(at)?;
                let both = https.iter().find(|port| http.contains(port));
                let both = both.map(ToString::to_string);
                with_values(at, header, both, SignalForm::Port { https, http })
            }
            Node::Object(_) => {
                let CustomSignal {
                    header,
                    https,
                    http,
                } = CustomSignal::read(at)?;
                let both = https.iter().find(|value| http.contains(value));
                let both = both.map(|value| quoted(value).to_string());
                with_values(at, header, both, SignalForm::Values { https, http })
            }
            _ => {
                at.wrong_kind("a signal");
                None
            }
        }
    }
}

fn named(at: At<'_>, text: &str) -> Option<Signal> {
    if text.starts_with(headers::COPY) {
        return Some(Signal {
            name: HeaderCopy::read(at)?,
            form: SignalForm::Helper,
        });
    }
    let name = at.reported(headers::name(text))?;
    if let Some(form) = known_signal(name.as_str()) {
        return Some(Signal { name, form });
    }
    let help = match closest(text, &mut KNOWN_SIGNALS.iter().copied()) {
        Some(word) => format!("did you mean {word}?"),
        None => format!(
            "for a load balancer's own header say which values mean what: {{header: {name}, https: [\"https\"], \
             http: [\"http\"]}}; for a copy that an early header mutation makes write header:{name}",
            name = name.as_str()
        ),
    };
    at.error_with_help(
        &format_args!("{} is not a signal whose form is known", quoted(text)),
        &help,
    );
    None
}

fn with_values(
    at: At<'_>,
    name: HeaderName,
    both: Option<String>,
    form: SignalForm,
) -> Option<Signal> {
    if let Some(value) = both {
        at.error(&format_args!("{value} means both https and http"));
        return None;
    }
    Some(Signal { name, form })
}

const VALUES: Rule = Rule::AtLeastOneOf {
    names: &[Name::Field("https"), Name::Field("http")],
    message: "no value of this header means anything",
    help: "write https: [...], the values that mean https, or http: [...]",
};

object! {
    /// For a header that the load balancer writes in a form of its own.
    pub(crate) struct CustomSignal = "CustomSignal", "from[] with values of your own",
        "{header: x-lb-tls, https: [\"1\"], http: [\"0\"]}", VALUES;

    /// The header.
    header: HeaderName = required "header": ValueHeader, "x-lb-tls";
    /// Values that mean https, exactly as they come.
    https: Vec<String> = optional "https": Set<HeaderValue>, "none", "[\"1\", \"on\"]";
    /// Values that mean http.
    http: Vec<String> = optional "http": Set<HeaderValue>, "none", "[\"0\"]";
}

object! {
    /// For ports other than 443 and 80.
    pub(crate) struct PortSignal = "PortSignal", "from[] with ports of your own",
        "{header: x-forwarded-port, https: [8443]}", VALUES;

    /// The header.
    header: HeaderName = required "header": PortHeader, "x-forwarded-port";
    /// Ports that mean https.
    https: Vec<u16> = optional "https": Set<Port>, "none", "[443, 8443]";
    /// Ports that mean http.
    http: Vec<u16> = optional "http": Set<Port>, "none", "[80]";
}

fn is_port(node: &Node) -> bool {
    matches!(node, Node::Text(name) if name.eq_ignore_ascii_case(PORT))
}

text! {
    /// The header whose values are ports.
    PortHeader: HeaderName = "x-forwarded-port", "x-forwarded-port", HeaderToken::read,
        headers::any_case(&[PORT]);
}

text! {
    /// A header whose values are texts.
    ValueHeader: HeaderName = "header name", "x-lb-tls", HeaderToken::read,
        headers::token_but(&[PORT]);
}
