//! `./build.sh istio [FILE...]`: a real Istio gateway with these manifests, until Ctrl-C.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use istio_lab::gateway::{
    self, ELSEWHERE, HTTP, HTTPS, LOAD_BALANCER, Options, SECRET, TOKEN, try_send,
};
use istio_lab::lab::{Lab, to_echo};
use istio_lab::manifest::{NAMESPACE, text, try_kustomized};
use istio_lab::programs::Programs;
use istio_lab::registry;
use istio_lab::wait;
use serde_json::{Value, json};
use testkit::artifacts::repository;
use testkit::cases::ClientRequest;
use testkit::http::Response;

/// What somebody sends who would like to pass for the load balancer.
const SPOOFED: &[(&str, &str)] = &[
    ("x-forwarded-proto", "https"),
    ("x-forwarded-for", "10.0.12.5"),
    ("x_forwarded_proto", "https"),
    ("x-forwarded-ssl", "on"),
];

/// How long a change may take to come into force before the table is shown again all the same.
const SETTLE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    istio_lab::process::end_with_signals();
    let mut files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        files.push(repository().join("envoyfilter"));
    }
    let programs = Programs::from_environment();
    let mut contents = Vec::new();
    for path in &files {
        match read(&programs, path) {
            Ok(text) => contents.push(text),
            Err(error) => {
                eprintln!("error: {}: {error}", shown(path));
                return ExitCode::FAILURE;
            }
        }
    }
    println!("starting an API server, istiod, a registry and a gateway (some 20 s)");
    let mut lab = Lab::start();
    // Nothing of the project's: what is tried has to bring all that it needs.
    let options = Options {
        without_direct_peer: true,
        ..Options::default()
    };
    lab.serve(&hosts(), &options);
    let without = [LOAD_BALANCER, ELSEWHERE].map(|peer| column(&lab, &Client::plain(peer)));
    greet(&files);
    let mut told = lab.gateway().log().len();
    loop {
        apply(&lab, &files, &contents);
        let here = Client::of_the_load_balancer(&contents);
        let with = [&here, &Client::plain(ELSEWHERE)].map(|client| column(&lab, client));
        print_table(&here, &without, &with);
        // Until a file changes.
        for glance in 1_u32.. {
            std::thread::sleep(Duration::from_millis(300));
            told = tell_log(&mut lab, told);
            if let Err(reason) = lab.gateway().check() {
                eprintln!("{reason}");
                return ExitCode::FAILURE;
            }
            let now: Vec<String> = files
                .iter()
                .zip(&contents)
                .map(|(path, known)| {
                    // kustomize costs more than a look at a file.
                    if path.is_dir() && glance % 8 != 0 {
                        return known.clone();
                    }
                    // An editor may be about to write it.
                    match read(&programs, path) {
                        Ok(text) if !text.is_empty() => text,
                        _ => known.clone(),
                    }
                })
                .collect();
            if now != contents {
                println!("\nthe files have changed");
                contents = now;
                break;
            }
        }
    }
}

/// What is to be applied: a file as it is, of a folder what kustomize makes of it.
fn read(programs: &Programs, path: &Path) -> Result<String, String> {
    if path.is_dir() {
        return try_kustomized(programs, path);
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A file's name for messages.
fn shown(path: &Path) -> String {
    path.strip_prefix(repository())
        .unwrap_or(path)
        .display()
        .to_string()
}

/// Hosts for the lines of the table, beside the one that has every host.
fn hosts() -> String {
    let service = |name: &str, host: &str, http: Value| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"hosts": [host], "gateways": [name], "http": [http]},
        })
    };
    let gateway = |name: &str, host: &str, tls: Value| {
        let mut server = json!({"port": {"number": HTTP.port(), "name": name, "protocol": "HTTP"}, "hosts": [host]});
        if !tls.is_null() {
            server["tls"] = tls;
        }
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "Gateway",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": {"istio": "ingressgateway"}, "servers": [server]},
        })
    };
    text(&[
        gateway(
            "secure",
            "secure.example.com",
            json!({"httpsRedirect": true}),
        ),
        service(
            "secure",
            "secure.example.com",
            json!({"route": [to_echo()]}),
        ),
        gateway("old", "old.example.com", Value::Null),
        service(
            "old",
            "old.example.com",
            json!({"redirect": {"uri": "/new"}}),
        ),
    ])
}

fn greet(files: &[PathBuf]) {
    let own = files
        .iter()
        .map(|path| shown(path))
        .collect::<Vec<_>>()
        .join(" ");
    println!(
        "\nA gateway of Istio's listens at http://{HTTP} and https://{HTTPS}, in a network of its own in which every address \
         is this machine's. In another terminal:\n\n  target/istio/enter curl --interface 10.0.12.5 -H 'host: app.example.com' \
         http://{HTTP}/\n  target/istio/enter kubectl get wasmplugins,envoyfilters -A\n  target/istio/enter curl -s \
         {admin}/stats/prometheus\n\nProxy container's environment: TRUSTED_LB_TOKEN={TOKEN} ORIGIN_SECRET={SECRET}",
        admin = gateway::ADMIN,
    );
    println!("Applied, and again whenever they change: {own}. Ctrl-C ends it.");
}

/// Applies the files and waits until the gateway has taken or refused what changed.
fn apply(lab: &Lab, files: &[PathBuf], contents: &[String]) {
    let before = state();
    for (path, content) in files.iter().zip(contents) {
        let manifest = with_our_module(content);
        let name = shown(path);
        match lab.cluster.try_apply(&manifest) {
            Ok(said) => said.lines().for_each(|line| println!("{name}: {line}")),
            Err(error) => eprintln!("{name}: {error}"),
        }
    }
    let _ = wait::within(SETTLE, || {
        if state() == before {
            Err(String::new())
        } else {
            Ok(())
        }
    });
    // A first load compiles the module after the agent has fetched it.
    let _ = wait::within(SETTLE, || {
        let now = state();
        std::thread::sleep(Duration::from_millis(300));
        if state() == now {
            Ok(())
        } else {
            Err(String::new())
        }
    });
}

/// What changes when something is taken or refused.
fn state() -> (BTreeMap<String, Value>, Vec<String>, String) {
    let counted = ["accepted", "refused"]
        .map(|what| gateway::metric(&format!("trusted_lb_configuration_{what}")));
    (
        gateway::extensions(),
        gateway::http_filters(HTTP.port()),
        format!("{counted:?}"),
    )
}

/// Whatever registry a manifest names: the module that is built from these sources stands in its place, since this network
/// reaches no other.
fn with_our_module(manifest: &str) -> String {
    let ours = format!("oci://{}/trusted-lb:0.1.0", registry::HOST);
    let mut out = String::new();
    for line in manifest.lines() {
        let bare = line.trim_start().trim_start_matches("- ");
        if let Some((before, after)) = line.split_once("oci://") {
            let rest = after
                .find([' ', '"', '\'', ',', '}'])
                .map_or("", |end| &after[end..]);
            out.push_str(&format!("{before}{ours}{rest}"));
        } else if bare.starts_with("sha256:") {
            // Of another build.
            continue;
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

/// Whose requests a column shows.
struct Client {
    peer: IpAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    fn plain(peer: IpAddr) -> Self {
        Self {
            peer,
            headers: Vec::new(),
        }
    }

    /// Somebody whom the first rule in the manifests trusts, as far as that can be read from it.
    fn of_the_load_balancer(contents: &[String]) -> Self {
        let mut client = Self::plain(LOAD_BALANCER);
        let rule = contents
            .iter()
            .filter(|text| text.contains("trustedLoadBalancers"))
            .find_map(|text| {
                let documents: Vec<Value> = serde_saphyr::from_multiple(text).ok()?;
                documents.iter().find_map(|document| {
                    let spec = &document["spec"];
                    [&spec["pluginConfig"], &spec["wasm"]["pluginConfig"]]
                        .into_iter()
                        .map(|configuration| {
                            configuration["trustedLoadBalancers"][0]["match"].clone()
                        })
                        .find(|found| !found.is_null())
                })
            });
        let Some(rule) = rule else { return client };
        let block = rule["ipBlocks"][0].as_str().unwrap_or_default();
        if let Some(address) = an_address_in(block) {
            client.peer = address;
        }
        for header in rule["headers"].as_array().into_iter().flatten() {
            let text = |name: &str| header[name].as_str().map(str::to_owned);
            let value = text("exact").or_else(|| text("prefix")).or_else(|| {
                match text("fromEnv")?.as_str() {
                    "TRUSTED_LB_TOKEN" => Some(TOKEN.to_owned()),
                    _ => Some(SECRET.to_owned()),
                }
            });
            client.headers.extend(text("name").zip(value));
        }
        client
    }

    fn request(&self, host: &str, path: &str) -> ClientRequest {
        let mut request = ClientRequest::get(self.peer, host, path);
        if self.peer == ELSEWHERE {
            request = request.with(SPOOFED);
        }
        request.headers.extend(self.headers.clone());
        request
    }
}

/// The first usable address of a block.
fn an_address_in(block: &str) -> Option<IpAddr> {
    let (address, prefix) = block.split_once('/').unwrap_or((block, "32"));
    match (address.parse().ok()?, prefix) {
        (IpAddr::V4(address), "32") => Some(address.into()),
        (IpAddr::V4(address), _) => Some(IpAddr::V4((u32::from(address) + 5).into())),
        // The lab's network has no IPv6.
        (IpAddr::V6(_), _) => None,
    }
}

const ROWS: [&str; 7] = [
    "x-forwarded-proto at the service",
    "x_forwarded_proto at the service",
    "x-forwarded-ssl at the service",
    "host with httpsRedirect",
    "Location of a path redirect",
    "timeout of the request",
    "service that fails twice",
];

/// A column of the table.
fn column(lab: &Lab, client: &Client) -> Vec<String> {
    let send = |host: &str, path: &str| try_send(HTTP, &client.request(host, path));
    let of = |answer: &Result<Response, String>, show: &dyn Fn(&Response) -> Option<String>| {
        match answer {
            Ok(response) if response.status >= 400 => response.status.to_string(),
            Ok(response) => show(response).unwrap_or_else(|| "-".to_owned()),
            Err(_) => "no answer".to_owned(),
        }
    };
    let plain = send("app.example.com", "/");
    let received = |name: &'static str| of(&plain, &|response| response.received_one(name));
    let key = format!("{}{:?}", client.peer, std::time::Instant::now());
    let key: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    let failing = send("app.example.com", &format!("/fail?times=2&key={key}"));
    vec![
        received("x-forwarded-proto"),
        received("x_forwarded_proto"),
        received("x-forwarded-ssl"),
        of(&send("secure.example.com", "/"), &|response| {
            Some(response.status.to_string())
        }),
        of(&send("old.example.com", "/"), &|response| {
            response.header("location")
        }),
        of(&plain, &|response| {
            Some(format!(
                "{} ms",
                response.received_one("x-envoy-expected-rq-timeout-ms")?
            ))
        }),
        match failing {
            Ok(response) => match lab.upstream.attempts(&key) {
                1 => format!("{}, 1 try", response.status),
                tries => format!("{}, {tries} tries", response.status),
            },
            Err(_) => "no answer".to_owned(),
        },
    ]
}

fn print_table(here: &Client, without: &[Vec<String>; 2], with: &[Vec<String>; 2]) {
    const WHAT: usize = 34;
    const CELL: usize = 28;
    println!(
        "\n{:WHAT$}{:group$}with these manifests",
        "",
        "without",
        group = 2 * CELL
    );
    let (balancer, stranger) = (
        format!("from {}", here.peer),
        format!("spoofing, from {ELSEWHERE}"),
    );
    let usual = format!("from {LOAD_BALANCER}");
    println!(
        "{:WHAT$}{usual:CELL$}{stranger:CELL$}{balancer:CELL$}{stranger:CELL$}",
        ""
    );
    for (row, what) in ROWS.iter().enumerate() {
        print!("{what:WHAT$}");
        for column in without.iter().chain(with) {
            print!("{:CELL$}", column[row]);
        }
        println!();
    }
    let lines: Vec<String> = SPOOFED
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    println!("\nThe spoofing client sends {}.", lines.join(", "));
}

/// Prints what the filter has written to the proxy's log since it was read. Answers how far that was.
fn tell_log(lab: &mut Lab, from: usize) -> usize {
    let log = lab.gateway().log();
    for line in log
        .get(from..)
        .unwrap_or_default()
        .lines()
        .filter(|line| line.contains("trusted-lb:"))
    {
        println!("gateway: {line}");
    }
    log.len()
}
