//! How much undecided mutations keep for themselves.

use tidelog_types::PageSet;
use tidelog_types::limits::Limits;

/// Count and size of the layers that mutations have of their own, in one view. A mutation without
/// one costs at most one more run, when it is decided: its pages lie in the overlay alone.
#[derive(Debug, Default)]
pub(super) struct OwnLayers {
    count: usize,
    pages_count: usize,
}

impl OwnLayers {
    /// What a mutation changed, as its own layer; `None` if it shares one, for want of room.
    pub(super) fn keep(&mut self, set: PageSet, limits: &Limits) -> Option<PageSet> {
        let pages_count = self.pages_count + set.pages.len();
        if self.count >= limits.layers_max || pages_count > limits.layer_pages_max {
            return None;
        }
        *self = Self { count: self.count + 1, pages_count };
        Some(set)
    }

    /// Whether it counts these layers, and no others, and both bounds hold; for simulations.
    pub(super) fn counts<'l>(
        &self,
        layers: impl Iterator<Item = &'l PageSet>,
        limits: &Limits,
    ) -> bool {
        let sizes: Vec<usize> = layers.map(|layer| layer.pages.len()).collect();
        let is_bounded =
            self.count <= limits.layers_max && self.pages_count <= limits.layer_pages_max;
        is_bounded && self.count == sizes.len() && self.pages_count == sizes.iter().sum::<usize>()
    }

    /// A layer that was kept is gone.
    pub(super) fn give_back(&mut self, layer: &PageSet) {
        assert!(self.count > 0, "BUG: a layer was given back that was not kept");
        assert!(self.pages_count >= layer.pages.len(), "BUG: more pages given back than kept");
        self.count -= 1;
        self.pages_count -= layer.pages.len();
    }
}
