//! The reader of configurations, whatever the bytes.

use trusted_lb::config;
use trusted_lb::engine::Engine;

use super::engines::compiled;

/// A plugin configuration, whatever its bytes: it is taken, or every problem says something.
pub fn configuration(data: &[u8]) {
    let loaded = config::load(data);
    for problem in &loaded.problems {
        assert!(!problem.message.is_empty());
        assert!(
            !problem.to_string().contains('\n'),
            "one line each: {problem}"
        );
    }
    assert_eq!(loaded.config.is_none(), loaded.errors().next().is_some());
    let Some(config) = loaded.config else { return };
    let again = config::load(data).config.expect("it was taken before");
    assert_eq!(config, again);
    // Secrets of its own may be missing; nothing else can be wrong now.
    let missing = Engine::new(&config, &|_| None).err().unwrap_or_default();
    assert!(
        missing
            .iter()
            .all(|problem| problem.message.contains("environment variable"))
    );
    let engine = compiled(&config);
    assert_eq!(engine.rule_count(), config.trusted_load_balancers.len());
    assert_eq!(engine.override_count(), config.routes.len());
}
