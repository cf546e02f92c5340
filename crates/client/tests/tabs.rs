//! What tabs are told, and when.

mod common;

use common::*;
use tidelog_client::{FromCore, ToCore};
use tidelog_types::Value;
use tidelog_types::limits::TAB_UNHEARD_SIZE_MAX;

/// Shows how large the newest of so many notes is.
const NOTES: u32 = 40;
const NOTE_SIZE: usize = 64 * 1024;

fn add_note(device: &mut Device, number: u32) {
    let id = number.to_string();
    let title = text(&format!("{id}{}", "x".repeat(NOTE_SIZE)));
    let id = text(&id);
    device.mutate("add", &[("id", id), ("title", title)]);
}

fn rows_told(device: &Device, call: tidelog_client::Call) -> Vec<Vec<Vec<Value>>> {
    let rows = device.answers(call).into_iter().filter_map(|answer| match answer {
        FromCore::Rows { rows, .. } => Some(rows.decode()),
        _ => None,
    });
    rows.collect()
}

/// Goal: W16, a tab that does not listen costs no more memory than a bound. Method: a live query
/// whose rows are large, in a tab that says nothing while they change again and again.
#[test]
fn a_tab_that_is_behind_is_told_only_the_newest_rows_once_it_has_heard() {
    let mut device = Device::new(1);
    device.open(&todos());
    let live = device.watch("select title from todo order by cast(id as integer) desc limit 1");
    device.tabs_hear = false;
    for number in 1..=NOTES {
        add_note(&mut device, number);
    }
    let told = rows_told(&device, live);
    assert!(told.len() * NOTE_SIZE <= TAB_UNHEARD_SIZE_MAX + NOTE_SIZE, "{} times", told.len());
    let titles = "select count(*) from todo";
    assert_eq!(device.query(titles), [[integer(i64::from(NOTES))]], "what it asks is answered");

    device.mutate("add", &[("id", text("99")), ("title", text("last"))]);
    device.ask(TAB, vec![ToCore::Heard { lists: u32::MAX }]);
    let newest = rows_told(&device, live);
    assert_eq!(newest.len(), told.len() + 1, "those between are passed over");
    assert_eq!(newest.last(), Some(&vec![vec![text("last")]]));
}
