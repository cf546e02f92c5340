//! A disk that is a file of the operating system.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use crate::{Disk, DiskError, FlushId};

/// A file of the operating system, locked for as long as it is open.
///
/// A flush is `fdatasync` (or what the system has of the kind) and complete when it was
/// requested.
#[derive(Debug)]
pub struct NativeDisk {
    file: File,
    /// Kept here because nobody else may change it: asking costs a system call.
    size: u64,
    flushes: u64,
    poisoned: bool,
}

impl NativeDisk {
    /// Opens the file at `path`, making it if it is not there.
    ///
    /// # Errors
    ///
    /// [`DiskError::Busy`] if another process has it open; otherwise what the system says.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| failure(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::Busy),
            Err(TryLockError::Error(error)) => return Err(failure(&error)),
        }
        // It may be new, or whoever made it was killed before this.
        sync_name(path).map_err(|error| failure(&error))?;
        let size = file.metadata().map_err(|error| failure(&error))?.len();
        Ok(Self { file, size, flushes: 0, poisoned: false })
    }

    fn check(&self) -> Result<(), DiskError> {
        if self.poisoned { Err(DiskError::Poisoned) } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| failure(&error))?;
        if is_gone(&self.file).map_err(|error| failure(&error))? {
            return Err(DiskError::Gone);
        }
        Ok(())
    }
}

/// Makes a folder, and the folders above it that are not there, and their names durable.
pub(crate) fn make_folder(folder: &Path) -> Result<(), DiskError> {
    make_folder_by(folder, sync_name)
}

fn make_folder_by(
    folder: &Path,
    mut sync_name: impl FnMut(&Path) -> io::Result<()>,
) -> Result<(), DiskError> {
    let are_missing = named(folder).take_while(|above| !above.exists()).count();
    std::fs::create_dir_all(folder).map_err(|error| failure(&error))?;
    // Each of them may be there because whoever made it was killed before this.
    for (index, above) in named(folder).enumerate() {
        match sync_name(above) {
            // Of a file system that cannot be written, or makes no name durable, it was there.
            Err(error) if index >= are_missing.max(1) && is_of_fixed_names(&error) => {}
            synced => synced.map_err(|error| failure(&error))?,
        }
    }
    Ok(())
}

/// A folder, and those above it that have a name: not the root, nor where a relative path begins.
fn named(folder: &Path) -> impl Iterator<Item = &Path> {
    folder.ancestors().filter(|above| above.parent().is_some())
}

fn is_of_fixed_names(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};

    matches!(error.kind(), ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// Makes the name of a file or folder durable: a power cut could otherwise lose it, bytes and all.
fn sync_name(path: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    match File::open(above.unwrap_or(Path::new("."))) {
        Ok(above) => above.sync_all(),
        // Who may not look into it has not made a name in it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether nobody will find this file again, flushed or not.
#[cfg(unix)]
fn is_gone(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;

    Ok(file.metadata()?.nlink() == 0)
}

/// Other systems do not let an open file be deleted.
#[cfg(not(unix))]
fn is_gone(_: &File) -> io::Result<bool> {
    Ok(false)
}

fn failure(error: &io::Error) -> DiskError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            DiskError::Full
        }
        _ => DiskError::Device { reason: error.to_string() },
    }
}

#[cfg(unix)]
mod positioned {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    pub fn read(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        file.read_exact_at(buf, offset)
    }

    pub fn write(file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }
}

#[cfg(not(unix))]
mod positioned {
    use std::fs::File;
    use std::io::{self, Read, Seek, SeekFrom, Write};

    pub fn read(mut file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buf)
    }

    pub fn write(mut file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.seek(SeekFrom::Start(offset))?;
        file.write(bytes)
    }
}

impl Disk for NativeDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check()?;
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.size) {
            return Err(DiskError::OutOfRange { offset, count: buf.len(), size: self.size });
        }
        positioned::read(&self.file, offset, buf).map_err(|error| failure(&error))
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.check()?;
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            match positioned::write(&self.file, offset + done as u64, rest) {
                Ok(written) if written == 0 || written > rest.len() => {
                    let written = (done + written) as u64;
                    return Err(DiskError::ShortWrite { expected: bytes.len(), written });
                }
                // The system may take a long write in pieces: go on where it stopped.
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failure(&error)),
            }
            self.size = self.size.max(offset + done as u64);
        }
        Ok(())
    }

    fn set_size(&mut self, size: u64) -> Result<(), DiskError> {
        self.check()?;
        self.file.set_len(size).map_err(|error| failure(&error))?;
        self.size = size;
        Ok(())
    }

    fn request_flush(&mut self) -> Result<FlushId, DiskError> {
        self.check()?;
        if let Err(error) = self.sync() {
            self.poisoned = true;
            return Err(error.of_flush());
        }
        self.flushes += 1;
        Ok(FlushId(self.flushes))
    }

    fn flushed(&mut self) -> Result<Option<FlushId>, DiskError> {
        self.check()?;
        Ok((self.flushes > 0).then_some(FlushId(self.flushes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("tidelog-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for scratch files");
        folder.join(name)
    }

    #[test]
    fn a_native_disk_keeps_the_laws() {
        let path = scratch("laws");
        crate::conformance::run(|| {
            let _ = std::fs::remove_file(&path);
            NativeDisk::open(&path).expect("a new file")
        });
        std::fs::remove_file(&path).expect("the file was there");
    }

    #[test]
    fn a_native_disk_keeps_the_laws_of_opening() {
        let path = scratch("owner");
        crate::conformance::run_reopened(|| NativeDisk::open(&path), |_| {});
        std::fs::remove_file(&path).expect("the file was there");
    }

    /// Goal: a power cut loses no folder under which something is durable. Method: whoever made the
    /// folders was killed before it had made their names durable; then a file system above them
    /// that makes none durable, as one that cannot be written.
    #[test]
    fn the_names_of_folders_become_durable_whoever_made_them() {
        use io::ErrorKind::{InvalidInput, ReadOnlyFilesystem, Unsupported};

        let top = scratch("folders");
        let folder = top.join("a/b");
        for is_made in [false, true] {
            let _ = std::fs::remove_dir_all(&top);
            if is_made {
                std::fs::create_dir_all(&folder).expect("the one before made them");
            }
            let mut synced = Vec::new();
            make_folder_by(&folder, |path| {
                synced.push(path.to_owned());
                Ok(())
            })
            .expect("a healthy disk");
            assert!(folder.is_dir());
            let expected = [folder.clone(), top.join("a"), top.clone()];
            assert_eq!(synced[..3], expected, "made before: {is_made}");
        }
        for kind in [ReadOnlyFilesystem, InvalidInput, Unsupported] {
            let unsynced = |of: &Path| {
                let refuse = |path: &Path| if path == of { Err(kind.into()) } else { Ok(()) };
                make_folder_by(&folder, refuse)
            };
            assert_eq!(unsynced(&top), Ok(()), "{kind}");
            assert!(unsynced(&folder).is_err(), "{kind}");
        }
        std::fs::remove_dir_all(&top).expect("it was made");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_deleted_under_its_owner_is_noticed_at_the_next_flush() {
        let path = scratch("gone");
        let mut disk = NativeDisk::open(&path).expect("a new file");
        disk.write_at(0, b"tide").expect("room");
        disk.request_flush().expect("a healthy disk");
        std::fs::remove_file(&path).expect("the file was there");
        disk.write_at(0, b"ebbs").expect("the system takes it");
        assert_eq!(disk.request_flush(), Err(DiskError::Gone));
        assert_eq!(disk.flushed(), Err(DiskError::Poisoned));
        assert_eq!(disk.write_at(0, b"more"), Err(DiskError::Poisoned));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_that_is_really_full_says_so() {
        let path = Path::new("/dev/full");
        let file = OpenOptions::new().read(true).write(true).open(path);
        let Ok(file) = file else { return };
        let mut disk = NativeDisk { file, size: 0, flushes: 0, poisoned: false };
        assert_eq!(disk.write_at(0, b"abc"), Err(DiskError::Full));
        assert_eq!(disk.size(), 0);
    }
}
