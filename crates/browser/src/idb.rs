//! IndexedDB as far as a store needs it, and what is under way in one database.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};

use js_sys::{Array, Object, Uint8Array};
use tidelog_disk::DiskError;
use wasm_bindgen::prelude::*;

use crate::thrown::device;

/// The object store's name.
const STORE: &str = "blocks";

#[wasm_bindgen]
extern "C" {
    /// An open database with an object store `blocks`, whose keys are given with each record.
    #[wasm_bindgen(js_name = IDBDatabase, typescript_type = "IDBDatabase")]
    pub type IdbDatabase;
    #[wasm_bindgen(method, catch)]
    fn transaction(
        this: &IdbDatabase,
        store: &str,
        mode: &str,
        options: &Options,
    ) -> Result<Transaction, JsValue>;
    #[wasm_bindgen(method)]
    fn close(this: &IdbDatabase);

    type Options;
    #[wasm_bindgen(method, setter)]
    fn set_durability(this: &Options, durability: &str);

    #[wasm_bindgen(js_name = IDBTransaction)]
    pub(crate) type Transaction;
    #[wasm_bindgen(method, catch, js_name = objectStore)]
    fn object_store(this: &Transaction, name: &str) -> Result<ObjectStore, JsValue>;
    #[wasm_bindgen(method, catch)]
    fn abort(this: &Transaction) -> Result<(), JsValue>;
    #[wasm_bindgen(method, setter)]
    fn set_oncomplete(this: &Transaction, listener: &JsValue);
    #[wasm_bindgen(method, setter)]
    fn set_onabort(this: &Transaction, listener: &JsValue);

    #[wasm_bindgen(js_name = IDBObjectStore)]
    pub(crate) type ObjectStore;
    #[wasm_bindgen(method, catch)]
    pub(crate) fn put(this: &ObjectStore, value: &Uint8Array, key: f64)
    -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch)]
    pub(crate) fn delete(this: &ObjectStore, range: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(method, catch, js_name = getAll)]
    pub(crate) fn get_all(
        this: &ObjectStore,
        range: &JsValue,
        limit: u32,
    ) -> Result<Request, JsValue>;

    #[wasm_bindgen(js_namespace = IDBKeyRange)]
    pub(crate) fn bound(from: f64, to: f64) -> JsValue;

    /// Also stands for a transaction as the target of an event.
    #[wasm_bindgen(js_name = IDBRequest)]
    pub(crate) type Request;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn result(this: &Request) -> Array;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn error(this: &Request) -> JsValue;
    #[wasm_bindgen(method, setter)]
    pub(crate) fn set_onsuccess(this: &Request, listener: &JsValue);
    #[wasm_bindgen(method, setter)]
    pub(crate) fn set_onerror(this: &Request, listener: &JsValue);

    pub(crate) type Event;
    #[wasm_bindgen(method, getter)]
    pub(crate) fn target(this: &Event) -> Request;
}

/// The database of one store, and how far its transactions are. They are carried out in the order
/// in which they are begun.
pub(crate) struct Database {
    handle: IdbDatabase,
    /// Blocks that may still be added to any file.
    pub(crate) room: Cell<u64>,
    begun: Cell<u64>,
    pub(crate) complete: Cell<u64>,
    /// Whether somebody was told that a transaction failed.
    pub(crate) is_poisoned: Cell<bool>,
    /// Why one failed, until somebody was told. A browser that clears the data lets those fail that
    /// are under way, and then says that it did: whoever hears of that in time asks no more, and
    /// goes on reading what is in memory.
    failure: RefCell<Option<DiskError>>,
    /// Called whenever a transaction has ended.
    notify: Box<dyn Fn()>,
    on_complete: OnceCell<JsValue>,
    on_abort: OnceCell<JsValue>,
}

impl Database {
    pub(crate) fn new(handle: IdbDatabase, room: u64, notify: Box<dyn Fn()>) -> Rc<Self> {
        let database = Rc::new(Self {
            handle,
            room: Cell::new(room),
            begun: Cell::default(),
            complete: Cell::default(),
            is_poisoned: Cell::default(),
            failure: RefCell::default(),
            notify,
            on_complete: OnceCell::new(),
            on_abort: OnceCell::new(),
        });
        let ended = Self::listener(&database, |database, _| {
            database.complete.set(database.complete.get() + 1);
        });
        database.on_complete.get_or_init(|| ended);
        let failed = Self::listener(&database, |database, event| {
            *database.failure.borrow_mut() = Some(device(&event.target().error()).of_flush());
        });
        database.on_abort.get_or_init(|| failed);
        database
    }

    /// A listener that may outlive the disks: what was begun ends by itself.
    fn listener(this: &Rc<Self>, hear: impl Fn(&Self, &Event) + 'static) -> JsValue {
        let this: Weak<Self> = Rc::downgrade(this);
        // Not `Fn`, though it could be: the script for the other kind would be downloaded too.
        let listener = Closure::<dyn FnMut(Event)>::new(move |event: Event| {
            if let Some(database) = this.upgrade() {
                hear(&database, &event);
                (database.notify)();
            }
        });
        listener.into_js_value()
    }

    /// Whether what is in memory may be read.
    pub(crate) fn check(&self) -> Result<(), DiskError> {
        if self.is_poisoned.get() { Err(DiskError::Poisoned) } else { Ok(()) }
    }

    /// Whether anything may be written, which would come behind what failed.
    pub(crate) fn check_writable(&self) -> Result<(), DiskError> {
        if self.failure.borrow().is_some() { Err(DiskError::Poisoned) } else { self.check() }
    }

    /// Tells once why a transaction failed, which poisons the database.
    pub(crate) fn take_failure(&self) -> Result<(), DiskError> {
        match self.failure.take() {
            Some(failure) => {
                self.is_poisoned.set(true);
                Err(failure)
            }
            None => self.check(),
        }
    }

    pub(crate) fn begin(&self, mode: &str) -> Result<(Transaction, ObjectStore), JsValue> {
        let options: Options = Object::new().unchecked_into();
        options.set_durability("strict");
        let transaction = self.handle.transaction(STORE, mode, &options)?;
        let store = transaction.object_store(STORE)?;
        Ok((transaction, store))
    }

    /// Begins a transaction which, once complete, survives a power cut. Gives its number. Where not
    /// all can be put into it, there is none of it.
    pub(crate) fn write(
        &self,
        put: impl FnOnce(&ObjectStore) -> Result<(), JsValue>,
    ) -> Result<u64, JsValue> {
        let (transaction, store) = self.begin("readwrite")?;
        if let Err(thrown) = put(&store) {
            // What was put would be kept. It can only have been aborted already.
            let _ = transaction.abort();
            return Err(thrown);
        }
        transaction.set_oncomplete(self.on_complete.get().expect("BUG: set when it was made"));
        transaction.set_onabort(self.on_abort.get().expect("BUG: set when it was made"));
        self.begun.set(self.begun.get() + 1);
        Ok(self.begun.get())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.handle.close();
    }
}
