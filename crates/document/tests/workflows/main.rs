//! Workflows: started by devices, what their runs remember, and what lets them go on.

mod bounds;
mod cancelling;
#[path = "../common/mod.rs"]
mod common;
mod paper;
mod running;
mod scene;
mod waiting;
