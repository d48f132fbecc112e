//! What may go, by any input.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { high: 85, low: 80 };

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn held(id: &str, size: u64) -> HeldImage {
    HeldImage { id: id.to_owned(), names: vec![format!("{id}:1")], size, in_use: false }
}

fn own(used: &[(&str, i64)]) -> BTreeMap<String, OwnImage> {
    let image = |(id, used_at): &(&str, i64)| ((*id).to_owned(), OwnImage { names: [format!("{id}:1")].into(), used_at: second(*used_at) });
    used.iter().map(image).collect()
}

/// The ids of what goes when a disk of 100 is this full.
fn chosen(full: u64, going_on: bool, held: &[HeldImage], own: &BTreeMap<String, OwnImage>) -> Option<Vec<String>> {
    let sight = Sight { held, own, space: Space { free: 100 - full, all: 100 }, going_on, now: second(10_000) };
    match choose(LIMITS, &sight) {
        Choice::Room => None,
        Choice::Remove(chosen) => Some(chosen.into_iter().map(|image| image.id.clone()).collect()),
    }
}

#[test]
fn nothing_goes_before_the_disk_is_too_full_and_then_the_least_recently_used_until_there_is_room() {
    let images = [held("new", 3), held("old", 3), held("older", 4)];
    let own = own(&[("new", 300), ("old", 200), ("older", 100)]);
    assert_eq!(chosen(85, false, &images, &own), None);
    assert_eq!(chosen(86, false, &images, &own), Some(vec!["older".to_owned(), "old".to_owned()]));
    assert_eq!(chosen(84, true, &images, &own), Some(vec!["older".to_owned()]));
    assert_eq!(chosen(80, true, &images, &own), None);
}

#[test]
fn what_is_used_wanted_a_moment_ago_or_not_this_node_s_alone_stays() {
    let mut images = [held("used", 50), held("fresh", 50), held("foreign", 50), held("renamed", 50), held("free", 1)];
    images[0].in_use = true;
    images[3].names.push("somebody/else:1".to_owned());
    let own = own(&[("used", 0), ("fresh", 10_000 - 119), ("renamed", 0), ("free", 10_000 - 120)]);
    assert_eq!(chosen(99, false, &images, &own), Some(vec!["free".to_owned()]));
    assert_eq!(chosen(99, false, &images[..4], &own), Some(Vec::new()));
}

#[test]
fn an_image_without_a_name_is_still_the_node_s_that_pulled_it() {
    let nameless = HeldImage { names: Vec::new(), ..held("moved", 50) };
    assert_eq!(chosen(99, false, &[nameless], &own(&[("moved", 0)])), Some(vec!["moved".to_owned()]));
}

#[test]
fn names_are_compared_as_the_engine_writes_them() {
    for (given, listed) in [
        ("nginx", "nginx:latest"),
        ("docker.io/library/nginx:1", "nginx:1"),
        ("docker.io/team/app", "team/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
    ] {
        assert_eq!(short(given), short(listed), "{given}");
    }
}

proptest! {
    #[test]
    fn never_more_goes_than_is_needed_and_never_what_must_stay(
        images in prop::collection::vec((0..40u64, any::<bool>(), prop::option::of(0..11_000i64)), 0..12),
        full in 0..=100u64,
        going_on in any::<bool>(),
    ) {
        let named: Vec<_> = images.iter().enumerate().map(|(index, (size, in_use, _))| {
            HeldImage { in_use: *in_use, ..held(&format!("i{index}"), *size) }
        }).collect();
        let pulled = images.iter().enumerate().filter_map(|(index, (_, _, used_at))| Some((format!("i{index}"), (*used_at)?)));
        let pulled: Vec<_> = pulled.collect();
        let own = own(&pulled.iter().map(|(id, at)| (id.as_str(), *at)).collect::<Vec<_>>());
        let limit = if going_on { LIMITS.low } else { LIMITS.high };
        let chosen = chosen(full, going_on, &named, &own);
        prop_assert_eq!(chosen.is_some(), full > u64::from(limit));
        let chosen = chosen.unwrap_or_default();
        let size = |id: &String| named.iter().find(|image| image.id == *id).expect("it is held").size;
        if let Some((_, all_but_last)) = chosen.split_last() {
            prop_assert!(all_but_last.iter().map(size).sum::<u64>() < full - u64::from(LIMITS.low));
        }
        for id in &chosen {
            prop_assert!(named.iter().all(|image| image.id != *id || !image.in_use));
            prop_assert!(own[id].used_at <= second(10_000 - 120));
        }
    }
}
