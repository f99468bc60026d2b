//! A packed ring whose driver writes whatever it likes: see [`hype_fuzz::ring`].

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hype_fuzz::ring::run(data, true));
