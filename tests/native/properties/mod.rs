//! What holds for every configuration and every request, tried with arbitrary ones.

mod decisions;
mod matching;

use serde_json::Value;
use trusted_lb::config;
use trusted_lb::engine::Engine;

/// The value of every secret.
pub(crate) const TOKEN: &str = "correct-horse";

pub(crate) fn engine(config: &Value) -> Engine {
    let loaded = config::load(config.to_string().as_bytes());
    let config = loaded
        .config
        .unwrap_or_else(|| panic!("{config:#}: {:#?}", loaded.problems));
    Engine::new(&config, &|_| Some(TOKEN.to_owned())).expect("secrets are there")
}

fn read(text: &str) -> config::Config {
    let loaded = config::load(text.as_bytes());
    loaded
        .config
        .unwrap_or_else(|| panic!("{text}: {:#?}", loaded.problems))
}
