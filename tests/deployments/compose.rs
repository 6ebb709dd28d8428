//! The Docker Compose example, run as its README says, in a Docker engine of our own with images of our own.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::artifacts;
use testkit::docker::{Compose, Engine, Image, Shell};

use crate::{monitoring, read, skipped};

/// Commands of a README, and what it says they print.
struct Step {
    commands: String,
    prints: Option<String>,
}

/// The `sh` blocks in order, each with the `text` block that follows it.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut rest = readme;
    while let Some((_, block)) = rest.split_once("\n```") {
        let (kind, block) = block.split_once('\n').expect("a block begins with a line");
        let (text, after) = block.split_once("```\n").expect("a block ends");
        match (kind, steps.last_mut()) {
            ("sh", _) => steps.push(Step {
                commands: text.to_owned(),
                prints: None,
            }),
            ("text", Some(step)) => step.prints = Some(text.to_owned()),
            _ => {}
        }
        rest = after;
    }
    steps
}

/// The images that the example names, from what is to be had here: none is pulled.
fn import_stand_ins(engine: &Engine) {
    let tools = artifacts::tool("dockerd")
        .expect("the engine runs on it")
        .root;
    let envoy = Image::new()
        .program(artifacts::envoy(), "usr/local/bin/envoy", &tools)
        .with("ENV PATH=/usr/local/bin")
        .with(r#"CMD ["envoy", "-c", "/etc/envoy/envoy.yaml"]"#);
    engine.import("envoyproxy/envoy:v1.40.0", &envoy);
    let openssl = Image::new()
        .program(&tools.join("usr/bin/openssl"), "bin/openssl", &tools)
        .file(&tools.join("bin/busybox"), "bin/busybox")
        .file(
            &tools.join("etc/ssl/openssl.cnf"),
            "usr/lib/ssl/openssl.cnf",
        )
        .link("busybox", "bin/sh")
        .link("busybox", "bin/chmod")
        .with("ENV PATH=/bin")
        .with(r#"ENTRYPOINT ["openssl"]"#);
    engine.import("alpine/openssl:3.5.5", &openssl);
}

/// Runs the README's commands, `./build.sh` aside, which was run before.
fn follow_the_readme(engine: &Engine, compose: Compose) -> Result<(), String> {
    let readme = read("examples/docker-compose/README.md");
    let mut shell = engine.shell(compose)?;
    for step in steps(&readme) {
        if step.commands.contains("--profile monitoring up") {
            if compose == Compose::Two {
                ask_prometheus(engine, &mut shell);
            }
            continue;
        }
        // Once is enough for what doesn't depend on which Compose it is, and takes long.
        if step.commands.contains(" down ") && compose == Compose::Two {
            the_gateway_saw_who_sent_what(&mut shell);
        }
        let (printed, succeeded) = shell.run(&step.commands.replace("./build.sh\n", ""));
        let as_said = step.prints.as_ref().is_none_or(|prints| *prints == printed);
        if !succeeded || !as_said {
            let logs = shell.run("docker compose logs --no-color; docker ps -a").0;
            panic!(
                "{compose:?}: {}\nprinted:\n{printed}\nnot:\n{:?}\n{logs}\n{}",
                step.commands,
                step.prints,
                shell.end()
            );
        }
    }
    Ok(())
}

/// The requests around the load balancer come from another address than its own, whatever Docker does to them.
fn the_gateway_saw_who_sent_what(shell: &mut Shell) {
    // An Envoy that is stopped writes down what it held back.
    let logs = "docker compose stop gateway; docker compose logs --no-color gateway";
    let gateway_log = shell.run(logs).0;
    let lines_with = |text: &str| {
        gateway_log
            .lines()
            .filter(|line| line.contains(text))
            .count()
    };
    assert!(
        lines_with("peer 172.30.12.10, trusted by load-balancer, scheme https") > 0,
        "{gateway_log}"
    );
    assert!(lines_with("trusted by -, scheme http") > 0, "{gateway_log}");
    assert_eq!(
        lines_with("peer 172.30.12.10, trusted by -"),
        0,
        "{gateway_log}"
    );
}

/// Prometheus of the example, without Grafana, of which nothing can be had here: it gets the gateway's metrics, has loaded
/// the rules, and has an answer to every query of the dashboard.
fn ask_prometheus(engine: &Engine, shell: &mut Shell) {
    let prometheus = match artifacts::tool("promtool") {
        Ok(tool) => tool.root,
        Err(reason) => return skipped("Prometheus was not run", &reason),
    };
    let image = Image::new()
        .program(&prometheus.join("usr/bin/prometheus"), "bin/prometheus", &prometheus)
        .with(r#"ENTRYPOINT ["/bin/prometheus"]"#)
        .with(r#"CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]"#);
    engine.import("prom/prometheus:v3.7.3", &image);
    let (_, started) = shell.run("docker compose --profile monitoring up -d prometheus");
    assert!(started, "Prometheus does not start");
    let mut ask = |path: &str| -> Value {
        let (answer, _) = shell.run(&format!("curl -s 'http://localhost:9090/api/v1/{path}"));
        serde_json::from_str(&answer).unwrap_or_default()
    };
    let queries = monitoring::dashboard_queries();
    assert!(
        queries.len() > 15,
        "only {} queries were found",
        queries.len()
    );
    let deadline = Instant::now() + Duration::from_secs(90);
    for query in queries {
        let query = query
            .replace("$__rate_interval", "1m")
            .replace("$__range", "5m")
            .replace("$instance", ".*");
        loop {
            let answer = ask(&format!("query' --data-urlencode 'query={query}'"));
            let values = answer["data"]["result"].as_array().map_or(0, Vec::len);
            if values > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{query}: {answer}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    let rules = ask("rules'");
    let rules = rules["data"]["groups"][0]["rules"]
        .as_array()
        .map_or(0, Vec::len);
    assert_eq!(rules, monitoring::alert_expressions().len());
}

#[test]
fn the_compose_example_does_what_its_readme_says() {
    let engine = match Engine::start() {
        Ok(engine) => engine,
        Err(reason) => {
            skipped("the Docker Compose example was not run", &reason);
            return;
        }
    };
    assert!(
        artifacts::module().ends_with("dist/trusted_lb.wasm"),
        "the example mounts dist/"
    );
    import_stand_ins(&engine);
    for compose in [Compose::OfThisDebian, Compose::Two] {
        if let Err(reason) = follow_the_readme(&engine, compose) {
            skipped(
                &format!("the Docker Compose example was not run with {compose:?}"),
                &reason,
            );
        }
        assert_eq!(
            engine.ask(&["ps", "-aq"]),
            "",
            "{compose:?} left containers"
        );
        assert_eq!(
            engine.ask(&["volume", "ls", "-q"]),
            "",
            "{compose:?} left volumes"
        );
        let networks = engine.ask(&["network", "ls", "--filter", "type=custom", "-q"]);
        assert_eq!(networks, "", "{compose:?} left networks");
    }
}
