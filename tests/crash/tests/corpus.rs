//! The corpus of the fuzz targets in `tests/fuzz`, without libFuzzer: what was ever of interest
//! there is tried with every change.

use std::fs;
use std::path::{Path, PathBuf};

use tidelog_disk::BLOCK_SIZE;
use tidelog_testing::decoders;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Gives every input of a target to its function, and some changed in a simple way.
fn replay(target: &str, decode: fn(&[u8])) {
    let folder = tests().join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut count = 0;
    for file in files {
        let mut input = fs::read(file.expect("an entry").path()).expect("a file");
        count += 1;
        decode(&input);
        decode(&input[..input.len() / 2]);
        if let Some(byte) = input.last_mut() {
            *byte ^= 0x80;
            decode(&input);
        }
    }
    assert!(count > 0, "no corpus in {folder:?}");
}

#[test]
fn files_of_a_store_are_read_whatever_is_in_them() {
    replay("log_bytes", decoders::log_bytes);
}

#[test]
fn frames_are_read_whatever_they_say() {
    replay("log_frames", decoders::log_frames);
}

#[test]
fn messages_between_client_and_server_are_read_whatever_is_in_them() {
    replay("wire", decoders::wire);
}

#[test]
fn messages_within_a_browser_are_read_whatever_is_in_them() {
    replay("ports", decoders::ports);
}

/// The frames of a log file as `log_frames` takes them: without what it makes by itself.
fn frames_of(log: &[u8]) -> Vec<u8> {
    let u32_at = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().expect("four bytes"));
    let u64_at = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().expect("eight bytes"));
    let (mut at, mut input, mut in_state) = (8192, vec![0, 0], 0);
    loop {
        let is_frame = |at: usize| log.get(at..at + 4) == Some(&log[40..44]);
        if !is_frame(at) {
            at = at.next_multiple_of(BLOCK_SIZE);
        }
        if !is_frame(at) {
            break;
        }
        in_state += u8::from((at as u64) < u64_at(24));
        let flags = usize::from(log[at + 13]);
        let header_size = 98 + 16 * (flags & 1) + 32 * (flags >> 1);
        let size = header_size + u32_at(at + 8) as usize;
        input.extend_from_slice(&log[at..at + size]);
        at += size.next_multiple_of(8);
    }
    input[0] = in_state;
    input
}

/// What a corpus begins with: the golden files.
#[test]
#[ignore = "writes the seeds of the corpus anew, from the golden files"]
fn write_the_seeds_of_the_corpus() {
    let golden = tests().join("golden");
    let store = |name: &str| fs::read(golden.join("store-v1").join(name)).expect("a golden file");
    let seed = |target: &str, name: &str, bytes: &[u8]| {
        let folder = tests().join("fuzz/corpus").join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), bytes).expect("room");
    };
    let (log_a, log_b, pages) = (store("log-a"), store("log-b"), store("pages"));
    let sizes = [log_a.len(), log_b.len()].map(|size| (size as u32).to_le_bytes()).concat();
    seed("log_bytes", "golden", &[sizes.as_slice(), &log_a, &log_b, &pages].concat());
    let small = [8192_u32.to_le_bytes(), [0; 4]].concat();
    seed("log_bytes", "empty", &[small.as_slice(), &log_b[..8192]].concat());
    let input = frames_of(&log_b);
    assert!(input.len() > 1000, "frames were found");
    seed("log_frames", "golden-b", &input);
    // Without pages it is a hundredth of the size.
    let first_pages = input.len().min(1200);
    seed("log_frames", "golden-b-begin", &input[..first_pages]);
    let messages = fs::read_to_string(golden.join("wire-v1.txt")).expect("a golden file");
    for (index, line) in messages.lines().enumerate() {
        let (_, text) = line.split_once(" = ").expect("a name and bytes");
        seed("wire", &format!("golden-{index}"), &unhex(text));
    }
    let messages = fs::read_to_string(tests().join("../js/test/golden.json")).expect("messages");
    for (kind, name) in [(0, "toCore"), (1, "fromCore")] {
        let start = messages.find(&format!("\"{name}\"")).expect("it is in there");
        let text = messages[start..].split('"').nth(3).expect("a string");
        seed("ports", name, &[vec![kind], unhex(text)].concat());
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(byte).collect()
}
