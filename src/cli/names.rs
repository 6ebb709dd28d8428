//! Names, labels and URLs on the command line: what Kubernetes, Istio or a client would refuse is refused here.

/// A request's URL.
#[derive(Clone, Debug)]
pub(super) struct RequestUrl {
    pub(super) scheme: String,
    pub(super) authority: String,
    pub(super) path: String,
}

/// `http://HOST/PATH`.
pub(super) fn request_url(text: &str) -> Result<RequestUrl, String> {
    let wrong = || "write a whole URL, such as https://shop.example.com/cart".to_owned();
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let scheme = scheme.to_ascii_lowercase();
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let is_visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !matches!(scheme.as_str(), "http" | "https")
        || authority.trim_start_matches(':').is_empty()
        || authority.starts_with(':')
        || authority.contains('@')
        || !is_visible(authority)
        || !is_visible(path)
    {
        return Err(wrong());
    }
    let path = if path.starts_with('?') {
        format!("/{path}")
    } else {
        path.to_owned()
    };
    Ok(RequestUrl {
        scheme,
        authority: authority.to_owned(),
        path,
    })
}

/// A method of HTTP.
pub(super) fn method(text: &str) -> Result<String, String> {
    if is_token(text) {
        Ok(text.to_owned())
    } else {
        Err("write a method, such as GET".to_owned())
    }
}

/// Whether this is a token of RFC 9110: a method or a header's name.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A name of a resource: an RFC 1123 subdomain.
pub(super) fn resource(text: &str) -> Result<String, String> {
    let good = text.len() <= 253 && text.split('.').all(is_label);
    good.then(|| text.to_owned()).ok_or_else(|| {
        "a name is small letters, digits, - and ., and begins and ends with a letter or digit"
            .to_owned()
    })
}

/// A namespace: an RFC 1123 label.
pub(super) fn label(text: &str) -> Result<String, String> {
    is_label(text).then(|| text.to_owned()).ok_or_else(|| {
        "a namespace is small letters, digits and -, and begins and ends with a letter or digit"
            .to_owned()
    })
}

fn is_label(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// `LABEL=VALUE`, as labels of pods are.
pub(super) fn pod_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| "write LABEL=VALUE".to_owned())?;
    let is_part = |part: &str| {
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        part.len() <= 63
            && edge(part.bytes().next())
            && edge(part.bytes().last())
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let (prefix, own) = match name.split_once('/') {
        Some((prefix, own)) => (Some(prefix), own),
        None => (None, name),
    };
    if prefix.is_some_and(|prefix| resource(prefix).is_err())
        || !is_part(own)
        || !(value.is_empty() || is_part(value))
    {
        return Err("write LABEL=VALUE, as Kubernetes takes labels".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// Where Istio or Envoy Gateway gets a module: an image, or a URL of a scheme that they know.
pub(super) fn module_url(text: &str) -> Result<String, String> {
    let rest = match text.split_once("://") {
        Some(("oci" | "https" | "http" | "file", rest)) => rest,
        Some(_) => return Err("write oci://, https://, http:// or file://".to_owned()),
        None => text,
    };
    let good = !rest.is_empty()
        && rest.bytes().all(|byte| byte.is_ascii_graphic())
        && rest
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric() || b"/[".contains(&byte));
    good.then(|| text.to_owned())
        .ok_or_else(|| "write for example oci://registry.example.com/trusted-lb:0.1.0".to_owned())
}

/// A SHA-256 as Istio takes it: 64 hexadecimal digits, without `sha256:`.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(digits.to_ascii_lowercase());
    }
    Err("write 64 hexadecimal digits".to_owned())
}
