//! Tests of the values that each kind accepts, and of the messages for other values.

use super::*;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as Wrong, I64Deserializer, SeqDeserializer, StrDeserializer};

fn written(text: &str) -> StrDeserializer<'_, Wrong> {
    text.into_deserializer()
}

fn number(number: i64) -> I64Deserializer<Wrong> {
    number.into_deserializer()
}

/// Checks that a value is rejected, and that the message says what is wanted.
fn check<T: fmt::Debug>(read: Result<T, Wrong>, wanted: &str) {
    let text = read.expect_err(wanted).to_string();
    assert!(text.ends_with(&format!("expected {wanted}")), "{text}");
}

#[test]
fn ranges_include_their_ends() {
    type Wait = Span<250, MINUTE>;
    let wanted = "a duration from \"250ms\" to \"1m\" such as \"250ms\", \"5s\", \"10m\" or \"2h\"";
    assert_eq!(Wait::ms(written("250ms")), Ok(250));
    assert_eq!(Wait::duration(written("1m")), Ok(Duration::from_secs(60)));
    check(Wait::ms(written("249ms")), wanted);
    check(Wait::ms(written("61s")), wanted);
    check(Wait::ms(number(300)), wanted);

    type Block = Size<KIB, GIB>;
    let wanted = "a size from \"1KiB\" to \"1GiB\" such as \"64KiB\" or \"1MiB\"";
    assert_eq!(Block::bytes(written("1GiB")), Ok(1_usize << 30));
    check(Block::bytes::<_, u64>(written("1023B")), wanted);

    type Many = Whole<1, 300>;
    assert_eq!(Many::number(number(300)), Ok(300_u16));
    check(Many::number::<_, u16>(number(0)), "a whole number from 1 to 300");
    check(Many::number::<_, u16>(written("1")), "a whole number from 1 to 300");
    check(Many::number::<_, u8>(number(300)), "a whole number from 1 to 300");
}

#[test]
fn texts_are_bounded() {
    type Name = Text<1, 3>;
    assert_eq!(Name::owned(written("é1")), Ok("é1".to_owned()));
    for wrong in ["", "abcd", "éé", "\0"] {
        check(Name::owned(written(wrong)), "a text of 1 to 3 bytes");
    }
    fn list<'a>(texts: &'a [&'a str]) -> impl Deserializer<'a, Error = Wrong> {
        SeqDeserializer::new(texts.iter().copied())
    }
    type Markers = Texts<2, 1>;
    assert_eq!(Markers::owned(list(&["", "-"])), Ok(vec![String::new(), "-".to_owned()]));
    for wrong in [&["", "", ""][..], &["--"]] {
        check(Markers::owned(list(wrong)), "a list of at most 2 texts of at most 1 bytes");
    }
    check(Markers::owned(written("-")), "a list of at most 2 texts of at most 1 bytes");
    assert_eq!(paths(list(&[])), Ok(Vec::new()));
    check(paths(list(&["a", ""])), "a list of texts, none empty, such as [\"logs/*.ndjson\"]");
}

#[test]
fn addresses_and_keys() {
    let port = |text| address(written(text)).map(|address| address.port());
    assert_eq!((port("localhost:80"), port("[::1]:8080")), (Ok(80), Ok(8080)));
    check(port("localhost:65536"), "an IP address and a port such as \"127.0.0.1:8080\" or \"[::1]:8080\"");
    assert_eq!(identity_key(written("")), Ok(None));
    let key = "00000000000000000000000000000aFf";
    let mut bytes = [0; 16];
    bytes[14..].copy_from_slice(&[0x0a, 0xff]);
    assert_eq!(identity_key(written(key)), Ok(Some(IdentityKey::new(bytes))));
    for wrong in ["+0000000000000000000000000000aFf", "0aFf"] {
        let text = identity_key(written(wrong)).expect_err(wrong).to_string();
        assert!(!text.contains("aFf"), "a secret is in no message: {text}");
    }
}
