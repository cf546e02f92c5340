//! The documents of a world.

use std::collections::BTreeSet;

use tidelog_types::DocumentKey;

/// A document, by its place among those of its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Doc(pub(crate) usize);

/// What a document is to those who open it.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// Its name, and whose copy it is: the device's own, but for some local ones.
    pub(crate) key: DocumentKey,
    /// The server that everybody opens it with; none for a local one.
    pub(crate) host: Option<usize>,
    /// The only device that has it.
    pub(crate) device: Option<usize>,
    /// A local one that its device hands to a server some time: that one.
    pub(crate) moves_to: Option<usize>,
    /// Devices that have opened it since, at that server.
    pub(crate) joined: BTreeSet<usize>,
    /// Devices that have another one of that name.
    pub(crate) strangers: BTreeSet<usize>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Docs(pub(crate) Vec<Spec>);

impl Docs {
    /// One that everybody has.
    pub(crate) fn share(&mut self, name: &str, host: usize) {
        self.push(key(name, ""), Some(host), None, None);
    }

    /// One that a device has at another server, instead of what the others have by that name.
    pub(crate) fn share_namesake(&mut self, doc: Doc, host: usize, device: usize) -> Doc {
        self.0[doc.0].strangers.insert(device);
        self.push(self.spec(doc).key.clone(), Some(host), Some(device), None);
        Doc(self.0.len() - 1)
    }

    /// A local one of a device.
    pub(crate) fn keep(&mut self, name: &str, device: usize, moves_to: Option<usize>) {
        self.push(key(name, ""), None, Some(device), moves_to);
    }

    /// A local one of a device, which is a user's copy of that name.
    pub(crate) fn keep_of(&mut self, user: &str, name: &str, device: usize) {
        self.push(key(name, user), None, Some(device), None);
    }

    fn push(
        &mut self,
        key: DocumentKey,
        host: Option<usize>,
        device: Option<usize>,
        moves_to: Option<usize>,
    ) {
        let (joined, strangers) = (BTreeSet::new(), BTreeSet::new());
        self.0.push(Spec { key, host, device, moves_to, joined, strangers });
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = Doc> + use<> {
        (0..self.0.len()).map(Doc)
    }

    /// Those that a device has.
    pub(crate) fn of(&self, device: usize) -> Vec<Doc> {
        let has = |doc: &Doc| {
            let spec = self.spec(*doc);
            let is_its = spec.device.is_none_or(|first| first == device);
            (is_its || spec.joined.contains(&device)) && !spec.strangers.contains(&device)
        };
        self.all().filter(has).collect()
    }

    /// One that was handed over is opened by another device too.
    pub(crate) fn join(&mut self, doc: Doc, device: usize) {
        self.0[doc.0].joined.insert(device);
    }

    pub(crate) fn spec(&self, doc: Doc) -> &Spec {
        &self.0[doc.0]
    }
}

fn key(name: &str, user: &str) -> DocumentKey {
    DocumentKey::new(name, user).expect("BUG: a bad name")
}

/// The address of a server.
pub(crate) fn url(host: usize) -> String {
    format!("ws://server-{host}")
}
