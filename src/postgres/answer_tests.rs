//! Results and errors in the form that each release has for them.

use super::*;
use crate::protocol::release::Release;

fn statement(expected: Expected) -> Statement {
    Statement { text: "select x".into(), expected, timeout: Duration::from_millis(1500) }
}

fn rows(types: &[u32], rows: &[&[Option<&str>]]) -> First {
    First::Rows(Rows::made_of(types, rows))
}

fn answered(first: First) -> Finished {
    Finished::Answered { first, further: None }
}

fn release(version: &str) -> &'static Release {
    Release::find(version).unwrap()
}

fn answer(version: &str, expected: Expected, first: First) -> Result<Vec<u8>> {
    let payload = statement(expected).answer(release(version), answered(first))?;
    Ok(payload.as_slice().to_vec())
}

fn fails(version: &str, expected: Expected, first: First) -> String {
    answer(version, expected, first).unwrap_err().to_string()
}

fn expect(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    Payload::from_pack(fill).as_slice().to_vec()
}

#[test]
fn the_reply_of_the_specification() {
    let recovery = rows(&[BOOL], &[&[Some("f")]]);
    assert_eq!(answer("2.59.1", Expected::Column, recovery).unwrap(), [0xf0, 0x02, 0x02, 0x20, 0x00, 0x00]);
}

#[test]
fn every_type_has_its_form_and_defaults_are_written() {
    let types = [BOOL, CHAR, NAME, INT8, INT4, TEXT, OID, TEXT];
    let row: [Option<&str>; 8] =
        [Some("t"), Some("c"), Some("n"), Some("-1"), Some("0"), Some(""), Some("4294967295"), None];
    for version in ["2.39", "2.45", "2.55.1", "2.60.0"] {
        let flat = answer(version, Expected::Row, rows(&types, &[&row])).unwrap();
        let fill = |pack: &mut Writer| {
            pack.bool_forced(true).str("c").str("n").i64_forced(-1).i32_forced(0).str("").u32_forced(u32::MAX).null();
        };
        assert_eq!(flat, expect(|pack| _ = pack.pack(fill)), "{version}");
        let nested = answer(version, Expected::Any, rows(&types, &[&row, &row])).unwrap();
        assert_eq!(nested, expect(|pack| _ = pack.pack(|pack| _ = pack.array(fill).array(fill))), "{version}");
    }
}

#[test]
fn releases_without_types_get_json() {
    let types = [BOOL, TEXT, INT2, INT4, INT8, OID, TEXT];
    let row: [Option<&str>; 7] =
        [Some("t"), Some("a\"\\\n\r\t\u{8}\u{c}ü/"), Some("-2"), Some("4"), Some("8"), Some("26"), None];
    for version in ["2.37", "2.38"] {
        let json = answer(version, Expected::Any, rows(&types, &[&row, &row])).unwrap();
        let one = "[true,\"a\\\"\\\\\\n\\r\\t\\b\\fü/\",-2,4,8,26,null]";
        assert_eq!(json, expect(|pack| _ = pack.str(&format!("[{one},{one}]"))));
        assert_eq!(answer(version, Expected::None, First::Command).unwrap(), expect(|pack| _ = pack.str("null")));
        let none = answer(version, Expected::Any, rows(&types, &[])).unwrap();
        assert_eq!(none, expect(|pack| _ = pack.str("[]")));
    }
}

#[test]
fn no_result_is_a_null_and_no_rows_are_an_empty_pack() {
    assert_eq!(answer("2.45", Expected::None, First::Command).unwrap(), [0x00]);
    assert_eq!(answer("2.45", Expected::Any, First::Command).unwrap(), [0x00]);
    assert_eq!(answer("2.45", Expected::Any, rows(&[TEXT], &[])).unwrap(), expect(|pack| _ = pack.pack(|_| {})));
}

#[test]
fn text_of_any_encoding_passes() {
    let mut latin = Rows::made_of(&[TEXT], &[&[Some("x")]]);
    latin.replace_last_byte(0xe4);
    let pack = answer("2.45", Expected::Column, First::Rows(latin)).unwrap();
    assert_eq!(pack, expect(|pack| _ = pack.pack(|pack| _ = pack.text(&[0xe4]))));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let one = || rows(&[TEXT], &[&[Some("x")]]);
    for version in ["2.39", "2.54.2", "2.55.0", "2.60.0"] {
        for expected in [Expected::Row, Expected::Column] {
            assert_eq!(fails(version, expected, First::Command), "[057]: result expected from 'select x'");
            let two = rows(&[TEXT], &[&[None], &[None]]);
            assert_eq!(fails(version, expected, two), "[057]: expected one row from 'select x'");
            assert_eq!(fails(version, expected, rows(&[TEXT], &[])), "[057]: expected one row from 'select x'");
        }
        let wide = rows(&[TEXT, TEXT], &[&[None, None]]);
        assert_eq!(fails(version, Expected::Column, wide), "[057]: expected one column from 'select x'");
        assert_eq!(fails(version, Expected::None, one()), "[057]: no result expected from 'select x'");
        let unknown = rows(&[TEXT, INT2], &[&[None, Some("1")]]);
        let expected = "[029]: unable to parse type 21 in column 1 for query 'select x'";
        assert_eq!(fails(version, Expected::Row, unknown), expected);
        let null = rows(&[TEXT, INT2], &[&[None, None]]);
        assert!(answer(version, Expected::Row, null).is_ok(), "a null has no type");
    }
    let unknown = rows(&[1184], &[&[Some("now")]]);
    assert_eq!(
        fails("2.38", Expected::Any, unknown),
        "[029]: unable to parse type 1184 in column 0 for query 'select x'"
    );
    for (kind, text) in [(BOOL, "maybe"), (INT4, "2147483648"), (OID, "-1"), (INT8, "")] {
        assert!(fails("2.45", Expected::Row, rows(&[kind], &[&[Some(text)]])).starts_with("[029]: unable to convert"));
    }
}

#[test]
fn a_failed_statement_without_result_is_worded_as_the_release_does() {
    let error = || First::Error("ERROR:  no\n".into());
    for version in ["2.39", "2.45", "2.54.2"] {
        assert_eq!(fails(version, Expected::None, error()), "[057]: no result expected from 'select x'");
    }
    for (version, expected) in [
        ("2.37", Expected::Any),
        ("2.38", Expected::Any),
        ("2.54.2", Expected::Row),
        ("2.55.0", Expected::None),
        ("2.60.0", Expected::None),
    ] {
        assert_eq!(fails(version, expected, error()), "[057]: unable to execute query 'select x': ERROR:  no");
    }
}

#[test]
fn a_second_result_means_that_the_connection_was_lost() {
    let finished = |further: &str| Finished::Answered {
        first: First::Error("FATAL:  terminating\n".into()),
        further: Some(further.into()),
    };
    let text = |version: &str, further: &str| {
        statement(Expected::None).answer(release(version), finished(further)).unwrap_err().to_string()
    };
    for version in ["2.37", "2.45", "2.58.0"] {
        assert_eq!(text(version, "lost\n"), "[101]: NULL result required to complete request: lost");
        assert_eq!(text(version, ""), "[101]: NULL result required to complete request");
    }
    for version in ["2.59.0", "2.60.0"] {
        assert!(text(version, "lost\n\tprobably\n").starts_with(
            "[057]: unable to complete query 'select x': lost\n\tprobably\nHINT: this is usually caused by"
        ));
        assert!(text(version, "").starts_with("[057]: unable to complete query 'select x'\nHINT:"));
    }
}

#[test]
fn a_statement_that_took_too_long_says_how_long() {
    for version in ["2.37", "2.45", "2.60.0"] {
        let fails = |finished| statement(Expected::None).answer(release(version), finished).unwrap_err().to_string();
        assert_eq!(fails(Finished::TimedOut { further: None }), "[057]: query 'select x' timed out after 1500ms");
        assert_eq!(
            fails(Finished::NotCancelled("PQcancel() -- connect() failed: x\n".into())),
            "[057]: unable to cancel query 'select x': PQcancel() -- connect() failed: x"
        );
        assert_eq!(fails(Finished::NotSent("no\n".into())), "[057]: unable to send query 'select x': no");
        assert!(fails(Finished::TooLong(7)).starts_with("[057]: unable to execute query 'select x': the answer"));
    }
}
