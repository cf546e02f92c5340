//! What is still believed of a log whose durable part is damaged.
//!
//! A batch is believed if each of its frames is whole: where a frame stands, in which use of the
//! file and in which batch is part of its checksum. That it follows what it followed when it was
//! written cannot be told across the damage; whose frames are missing there, the count of a
//! document's frames tells (`FrameHead::nth`).

use tidelog_disk::Disk;

use crate::RecoverError;
use crate::header::{FRAME_ALIGNMENT, Header};
use crate::scan::{Found, Scanned, Visit, scan};
use crate::window::Window;
use crate::writer::block_after;

/// Goes on behind the whole batches that end at `scanned.end`, of a file that was durable up to
/// `durable`. Gives how far that came, and where what is lost begins and how long it is.
pub(crate) fn salvage<D: Disk>(
    window: &mut Window<'_, D>,
    header: Header,
    mut scanned: Scanned,
    durable: u64,
    visit: &mut Visit<'_>,
) -> Result<(Scanned, Vec<(u64, u64)>), RecoverError> {
    let mut lost = Vec::new();
    while scanned.end < durable {
        let start = scanned.end;
        let found = resume(window, header, scanned, durable, visit)?;
        scanned = found.unwrap_or(Scanned { end: durable, ..scanned });
        lost.push((start, scanned.end - start));
        if found.is_some() {
            scanned = scan(window, header, scanned, u64::MAX, visit)?;
        }
    }
    Ok((scanned, lost))
}

/// The next whole batch that follows `durable` or begins before: how far a scan would have come
/// that is about to read it. What lies behind may be the leftovers of a tail that was cut. Tells
/// `visit` of the frames that are passed over.
fn resume<D: Disk>(
    window: &mut Window<'_, D>,
    header: Header,
    from: Scanned,
    durable: u64,
    visit: &mut Visit<'_>,
) -> Result<Option<Scanned>, RecoverError> {
    let mut tell = |offset, head, body: Option<&[u8]>| {
        let lost = Found::Lost { offset, head, body };
        visit(lost).map_err(|reason| RecoverError::Malformed { offset, reason })
    };
    let mut at = from.end;
    // What the next frame is linked to, if that is known: then nothing is lost in a gap before it.
    let mut link = Some(from.link);
    let mut places = Vec::new();
    while at <= block_after(durable) {
        if window.header(at)?.is_none()
            && let Some(frame) = window.header(block_after(at))?
            && link == Some(frame.ties.link)
        {
            at = block_after(at);
        }
        let Some(frame) = window.header(at)? else {
            if at < durable {
                tell(at, None, None)?;
            }
            let next = window.search(at + FRAME_ALIGNMENT as u64)?;
            let Some((next, _)) = next else { break };
            (at, link) = (next, None);
            continue;
        };
        let here = Scanned { end: at, link: frame.ties.link, ..from };
        // One that stands here, and that a scan goes past: else this would be found for ever.
        if let Some(next) = window.batch(here, &mut places)?
            && places.first() == Some(&at)
            && !header.is_crossed(at, next.end)
        {
            return Ok(Some(here));
        }
        if at < durable {
            let whole = window.frame(at)?.map(|frame| window.found(at, &frame)).transpose()?;
            tell(at, Some(frame.head), whole.map(|whole| whole.body))?;
        }
        at += frame.size() as u64;
        link = Some(if at == header.state_end { header.seam() } else { frame.checksum });
    }
    Ok(None)
}
