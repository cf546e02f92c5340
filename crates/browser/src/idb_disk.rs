//! Disks in a database of IndexedDB, for windows that are given no files. `FORMAT.md` draws it.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use js_sys::Uint8Array;
use tidelog_disk::{Disk, DiskError, FlushId, StoreFiles};
use tidelog_types::limits::BLOCK_STORE_SIZE_MAX;
use wasm_bindgen::prelude::*;

use crate::idb::{Database, Event, IdbDatabase, ObjectStore, Request, bound};
use crate::thrown::device;

/// Bytes of a file in one record.
const BLOCK_SIZE: usize = 16 * 1024;
/// Blocks of a file, written or not: far beyond any room, and few enough to count each.
const BLOCKS_MAX: u32 = 1 << 18;
/// Bytes of a file, written or not.
const SIZE_MAX: u64 = BLOCKS_MAX as u64 * BLOCK_SIZE as u64;
/// Bytes before a block in its record, in which the record says its own key.
const KEY_SIZE: usize = 8;
/// In the place of a block's number: the file's size.
const SIZE: u32 = u32::MAX;
/// Records that are read with one request.
const RECORDS_READ: u32 = 256;

/// What a record is found by.
fn key(file: u32, block: u32) -> u64 {
    (u64::from(file) << 32) | u64::from(block)
}

/// A run of a file's bytes.
#[derive(Default)]
struct Block {
    /// Absent where all of them are zeros.
    bytes: Option<Box<[u8; BLOCK_SIZE]>>,
    /// Whether it was written since the last flush request.
    is_dirty: bool,
}

/// A file as blocks, all of which are in memory and, once flushed, in a database of IndexedDB.
///
/// A flush is one transaction. The files of a store share a database, and one that fails poisons
/// them all.
pub struct IdbDisk {
    database: Rc<Database>,
    file: u32,
    size: u64,
    /// As many as were ever written to, the last at most at the file's end.
    blocks: Vec<Block>,
    /// Numbers of the blocks that were written since the last flush request.
    dirty: Vec<u32>,
    /// Blocks from here on were cut off since then.
    cut: Option<u32>,
    /// Flushes that were not complete when last looked at, oldest first.
    flushes: Vec<u64>,
    flushed: Option<FlushId>,
}

impl IdbDisk {
    /// Opens the files in a database that nobody else uses, and hands them over, or why there is
    /// none; each is empty at first. `notify` is called whenever a flush has ended, well or not.
    pub fn open(
        handle: IdbDatabase,
        notify: impl Fn() + 'static,
        then: impl FnOnce(Result<StoreFiles<Self>, DiskError>) + 'static,
    ) {
        let room = BLOCK_STORE_SIZE_MAX / BLOCK_SIZE as u64;
        let database = Database::new(handle, room, Box::new(notify));
        let files = (0..StoreFiles::<Self>::NAMES.len() as u32).map(|file| Self {
            database: Rc::clone(&database),
            file,
            size: 0,
            blocks: Vec::new(),
            dirty: Vec::new(),
            cut: None,
            flushes: Vec::new(),
            flushed: None,
        });
        let loading = Loading { files: files.collect(), database, next: 0, then: Box::new(then) };
        loading.go_on();
    }

    /// Numbers of the blocks that `count` bytes at `offset` touch, and which part of each.
    fn parts(offset: u64, count: usize) -> impl Iterator<Item = (u32, Range<usize>)> {
        let end = offset + count as u64;
        let blocks = offset / BLOCK_SIZE as u64..end.div_ceil(BLOCK_SIZE as u64);
        blocks.map(move |block| {
            let start = block * BLOCK_SIZE as u64;
            let within = |at: u64| at.saturating_sub(start).min(BLOCK_SIZE as u64) as usize;
            (block as u32, within(offset)..within(end))
        })
    }

    /// The block, to be changed; made of zeros if it is not there.
    fn block(&mut self, number: u32) -> Result<&mut Block, DiskError> {
        let index = number as usize;
        if index >= self.blocks.len() {
            self.blocks.resize_with(index + 1, Block::default);
        }
        let block = &mut self.blocks[index];
        if block.bytes.is_none() {
            let room = self.database.room.get().checked_sub(1).ok_or(DiskError::Full)?;
            self.database.room.set(room);
            block.bytes = Some(Box::new([0; BLOCK_SIZE]));
        }
        Ok(block)
    }

    /// A part of a block that is about to change.
    fn part(&mut self, number: u32, part: Range<usize>) -> Result<&mut [u8], DiskError> {
        let was_dirty = std::mem::replace(&mut self.block(number)?.is_dirty, true);
        if !was_dirty {
            self.dirty.push(number);
        }
        let bytes = self.blocks[number as usize].bytes.as_mut();
        Ok(&mut bytes.expect("BUG: made just now")[part])
    }

    /// Takes a record of the database.
    fn take(&mut self, place: u32, bytes: &[u8]) -> Option<Result<(), DiskError>> {
        if place == SIZE {
            self.size = u64::from_le_bytes(bytes.try_into().ok()?);
            return Some(Ok(()));
        }
        let bytes: &[u8; BLOCK_SIZE] = bytes.try_into().ok()?;
        let number = Some(place).filter(|number| *number < BLOCKS_MAX)?;
        Some(self.block(number).map(|block| block.bytes = Some(Box::new(*bytes))))
    }

    fn put_into(&mut self, store: &ObjectStore) -> Result<(), JsValue> {
        let put = |place: u32, bytes: &[u8]| {
            let key = key(self.file, place);
            let record = Uint8Array::from([&key.to_le_bytes(), bytes].concat().as_slice());
            store.put(&record, key as f64).map(|_| ())
        };
        if let Some(cut) = self.cut.take() {
            // A file without its size would be empty.
            store.delete(&bound(key(self.file, cut) as f64, key(self.file, BLOCKS_MAX) as f64))?;
        }
        for number in std::mem::take(&mut self.dirty) {
            // It may have been cut off meanwhile.
            if let Some(block) = self.blocks.get_mut(number as usize)
                && std::mem::take(&mut block.is_dirty)
                && let Some(bytes) = &block.bytes
            {
                put(number, bytes.as_slice())?;
            }
        }
        put(SIZE, &self.size.to_le_bytes())
    }
}

impl fmt::Debug for IdbDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdbDisk({} of {} bytes)", self.file, self.size)
    }
}

impl Disk for IdbDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.database.check()?;
        let count = buf.len();
        if offset.checked_add(count as u64).is_none_or(|end| end > self.size) {
            return Err(DiskError::OutOfRange { offset, count, size: self.size });
        }
        let mut left = buf;
        for (number, part) in Self::parts(offset, count) {
            let here;
            (here, left) = left.split_at_mut(part.len());
            match self.blocks.get(number as usize).and_then(|block| block.bytes.as_ref()) {
                Some(bytes) => here.copy_from_slice(&bytes[part]),
                None => here.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.database.check_writable()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= SIZE_MAX);
        let end = end.ok_or(DiskError::Full)?;
        let mut left = bytes;
        for (number, part) in Self::parts(offset, bytes.len()) {
            let here;
            (here, left) = left.split_at(part.len());
            self.part(number, part)?.copy_from_slice(here);
            self.size = self.size.max(end - left.len() as u64);
        }
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        self.database.check_writable()?;
        if size > SIZE_MAX {
            return Err(DiskError::Full);
        }
        if size < self.size {
            let kept = size.div_ceil(BLOCK_SIZE as u64) as usize;
            let gone = self.blocks.iter().skip(kept).filter(|block| block.bytes.is_some());
            self.database.room.set(self.database.room.get() + gone.count() as u64);
            self.blocks.truncate(kept);
            self.cut = Some(self.cut.map_or(kept as u32, |cut| cut.min(kept as u32)));
            // What was cut off does not come back when the file grows again.
            let within = (size % BLOCK_SIZE as u64) as usize;
            let last = self.blocks.get(kept.wrapping_sub(1)).filter(|_| within > 0);
            if last.is_some_and(|block| block.bytes.is_some()) {
                self.part(kept as u32 - 1, within..BLOCK_SIZE)?.fill(0);
            }
        }
        self.size = size;
        Ok(())
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.database.check_writable()?;
        let database = Rc::clone(&self.database);
        let number = database.write(|store| self.put_into(store)).map_err(|thrown| {
            database.is_poisoned.set(true);
            device(&thrown).of_flush()
        })?;
        self.flushes.push(number);
        Ok(FlushId(number))
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        self.database.take_failure()?;
        let complete = self.database.complete.get();
        let count = self.flushes.partition_point(|number| *number <= complete);
        self.flushed = self.flushes.drain(..count).next_back().map(FlushId).or(self.flushed);
        Ok(self.flushed)
    }
}

/// Files whose records are being read.
struct Loading {
    database: Rc<Database>,
    files: Vec<IdbDisk>,
    /// The lowest key that was not read.
    next: u64,
    then: Box<dyn FnOnce(Result<StoreFiles<IdbDisk>, DiskError>)>,
}

impl Loading {
    /// Asks for the next records.
    fn go_on(self) {
        let range = bound(self.next as f64, key(u32::MAX >> 12, SIZE) as f64);
        let asked = self.database.begin("readonly");
        let asked = asked.and_then(|(_, store)| store.get_all(&range, RECORDS_READ));
        match asked {
            Ok(request) => {
                // One of the two is called, or neither, where the load is given up. What was read
                // goes with the request then: `Closure::once_into_js` would keep it for ever.
                let ended = Closure::once(move |event: Event| self.take(&event.target()));
                let ended = ended.into_js_value();
                request.set_onsuccess(&ended);
                request.set_onerror(&ended);
            }
            Err(thrown) => (self.then)(Err(device(&thrown))),
        }
    }

    fn take(mut self, request: &Request) {
        let error = request.error();
        if !error.is_null() {
            return (self.then)(Err(device(&error)));
        }
        let records = request.result();
        for record in records.iter() {
            if let Err(error) = self.take_record(&record.unchecked_into()) {
                return (self.then)(Err(error));
            }
        }
        if records.length() == RECORDS_READ {
            return self.go_on();
        }
        let mut files = self.files.into_iter();
        let files = StoreFiles::open_each(|_| files.next().ok_or(DiskError::Poisoned));
        (self.then)(files);
    }

    fn take_record(&mut self, record: &Uint8Array) -> Result<(), DiskError> {
        let malformed = || DiskError::Device { reason: "a record makes no sense".to_owned() };
        let record = record.to_vec();
        let (key, bytes) = record.split_first_chunk::<KEY_SIZE>().ok_or_else(malformed)?;
        let key = u64::from_le_bytes(*key);
        self.next = key + 1;
        let file = self.files.get_mut((key >> 32) as usize).ok_or_else(malformed)?;
        file.take(key as u32, bytes).ok_or_else(malformed)?
    }
}
