//! Every statement of every release is let through, and nothing that resembles one.

use super::*;

/// How a version of `PostgreSQL` names things.
#[derive(Clone, Copy)]
struct Dialect {
    log: &'static str,
    place: &'static str,
    /// 83, 84, 96, 100, 150 …
    version: u32,
}

const DIALECTS: [Dialect; 8] = [
    Dialect { log: "xlog", place: "location", version: 83 },
    Dialect { log: "xlog", place: "location", version: 84 },
    Dialect { log: "xlog", place: "location", version: 90 },
    Dialect { log: "xlog", place: "location", version: 95 },
    Dialect { log: "xlog", place: "location", version: 96 },
    Dialect { log: "wal", place: "lsn", version: 100 },
    Dialect { log: "wal", place: "lsn", version: 140 },
    Dialect { log: "wal", place: "lsn", version: 150 },
];

/// What differs between the statements of releases.
#[derive(Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "independent differences")]
struct Wording {
    /// The oldest version of `PostgreSQL` that it knows.
    oldest: u32,
    /// It knows the functions of 15.
    knows_15: bool,
    /// The list of databases has a column of its own for the last system object.
    last_system_object: bool,
    /// The checkpoint has to be behind the target.
    greater: bool,
    /// It casts the time of a backup's label.
    casts_time: bool,
}

/// Releases as ranges with one wording: the newest of each.
const WORDINGS: [(&str, Wording); 5] = [
    ("2.37", Wording { oldest: 83, knows_15: false, last_system_object: true, greater: true, casts_time: false }),
    ("2.38", Wording { oldest: 90, knows_15: false, last_system_object: true, greater: true, casts_time: false }),
    ("2.54.2", Wording { oldest: 90, knows_15: true, last_system_object: false, greater: true, casts_time: false }),
    ("2.59.1", Wording { oldest: 90, knows_15: true, last_system_object: false, greater: false, casts_time: false }),
    ("2.60.0", Wording { oldest: 96, knows_15: true, last_system_object: false, greater: false, casts_time: true }),
];

const COMMANDS: [&str; 8] =
    ["archive-push", "backup", "check", "expire", "restore", "stanza-create", "stanza-upgrade", "stanza-delete"];

/// What a release sends to a version of `PostgreSQL`.
fn sent(wording: Wording, Dialect { log, place, version }: Dialect) -> Vec<String> {
    let mut all = vec![
        "set search_path = 'pg_catalog'".to_owned(),
        "set client_encoding = 'UTF8'".to_owned(),
        "select (select setting from pg_catalog.pg_settings where name = 'server_version_num')::int4, (select setting \
         from pg_catalog.pg_settings where name = 'data_directory')::text, (select setting from \
         pg_catalog.pg_settings where name = 'archive_mode')::text, (select setting from pg_catalog.pg_settings where \
         name = 'archive_command')::text, (select setting from pg_catalog.pg_settings where name = \
         'checkpoint_timeout')::int4"
            .to_owned(),
        "set max_parallel_workers_per_gather = 0".to_owned(),
        "select pg_catalog.pg_is_in_recovery()".to_owned(),
        "select pg_catalog.pg_try_advisory_lock(12340078987004321)::bool".to_owned(),
        "select pg_catalog.pg_is_in_backup()::bool".to_owned(),
        format!("select pg_catalog.pg_{log}file_name(pg_catalog.pg_current_{log}_insert_{place}())::text"),
        "select oid::oid, spcname::text from pg_catalog.pg_tablespace".to_owned(),
        "checkpoint".to_owned(),
        "select (extract(epoch from clock_timestamp()) * 1000)::bigint".to_owned(),
        "select pg_catalog.pg_create_restore_point('pgBackRest Archive Check')::text".to_owned(),
        format!("select pg_catalog.pg_{log}file_name(pg_catalog.pg_switch_{log}())::text"),
    ];
    all.extend(COMMANDS.map(|command| format!("set application_name = 'pgBackRest [{command}]'")));
    let is_15 = wording.knows_15 && version >= 150;
    let not_exclusive = version >= 96 && !is_15;
    for fast in [true, false] {
        let mut start = format!(
            "select lsn::text as lsn,\n       pg_catalog.pg_{log}file_name(lsn)::text as wal_segment_name\n  from \
             pg_catalog.pg_{}('pgBackRest backup started at ' || current_timestamp",
            if is_15 { "backup_start" } else { "start_backup" }
        );
        start += if wording.casts_time { "::text" } else { "" };
        start += match fast {
            true => ", true",
            false if version >= 84 => ", false",
            false => "",
        };
        start += if not_exclusive { ", false" } else { "" };
        all.push(start + ") as lsn");
    }
    let mut stop =
        format!("select lsn::text as lsn,\n       pg_catalog.pg_{log}file_name(lsn)::text as wal_segment_name");
    if version >= 96 {
        stop += ",\n       labelfile::text as backuplabel_file,\n       spcmapfile::text as tablespacemap_file";
    }
    stop += if is_15 { "\n  from pg_catalog.pg_backup_stop(" } else { "\n  from pg_catalog.pg_stop_backup(" };
    stop += match (version, is_15) {
        (100.., false) => "false, false",
        (96.., _) => "false",
        _ => "",
    };
    all.push(stop + if version < 96 { ") as lsn" } else { ")" });
    all.push(if wording.last_system_object {
        "select oid::oid, datname::text, datlastsysoid::oid from pg_catalog.pg_database".to_owned()
    } else {
        "select oid::oid, datname::text, (select oid::oid from pg_catalog.pg_database where datname = 'template0') as \
         datlastsysoid from pg_catalog.pg_database"
            .to_owned()
    });
    for target in ["0/3000028", "1A/FFFFFFFF", "FFFFFFFF/0", "a/b"] {
        all.push(format!(
            "select replayLsn::text,\n       (replayLsn > '{target}')::bool as targetReached\n  from \
             pg_catalog.pg_last_{log}_replay_{place}() as replayLsn"
        ));
        all.push(format!(
            "select replayLsn::text,\n       (replayLsn > '{target}')::bool as targetReached,\n       (replayLsn > \
             '0/2000000')::bool as replayProgress\n  from pg_catalog.pg_last_{log}_replay_{place}() as replayLsn"
        ));
        all.push(format!(
            "select (checkpoint_{place} {} '{target}')::bool as targetReached,\n       checkpoint_{place}::text as \
             checkpointLsn\n  from pg_catalog.pg_control_checkpoint()",
            if wording.greater { ">" } else { ">=" }
        ));
    }
    all
}

fn all_sent() -> Vec<String> {
    let mut all: Vec<String> = WORDINGS
        .iter()
        .flat_map(|(_, wording)| DIALECTS.map(|dialect| (*wording, dialect)))
        .filter(|(wording, dialect)| dialect.version >= wording.oldest)
        .flat_map(|(wording, dialect)| sent(wording, dialect))
        .collect();
    all.sort();
    all.dedup();
    assert!(all.len() > 70, "{}", all.len());
    all
}

#[test]
fn every_statement_of_every_release_is_let_through() {
    for statement in all_sent() {
        assert!(is_sent_by_clients(&statement), "{statement}");
    }
    assert_eq!(STATEMENTS.len(), 21);
    for (index, parts) in STATEMENTS.iter().enumerate() {
        assert!(all_sent().iter().any(|statement| fits(parts, statement)), "no release sends statement {index}");
    }
}

#[test]
fn nothing_may_come_before_or_after_a_statement() {
    let additions = [
        ";",
        "; drop table t",
        ";drop table t",
        " ",
        "\n",
        "\t",
        "\0",
        "--",
        " -- x",
        "/**/",
        " /* x */",
        "'",
        "\"",
        "\\",
        "x",
        ",",
        " union select 1",
        " where true",
        "$$",
        "\u{a0}",
        "\u{feff}",
        "\u{2028}",
        "\r",
        " ;",
        ";;",
    ];
    for statement in all_sent() {
        for addition in additions {
            assert!(!is_sent_by_clients(&format!("{statement}{addition}")), "{statement}{addition}");
            assert!(!is_sent_by_clients(&format!("{addition}{statement}")), "{addition}{statement}");
        }
    }
}

#[test]
fn no_character_of_a_statement_can_be_left_out_doubled_or_replaced_by_a_dangerous_one() {
    for statement in all_sent() {
        for (index, character) in statement.char_indices() {
            let (before, after) = (&statement[..index], &statement[index + character.len_utf8()..]);
            for replacement in
                ["'", "''", "\\", "\\'", ";", "\0", "$", "\"", "(", ")", "/*", "--", "\u{2019}", "N'", "U&'"]
            {
                let altered = format!("{before}{replacement}{after}");
                assert!(altered == statement || !is_sent_by_clients(&altered), "{altered}");
                let inserted = format!("{before}{replacement}{character}{after}");
                assert!(!is_sent_by_clients(&inserted), "{inserted}");
            }
        }
    }
}

#[test]
fn what_resembles_a_statement_is_not_one() {
    for statement in [
        "",
        " ",
        ";",
        "select 1",
        "SELECT pg_catalog.pg_is_in_recovery()",
        "select pg_is_in_recovery()",
        "select pg_catalog.pg_reload_conf()",
        "select pg_catalog.pg_read_file('/etc/passwd')",
        "set search_path = 'public'",
        "set search_path = pg_catalog",
        "set client_encoding = 'SJIS'",
        "set standard_conforming_strings = off",
        "set application_name = 'pgBackRest []'",
        "set application_name = 'pgBackRest [backup'",
        "set application_name = 'pgBackRest [backup]';",
        "set application_name = 'pgBackRest [back up]'",
        "set application_name = 'pgBackRest [backup]' ]'",
        "set application_name = 'pgBackRest [x']; drop table t; --]'",
        "set application_name = 'pgBackRest [x\\'; drop table t; --]'",
        "set application_name = E'pgBackRest [backup]'",
        "set application_name = U&'pgBackRest [backup]'",
        "set application_name = $$pgBackRest [backup]$$",
        "set application_name = 'pgBackRest [\u{ff42}ackup]'",
        "set application_name = 'pgBackRest [aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]'",
        "set max_parallel_workers_per_gather = 1",
        "select pg_catalog.pg_walfile_name(pg_catalog.pg_switch_wal())::text; select 1",
        "select pg_catalog.pg_walfile_name(pg_catalog.pg_read_file())::text",
        "select pg_catalog.pg_create_restore_point('x')::text",
        "select pg_catalog.pg_create_restore_point('pgBackRest Archive Check' || pg_read_file('x'))::text",
        "select pg_catalog.pg_try_advisory_lock(1)::bool",
        "select oid::oid, datname::text from pg_catalog.pg_database",
        "select oid::oid, rolpassword::text from pg_catalog.pg_authid",
        "checkpoint; checkpoint",
        "checkpoint ",
        "CHECKPOINT",
    ] {
        assert!(!is_sent_by_clients(statement), "{statement}");
    }
}

#[test]
fn a_position_holds_nothing_but_its_digits() {
    let with = |position: &str| {
        format!(
            "select (checkpoint_lsn >= '{position}')::bool as targetReached,\n       checkpoint_lsn::text as \
             checkpointLsn\n  from pg_catalog.pg_control_checkpoint()"
        )
    };
    assert!(is_sent_by_clients(&with("0/0")) && is_sent_by_clients(&with("FFFFFFFF/abcdef01")));
    for position in [
        "",
        "/",
        "0/",
        "/0",
        "0",
        "0/0/0",
        "0//0",
        " 0/0",
        "0/0 ",
        "g/0",
        "0/0'",
        "0/0\\",
        "-1/0",
        "+1/0",
        "0x1/0",
        "000000000/0",
        "0/000000000",
        "0/0') or ('0/0' > '0/0",
        "0/0'::text||'",
        "\u{0661}/0",
    ] {
        assert!(!is_sent_by_clients(&with(position)), "{position}");
    }
}
