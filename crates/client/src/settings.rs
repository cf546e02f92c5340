//! What a host may choose.

use tidelog_types::limits::Limits;

/// What a host may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientSettings {
    /// How much it keeps, runs and sends.
    pub limits: Limits,
}
