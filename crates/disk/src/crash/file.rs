//! One file of a crash device: what surely survives, what is seen, and what lies between.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::memory::{resize, write_growing};
use crate::{DiskError, FlushId, SECTOR_SIZE};

#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    pub name: String,
    /// What surely survives. Shared with the images that were made of it.
    durable: Arc<Vec<u8>>,
    /// What a read sees.
    pub now: Arc<Vec<u8>>,
    /// The contents that each sector has had since it was last durable, oldest first.
    pub unflushed: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
    /// The sizes likewise.
    sizes: Vec<(u64, usize)>,
    /// Flushes asked for and not complete, with the clock at the request.
    pub requested: Vec<(FlushId, u64)>,
    /// Whether the flushes that are asked for now will fail.
    pub flush_will_fail: bool,
    flushes: u64,
    pub flushed: Option<FlushId>,
    pub poisoned: bool,
}

impl FileState {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    fn note_sectors(&mut self, clock: u64, start: usize, end: usize) {
        for sector in start / SECTOR_SIZE..end.div_ceil(SECTOR_SIZE) {
            let from = (sector * SECTOR_SIZE).min(self.now.len());
            let to = (from + SECTOR_SIZE).min(self.now.len());
            let mut content = self.now[from..to].to_vec();
            content.resize(SECTOR_SIZE, 0);
            let versions = self.unflushed.entry(sector).or_default();
            // The same again makes no image that was not there without it.
            let is_new = match versions.last() {
                Some((_, last)) => *last != content,
                None => !is_durable(&self.durable, sector, &content),
            };
            if is_new {
                versions.push((clock, content));
            } else if versions.is_empty() {
                self.unflushed.remove(&sector);
            }
        }
    }

    pub fn write(&mut self, clock: u64, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let size = self.now.len();
        write_growing(Arc::make_mut(&mut self.now), offset, bytes)?;
        if !bytes.is_empty() {
            let start = usize::try_from(offset).expect("BUG: the write succeeded");
            self.note_sectors(clock, start, start + bytes.len());
        }
        if self.now.len() != size {
            self.sizes.push((clock, self.now.len()));
        }
        Ok(())
    }

    pub fn set_size(&mut self, clock: u64, size: usize) -> Result<(), DiskError> {
        let before = self.now.len();
        resize(Arc::make_mut(&mut self.now), size)?;
        if size < before {
            // What is cut off has to read as zeros should the file grow again.
            self.note_sectors(clock, size, before);
        }
        self.sizes.push((clock, size));
        Ok(())
    }

    pub fn request_flush(&mut self, clock: u64) -> FlushId {
        self.flushes += 1;
        let id = FlushId(self.flushes);
        self.requested.push((id, clock));
        id
    }

    pub fn complete_flushes(&mut self) {
        let Some((id, clock)) = self.requested.last().copied() else { return };
        self.requested.clear();
        if self.flush_will_fail {
            self.poisoned = true;
            return;
        }
        self.flushed = Some(id);
        let covered = self.sizes.iter().rfind(|(at, _)| *at <= clock);
        let size = covered.map_or(self.durable.len(), |(_, size)| *size);
        self.sizes.retain(|(at, _)| *at > clock);
        let durable = Arc::make_mut(&mut self.durable);
        durable.resize(size, 0);
        for (sector, versions) in &mut self.unflushed {
            if let Some((_, content)) = versions.iter().rfind(|(at, _)| *at <= clock) {
                lay(durable, *sector, content);
            }
            versions.retain(|(at, _)| *at > clock);
        }
        self.unflushed.retain(|_, versions| !versions.is_empty());
    }

    /// The file after a power cut, at rest.
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let mut image: Arc<Vec<u8>> = self.durable.clone();
        if !self.sizes.is_empty() {
            let choice = choose(self.sizes.len() + 1);
            if choice > 0 {
                Arc::make_mut(&mut image).resize(self.sizes[choice - 1].1, 0);
            }
        }
        for (sector, versions) in &self.unflushed {
            if sector * SECTOR_SIZE >= image.len() {
                // It lies behind the end of this image, whatever became of it.
                continue;
            }
            let choice = choose(versions.len() + 1);
            if choice > 0 {
                lay(&mut Arc::make_mut(&mut image)[..], *sector, &versions[choice - 1].1);
            }
        }
        let (name, now) = (self.name.clone(), image.clone());
        Self { name, durable: image, now, ..Self::default() }
    }

    /// The file after its owner was killed, for the next one.
    pub fn kill(&self) -> Self {
        Self {
            name: self.name.clone(),
            durable: self.durable.clone(),
            now: self.now.clone(),
            unflushed: self.unflushed.clone(),
            sizes: self.sizes.clone(),
            ..Self::default()
        }
    }
}

/// Whether a sector would read like this if it survived as it was; behind the end as zeros.
fn is_durable(durable: &[u8], sector: usize, content: &[u8]) -> bool {
    let start = (sector * SECTOR_SIZE).min(durable.len());
    let end = (start + SECTOR_SIZE).min(durable.len());
    let (there, behind) = content.split_at(end - start);
    durable[start..end] == *there && behind.iter().all(|byte| *byte == 0)
}

/// Puts a sector's content into an image, as far as the image reaches.
fn lay(image: &mut [u8], sector: usize, content: &[u8]) {
    let start = (sector * SECTOR_SIZE).min(image.len());
    let end = (start + SECTOR_SIZE).min(image.len());
    image[start..end].copy_from_slice(&content[..end - start]);
}
