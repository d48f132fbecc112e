//! Any text as a credential, and every small change of a real one: never a panic, never let in.
#![no_main]

use std::sync::LazyLock;

use cube_api::auth::{Keys, Role, Token};
use jiff::Timestamp;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::new(&Token::new("a token that the fuzzer does not know").expect("not empty")));

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Anything(&'a str),
    Changed {
        role: u8,
        at: u16,
        to: char,
        second: i32,
    },
    /// Claims of the attacker's choice, with the signature of others.
    Forged {
        claims: &'a [u8],
    },
}

fuzz_target!(|input: Input<'_>| {
    let now = Timestamp::from_second(1_900_000_000).expect("a time of this century");
    match input {
        Input::Anything(text) => assert!(KEYS.verify(text, now).is_err(), "{text:?} was let in"),
        Input::Changed { role, at, to, second } => {
            let role = match role % 3 {
                0 => Role::Admin,
                1 => Role::Read,
                _ => Role::Node("n1".parse().expect("a name")),
            };
            let real = KEYS.mint(&role, now);
            assert_eq!(KEYS.verify(&real, now), Ok(role));
            let changed: String =
                real.char_indices().map(|(index, old)| if index == usize::from(at) % real.len() { to } else { old }).collect();
            if changed != real {
                assert!(KEYS.verify(&changed, now).is_err(), "{changed} was let in for {real}");
            }
            // Out of its time, whatever else is right.
            let later = Timestamp::from_second(now.as_second() + i64::from(second)).expect("a time");
            assert_eq!(KEYS.verify(&real, later).is_ok(), (-30..60).contains(&second));
        }
        Input::Forged { claims } => {
            let real = KEYS.mint(&Role::Read, now);
            let (head, signature) = (real.split('.').next().expect("a header"), real.rsplit('.').next().expect("a signature"));
            let forged = format!("{head}.{}.{signature}", base64_url(claims));
            assert!(forged == real || KEYS.verify(&forged, now).is_err(), "{forged} was let in");
        }
    }
});

fn base64_url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letters = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).map(move |place| char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63])).collect::<String>()
    };
    bytes.chunks(3).map(letters).collect()
}
