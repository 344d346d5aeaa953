#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| accede_fuzz_replay::check_state(input));
