//! One target under libFuzzer; `MOIM_FUZZ_TARGET` names it.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("MOIM_FUZZ_TARGET").unwrap_or_default();
        let found = moim_fuzz::TARGETS.iter().find(|(known, _)| *known == name);
        found.expect("MOIM_FUZZ_TARGET names a target").1
    });
    target(data);
});
