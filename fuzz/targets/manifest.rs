//! Any text as a manifest: never a panic; what is accepted means the same when it is sent on; every problem points into the text.
#![no_main]

use cube_api::manifest::{self, Resource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match manifest::parse(text) {
        Ok(resources) => is_sent_on_unchanged(&resources),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            // A carriage return by itself ends a line of YAML, too.
            let lines = text.split(['\n', '\r']).count();
            for problem in &problems {
                assert!(!problem.message.is_empty());
                // The end of the text counts as a place: that is where what is missing is missed.
                assert!(problem.line.is_none_or(|line| (1..=lines + 1).contains(&line)), "line {:?} of {lines}", problem.line);
            }
        }
    }
    // A request's body goes the same way, with JSON only: it never takes what the command line refuses.
    if let Ok(resources) = manifest::from_json(text.as_bytes()) {
        assert_eq!(manifest::parse(text).as_ref(), Ok(&resources));
    }
});

fn is_sent_on_unchanged(resources: &[Resource]) {
    let sent = serde_json::to_vec(resources).expect("plain data");
    let taken = manifest::from_json(&sent).unwrap_or_else(|problems| panic!("{}: {problems:?}", String::from_utf8_lossy(&sent)));
    assert_eq!(taken, resources, "{}", String::from_utf8_lossy(&sent));
}
