//! Rejected lines that are decoded again under other settings.

use super::*;

/// Settings under which the ad has another name.
fn mended() -> DecodeSettings {
    let fields = FieldNames { ad_id: "advert".into(), ..FieldNames::default() };
    DecodeSettings { fields, line_bytes_max: LINE_BYTES_MAX, ..settings() }
}

/// Decodes a text, and then its rejected lines again. Each of these becomes what it is if the whole text is decoded under the
/// settings of the second time.
fn check(text: &str, clicks: usize) {
    let first = decoder(DecodeSettings { line_bytes_max: LINE_BYTES_MAX, ..settings() });
    let batch = decode_at(&first, "a", text.as_bytes(), 0);
    assert_eq!(batch.clicks.len(), 0, "{text}");
    for (again, expected) in [(&first, 0), (&decoder(mended()), clicks)] {
        let lines = batch.rejected.iter().map(|rejected| (&*rejected.payload, rejected.header.as_deref()));
        let (found, rejected) = again.decode_again(lines);
        assert_eq!(found.len(), expected, "{text}");
        let whole = decode_at(again, "a", text.as_bytes(), 0);
        let reasons = |rejected: &[Rejected]| -> Vec<_> {
            rejected.iter().map(|rejected| (rejected.verdict, rejected.reason.clone())).collect()
        };
        assert_eq!(reasons(&rejected), reasons(&whole.rejected), "{text}");
        let rows = |clicks: &ClickColumns| -> Vec<_> { clicks.identity.clone() };
        assert_eq!(rows(&found), rows(&whole.clicks), "{text}");
        let numbers: Vec<u32> =
            found.line_start.iter().copied().chain(rejected.iter().map(|of| of.line_start)).collect();
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..batch.rejected.len() as u32).collect::<Vec<_>>(), "each line once");
    }
}

#[test]
fn lines_become_what_they_would_have_been() {
    let line = |more: &str| click_with("", "").replace("ad_id", "advert").replacen('{', &format!("{{{more}"), 1);
    let long = format!("\"note\":\"{}\",", "x".repeat(10_000));
    check(&format!("{}\n{}\r\nno json\n{{}}\n{}\n", line(""), line(&long), line("\"b\":[1,2],")), 3);
    let header = "click_timestamp,advert,user_id,ip,country";
    check(&format!("{header}\n1767225600123,42,u1,1.2.3.4,US\n1767225600124,43,,1.2.3.4,US\n7,8\n"), 1);
    check(&format!("{header}\r\n\"1767225600123\",42,\"u,1\",1.2.3.4,US\r\n"), 1);
}
