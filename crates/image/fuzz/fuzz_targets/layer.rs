#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nodule_image::fuzz::layer(data));
