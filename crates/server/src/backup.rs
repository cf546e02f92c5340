//! A backup: one file that has all of a server but its keys.
//!
//! It is a tar, in this order (`FORMAT.md`): `backup.json`, which says what follows; the active
//! log file of the store and its page file, as they stood at one moment; which tokens were ended;
//! each doctype that was deployed; at last `checksums.json` with the hash (BLAKE3) of each of
//! them. Without that it is not whole.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tar::{Archive, Builder, EntryType, Header};
use tempfile::NamedTempFile;
use tidelog_disk::StoreFiles;

use crate::{access, durable_file};

const FORMAT_VERSION: u32 = 1;
const CONTENT_NAME: &str = "backup.json";
const CHECKSUMS_NAME: &str = "checksums.json";
/// The page file of a store.
const PAGES_NAME: &str = StoreFiles::<()>::NAMES[2];
/// Which tokens were ended before they expired.
const REVOCATIONS_NAME: &str = "revocations.json";
/// The folder of the doctypes.
const DOCTYPES_NAME: &str = "doctypes";
/// Bytes of the two files that say what there is.
const JSON_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// Why there is no backup, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// A file of the server cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The backup cannot be read to its end.
    #[error("the backup cannot be read")]
    Broken(#[source] io::Error),
    /// It has something that no backup has, or not all of it.
    #[error("that is no whole backup: {0}")]
    Odd(String),
    /// What was issued before cannot be ended.
    #[error("cannot end the tokens of before")]
    Tokens(#[source] Box<dyn Error + Send + Sync>),
    /// It was made by a later release.
    #[error("the backup is of format {found}, and this release knows {FORMAT_VERSION}")]
    Newer {
        /// Its format.
        found: u32,
    },
}

/// What a backup has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    format: u32,
    /// What the log file is called.
    log: String,
    log_size: u64,
    pages_size: u64,
    /// The second since 1970 of the moment that it is of.
    pub(crate) at_s: u64,
}

/// What of the files of a store is copied.
#[derive(Debug)]
pub(crate) struct Source<'s> {
    pub(crate) folder: &'s Path,
    /// What the log file is called.
    pub(crate) log: String,
    pub(crate) log_head: Vec<u8>,
    pub(crate) log_size: u64,
    pub(crate) pages_size: u64,
}

/// Writes a backup but for its end.
pub(crate) struct Writing<W: Write> {
    tar: Builder<W>,
    to: PathBuf,
    checksums: BTreeMap<String, String>,
}

impl<W: Write> Writing<W> {
    /// Writes all that is copied to `to`.
    pub(crate) fn begin(sink: W, to: &Path, source: &Source<'_>) -> Result<Self, BackupError> {
        let (tar, checksums) = (Builder::new(sink), BTreeMap::new());
        let mut writing = Self { tar, to: to.to_owned(), checksums };
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let content = Content {
            format: FORMAT_VERSION,
            log: source.log.clone(),
            log_size: source.log_size,
            pages_size: source.pages_size,
            at_s: since.map_or(0, |since| since.as_secs()),
        };
        let json = serde_json::to_vec(&content).expect("BUG: texts and numbers");
        writing.add(CONTENT_NAME, json.len() as u64, Cursor::new(json), source.folder)?;
        let head_size = source.log_head.len() as u64;
        let rest = open(source.folder, &source.log, head_size)?;
        let log = Cursor::new(&source.log_head).chain(rest);
        writing.add(&source.log, source.log_size, log, source.folder)?;
        let pages = open(source.folder, PAGES_NAME, 0)?;
        writing.add(PAGES_NAME, source.pages_size, pages, source.folder)?;
        // What is ended later is not, where this is restored.
        if source.folder.join(REVOCATIONS_NAME).exists() {
            writing.add_file(REVOCATIONS_NAME, source.folder)?;
        }
        // What is deployed later harms nothing, and all that documents name was deployed before.
        for name in doctypes(source.folder)? {
            writing.add_file(&format!("{DOCTYPES_NAME}/{name}"), source.folder)?;
        }
        Ok(writing)
    }

    fn add_file(&mut self, path: &str, folder: &Path) -> Result<(), BackupError> {
        let file = open(folder, path, 0)?;
        let size = file.metadata().map_err(|error| unread(folder.join(path), error))?;
        self.add(path, size.len(), file, folder)
    }

    /// Says that all of it is as it was at one moment. Gives what it was written to.
    pub(crate) fn end(mut self) -> Result<W, BackupError> {
        let json = serde_json::to_vec(&self.checksums).expect("BUG: texts");
        let to = self.to.clone();
        self.add(CHECKSUMS_NAME, json.len() as u64, Cursor::new(json), &to)?;
        let failed = |source| BackupError::Write { path: to, source };
        self.tar.into_inner().map_err(failed)
    }

    fn add(
        &mut self,
        name: &str,
        size: u64,
        from: impl Read,
        folder: &Path,
    ) -> Result<(), BackupError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(size);
        let mut hashing = Hashing::new(from.take(size));
        let added = self.tar.append_data(&mut header, name, &mut hashing);
        // Both sides are copied by one call.
        if let Some(error) = hashing.failed.take() {
            return Err(unread(folder.join(name), error));
        }
        added.map_err(|source| BackupError::Write { path: self.to.clone(), source })?;
        if hashing.size != size {
            return Err(unread(folder.join(name), io::ErrorKind::UnexpectedEof.into()));
        }
        self.checksums.insert(name.to_owned(), hashing.hash());
        Ok(())
    }
}

/// Puts a backup into a folder in which there is nothing. What goes wrong leaves nothing behind
/// that a server would take for a store. Unless tokens of before are kept, they are ended: which of
/// them were since the backup was made, it cannot know.
pub(crate) fn restore(
    from: impl Read,
    folder: &Path,
    keeps_tokens: bool,
) -> Result<Content, BackupError> {
    let mut archive = Archive::new(from);
    let mut entries = archive.entries().map_err(BackupError::Broken)?;
    let mut checksums = BTreeMap::new();
    let mut content: Option<Content> = None;
    // It has its name only when all is there: a store without a log is none.
    let mut log = None;
    loop {
        let entry = entries.next().ok_or_else(|| odd("it ends too early"))?;
        let mut entry = entry.map_err(BackupError::Broken)?;
        let path = entry.path().map_err(BackupError::Broken)?;
        let name = path.to_str().ok_or_else(|| odd("a name is no text"))?.to_owned();
        let size = entry.size();
        let mut hashing = Hashing::new(&mut entry);
        match &content {
            None if name == CONTENT_NAME => content = Some(content_of(&mut hashing)?),
            None => return Err(odd("it does not say what it is")),
            Some(_) if name == CHECKSUMS_NAME => {
                let said: BTreeMap<String, String> = json_of(&mut hashing)?;
                if said != checksums {
                    return Err(odd("a checksum is another one"));
                }
                break;
            }
            Some(content) if name == content.log && size == content.log_size && log.is_none() => {
                log = Some(copy(&mut hashing, folder, &name)?);
            }
            Some(content) if name == PAGES_NAME && size == content.pages_size => {
                keep(copy(&mut hashing, folder, &name)?, &folder.join(&name))?;
            }
            Some(_) if name == REVOCATIONS_NAME => {
                keep(copy(&mut hashing, folder, &name)?, &folder.join(&name))?;
            }
            Some(_) if is_doctype(&name) => {
                let doctypes = folder.join(DOCTYPES_NAME);
                fs::create_dir_all(&doctypes).map_err(|error| unwritten(&doctypes, error))?;
                keep(copy(&mut hashing, &doctypes, &name)?, &folder.join(&name))?;
            }
            Some(_) => return Err(odd(&format!("it has {name}, which is none of it"))),
        }
        checksums.insert(name, hashing.hash());
    }
    let content = content.ok_or_else(|| odd("it is empty"))?;
    let log = log.filter(|_| checksums.contains_key(PAGES_NAME));
    if !keeps_tokens {
        access::end_all_in(folder).map_err(BackupError::Tokens)?;
    }
    keep(log.ok_or_else(|| odd("a file is not there"))?, &folder.join(&content.log))?;
    Ok(content)
}

fn content_of(from: &mut impl Read) -> Result<Content, BackupError> {
    let content: Content = json_of(from)?;
    let [log_a, log_b, ..] = StoreFiles::<()>::NAMES;
    match content.format {
        FORMAT_VERSION if [log_a, log_b].contains(&content.log.as_str()) => Ok(content),
        FORMAT_VERSION => Err(odd("it has no log")),
        found => Err(BackupError::Newer { found }),
    }
}

fn json_of<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> Result<T, BackupError> {
    let mut json = Vec::new();
    from.take(JSON_SIZE_MAX).read_to_end(&mut json).map_err(BackupError::Broken)?;
    serde_json::from_slice(&json).map_err(|error| odd(&error.to_string()))
}

/// Copies it to a file in this folder that has no name of its own yet, and flushes that.
fn copy<R: Read>(
    from: &mut Hashing<R>,
    folder: &Path,
    name: &str,
) -> Result<NamedTempFile, BackupError> {
    let failed = |error| unwritten(&folder.join(name), error);
    let mut file = NamedTempFile::new_in(folder).map_err(failed)?;
    let copied = io::copy(from, file.as_file_mut());
    if let Some(error) = from.failed.take() {
        return Err(BackupError::Broken(error));
    }
    copied.and_then(|_| file.as_file().sync_all()).map_err(failed)?;
    Ok(file)
}

/// Gives a file its name, durably.
fn keep(file: NamedTempFile, path: &Path) -> Result<(), BackupError> {
    file.persist(path).map_err(|error| unwritten(path, error.error))?;
    let folder = path.parent().expect("BUG: it is in a folder");
    durable_file::sync_folder(folder).map_err(|error| unwritten(folder, error))
}

fn is_doctype(name: &str) -> bool {
    let Some(name) = name.strip_prefix(DOCTYPES_NAME).and_then(|it| it.strip_prefix('/')) else {
        return false;
    };
    let Some(stem) = name.strip_suffix(".json") else { return false };
    !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The names of the files of deployed doctypes.
fn doctypes(folder: &Path) -> Result<Vec<String>, BackupError> {
    let folder = folder.join(DOCTYPES_NAME);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| unread(folder.clone(), error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unread(folder.clone(), error))?;
        let name = entry.file_name().into_string().unwrap_or_default();
        if is_doctype(&format!("{DOCTYPES_NAME}/{name}")) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn open(folder: &Path, name: &str, at: u64) -> Result<File, BackupError> {
    use std::io::{Seek as _, SeekFrom};

    let path = folder.join(name);
    let opened = File::open(&path).and_then(|mut file| {
        file.seek(SeekFrom::Start(at))?;
        Ok(file)
    });
    opened.map_err(|error| unread(path, error))
}

fn unread(path: PathBuf, source: io::Error) -> BackupError {
    BackupError::Read { path, source }
}

fn unwritten(path: &Path, source: io::Error) -> BackupError {
    BackupError::Write { path: path.to_owned(), source }
}

fn odd(why: &str) -> BackupError {
    BackupError::Odd(why.to_owned())
}

/// Knows the hash of what was read through it, and whether reading failed.
struct Hashing<R> {
    from: R,
    hasher: blake3::Hasher,
    size: u64,
    failed: Option<io::Error>,
}

impl<R> Hashing<R> {
    fn new(from: R) -> Self {
        Self { from, hasher: blake3::Hasher::new(), size: 0, failed: None }
    }

    fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.from.read(buf) {
            Ok(size) => {
                self.hasher.update(&buf[..size]);
                self.size += size as u64;
                Ok(size)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                self.failed = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}
