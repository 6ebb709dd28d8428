#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trusted_lb_fuzz::lua(data));
