//! The end of a run: all settles, and all sides are compared.

use std::fmt::Write as _;

use tidelog_client::{Handle, TabId};

use super::{DEVICES, SETTLE_MS, World};
use crate::tab::SHARED;

/// How often all sides are compared before they are said to differ.
const COMPARISONS_MAX: u32 = 3;

impl World {
    /// Lets everything settle and compares all sides byte for byte.
    ///
    /// A device may learn only now that its disk had no room a while ago: then it takes back what
    /// it had shown and fetches it again, so they are compared once more.
    pub(super) fn converge(&mut self, when: &str) -> Result<Vec<u8>, String> {
        let mut compared = Err(String::new());
        for _ in 0..COMPARISONS_MAX {
            // Twice: a device may bring in the first round what others have to see in the second.
            for _ in 0..2 {
                self.sync_all(when)?;
            }
            compared = self.compare(when);
            if compared.is_ok() {
                break;
            }
        }
        compared
    }

    fn sync_all(&mut self, when: &str) -> Result<(), String> {
        for device in 0..DEVICES {
            let tab = self.any_tab(device)?;
            let here = self.devices[device].tabs.get_mut(&tab).expect("BUG: found");
            let sync = here.sync();
            self.send_to_core(device, tab, vec![sync]);
        }
        self.settle(when)
    }

    fn compare(&mut self, when: &str) -> Result<Vec<u8>, String> {
        let theirs = self.export_host(when)?;
        for device in 0..DEVICES {
            let ours = self.export(device, SHARED, when)?;
            if ours != theirs {
                let first = ours.iter().zip(&theirs).position(|(a, b)| a != b);
                return Err(format!(
                    "{when}, device {device} differs from the server: {} and {} bytes, first \
                     difference at {first:?}",
                    ours.len(),
                    theirs.len(),
                ));
            }
        }
        Ok(theirs)
    }

    pub(super) fn export(
        &mut self,
        device: usize,
        handle: Handle,
        when: &str,
    ) -> Result<Vec<u8>, String> {
        let tab = self.any_tab(device)?;
        let here = self.devices[device].tabs.get_mut(&tab).expect("BUG: found");
        let export = here.export(handle);
        self.send_to_core(device, tab, vec![export]);
        self.settle(when)?;
        let file = self.devices[device].tabs[&tab].exported.clone();
        file.ok_or_else(|| format!("{when}, device {device} gives no file"))
    }

    pub(super) fn any_tab(&self, device: usize) -> Result<TabId, String> {
        let mut tabs = self.devices[device].tabs.keys();
        tabs.next().copied().ok_or_else(|| format!("device {device} has no tab"))
    }

    pub(super) fn settle(&mut self, when: &str) -> Result<(), String> {
        let deadline = self.now_ms + SETTLE_MS;
        while !self.is_settled() {
            if self.now_ms > deadline || self.queue.is_empty() {
                return Err(format!("{when}, something is stuck: {}", self.unsettled()));
            }
            self.next_event()?;
        }
        Ok(())
    }

    pub(super) fn is_settled(&self) -> bool {
        let mut tabs = self.devices.iter().flat_map(|device| device.tabs.values());
        tabs.all(|tab| tab.unsettled.is_empty() && tab.confirming.is_empty())
    }

    pub(super) fn unsettled(&self) -> String {
        let mut text = String::new();
        for (device, here) in self.devices.iter().enumerate() {
            for (id, tab) in &here.tabs {
                if !tab.unsettled.is_empty() || !tab.confirming.is_empty() {
                    let _ = write!(
                        text,
                        "[device {device} tab {}: {:?} {:?}]",
                        id.0,
                        tab.unsettled.values().collect::<Vec<_>>(),
                        tab.confirming.values().collect::<Vec<_>>()
                    );
                }
            }
        }
        text
    }

    pub(super) fn export_host(&mut self, when: &str) -> Result<Vec<u8>, String> {
        let mut done = self.host.export();
        for _ in 0..10_000 {
            if let Some(file) = done.exported.take() {
                return Ok(file);
            }
            self.host_did(done);
            done = self.host.flushed();
        }
        Err(format!("{when}, the server gives no file"))
    }
}
