//! Which document a core is at work on.

use std::cell::RefCell;
use std::rc::Rc;

use tidelog_types::DocumentKey;

/// Names the document that a [`Client`](crate::Client) is at work on, also to whoever cannot ask
/// the client itself any more: one that has panicked. So nobody takes another document for what
/// it died of.
#[derive(Clone, Debug, Default)]
pub struct AtWork(Rc<RefCell<Name>>);

#[derive(Debug, Default)]
struct Name {
    /// Kept while it names nothing, since it is written for each document in each step.
    key: Option<DocumentKey>,
    is_at_work: bool,
}

impl AtWork {
    /// The document, while there is one.
    #[must_use]
    pub fn document(&self) -> Option<DocumentKey> {
        let name = self.0.try_borrow().ok()?;
        name.key.clone().filter(|_| name.is_at_work)
    }

    /// Whether work on this document is named as such.
    pub(crate) fn names(&self, key: &DocumentKey) -> bool {
        self.on(key, || self.document().as_ref() == Some(key))
    }

    /// Work on this document.
    pub(crate) fn on<T>(&self, key: &DocumentKey, work: impl FnOnce() -> T) -> T {
        self.begin(key);
        let done = work();
        self.0.borrow_mut().is_at_work = false;
        done
    }

    fn begin(&self, key: &DocumentKey) {
        let mut name = self.0.borrow_mut();
        let DocumentKey { document, user } = name.key.get_or_insert_with(|| key.clone());
        document.clone_from(&key.document);
        user.clone_from(&key.user);
        name.is_at_work = true;
    }
}
