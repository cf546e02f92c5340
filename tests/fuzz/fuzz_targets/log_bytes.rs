#![no_main]

use tidelog_testing::decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::log_bytes(data));
