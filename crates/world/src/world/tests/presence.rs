//! Who is present, from tab to tab, through the cores and the room.

use tidelog_types::limits::{PRESENCE_SIGN_MS, PRESENCE_SILENT_MS, PRESENCE_TICK_MS};

use super::*;

impl Stage {
    fn set(&mut self, of: usize, state: Option<&str>) {
        let state = state.map(str::to_owned);
        let tab = self.tabs[of].tab;
        self.world.hear(tab, vec![ToCore::Presence { handle: HANDLE, state }]);
        self.run();
    }

    /// How many are present by its word, and what the others say.
    fn present(&self, of: usize) -> (u32, Vec<&str>) {
        let (count, seen) = &self.tabs[of].present;
        (*count, seen.values().map(String::as_str).collect())
    }
}

#[test]
fn each_is_told_who_else_is_present_and_for_how_long() {
    let mut stage = Stage::new();
    stage.set(ADA, Some("ada"));
    stage.set(BOB, None);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(ADA), (1, vec![]), "one who looks is not present");
    assert_eq!(stage.present(BOB), (2, vec!["ada"]));
    stage.set(BOB, Some("bob"));
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(ADA), (2, vec!["bob"]));
    stage.pass(10 * PRESENCE_SILENT_MS);
    assert_eq!(stage.present(ADA), (2, vec!["bob"]), "cores give signs of life");
    stage.set(ADA, None);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(BOB), (1, vec![]));
}

#[test]
fn one_is_gone_with_its_document_and_with_its_tab() {
    let mut stage = Stage::new();
    let device = stage.tabs[ADA].device;
    stage.open(device);
    let second = stage.tabs.len() - 1;
    for (of, state) in [(ADA, "ada"), (BOB, "bob"), (second, "second")] {
        stage.set(of, Some(state));
        stage.pass(PRESENCE_TICK_MS);
    }
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(BOB), (3, vec!["ada", "second"]));
    assert_eq!(stage.present(ADA), (3, vec!["bob", "second"]), "tabs of a core see each other");
    assert_eq!(stage.present(second), (3, vec!["ada", "bob"]));
    stage.ask(ADA, Request::Close);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(BOB), (2, vec!["second"]));
    assert_eq!(stage.present(second), (2, vec!["bob"]));
    stage.world.leave(stage.tabs[second].tab);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(BOB), (1, vec![]));
}

/// Goal: what is said offline is said once there is a server, and the last of it.
#[test]
fn one_who_is_offline_is_alone_and_is_present_again_once_it_is_online() {
    let mut stage = Stage::new();
    stage.set(ADA, Some("ada"));
    stage.set(BOB, Some("bob"));
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(ADA), (2, vec!["bob"]));
    stage.set_online(ADA, false);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(ADA), (1, vec![]));
    assert_eq!(stage.present(BOB), (1, vec![]));
    stage.set(ADA, Some("early"));
    stage.set(ADA, Some("late"));
    stage.pass(60_000);
    stage.set_online(ADA, true);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(ADA), (2, vec!["bob"]));
    assert_eq!(stage.present(BOB), (2, vec!["late"]));
}

/// Goal: a core that is gone takes along whom it told of; the next one is told anew.
#[test]
fn the_next_core_is_told_again_who_is_present() {
    let mut stage = Stage::new();
    stage.set(ADA, Some("ada"));
    stage.set(BOB, Some("bob"));
    stage.pass(PRESENCE_TICK_MS);
    let Tab { tab, device, .. } = stage.tabs[ADA];
    stage.world.leave(tab);
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(BOB), (1, vec![]));
    stage.open(device);
    let next = stage.tabs.len() - 1;
    stage.set(next, Some("next"));
    stage.pass(PRESENCE_TICK_MS);
    assert_eq!(stage.present(BOB), (2, vec!["next"]));
    assert_eq!(stage.present(next), (2, vec!["bob"]));
}

#[test]
fn where_nobody_asks_who_is_present_no_clock_runs_for_it() {
    let mut stage = Stage::new();
    stage.pass(60_000);
    assert_eq!(stage.world.server.due_at_ms(), None);
    stage.set(ADA, Some("ada"));
    stage.pass(PRESENCE_TICK_MS);
    assert!(stage.world.server.due_at_ms().is_some());
    stage.set(ADA, None);
    stage.pass(PRESENCE_SIGN_MS);
    assert_eq!(stage.world.server.due_at_ms(), None);
}
