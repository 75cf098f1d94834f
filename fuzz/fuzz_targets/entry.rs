#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| graygate_fuzz::entry(bytes));
