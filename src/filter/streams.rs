//! Which configuration a stream is decided by: the one that its plugin had when it began.
//!
//! All that is kept of a stream is that, until its request headers come. For nearly every stream they are the next thing
//! to come, so that the newest one has a place of its own; a stream whose headers wait for a filter before this one
//! moves on to a map.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::request::Configured;
use super::root::Root;

struct Streams {
    /// One for each plugin configuration: few.
    roots: RefCell<Vec<(u32, Rc<Root>)>>,
    newest: Cell<Option<(u32, Rc<Configured>)>>,
    waiting: RefCell<BTreeMap<u32, Rc<Configured>>>,
}

thread_local! {
    /// A VM has one thread.
    static OF_VM: Streams = const {
        Streams {
            roots: RefCell::new(Vec::new()),
            newest: Cell::new(None),
            waiting: RefCell::new(BTreeMap::new()),
        }
    };
}

/// A stream of the plugin `root` begins, or, where `root` is 0, a plugin configuration.
pub(super) fn create(context: u32, root: u32) {
    OF_VM.with(|all| {
        if root == 0 {
            all.roots
                .borrow_mut()
                .push((context, Rc::new(Root::default())));
            return;
        }
        let configured = all
            .roots
            .borrow()
            .iter()
            .find(|(id, _)| *id == root)
            .and_then(|(_, root)| root.configured());
        if let Some(configured) = configured
            && let Some((other, waiting)) = all.newest.replace(Some((context, configured)))
        {
            all.waiting.borrow_mut().insert(other, waiting);
        }
    });
}

/// The plugin of that number.
pub(super) fn root(context: u32) -> Option<Rc<Root>> {
    OF_VM.with(|all| {
        let roots = all.roots.borrow();
        let (_, root) = roots.iter().find(|(id, _)| *id == context)?;
        Some(Rc::clone(root))
    })
}

/// What a stream is decided by, which is asked once. Nothing where its plugin has no configuration.
pub(super) fn take(stream: u32) -> Option<Rc<Configured>> {
    OF_VM.with(|all| match all.newest.take() {
        Some((id, configured)) if id == stream => Some(configured),
        other => {
            all.newest.set(other);
            all.waiting.borrow_mut().remove(&stream)
        }
    })
}

/// A stream or a plugin is gone.
pub(super) fn delete(context: u32) {
    if take(context).is_some() {
        return;
    }
    OF_VM.with(|all| {
        let mut roots = all.roots.borrow_mut();
        let place = roots.iter().position(|(id, _)| *id == context);
        let gone = place.map(|place| roots.swap_remove(place));
        // Its end hands counters over: nothing of this may be borrowed then.
        drop(roots);
        drop(gone);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;

    fn engine() -> Engine {
        let loaded = crate::config::load(br#"{"defaults": {"timeout": "1s"}}"#);
        Engine::new(&loaded.config.expect("a configuration"), &|_| None).expect("an engine")
    }

    /// A plugin with a configuration.
    fn plugin(number: u32) {
        create(number, 0);
        root(number)
            .expect("it was just created")
            .take_over(engine());
    }

    fn decided_by(stream: u32) -> Option<*const Configured> {
        take(stream).map(|configured| Rc::as_ptr(&configured))
    }

    fn waiting() -> usize {
        OF_VM.with(|all| all.waiting.borrow().len())
    }

    #[test]
    fn streams_are_decided_by_their_own_plugin_in_whatever_order_they_come() {
        plugin(1);
        plugin(2);
        let of = |number| {
            Rc::as_ptr(
                &root(number)
                    .and_then(|root| root.configured())
                    .expect("configured"),
            )
        };
        let (one, two) = (of(1), of(2));
        create(10, 1);
        create(11, 2);
        create(12, 1);
        assert_eq!(waiting(), 2);
        assert_eq!(decided_by(11), Some(two));
        assert_eq!(decided_by(12), Some(one));
        assert_eq!(decided_by(10), Some(one));
        assert_eq!(decided_by(10), None, "asked once");
        assert_eq!(waiting(), 0);
    }

    #[test]
    fn a_stream_that_ends_before_its_headers_leaves_nothing_behind() {
        plugin(1);
        for stream in 10..20 {
            create(stream, 1);
        }
        for stream in (10..20).rev() {
            delete(stream);
            delete(stream);
        }
        assert_eq!(waiting(), 0);
        assert!(root(1).is_some());
        delete(1);
        assert!(root(1).is_none());
        create(20, 1);
        assert_eq!(decided_by(20), None);
    }

    #[test]
    fn a_stream_keeps_the_configuration_that_it_began_with() {
        plugin(1);
        let old = root(1)
            .and_then(|root| root.configured())
            .expect("configured");
        create(10, 1);
        root(1).expect("it is there").take_over(engine());
        create(11, 1);
        assert_ne!(decided_by(11), Some(Rc::as_ptr(&old)));
        assert_eq!(decided_by(10), Some(Rc::as_ptr(&old)));
    }
}
