//! Commands: sent by devices, decided by the authority.

#[path = "../common/mod.rs"]
mod common;
mod dispatch;
mod hand_over;
mod operator;
mod outcomes;
mod scene;
mod snapshots;
