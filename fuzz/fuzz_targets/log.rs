#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| accede_fuzz_replay::directory::check_log(input));
