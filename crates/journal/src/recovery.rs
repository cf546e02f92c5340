//! What is believed of the log when it is opened.

use tidelog_disk::{Disk, DiskError};

use crate::frame;
use crate::header::{FRAME_ALIGNMENT, Header};
use crate::scan::{Scanned, Visit, WINDOW_SIZE, scan};
use crate::window::Window;
use crate::writer::block_after;
use crate::{Cut, Damage, LogFile, RecoverError, salvage};

/// What recovery found in the active file.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub scanned: Scanned,
    /// Everything before this offset was called durable by somebody who had flushed it.
    pub durable: u64,
    /// Everything before this offset is durable by what frames say; the header may say more.
    pub stated: u64,
    /// Whether the header is known to have been flushed.
    pub is_header_durable: bool,
    /// The attempt that frames written from now on have to carry.
    pub attempt: u32,
    pub cut: Option<Cut>,
    pub damage: Vec<Damage>,
}

/// Reads the active file to its end, and makes sure that it is the end.
pub(crate) fn recover<D: Disk>(
    disk: &D,
    file: LogFile,
    header: Header,
    visit: &mut Visit<'_>,
) -> Result<Recovered, RecoverError> {
    let mut window = Window::new(disk, header, WINDOW_SIZE);
    let mut scanned = scan(&mut window, header, Scanned::START, u64::MAX, visit)?;
    let leftovers = window.leftovers(scanned.end)?;
    let stated = scanned.durable.max(leftovers.durable);
    // Whatever could not be read where something may stand was perhaps durable: it is never taken
    // for a tail that a power cut tore, nor written over.
    let unread = window.unreadable_end(scanned.end, block_after(leftovers.end.max(scanned.end)));
    let durable = stated.max(header.durable).max(header.state_end).max(unread);
    let mut damage = Vec::new();
    if scanned.end < durable {
        let found = salvage::salvage(&mut window, header, scanned, durable, visit)?;
        scanned = found.0;
        damage = found.1.into_iter().map(|(offset, size)| Damage { file, offset, size }).collect();
    }
    let cut = cut_at(&mut window, header, scanned.end, leftovers.end.max(scanned.end))?;
    let attempt = match cut {
        Some(_) => scanned.attempt.max(leftovers.attempt).saturating_add(1),
        None => scanned.attempt,
    };
    Ok(Recovered { scanned, durable, stated, is_header_durable: stated > 0, attempt, cut, damage })
}

/// The torn tail at `end`, unless the end mark or the end of the file says that there is none.
fn cut_at<D: Disk>(
    window: &mut Window<'_, D>,
    header: Header,
    end: u64,
    leftovers_end: u64,
) -> Result<Option<Cut>, DiskError> {
    let left = window.size.saturating_sub(end);
    let here = usize::try_from(left.min(FRAME_ALIGNMENT as u64)).expect("BUG: at most 8");
    let has_end_mark = match window.get(end, here)? {
        Some(bytes) => bytes.iter().all(|byte| *byte == 0),
        None => true,
    };
    let is_marked = window.header(end)?.is_some_and(|frame| frame.is_durable_mark());
    // Where the next write began there is no end mark: something from an earlier use may be there.
    let next = block_after(end);
    let is_begun = window.header(next)?.is_none()
        && window
            .header_bytes(next)?
            .is_some_and(|bytes| frame::is_remnant(bytes, header.salt, next));
    if (has_end_mark || is_marked) && !is_begun && leftovers_end <= end {
        return Ok(None);
    }
    let stated = window.header(end)?.map_or(here, |frame| frame.size()) as u64;
    let size = left.min(stated).max(leftovers_end.saturating_sub(end));
    Ok(Some(Cut { offset: end, size }))
}
