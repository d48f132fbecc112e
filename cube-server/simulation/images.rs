//! The images that pods of the workload are made of, and what becomes of their containers.

use std::time::Duration;

use cube_server::follower::runtime::fake::{Fake, Pull, Script};
use rand::RngExt;
use rand::rngs::StdRng;

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    pub name: &'static str,
    pub script: Script,
}

/// Images whose containers have probes that run `health` in them. They are well as long as they run, whatever the engine, the network and the clocks do
/// meanwhile: no probe may end one.
pub const PROBED: [&str; 2] = ["steady-2", "slow"];

/// Every image there is. How long things take is the seed's choice.
pub fn catalogue(dice: &mut StdRng) -> Vec<Image> {
    let mut secs = |range: std::ops::Range<u64>| Duration::from_millis(dice.random_range(range.start * 1_000..range.end * 1_000));
    let of = |name, script| Image { name, script };
    let failing = |run_for| Script { run_for: Some(run_for), exit_code: 3, ..Script::default() };
    vec![
        of("steady", Script::default()),
        of("steady-2", Script { output: vec!["ready".to_owned()], ..Script::default() }),
        of("pulled", Script { pull: Pull::After(secs(1..8)), ..Script::default() }),
        of("slow", Script { start_takes: secs(1..6), ..Script::default() }),
        of("flaky", Script { fail_first: 2, ..Script::default() }),
        of("deaf", Script { ignores_stop: true, ..Script::default() }),
        of("job", Script { run_for: Some(secs(1..15)), ..Script::default() }),
        of("blink", Script { run_for: Some(Duration::ZERO), ..Script::default() }),
        // Ends before anybody can know that it was started: who asks again runs it again.
        of("late-blink", Script { start_takes: secs(1..6), run_for: Some(Duration::ZERO), ..Script::default() }),
        of("failing", failing(secs(1..10))),
        of("failing-at-once", failing(Duration::ZERO)),
        of("oom", Script { run_for: Some(secs(2..9)), oom: true, ..Script::default() }),
        of("broken", Script { start_error: Some("exec format error".to_owned()), ..Script::default() }),
        of("missing", Script { pull: Pull::Missing, ..Script::default() }),
    ]
}

/// Teaches an engine the images.
pub fn teach(engine: &Fake, images: &[Image]) {
    for image in images {
        engine.script(image.name, image.script.clone());
    }
}
