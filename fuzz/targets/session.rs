//! Any bytes as what leader, nodes and clients tell each other: never a panic; what is read is written as the same value.
#![no_main]

use std::fmt::Debug;

use cube_api::session::{Announcement, Assignment, Report, ReportAccepted, Welcome};
use cube_api::{ApiError, Node, Pod};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    is_written_as_read::<Announcement>(bytes);
    is_written_as_read::<Welcome>(bytes);
    is_written_as_read::<Assignment>(bytes);
    is_written_as_read::<Report>(bytes);
    is_written_as_read::<ReportAccepted>(bytes);
    is_written_as_read::<ApiError>(bytes);
    is_written_as_read::<Pod>(bytes);
    is_written_as_read::<Node>(bytes);
});

fn is_written_as_read<T: DeserializeOwned + Serialize + Debug + PartialEq>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return };
    let written = serde_json::to_vec(&value).expect("plain data");
    let again = serde_json::from_slice::<T>(&written).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(again, value);
}
