//! What a host may choose.

use tidelog_sqlite::Stopwatch;
use tidelog_types::limits::Limits;

/// What a host may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientSettings {
    /// How much it keeps, runs and sends.
    pub limits: Limits,
    /// What ends queries that take too long, if anything does.
    pub query_stopwatch: Option<&'static dyn Stopwatch>,
}
