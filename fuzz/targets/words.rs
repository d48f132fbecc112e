//! The small texts that people type: names, amounts, addresses, identities. Never a panic; what is read is written as the same value.
#![no_main]

use std::fmt::{Debug, Display};
use std::str::FromStr;

use cube_api::meta::{ClusterId, Name, NodeId, ResourceKind, Uid};
use cube_api::quantity::{Bytes, MilliCpu};
use cube_api::{ErrorCode, LeaderAddress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    is_written_as_read::<MilliCpu>(text);
    is_written_as_read::<Bytes>(text);
    is_written_as_read::<Name>(text);
    is_written_as_read::<LeaderAddress>(text);
    is_written_as_read::<Uid>(text);
    is_written_as_read::<NodeId>(text);
    is_written_as_read::<ClusterId>(text);
    // No way back is promised for these.
    drop(text.parse::<ResourceKind>());
    drop(serde_json::from_str::<ErrorCode>(text));
});

fn is_written_as_read<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let written = value.to_string();
    match written.parse::<T>() {
        Ok(again) => assert_eq!(again, value, "{text:?} became {written:?}"),
        Err(_) => panic!("{text:?} became {written:?}, which is refused"),
    }
}
