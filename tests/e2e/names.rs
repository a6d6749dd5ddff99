//! Names that are no text, and those that hold what other programs take for something else: what the original keeps
//! of a cluster with such files, directories, links and tablespaces is kept through us too.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use bstr::ByteSlice as _;

use crate::for_each_release;
use crate::harness::pg_host::link;
use crate::harness::postgres::Cluster;
use crate::harness::server::Server;
use crate::harness::{Bench, LIMIT, Output, STANZA, files, own};

for_each_release! {
    a_cluster_comes_back_whatever_its_files_are_called: full, always, full;
    a_backup_of_the_original_server_is_read_through_ours: never "its backup opens no session", full, always;
    a_cluster_is_read_whatever_its_files_are_called: always, full, full;
    a_cluster_may_be_in_a_directory_whose_name_is_no_text: never "its backup opens no session", full, always;
    what_the_original_does_not_cope_with_ends_alike: never "its backup opens no session", always, full;
    an_error_names_the_file_by_its_bytes: always, always, always;
}

/// What a file may be called that a backup of the original's keeps. A line feed is none of it: its manifest has a
/// line for each file.
const NAMES: [&[u8]; 8] = [
    b"caf\xe9.txt",
    b"\xff\xfe",
    b"cut off \xe2\x82",
    b"back\\slash",
    b"quote'\"=",
    b"\x01bell\x07\x1b[2J\x7f",
    b"tab\tand space ",
    "\u{10fe41} Größe €".as_bytes(),
];

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn put(at: &Path, text: &str) {
    fs::write(at, text).expect("the file can be written");
    own(at);
}

fn make(directory: &Path) -> PathBuf {
    fs::create_dir(directory).expect("the directory can be made");
    own(directory);
    directory.to_owned()
}

/// Adds to a cluster that does not run a directory, a file, a link to one and a tablespace for each name.
fn add_names(bench: &Bench, cluster: &Cluster) {
    let elsewhere = bench.workspace.directory("elsewhere");
    let own_directory = make(&cluster.path.join("names"));
    for (number, name) in NAMES.into_iter().enumerate() {
        let directory = make(&own_directory.join(path(name)));
        put(&directory.join(path(name)), &format!("content {number}"));
        put(&cluster.path.join("base/5").join(path(name)), &"x".repeat(20_000 + number));
        let linked = make(&elsewhere.join(path(name)));
        put(&linked.join(path(name)), &format!("linked {number}"));
        let mut named = b"link ".to_vec();
        named.extend(name);
        link(&linked, &cluster.path.join(path(&named)));

        let mut space = b"space ".to_vec();
        space.extend(name);
        let space = make(&elsewhere.join(path(&space)));
        let version = make(&space.join("PG_15_202209061"));
        put(&make(&version.join("5")).join("70000"), &format!("space {number}"));
        link(&space, &cluster.path.join(format!("pg_tblspc/{}", 70_000 + number)));
    }
}

/// What [`add_names`] has added, as it is below `cluster`: contents of files, and where links point.
fn added(cluster: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(at: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(at).expect("the directory is readable") {
            let entry = entry.expect("the entry is readable");
            let (at, below) = (entry.path(), below.join(entry.file_name()));
            if at.is_symlink() {
                let to = fs::read_link(&at).expect("the link is readable");
                found.insert(PathBuf::from("->").join(&below), to.into_os_string().into_vec());
            }
            if at.is_dir() {
                walk(&at, &below, found);
            } else {
                found.insert(below, fs::read(&at).expect("the file is readable"));
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(cluster, Path::new(""), &mut all);
    let is_added = |name: &Path| {
        let name = name.strip_prefix("->").unwrap_or(name).as_os_str().as_bytes();
        let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
        name.starts_with(b"names/")
            || name.starts_with(b"link ")
            || name.starts_with(b"pg_tblspc/")
            || (name.starts_with(b"base/5/") && NAMES.contains(&parts[2]))
    };
    all.retain(|name, _| is_added(name));
    // a file in three places, a tablespace, and the links to two of these
    assert_eq!(all.len(), NAMES.len() * 6, "{all:?}");
    all
}

/// Restores the latest backup in the place of the cluster, whose links say where everything else is.
fn restore(bench: &Bench, cluster: &Cluster) {
    for place in [cluster.path.clone(), bench.workspace.path().join("elsewhere")] {
        fs::remove_dir_all(&place).expect("it can be lost");
    }
    for directory in ["pg/data", "elsewhere"] {
        bench.workspace.directory(directory);
    }
    for name in NAMES {
        for prefix in [&b""[..], b"space "] {
            make(&bench.workspace.path().join("elsewhere").join(path(&[prefix, name].concat())));
        }
    }
    bench.client.ok(&["restore", "--type=none", "--link-all"]);
}

/// Runs a command of the client with a last argument that need not be text; returns what it printed.
fn run_with(bench: &Bench, command: &str, arguments: &[&str], last: &[u8]) -> Output {
    let mut run = client(bench, command);
    run.arg("--log-level-console=off").args(arguments).arg(OsStr::from_bytes(last));
    bench.workspace.spawn(command, run).output(LIMIT)
}

/// The client, to be given further arguments.
fn client(bench: &Bench, command: &str) -> Command {
    bench.client.write_config();
    let mut run = bench.workspace.command(bench.client.program());
    run.arg(format!("--config={}", bench.client.config_file().display())).arg(format!("--stanza={STANZA}"));
    run.arg(command);
    run
}

const WAYS: [&[&str]; 3] =
    [&["--compress-type=none"], &["--compress-type=gz"], &["--compress-type=zst", "--repo1-bundle"]];

fn a_cluster_comes_back_whatever_its_files_are_called(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.create_cluster();
    bench.server.start();
    bench.client.ok(&["stanza-create", "--no-online"]);
    add_names(&bench, &cluster);
    let expected = added(&cluster.path);
    for way in WAYS {
        let backup = [&["backup", "--no-online", "--type=full"], way].concat();
        bench.ok(&backup);
        restore(&bench, &cluster);
        assert_eq!(added(&cluster.path), expected, "{way:?}");
    }
    bench.client.verifies();
    is_listed_and_got(&bench);
    // what is too much goes
    bench.set("repo1-retention-full", "1");
    bench.ok(&["expire"]);
    assert_eq!(bench.client.labels().len(), 1);
    assert!(!bench.server.log().contains(['\x07', '\x1b', '\u{fffd}']), "{}", bench.server.log());
}

/// The repository is listed with all names in it, and each file can be had.
fn is_listed_and_got(bench: &Bench) {
    let label = &bench.client.labels()[0];
    let directory = format!("backup/{STANZA}/{label}/pg_data/names");
    for output in ["--output=text", "--output=json"] {
        let listed = run_with(bench, "repo-ls", &["--recurse", output], directory.as_bytes());
        assert_eq!(listed.code, 0, "{listed:?}");
        assert!(listed.stdout.contains("Größe"), "{listed:?}");
        // as it is printed where it is no text
        assert!(listed.stdout.contains("caf\u{fffd}.txt"), "{listed:?}");
    }
    for (number, name) in NAMES.into_iter().enumerate() {
        let file = [directory.as_bytes(), name, name].join(&b'/');
        let got = run_with(bench, "repo-get", &[], &file);
        assert_eq!((got.code, got.stdout), (0, format!("content {number}")), "{name:?}");
    }
}

fn a_backup_of_the_original_server_is_read_through_ours(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.create_cluster();
    let ours = bench.server.is_original;
    bench.server.is_original = true;
    bench.server.start();
    bench.client.ok(&["stanza-create", "--no-online"]);
    add_names(&bench, &cluster);
    let expected = added(&cluster.path);
    bench.ok(&["backup", "--no-online", "--type=full", "--compress-type=none"]);
    bench.server.terminate();
    bench.server.is_original = ours;
    bench.server.start();
    restore(&bench, &cluster);
    assert_eq!(added(&cluster.path), expected);
    is_listed_and_got(&bench);
    bench.client.verifies();
}

/// A repository host with a server on the host of a cluster that does not run.
fn with_host(bench: &mut Bench) -> (Cluster, Server) {
    let cluster = bench.create_cluster();
    let mut host = bench.serve_cluster(&cluster, 1);
    host.start();
    bench.server.start();
    bench.run_at_repository(&["stanza-create", "--no-online"]).ok();
    (cluster, host)
}

fn a_cluster_is_read_whatever_its_files_are_called(release: &str) {
    let mut bench = Bench::new(release);
    let (cluster, host) = with_host(&mut bench);
    add_names(&bench, &cluster);
    let expected = added(&cluster.path);
    for way in WAYS {
        let backup = [&["backup", "--no-online", "--type=full"], way].concat();
        bench.run_at_repository(&backup).ok();
        restore(&bench, &cluster);
        assert_eq!(added(&cluster.path), expected, "{way:?}");
    }
    bench.client.verifies();
    assert!(!host.log().contains(['\x07', '\x1b', '\u{fffd}']), "{}", host.log());
}

/// The client says where its cluster is, in some releases also to the repository host, which has no use for it.
fn a_cluster_may_be_in_a_directory_whose_name_is_no_text(release: &str) {
    let mut bench = Bench::new(release);
    let cluster = bench.create_cluster();
    bench.server.start();
    let place = bench.workspace.path().join(path(b"caf\xe9"));
    fs::rename(&cluster.path, &place).expect("the cluster can be moved");
    let at = [b"--pg1-path=", place.as_os_str().as_bytes()].concat();
    let run = |command: &str, arguments: &[&str]| run_with(&bench, command, arguments, &at).ok();
    run("stanza-create", &["--no-online"]);
    run("backup", &["--no-online", "--type=full"]);
    let version = fs::read(place.join("PG_VERSION")).expect("it is readable");
    fs::remove_dir_all(&place).expect("it can be lost");
    make(&place);
    run("restore", &["--type=none"]);
    assert_eq!(fs::read(place.join("PG_VERSION")).expect("it came back"), version);
}

/// A line feed in a name makes two lines of one in the manifest.
fn what_the_original_does_not_cope_with_ends_alike(release: &str) {
    let outcome = |is_original: bool| {
        let mut bench = Bench::new(release);
        bench.server.is_original = is_original;
        let cluster = bench.create_cluster();
        bench.server.start();
        bench.client.ok(&["stanza-create", "--no-online"]);
        put(&cluster.path.join(path(b"line\nfeed")), "content");
        let place = format!("--pg1-path={}", bench.workspace.directory("restored/data").display());
        let commands: [&[&str]; 3] = [
            &["backup", "--no-online", "--type=full", "--compress-type=none"],
            &["restore", "--type=none", &place],
            &["verify", "--output=text"],
        ];
        let stored = |path: PathBuf| path.to_string_lossy().contains("line\nfeed");
        let ends = commands.map(|arguments| {
            let output = bench.client.run(arguments);
            let errors = output.stdout.lines().filter_map(|line| line.split_once("ERROR: "));
            // but for the path
            let errors = errors.map(|(_, text)| text.split('/').next().unwrap_or_default().to_owned());
            (output.code, errors.collect::<Vec<_>>())
        });
        (ends, files(&bench.server.repository()).into_iter().any(stored))
    };
    assert_eq!(outcome(false), outcome(true));
}

/// Not where the entry is a directory that is read: the original of 2.45 ends then without a word.
fn an_error_names_the_file_by_its_bytes(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.start();
    bench.workspace.directory("server/repository/archive/demo");
    let file = bench.server.repository().join(path(b"archive/demo/caf\xe9\n\x1b[2J"));
    put(&file, "no directory");
    let below = [file.as_os_str().as_bytes(), b"/below"].concat();
    let relative = below.strip_prefix(bench.server.repository().as_os_str().as_bytes()).expect("it is in there");
    let output = bench.workspace.path().join("printed");
    let mut run = client(&bench, "repo-ls");
    run.arg("--log-level-console=error").arg(OsStr::from_bytes(&relative[1..]));
    let into = fs::File::create(&output).expect("the file can be made");
    let ended = bench.workspace.spawn_into("repo-ls", &mut run, into).output(LIMIT);
    assert_eq!(ended.code, 41, "{ended:?}");
    let printed = fs::read(&output).expect("the file is readable");
    // a client indents what follows a line feed
    let printed = bstr::join("\n", printed.lines().map(<[u8]>::trim_ascii_start));
    let wanted = [b"unable to get info for path/file '", below.as_slice(), b"': [20] Not a directory"].concat();
    assert!(printed.contains_str(&wanted), "{}", printed.as_bstr());
    assert!(!bench.server.log().contains('\x1b'), "{}", bench.server.log());
}
