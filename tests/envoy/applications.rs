//! What applications read: servers of the CGI family turn a header's name into a variable's, so that several names are one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::artifacts;
use testkit::cases::ClientRequest;
use testkit::envoy::Envoy;
use testkit::gateway::{Listener, bootstrap};
use testkit::http;

const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// Every character that may stand in a header's name and is no letter or digit (RFC 9110, 5.6.2).
const SEPARATORS: &str = "!#$%&'*+-.^_`|~";

/// Prints the variables of its environment, one a line.
const CGI_SCRIPT: &str = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nenv\n";

/// A WSGI application that does the same, on a port that it prints.
const WSGI_SERVER: &str = "
from wsgiref.simple_server import make_server
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [''.join(f'{k}={v}\\n' for k, v in environ.items() if isinstance(v, str)).encode('latin-1')]
with make_server('127.0.0.1', 0, application) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
";

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A lighttpd that runs a CGI script, on a Unix socket in this folder.
fn start_lighttpd(folder: &Path) -> (Running, Value) {
    let lighttpd = artifacts::tool("lighttpd").expect("Debian's lighttpd");
    let script = folder.join("env.cgi");
    std::fs::write(&script, CGI_SCRIPT).expect("a file can be written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
        .expect("it can be marked");
    let socket = folder.join("lighttpd");
    let configuration = format!(
        "server.document-root = \"{folder}\"\nserver.bind = \"{socket}\"\nserver.modules = (\"mod_cgi\")\n\
         cgi.assign = (\".cgi\" => \"\")\n",
        folder = folder.display(),
        socket = socket.display(),
    );
    let file = folder.join("lighttpd.conf");
    std::fs::write(&file, configuration).expect("a file can be written");
    let child = Command::new(&lighttpd.program)
        .arg("-D")
        .arg("-f")
        .arg(&file)
        .arg("-m")
        .arg(lighttpd.root.join("usr/lib/lighttpd"))
        .spawn()
        .expect("lighttpd can be run");
    let running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline, "lighttpd doesn't listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (running, json!({"pipe": {"path": socket}}))
}

/// A WSGI application in the standard library's server.
fn start_wsgi() -> (Running, Value) {
    let mut child = Command::new("python3")
        .args(["-c", WSGI_SERVER])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Python can be run");
    let stdout = child.stdout.take().expect("it is piped");
    let running = Running(child);
    let mut port = String::new();
    BufReader::new(stdout)
        .read_line(&mut port)
        .expect("it prints its port");
    let port: u16 = port.trim().parse().expect("a port");
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    (running, address)
}

/// Two gateways in front of an application: `bare` without the filter, and `gateway`.
fn start_gateways(application: &Value) -> Envoy {
    let config = json!({"trustedLoadBalancers": [
        {"name": "lb", "match": {"ipBlocks": ["127.0.0.2"]}, "forwardedProto": {"default": "https"}},
    ]});
    let listeners = [
        Listener::new("bare"),
        Listener::new("gateway").plugin(&config, &BTreeMap::new()),
    ];
    let nowhere = "127.0.0.1:1".parse().expect("an address");
    let mut bootstrap = bootstrap(&listeners, nowhere);
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array_mut()
        .expect("clusters");
    let upstream = clusters
        .iter_mut()
        .find(|cluster| cluster["name"] == "upstream")
        .expect("the upstream's cluster");
    upstream["load_assignment"]["endpoints"] =
        json!([{"lb_endpoints": [{"endpoint": {"address": application}}]}]);
    Envoy::start(&bootstrap)
}

/// The values that an application finds in this variable.
fn variable(envoy: &Envoy, listener: &str, header: (&str, &str), name: &str) -> Vec<String> {
    let request = ClientRequest::get(STRANGER, "app.example.com", "/env.cgi").with(&[header]);
    let response = http::send(envoy.listener(listener), &request).expect("the gateway answers");
    assert_eq!(response.status, 200, "{listener} {header:?}: {response:?}");
    let text = String::from_utf8_lossy(&response.body);
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// The separators with which a name other than the hyphen form reaches the application as the same variable, without the
/// filter. With it none does.
fn separators_that_reach(application: &Value) -> BTreeSet<char> {
    let envoy = start_gateways(application);
    let mut reaching = BTreeSet::new();
    for separator in SEPARATORS.chars() {
        let spelled = |name: &str| name.replace('-', &separator.to_string());
        let ssl = spelled("x-forwarded-ssl");
        let found = variable(&envoy, "bare", (&ssl, "on"), "HTTP_X_FORWARDED_SSL");
        if !found.is_empty() {
            assert_eq!(found, ["on"], "{separator}");
            reaching.insert(separator);
        }
        let found = variable(&envoy, "gateway", (&ssl, "on"), "HTTP_X_FORWARDED_SSL");
        assert_eq!(found, [""; 0], "{ssl}");
        let proto = spelled("x-forwarded-proto");
        let name = "HTTP_X_FORWARDED_PROTO";
        let found = variable(&envoy, "gateway", (&proto, "https"), name);
        assert_eq!(found, ["http"], "{proto}");
        // Different separators in one name.
        let mixed = format!("x{separator}forwarded-proto");
        let found = variable(&envoy, "gateway", (&mixed, "https"), name);
        assert_eq!(found, ["http"], "{mixed}");
    }
    reaching
}

#[test]
fn no_spelling_of_a_forwarded_header_reaches_a_cgi_script_of_lighttpd() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (_lighttpd, address) = start_lighttpd(folder.path());
    let every: BTreeSet<char> = SEPARATORS.chars().collect();
    assert_eq!(separators_that_reach(&address), every);
}

#[test]
fn no_spelling_of_a_forwarded_header_reaches_a_wsgi_application() {
    let (_server, address) = start_wsgi();
    assert_eq!(separators_that_reach(&address), BTreeSet::from(['-', '_']));
}
