//! Refusals as they travel.

use tidelog_sync::Refusal;
use tidelog_types::shortened;

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
