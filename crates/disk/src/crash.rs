//! Disks whose power can be cut, which fail on demand, and which flush when told so.

mod disk;
mod file;
mod image;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::DiskError;
use crate::crash::file::FileState;

/// A device with several files on it, for tests and the simulator.
///
/// What was written and not yet flushed is kept apart, sector by sector. [`CrashDevice::crash`]
/// cuts the power: each such sector survives in one of its versions since the last flush, or as
/// it was before, as the caller chooses; and [`CrashDevice::tear`] damages the durable sectors
/// beside them too. Nothing here is random by itself: the same calls and choices give the same
/// bytes.
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

/// What stands in the part of a file that became longer before a power cut, where nothing of what
/// was written there survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// Zeros, as a read saw before.
    Zeros,
    /// What the device had there before: the new size was durable before the bytes were.
    Garbage,
}

/// How a call fails that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The device reports an error. A write has then written its first half, a flush nothing.
    Device,
    /// The device says that it is full, having written the first half of a write. Reads fail as
    /// with `Device`.
    Full,
    /// The device writes the first half and says so. At other calls as `Device`.
    ShortWrite,
    /// The device writes nothing and says so. At other calls as `Device`.
    NothingWritten,
    /// The device writes the first half and claims to have written 4 GiB. At other calls as
    /// `Device`.
    AbsurdLength,
    /// A flush is asked for in good order, and fails when it should complete. At other calls as
    /// `Device`.
    LateFlush,
}

impl DiskFault {
    /// Every way there is.
    pub const ALL: [Self; 6] = [
        Self::Device,
        Self::Full,
        Self::ShortWrite,
        Self::NothingWritten,
        Self::AbsurdLength,
        Self::LateFlush,
    ];
}

#[derive(Debug, Default)]
struct Device {
    files: Vec<FileState>,
    /// Reads, writes, changes of size and flush requests so far, over all files.
    calls: u64,
    /// Bytes read so far, over all files.
    read: u64,
    power_off_after: Option<u64>,
    fault: Option<(u64, DiskFault)>,
    capacity: Option<u64>,
    is_full: bool,
    has_holes: bool,
    holds_flushes: bool,
    /// Numbers writes and flush requests of all files in the order in which they were made.
    clock: u64,
    /// Calls after which a power cut may leave something else than after the call before.
    changing_calls: Vec<u64>,
    /// Whether a flush was completed since the last call.
    has_completed: bool,
    /// The file whose flushes take longer than those of all others.
    lagging: Option<String>,
    /// How often its owner was killed or its power cut.
    lives: u64,
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
            device.files.push(FileState::new(name));
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

    /// Bytes read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.lock().read
    }

    /// A number that is another one for each opening of the files, and the same in each run: what a
    /// host would take by chance.
    #[must_use]
    pub fn seed(&self) -> u64 {
        let device = self.lock();
        (device.lives << 32) + device.calls
    }

    /// The calls after which a power cut may leave something else than after the call before.
    #[must_use]
    pub fn changing_calls(&self) -> Vec<u64> {
        self.lock().changing_calls.clone()
    }

    /// The power goes off after call number `call` (the first is 1): every later call fails and
    /// does nothing, and no flush that was held by then will complete.
    pub fn power_off_after(&self, call: u64) {
        self.lock().power_off_after = Some(call);
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.lock().is_off()
    }

    /// Whether anything was done by which a call may fail now, though there is room.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        let device = self.lock();
        let is_told_to = device.fault.is_some() || device.is_off();
        let is_unsound = |file: &FileState| file.poisoned || !file.unreadable.is_empty();
        is_told_to || device.files.iter().any(is_unsound)
    }

    /// Whether there may be no room for what is written now.
    #[must_use]
    pub fn may_be_full(&self) -> bool {
        let device = self.lock();
        device.capacity.is_some() || device.is_full
    }

    /// Makes call number `call` (the first is 1) fail in this way.
    pub fn fail_call(&self, call: u64, fault: DiskFault) {
        self.lock().fault = Some((call, fault));
    }

    /// Makes every read fail that touches these bytes of a file, for good: for its later owners
    /// too, and after a power cut. Writes succeed.
    pub fn make_unreadable(&self, name: &str, bytes: Range<u64>) {
        let file = self.file(name).file;
        self.lock().files[file].unreadable.push(bytes);
    }

    /// Lets every byte of a file be read again.
    pub fn make_readable(&self, name: &str) {
        let file = self.file(name).file;
        self.lock().files[file].unreadable.clear();
    }

    /// Whether what a file grows by without a write takes room only once it is written, as on most
    /// systems. Before anything is written.
    pub fn let_holes_be(&self, are_holes: bool) {
        self.lock().has_holes = are_holes;
    }

    /// Bytes that all files take up.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Bytes that fit on the device, all files together.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Whether nothing new fits on the device, not even where a file has room, as where the system
    /// copies what is written over: writes succeed that put zeros, or what was there.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// Whether flushes wait for [`CrashDevice::complete_flushes`]; otherwise each is complete
    /// when it was requested.
    pub fn hold_flushes(&self, hold: bool) {
        self.lock().holds_flushes = hold;
    }

    /// Completes the flushes that were requested, of all files.
    pub fn complete_flushes(&self) {
        let mut device = self.lock();
        if !device.is_off() {
            device.has_completed = true;
            device.files.iter_mut().for_each(FileState::complete_flushes);
        }
    }

    /// Lets the flushes of one file take longer than those of all others.
    pub fn let_lag(&self, name: Option<&str>) {
        self.lock().lagging = name.map(str::to_owned);
    }

    /// Completes flushes that were requested of one file, if there are any; of one that
    /// [lags](Self::let_lag) once there are no others. Of several files `choose(n)` says which,
    /// since disks need not finish in the order in which they were asked; and of several flushes
    /// up to which.
    pub fn complete_flushes_of_one(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut device = self.lock();
        if device.is_off() {
            return;
        }
        device.has_completed = true;
        let Device { files, lagging, .. } = &mut *device;
        let waiting = files.iter_mut().filter(|file| !file.requested.is_empty());
        let mut waiting: Vec<&mut FileState> = waiting.collect();
        if waiting.len() > 1 {
            waiting.retain(|file| lagging.as_ref() != Some(&file.name));
        }
        if !waiting.is_empty() {
            let chosen = choose(waiting.len());
            let last = match waiting[chosen].requested.len() {
                1 => 0,
                count => choose(count),
            };
            waiting[chosen].complete_flushes_to(last);
        }
    }

    /// All that is not flushed is being flushed, which fails.
    pub fn fail_flushes(&self) {
        let mut device = self.lock();
        let clock = device.clock;
        device.files.iter_mut().for_each(|file| file.fail_flush(clock));
    }

    /// Whether a flush was requested that is not complete and still may be.
    #[must_use]
    pub fn has_held_flushes(&self) -> bool {
        let device = self.lock();
        !device.is_off() && device.files.iter().any(|file| !file.requested.is_empty())
    }

    /// How many sectors have un-flushed contents: each is one choice at a crash.
    #[must_use]
    pub fn unflushed_sectors(&self) -> usize {
        self.lock().files.iter().map(|file| file.unflushed.len()).sum()
    }

    /// What [`crash`](Self::crash) would ask for, where the newest is answered each time: among how
    /// many versions there is a choice.
    #[must_use]
    pub fn choices(&self) -> Vec<usize> {
        let mut choices = Vec::new();
        let choose = &mut |versions| {
            choices.push(versions);
            versions - 1
        };
        self.lock().files.iter().for_each(|file| drop(file.crash(choose, Grown::Zeros)));
        choices
    }

    /// What is left after a power cut now, as a new, healthy device with the same files.
    ///
    /// `choose(n)` answers a number below `n`, once for each un-flushed sector and each
    /// un-flushed size: 0 for what was durable, `n - 1` for the newest. Sectors that make no
    /// difference are not asked for: those behind the end that was chosen.
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        self.crash_with(Grown::Zeros, choose)
    }

    /// The same where files that became longer hold this.
    #[must_use]
    pub fn crash_with(&self, grown: Grown, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let device = self.lock();
        let files = device.files.iter().map(|file| file.crash(choose, grown)).collect();
        Self(Arc::new(Mutex::new(device.after(files))))
    }

    /// What is left after a power cut now that tears blocks, as of a device that writes all of a
    /// [`BLOCK_SIZE`](crate::BLOCK_SIZE) block where part of it is written: what was durable beside
    /// a sector that is not may be damaged with it.
    ///
    /// `choose(3)` answers, once for each block with something un-flushed: 0 for what was durable,
    /// 1 for garbage, 2 for the newest. Files have their newest sizes.
    #[must_use]
    pub fn tear(&self, choose: &mut dyn FnMut(usize) -> usize) -> Self {
        let device = self.lock();
        let files = device.files.iter().map(|file| file.tear(choose)).collect();
        Self(Arc::new(Mutex::new(device.after(files))))
    }

    /// The device after its owner was killed while the power stayed on: every write is there, and
    /// the un-flushed ones are still in danger.
    #[must_use]
    pub fn kill(&self) -> Self {
        let device = self.lock();
        let files = device.files.iter().map(FileState::kill).collect();
        let (clock, holds_flushes) = (device.clock, device.holds_flushes);
        let device = Device { clock, holds_flushes, ..device.after(files) };
        Self(Arc::new(Mutex::new(device)))
    }

    /// Takes a file away, as a power cut does whose name was not durable.
    pub fn lose(&self, name: &str) {
        let mut device = self.lock();
        let lost = device.files.iter_mut().find(|file| file.name == name);
        lost.into_iter().for_each(|file| *file = FileState::new(name));
    }

    /// The bytes of a file as a read sees them.
    #[must_use]
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        self.lock().files.iter().find(|file| file.name == name).map(|file| file.now.to_vec())
    }
}

impl CrashDisk {
    /// What is left of this file after a power cut now; `choose` as in [`CrashDevice::crash`].
    #[must_use]
    pub fn crash(&self, choose: &mut dyn FnMut(usize) -> usize) -> Vec<u8> {
        self.device.lock().files[self.file].crash(choose, Grown::Zeros).now.to_vec()
    }

    /// The device that this file is on.
    #[must_use]
    pub fn device(&self) -> &CrashDevice {
        &self.device
    }
}

impl Device {
    /// A healthy one of the same kind for its next owner, with these files.
    fn after(&self, files: Vec<FileState>) -> Self {
        let (has_holes, lives) = (self.has_holes, self.lives + 1);
        Self { files, has_holes, lives, ..Self::default() }
    }

    fn is_off(&self) -> bool {
        self.power_off_after.is_some_and(|last| self.calls >= last)
    }

    /// Counts a call on `file`, and says how it has to fail, if it has to.
    fn enter(&mut self, file: usize) -> Result<Option<DiskFault>, DiskError> {
        if self.files[file].poisoned {
            return Err(DiskError::Poisoned);
        }
        if self.is_off() {
            return Err(DiskError::Device { reason: "the power is off".to_owned() });
        }
        self.calls += 1;
        if std::mem::take(&mut self.has_completed) {
            self.note_change();
        }
        Ok(self.fault.filter(|(call, _)| *call == self.calls).map(|(_, fault)| fault))
    }

    /// The call at hand changes something, or a flush was completed just before it.
    fn note_change(&mut self) {
        if self.changing_calls.last() != Some(&self.calls) {
            self.changing_calls.push(self.calls);
        }
    }

    fn tick(&mut self) -> u64 {
        self.note_change();
        self.clock += 1;
        self.clock
    }

    /// Whether `file` may have this many bytes.
    fn used(&self) -> u64 {
        self.files.iter().map(|file| file.now.len() as u64 - file.hole_size()).sum()
    }

    /// Whether bytes may be written here.
    fn has_room_at(&self, file: usize, offset: u64, count: usize) -> bool {
        let (now, end) = (self.files[file].now.len() as u64, offset.saturating_add(count as u64));
        if !self.has_holes {
            return self.has_room(file, now.max(end));
        }
        let more = end.saturating_sub(now) + self.files[file].hole_size_in(offset, end);
        self.capacity.is_none_or(|capacity| more == 0 || self.used() + more <= capacity)
    }

    fn has_room(&self, file: usize, size: u64) -> bool {
        if self.has_holes {
            return true;
        }
        let others = self.files.iter().enumerate().filter(|(index, _)| *index != file);
        let others: u64 = others.map(|(_, file)| file.now.len() as u64).sum();
        self.capacity.is_none_or(|capacity| others + size <= capacity)
    }

    fn write(&mut self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let clock = self.tick();
        self.files[file].write(clock, offset, bytes)
    }

    fn set_size(&mut self, file: usize, size: usize) -> Result<(), DiskError> {
        let clock = self.tick();
        let before = self.files[file].now.len();
        self.files[file].set_size(clock, size)?;
        if self.has_holes {
            self.files[file].note_hole(before);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
