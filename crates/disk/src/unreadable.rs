//! Files that the device cannot read in some places.

use crate::{BLOCK_SIZE, Disk, DiskError};

/// Whether this read failed for what lies there, and not because the device reads nothing any more:
/// it still reads one of the first two blocks of the file, in each of which the files of a store
/// have a copy of their header.
pub fn fails_there_alone<D: Disk>(disk: &D, error: &DiskError) -> bool {
    let is_of_a_place = matches!(error, DiskError::Device { .. } | DiskError::OutOfRange { .. });
    let mut block = vec![0; BLOCK_SIZE];
    is_of_a_place && [0, BLOCK_SIZE as u64].iter().any(|at| disk.read_at(*at, &mut block).is_ok())
}
