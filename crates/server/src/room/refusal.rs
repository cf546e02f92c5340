//! Refusals as they travel: what SQLite or a doctype said in them may be of any length.

use tidelog_sync::Refusal;

/// Bytes of a reason that is told to a client.
const REASON_SIZE_MAX: usize = 1024;

/// The refusal with a reason that is not too long.
pub(super) fn brief(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::DoctypeMismatch { reason } => {
            Refusal::DoctypeMismatch { reason: shortened(reason) }
        }
        Refusal::DoctypeInvalid { reason } => Refusal::DoctypeInvalid { reason: shortened(reason) },
        Refusal::Access { reason } => Refusal::Access { reason: shortened(reason) },
        Refusal::Protocol { reason } => Refusal::Protocol { reason: shortened(reason) },
        Refusal::Storage { reason } => Refusal::Storage { reason: shortened(reason) },
        other => other,
    }
}

/// As much of a reason as is told.
pub(super) fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_SIZE_MAX {
        let end = (0..=REASON_SIZE_MAX).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or(0));
        reason.push_str(" ...");
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let reason = shortened("\u{e9}".repeat(REASON_SIZE_MAX));
        assert_eq!(reason, "\u{e9}".repeat(REASON_SIZE_MAX / 2) + " ...");
        assert_eq!(shortened("short".to_owned()), "short");
    }
}
