//! What has to hold when everything is over.

use std::collections::{BTreeMap, BTreeSet};

use crate::tab::News;

/// What was said of every mutation that any tab ever issued.
#[derive(Default)]
pub(crate) struct Judge {
    fates: BTreeMap<String, Fate>,
}

/// Which of a device's two documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Document {
    /// The one that everybody works on.
    #[default]
    Shared,
    /// The device's own, which no server knows.
    Own,
}

#[derive(Default, Debug)]
struct Fate {
    device: usize,
    document: Document,
    bumps: bool,
    durable: bool,
    confirmed: bool,
    rejected: bool,
    /// A listener has returned for its rejection: nobody need be told again.
    handled: bool,
    failed: bool,
}

impl Judge {
    pub(crate) fn issued(&mut self, name: &str, device: usize, document: Document, bumps: bool) {
        let fate = Fate { device, document, bumps, ..Fate::default() };
        let known = self.fates.insert(name.to_owned(), fate);
        assert!(known.is_none(), "BUG: {name} was issued twice by the simulator");
    }

    pub(crate) fn hear(&mut self, news: News) {
        let (name, tell): (String, fn(&mut Fate)) = match news {
            News::Durable(name) => (name, |fate| fate.durable = true),
            News::Confirmed(name) => (name, |fate| fate.confirmed = true),
            News::Rejected(name) | News::Refused(name) => (name, |fate| fate.rejected = true),
            News::Handled(name) => (name, |fate| fate.handled = true),
            News::Failed(name) => (name, |fate| fate.failed = true),
        };
        tell(self.fates.get_mut(&name).expect("BUG: news of what was never issued"));
    }

    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count = |which: fn(&Fate) -> bool| self.fates.values().filter(|f| which(f)).count();
        (count(|f| f.durable), count(|f| f.confirmed), count(|f| f.rejected))
    }

    /// Whether a tab that listens only now has been told of every rejection on its device for
    /// which no listener had returned.
    pub(crate) fn judge_rejections(
        &self,
        device: usize,
        told: &BTreeSet<String>,
    ) -> Result<(), String> {
        let here = self.fates.iter().filter(|(_, fate)| fate.device == device);
        let mut open = here.filter(|(_, fate)| fate.rejected && !fate.handled);
        match open.find(|(name, _)| !told.contains(*name)) {
            Some((name, _)) => Err(format!("device {device} forgot that {name} was rejected")),
            None => Ok(()),
        }
    }

    /// Compares what was said of the shared document with the rows that there are in the end.
    pub(crate) fn judge_shared(&self, file: &[u8]) -> Result<(), String> {
        let fates = self.fates.iter().filter(|(_, fate)| fate.document == Document::Shared);
        judge(fates.collect(), file)
    }

    /// The same for a device's own document, where nothing is rejected that was durable.
    pub(crate) fn judge_own(&self, device: usize, file: &[u8]) -> Result<(), String> {
        let is_own = |fate: &Fate| fate.document == Document::Own && fate.device == device;
        let fates: BTreeMap<_, _> = self.fates.iter().filter(|(_, fate)| is_own(fate)).collect();
        if let Some((name, _)) = fates.iter().find(|(_, fate)| fate.rejected) {
            return Err(format!("{name} was rejected after it was durable"));
        }
        judge(fates, file).map_err(|what| format!("device {device}'s own: {what}"))
    }
}

fn judge(fates: BTreeMap<&String, &Fate>, file: &[u8]) -> Result<(), String> {
    let (entries, bumps) = read(file)?;
    let mut bumped = 0;
    for (name, fate) in &fates {
        let rows = entries.get(*name).copied().unwrap_or(0);
        bumped += i64::from(fate.bumps) * rows;
        let wrong = match rows {
            0 if fate.confirmed => "was confirmed and is not there",
            0 if fate.durable && !fate.rejected => "was durable and is gone without a word",
            0 => continue,
            1 if fate.rejected => "was rejected and is there",
            1 if fate.failed => "failed and is there",
            1 => continue,
            _ => "was applied more than once",
        };
        return Err(format!("{name} {wrong}: {fate:?}"));
    }
    if bumps != bumped {
        return Err(format!("{bumped} bumps were applied, but the total says {bumps}"));
    }
    match entries.keys().find(|name| !fates.contains_key(name)) {
        Some(name) => Err(format!("{name} is there and nobody issued it")),
        None => Ok(()),
    }
}

/// The rows of a file, read by a SQLite that knows nothing of Tidelog.
fn read(file: &[u8]) -> Result<(BTreeMap<String, i64>, i64), String> {
    let at = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    std::fs::write(at.path(), file).map_err(|error| error.to_string())?;
    let read = || -> rusqlite::Result<_> {
        let connection = rusqlite::Connection::open(at.path())?;
        let check: String = connection.query_row("pragma integrity_check", [], |row| row.get(0))?;
        let mut entries = BTreeMap::new();
        let mut rows = connection.prepare("select id, count(*) from entry group by id")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            entries.insert(row.get(0)?, row.get(1)?);
        }
        let bumps = connection.query_row("select bumps from total", [], |row| row.get(0))?;
        Ok((check, entries, bumps))
    };
    let (check, entries, bumps) = read().map_err(|error| format!("the file: {error}"))?;
    if check != "ok" {
        return Err(format!("the file is not whole: {check}"));
    }
    Ok((entries, bumps))
}
