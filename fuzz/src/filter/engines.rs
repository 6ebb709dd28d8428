//! Engines for the targets.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;
use trusted_lb::config;
use trusted_lb::engine::Engine;

/// The value of every secret.
pub(super) const SECRET: &str = "correct-horse";

pub(super) fn compiled(config: &config::Config) -> Engine {
    Engine::new(config, &|_| Some(SECRET.to_owned())).expect("every secret is there")
}

/// The engine of one configuration, compiled once a thread.
pub(super) fn engine_of(document: &Value) -> Rc<Engine> {
    thread_local! {
        static ENGINES: RefCell<BTreeMap<String, Rc<Engine>>> = const { RefCell::new(BTreeMap::new()) };
    }
    let text = document.to_string();
    ENGINES.with_borrow_mut(|engines| {
        let known = engines.entry(text).or_insert_with_key(|text| {
            let loaded = config::load(text.as_bytes());
            Rc::new(compiled(
                &loaded
                    .config
                    .unwrap_or_else(|| panic!("{:?}", loaded.problems)),
            ))
        });
        Rc::clone(known)
    })
}
