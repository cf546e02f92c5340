//! The part of `npm run crash` that damages a store: every bit, every tail.

use std::alloc::System;
use std::process::ExitCode;

use cap::Cap;
use tidelog_crash::damage::{Rest, Tally};
use tidelog_disk::StoreFiles;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Of the files beside the log, one bit in so many is flipped.
const OTHER_BITS_STEP: usize = 509;

fn main() -> ExitCode {
    let rest = Rest::new(|| ALLOCATOR.total_allocated());
    println!("a log of {} bytes", rest.size());
    let swept = every_bit(&rest).and_then(|()| every_tail(&rest));
    match swept.and_then(|()| other_files(&rest)).and_then(|()| lost_files(&rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            println!("FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

fn every_bit(rest: &Rest) -> Result<(), String> {
    println!("every bit of it flipped: {}", rest.flip_each(1)?);
    let made_again = Rest::made_again(|| ALLOCATOR.total_allocated());
    println!("every bit of a destruction: {}", made_again.flip_destruction(1)?);
    println!("every bit around it: {}", made_again.flip_each(1)?);
    println!("one in {OTHER_BITS_STEP} and another: {}", rest.flip_pairs(OTHER_BITS_STEP)?);
    println!("every bit of its end, without a mark: {}", rest.flip_unmarked(1)?);
    let changed_over = Rest::changed_over(|| ALLOCATOR.total_allocated());
    println!("every bit that was sealed: {}", changed_over.flip_sealed(1)?);
    Ok(())
}

fn every_tail(rest: &Rest) -> Result<(), String> {
    let mut tally = Tally::default();
    for size in rest.tail_sizes() {
        let outcome = rest.cut_off(size);
        tally.note(outcome.map_err(|what| format!("cut off at {size}: {what}"))?);
    }
    println!("cut off at every byte of its last three frames: {tally}");
    Ok(())
}

fn lost_files(rest: &Rest) -> Result<(), String> {
    let mut tally = Tally::default();
    for name in StoreFiles::<()>::NAMES {
        let outcome = rest.lose(name);
        tally.note(outcome.map_err(|what| format!("{name} lost: {what}"))?);
    }
    println!("each file lost: {tally}");
    Ok(())
}

fn other_files(rest: &Rest) -> Result<(), String> {
    for (name, bits) in rest.other_files() {
        let mut tally = Tally::default();
        for bit in (0..bits).step_by(OTHER_BITS_STEP) {
            let outcome = rest.flip_in(name, bit);
            tally.note(outcome.map_err(|what| format!("bit {bit} of {name}: {what}"))?);
        }
        println!("one bit in {OTHER_BITS_STEP} of {name} flipped: {tally}");
    }
    Ok(())
}
