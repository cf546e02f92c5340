//! Disks whose power can be cut, which fail on demand, and which flush when told so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::memory::{range_within, write_growing};
use crate::{Disk, DiskError, FlushId, SECTOR_SIZE};

/// A device with several files on it, for tests and the simulator.
///
/// What was written and not yet flushed is kept apart, sector by sector. [`CrashDevice::crash`]
/// cuts the power: each such sector survives in one of its versions since the last flush, or as
/// it was before, as the caller chooses. Nothing here is random by itself: the same calls and
/// choices give the same bytes.
///
/// Clones are handles on the same device.
#[derive(Clone, Debug, Default)]
pub struct CrashDevice(Arc<Mutex<Device>>);

/// One file of a [`CrashDevice`].
#[derive(Clone, Debug)]
pub struct CrashDisk {
    device: CrashDevice,
    file: usize,
}

/// How a call fails that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error. A write has then written its first half, a flush nothing.
    Device,
    /// The device says that it is full, having written the first half. At other calls as
    /// `Device`.
    Full,
    /// The device writes the first half and says so. At other calls as `Device`.
    ShortWrite,
}

#[derive(Debug, Default)]
struct Device {
    files: Vec<FileState>,
    /// Reads, writes, changes of size and flush requests so far, over all files.
    calls: u64,
    power_off_after: Option<u64>,
    fault: Option<(u64, Fault)>,
    capacity: Option<u64>,
    holds_flushes: bool,
    /// Numbers writes and flush requests of all files in the order in which they were made.
    clock: u64,
}

#[derive(Debug, Default)]
struct FileState {
    name: String,
    /// What surely survives.
    durable: Vec<u8>,
    /// What a read sees.
    now: Vec<u8>,
    /// The contents that each sector has had since it was last durable, oldest first.
    unflushed: BTreeMap<usize, Vec<(u64, Vec<u8>)>>,
    /// The sizes likewise.
    sizes: Vec<(u64, usize)>,
    /// Flushes asked for and not complete, with the clock at the request.
    requested: Vec<(FlushId, u64)>,
    flushes: u64,
    flushed: Option<FlushId>,
    poisoned: bool,
}

impl CrashDevice {
    /// An empty device that flushes at once and never fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of this name, made if it is not there.
    #[must_use]
    pub fn file(&self, name: &str) -> CrashDisk {
        let mut device = self.lock();
        let file = device.files.iter().position(|file| file.name == name).unwrap_or_else(|| {
            device.files.push(FileState { name: name.to_owned(), ..FileState::default() });
            device.files.len() - 1
        });
        drop(device);
        CrashDisk { device: self.clone(), file }
    }

    /// Calls so far: reads, writes, changes of size and flush requests.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// From call number `call` on (the first is 1), every call fails and does nothing.
    pub fn power_off_after(&self, call: u64) {
        self.lock().power_off_after = Some(call);
    }

    /// Makes call number `call` (the first is 1) fail in this way.
    pub fn fail_call(&self, call: u64, fault: Fault) {
        self.lock().fault = Some((call, fault));
    }

    /// Bytes that fit on the device, all files together.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Whether flushes wait for [`CrashDevice::complete_flushes`]; otherwise each is complete
    /// when it was requested.
    pub fn hold_flushes(&self, hold: bool) {
        self.lock().holds_flushes = hold;
    }

    /// Completes the flushes that were requested, of all files.
    pub fn complete_flushes(&self) {
        self.lock().files.iter_mut().for_each(FileState::complete_flushes);
    }

    /// Completes the flushes that were requested of one file, if there are any. Of several files
    /// `choose(n)` says which: disks need not finish in the order in which they were asked.
    pub fn complete_flushes_of_one(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut device = self.lock();
        let waiting = device.files.iter_mut().filter(|file| !file.requested.is_empty());
        let mut waiting: Vec<&mut FileState> = waiting.collect();
        if !waiting.is_empty() {
            let chosen = choose(waiting.len());
            waiting[chosen].complete_flushes();
        }
    }

    /// Whether a flush was requested that is not complete.
    #[must_use]
    pub fn has_held_flushes(&self) -> bool {
        self.lock().files.iter().any(|file| !file.requested.is_empty())
    }

    /// How many sectors have un-flushed contents: each is one choice at a crash.
    #[must_use]
    pub fn unflushed_sectors(&self) -> usize {
        self.lock().files.iter().map(|file| file.unflushed.len()).sum()
    }

    /// What is left after a power cut now, as a new, healthy device with the same files.
    ///
    /// `choose(n)` answers a number below `n`, once for each un-flushed sector and each
    /// un-flushed size: 0 for what was durable, `n - 1` for the newest.
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let device = self.lock();
        let files = device.files.iter().map(|file| {
            let image = file.crash(choose);
            let name = file.name.clone();
            FileState { name, durable: image.clone(), now: image, ..FileState::default() }
        });
        Self(Arc::new(Mutex::new(Device { files: files.collect(), ..Device::default() })))
    }

    /// The device after its owner was killed while the power stayed on: every write is there, and
    /// the un-flushed ones are still in danger.
    #[must_use]
    pub fn kill(&self) -> Self {
        let device = self.lock();
        let files = device.files.iter().map(|file| FileState {
            name: file.name.clone(),
            durable: file.durable.clone(),
            now: file.now.clone(),
            unflushed: file.unflushed.clone(),
            sizes: file.sizes.clone(),
            ..FileState::default()
        });
        let clock = device.clock;
        let holds_flushes = device.holds_flushes;
        let files = files.collect();
        Self(Arc::new(Mutex::new(Device { files, clock, holds_flushes, ..Device::default() })))
    }

    /// The bytes of a file as a read sees them.
    #[must_use]
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().files.iter().find(|file| file.name == name).map(|file| file.now.clone())
    }
}

impl CrashDisk {
    /// What is left of this file after a power cut now; `choose` as in [`CrashDevice::crash`].
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        self.device.lock().files[self.file].crash(choose)
    }

    /// The device that this file is on.
    #[must_use]
    pub fn device(&self) -> &CrashDevice {
        &self.device
    }
}

impl Device {
    /// Counts a call on `file`, and says how it has to fail, if it has to.
    fn enter(&mut self, file: usize) -> Result<Option<Fault>, DiskError> {
        if self.files[file].poisoned {
            return Err(DiskError::Poisoned);
        }
        self.calls += 1;
        if self.power_off_after.is_some_and(|last| self.calls > last) {
            return Err(DiskError::Device { reason: "the power is off".to_owned() });
        }
        Ok(self.fault.filter(|(call, _)| *call == self.calls).map(|(_, fault)| fault))
    }

    /// Whether `file` may have this many bytes.
    fn has_room(&self, file: usize, size: u64) -> bool {
        let others = self.files.iter().enumerate().filter(|(index, _)| *index != file);
        let others: u64 = others.map(|(_, file)| file.now.len() as u64).sum();
        self.capacity.is_none_or(|capacity| others + size <= capacity)
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.clock += 1;
        self.files[file].write(self.clock, offset, bytes)
    }
}

fn failed() -> DiskError {
    DiskError::Device { reason: "told to fail".to_owned() }
}

impl FileState {
    fn note_sectors(&mut self, clock: u64, start: usize, end: usize) {
        for sector in start / SECTOR_SIZE..end.div_ceil(SECTOR_SIZE) {
            let from = (sector * SECTOR_SIZE).min(self.now.len());
            let to = (from + SECTOR_SIZE).min(self.now.len());
            let mut content = self.now[from..to].to_vec();
            content.resize(SECTOR_SIZE, 0);
            self.unflushed.entry(sector).or_default().push((clock, content));
        }
    }

    fn write(&mut self, clock: u64, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let size = self.now.len();
        write_growing(&mut self.now, offset, bytes)?;
        if !bytes.is_empty() {
            let start = usize::try_from(offset).expect("BUG: the write succeeded");
            self.note_sectors(clock, start, start + bytes.len());
        }
        if self.now.len() != size {
            self.sizes.push((clock, self.now.len()));
        }
        Ok(())
    }

    fn set_size(&mut self, clock: u64, size: usize) {
        let before = self.now.len();
        self.now.resize(size, 0);
        if size < before {
            // What is cut off has to read as zeros should the file grow again.
            self.note_sectors(clock, size, before);
        }
        self.sizes.push((clock, size));
    }

    fn complete_flushes(&mut self) {
        let Some((id, clock)) = self.requested.last().copied() else { return };
        self.requested.clear();
        self.flushed = Some(id);
        let covered = self.sizes.iter().rfind(|(at, _)| *at <= clock);
        let size = covered.map_or(self.durable.len(), |(_, size)| *size);
        self.sizes.retain(|(at, _)| *at > clock);
        self.durable.resize(size, 0);
        for (sector, versions) in &mut self.unflushed {
            if let Some((_, content)) = versions.iter().rfind(|(at, _)| *at <= clock) {
                lay(&mut self.durable, *sector, content);
            }
            versions.retain(|(at, _)| *at > clock);
        }
        self.unflushed.retain(|_, versions| !versions.is_empty());
    }

    fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        let mut image = self.durable.clone();
        if !self.sizes.is_empty() {
            let choice = choose(self.sizes.len() + 1);
            if choice > 0 {
                image.resize(self.sizes[choice - 1].1, 0);
            }
        }
        for (sector, versions) in &self.unflushed {
            let choice = choose(versions.len() + 1);
            if choice > 0 {
                lay(&mut image, *sector, &versions[choice - 1].1);
            }
        }
        image
    }
}

/// Puts a sector's content into an image, as far as the image reaches.
fn lay(image: &mut [u8], sector: usize, content: &[u8]) {
    let start = (sector * SECTOR_SIZE).min(image.len());
    let end = (start + SECTOR_SIZE).min(image.len());
    image[start..end].copy_from_slice(&content[..end - start]);
}

impl Disk for CrashDisk {
    fn size(&self) -> u64 {
        self.device.lock().files[self.file].now.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        if device.enter(self.file)?.is_some() {
            return Err(failed());
        }
        let now = &device.files[self.file].now;
        let range = range_within(now.len(), offset, buf.len())?;
        buf.copy_from_slice(&now[range]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        let mut fault = device.enter(self.file)?;
        let now = device.files[self.file].now.len() as u64;
        if !device.has_room(self.file, now.max(offset.saturating_add(bytes.len() as u64))) {
            fault = Some(Fault::Full);
        }
        let Some(fault) = fault else { return device.write(self.file, offset, bytes) };
        let half = &bytes[..bytes.len() / 2];
        if device.has_room(self.file, now.max(offset.saturating_add(half.len() as u64))) {
            device.write(self.file, offset, half)?;
        }
        Err(match fault {
            Fault::Device => failed(),
            Fault::Full => DiskError::Full,
            Fault::ShortWrite => {
                DiskError::ShortWrite { expected: bytes.len(), written: half.len() as u64 }
            }
        })
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        let mut device = self.device.lock();
        let fault = device.enter(self.file)?;
        if fault == Some(Fault::Full) || !device.has_room(self.file, size) {
            return Err(DiskError::Full);
        }
        if fault.is_some() {
            return Err(failed());
        }
        device.clock += 1;
        let clock = device.clock;
        let size = usize::try_from(size).map_err(|_| DiskError::Full)?;
        device.files[self.file].set_size(clock, size);
        Ok(())
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        let mut device = self.device.lock();
        let fault = device.enter(self.file)?;
        device.clock += 1;
        let (clock, holds) = (device.clock, device.holds_flushes);
        let file = &mut device.files[self.file];
        if fault.is_some() {
            file.poisoned = true;
            return Err(failed());
        }
        file.flushes += 1;
        let id = FlushId(file.flushes);
        file.requested.push((id, clock));
        if !holds {
            file.complete_flushes();
        }
        Ok(id)
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        let device = self.device.lock();
        let file = &device.files[self.file];
        if file.poisoned { Err(DiskError::Poisoned) } else { Ok(file.flushed) }
    }
}

#[cfg(test)]
mod tests;
