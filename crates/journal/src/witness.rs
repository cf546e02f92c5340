//! What is known of a log from elsewhere.

/// What somebody beside the log says of it: its own files cannot tell that they are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Witness {
    /// Nothing beside the log says anything of it.
    None,
    /// Nothing in it was ever called durable: what is no header is what a power cut left of one.
    Unused,
    /// It was durable once, so there is one.
    Used,
}
