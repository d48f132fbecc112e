use super::*;

#[test]
fn a_sweep_goes_to_its_end_and_begins_again_if_something_happened_meanwhile() {
    let uid = |number| Uid(uuid::Uuid::from_u128(number));
    let mut sweep = Sweep::default();
    assert!(!sweep.is_on(), "nothing happened yet");
    sweep.begin();
    assert_eq!(sweep.place(), Some(Uid::NONE));
    sweep.went_to(Some(uid(5)));
    assert_eq!(sweep.place(), Some(uid(5)));
    sweep.begin();
    assert_eq!(sweep.place(), Some(uid(5)), "who comes later has the same right to be looked at");
    sweep.went_to(None);
    assert_eq!(sweep.place(), Some(Uid::NONE), "those before may fit now");
    sweep.went_to(None);
    assert!(!sweep.is_on());
}
