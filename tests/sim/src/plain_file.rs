//! A file that plain SQLite can open.

use std::path::Path;

/// Removed when it is dropped.
pub(crate) struct PlainFile(imp::File);

impl PlainFile {
    /// # Errors
    ///
    /// If there is no room for it.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, String> {
        imp::File::new(bytes).map(Self)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod imp {
    use std::path::Path;

    pub(super) struct File(tempfile::NamedTempFile);

    impl File {
        pub(super) fn new(bytes: &[u8]) -> Result<Self, String> {
            // In memory where there is such a folder: no disk is needed for what is soon gone.
            let folder = [Path::new("/dev/shm").to_owned(), std::env::temp_dir()];
            let folder = folder.into_iter().find(|folder| folder.is_dir());
            let file = tempfile::NamedTempFile::new_in(folder.unwrap_or_default())
                .map_err(|error| error.to_string())?;
            std::fs::write(file.path(), bytes).map_err(|error| error.to_string())?;
            Ok(Self(file))
        }

        pub(super) fn path(&self) -> &Path {
            self.0.path()
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod imp {
    use std::cell::Cell;
    use std::path::Path;

    use tidelog_sqlite::plain_files;

    thread_local! {
        static FILES_EVER: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) struct File(String);

    impl File {
        pub(super) fn new(bytes: &[u8]) -> Result<Self, String> {
            let nth = FILES_EVER.get() + 1;
            FILES_EVER.set(nth);
            let name = format!("{nth}.sqlite");
            plain_files::write(&name, bytes)?;
            Ok(Self(name))
        }

        pub(super) fn path(&self) -> &Path {
            Path::new(&self.0)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            plain_files::remove(&self.0);
        }
    }
}
