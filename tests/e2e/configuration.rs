//! Configuration files that are changed while clients use the server: they count from the moment on in which they are
//! there, in every process, unless they cannot be used.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::for_each_release;
use crate::harness::postgres::Cluster;
use crate::harness::{Bench, STANZA, as_root, own, wait_until};

for_each_release! {
    a_stanza_counts_from_the_moment_on_in_which_it_is_there: full, full, always;
    a_worker_that_begins_after_a_change_serves_what_is_there: full, always, full;
    files_that_cannot_be_used_change_nothing: always, full, full;
    half_a_file_is_no_configuration: full, full, always;
    a_mistake_in_one_stanza_keeps_nobody_else_from_a_start: always, always, always;
    another_name_of_the_same_place_is_no_other_place: always, always, always;
    check_warns_of_what_the_service_cannot_use: never "it is the server's alone", never "it is the server's alone", always;
}

/// Has the server have so many workers, and read files of a directory.
fn prepare(bench: &mut Bench, workers: &str) -> PathBuf {
    bench.server.own_config.set("global", "workers", workers);
    let directory = bench.workspace.directory("server/conf.d");
    bench.server.environment = vec![("PGBACKREST_CONFIG_INCLUDE_PATH".to_owned(), directory.display().to_string())];
    directory
}

fn a_stanza_counts_from_the_moment_on_in_which_it_is_there(release: &str) {
    for workers in ["1", "2"] {
        let mut bench = Bench::new(release);
        prepare(&mut bench, workers);
        let cluster = bench.with_cluster_only();
        for round in 0..8 {
            let stanza = format!("new{round}");
            let repository = bench.workspace.directory(&format!("server/repository-{round}"));
            let text = format!("[{stanza}]\nrepo1-path={}\n", repository.display());
            bench.server.file(&format!("conf.d/{stanza}.conf"), 0o640, &text);
            create(&bench, &cluster, &stanza);
            assert!(repository.join(format!("archive/{stanza}/archive.info")).exists(), "{workers} workers: {round}");
            let before = bench.server.repository().join("archive").join(&stanza);
            assert!(!before.exists(), "{workers} workers: {round} is in the repository of before");
        }
        // the same file again and again, as long as before
        for round in 0..8 {
            let name = format!("moving-{round}");
            let repository = bench.workspace.directory(&format!("server/{name}"));
            let text = format!("[moving]\nrepo1-path={}\n", repository.display());
            bench.server.file("conf.d/moving.conf", 0o640, &text);
            create(&bench, &cluster, "moving");
            assert!(repository.join("archive/moving/archive.info").exists(), "{workers} workers: {name}");
        }
    }
}

fn create(bench: &Bench, cluster: &Cluster, stanza: &str) {
    let path = format!("--pg1-path={}", cluster.path.display());
    let sockets = format!("--pg1-socket-path={}", cluster.sockets().display());
    bench.client.run_exactly(&[&format!("--stanza={stanza}"), &path, &sockets, "stanza-create"]).ok();
}

fn a_worker_that_begins_after_a_change_serves_what_is_there(release: &str) {
    let mut bench = Bench::new(release);
    prepare(&mut bench, "4");
    let cluster = bench.with_cluster();
    bench.ok(&["backup", "--type=full"]);
    drop(cluster);
    assert_eq!(bench.server.terminate(), 0);
    let mut repository = bench.server.repository();
    for round in 0..3 {
        // one worker begins with the server, the others when the restore wants more of it
        bench.server.start();
        let moved = bench.server.path(&format!("moved-{round}"));
        fs::rename(&repository, &moved).expect("the repository can be moved");
        bench.server.config.set("global", "repo1-path", &moved.display().to_string());
        bench.server.write_config();
        let restored = Cluster::at(&bench.workspace, &format!("restored-{round}"));
        let path = format!("--pg1-path={}", restored.path.display());
        bench.client.ok(&["restore", "--process-max=2", &path]);
        assert!(restored.path.join("PG_VERSION").exists());
        assert!(!repository.exists(), "the repository of before is used");
        repository = moved;
        assert_eq!(bench.server.terminate(), 0);
    }
}

/// What a client sees of the repository.
fn sees(bench: &Bench) -> String {
    bench.client.ok(&["repo-ls", "--log-level-console=off"])
}

/// A repository that holds nothing but a directory of its own name.
fn marked(bench: &Bench, name: &str) -> PathBuf {
    bench.workspace.directory(&format!("server/{name}/{name}"));
    bench.server.path(name)
}

fn files_that_cannot_be_used_change_nothing(release: &str) {
    for workers in ["1", "2"] {
        let mut bench = Bench::new(release);
        let directory = prepare(&mut bench, workers);
        let (good, bad, better) = (marked(&bench, "good"), marked(&bench, "bad"), marked(&bench, "better"));
        let set = |bench: &mut Bench, path: &Path| {
            bench.server.config.set("global", "repo1-path", &path.display().to_string());
        };
        set(&mut bench, &good);
        bench.server.start();
        assert_eq!(sees(&bench), "good\n");
        let settled = bench.server.config.clone();
        let main = bench.server.path("pgbackrest.conf").display().to_string();
        let included = directory.join("more.conf").display().to_string();
        let mut warned = 0;
        let mistakes = [
            ("global", "buffer-size", "3", "[032]: '3' is not allowed for 'buffer-size' option", &main),
            (
                "global",
                "repo2-path",
                "elsewhere",
                "[032]: 'elsewhere' must begin with / for 'repo2-path' option",
                &main,
            ),
            (STANZA, "repo1-type", "floppy", "[032]: 'floppy' is not allowed for 'repo1-type' option", &main),
            (STANZA, "neutral-umask", "maybe", "[032]: boolean option 'neutral-umask' must be 'y' or 'n'", &main),
            ("other:backup", "db-timeout", "soon", "[032]: 'soon' is not valid for 'db-timeout' option", &main),
            ("", "[other]\nrepo1-path=", "", "[032]: section 'other', key 'repo1-path' must have a value", &included),
            ("", "[other\n", "", "[029]: ini section should end with ] at line 1: [other", &included),
        ];
        for (section, key, value, said, file) in mistakes {
            bench.server.config = settled.clone();
            set(&mut bench, &bad);
            if section.is_empty() {
                bench.server.file("conf.d/more.conf", 0o640, key);
            } else {
                bench.server.config.set(section, key, value);
            }
            bench.server.write_config();
            for _ in 0..3 {
                assert_eq!(sees(&bench), "good\n", "{workers} workers: {said}");
            }
            warned += 1;
            let log = bench.server.log();
            let unusable =
                " WARN: configuration files changed but cannot be used, so sessions go on with what was read last: ";
            assert_eq!(log.matches(unusable).count(), warned, "{log}");
            let line = log.rsplit(unusable).next().expect("it was warned");
            assert!(line.starts_with(said) && line.contains(file.as_str()), "{line}");
            assert!(line.contains("HINT: what is mended counts at once"), "{line}");

            bench.server.signal(Signal::HUP);
            wait_until("the end of the reload", crate::harness::SOON, || {
                bench.server.log().matches("configuration reload failed").count() == warned
            });
            assert!(bench.server.log().contains(&format!("ERROR: {said}")), "{}", bench.server.log());
            assert_eq!(sees(&bench), "good\n", "{workers} workers after a reload: {said}");
            assert_eq!(bench.server.log().matches(unusable).count(), warned, "it is told again");
            let _ = fs::remove_file(directory.join("more.conf"));
        }
        // a reload that comes before any session says it alone
        bench.server.config = settled.clone();
        bench.server.config.set("global", "buffer-size", "5");
        bench.server.write_config();
        bench.server.signal(Signal::HUP);
        bench.server.wait_for_log("ERROR: [032]: '5' is not allowed for 'buffer-size' option");
        assert_eq!(sees(&bench), "good\n");
        assert!(!bench.server.log().contains("read last: [032]: '5'"), "{}", bench.server.log());

        bench.server.config = settled;
        set(&mut bench, &better);
        bench.server.write_config();
        assert_eq!(sees(&bench), "better\n", "{workers} workers");
        assert!(bench.server.log().contains(" INFO: configuration files can be used again"), "{}", bench.server.log());
        bench.server.reload();
        assert_eq!(sees(&bench), "better\n", "{workers} workers");
    }
}

fn half_a_file_is_no_configuration(release: &str) {
    for workers in ["1", "2"] {
        let mut bench = Bench::new(release);
        prepare(&mut bench, workers);
        let good = marked(&bench, "good");
        bench.server.config.set("global", "repo1-path", &good.display().to_string());
        bench.server.start();
        let (path, text) = (bench.server.path("pgbackrest.conf"), bench.server.config.text());
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // as an editor does that writes into the file that is there
                    for length in [0, text.len() / 3, text.len()] {
                        fs::write(&path, &text[..length]).expect("the file can be written");
                        thread::sleep(Duration::from_millis(2));
                    }
                }
            });
            let seen: Vec<_> = (0..15).map(|_| bench.client.run(&["repo-ls", "--log-level-console=off"])).collect();
            done.store(true, Ordering::Relaxed);
            for output in seen {
                assert_eq!(
                    (output.code, output.stdout.as_str()),
                    (0, "good\n"),
                    "{workers} workers: {}",
                    output.text()
                );
            }
        });
    }
}

fn a_mistake_in_one_stanza_keeps_nobody_else_from_a_start(release: &str) {
    let mut bench = Bench::new(release);
    let directory = prepare(&mut bench, "2");
    bench.server.file("conf.d/other.conf", 0o640, "\n[other]\nrepo1-path=elsewhere\n");
    bench.server.start();
    bench.client.ok(&["repo-ls"]);
    let said = "'elsewhere' must begin with / for 'repo1-path' option";
    let log = bench.server.log();
    assert_eq!(log.matches(&format!(" WARN: [032]: {said}")).count(), 1, "{log}");
    assert!(
        log.contains(&format!("HINT: the value stands in '{}:3'", directory.join("other.conf").display())),
        "{log}"
    );
    let refused = |bench: &Bench| bench.client.run_exactly(&["--stanza=other", "info"]).text();
    assert!(refused(&bench).contains(said), "{}", refused(&bench));
    // what is added meanwhile counts
    let repository = marked(&bench, "third");
    bench.server.file("conf.d/third.conf", 0o640, &format!("[third]\nrepo1-path={}\n", repository.display()));
    assert_eq!(bench.client.run_exactly(&["--stanza=third", "--log-level-console=off", "repo-ls"]).ok(), "third\n");
    bench.server.reload();
    let included = format!("--config-include-path={}", directory.display());
    let checked = bench.server.own_command(&["check", &included]).fails_with(32);
    assert!(checked.contains(said), "{checked}");
    bench.server.file("conf.d/other.conf", 0o640, "[other]\n");
    assert!(!refused(&bench).contains(said), "{}", refused(&bench));
}

fn another_name_of_the_same_place_is_no_other_place(release: &str) {
    let mut bench = Bench::new(release);
    let links = bench.workspace.directory("links");
    let link = |name: &str, target: PathBuf| {
        let link = links.join(name);
        symlink(target, &link).expect("a link can be made");
        link
    };
    let repository = link("repository", bench.server.repository());
    let config = link("pgbackrest.conf", bench.server.path("pgbackrest.conf"));
    bench.client.config.set("global", "repo1-path", &repository.display().to_string());
    bench.client.config.set("global", "repo1-host-config", &config.display().to_string());
    let cluster = bench.with_cluster();
    bench.client.ok(&["check"]);
    bench.ok(&["backup", "--type=full"]);
    drop(cluster);
    let restored = Cluster::at(&bench.workspace, "restored");
    bench.client.ok(&["restore", &format!("--pg1-path={}", restored.path.display())]);
    assert!(bench.server.repository().join("backup/demo/backup.info").exists());

    // what somebody else made may be made to lead elsewhere
    for (option, foreign) in [("repo1-path", &repository), ("repo1-host-config", &config)] {
        let path = foreign.display().to_string();
        assert!(as_root("chown", &["-h", "nobody", &path]).expect("there is chown").success());
        let text = bench.client.run(&["info", "--log-level-console=warn"]).text();
        let what = if option == "repo1-path" { "repo1-path" } else { "config" };
        assert!(text.contains(&format!("'{path}' is not allowed for '{what}' option because")), "{text}");
        fs::remove_file(foreign).expect("the link can be removed");
        let target =
            if option == "repo1-path" { bench.server.repository() } else { bench.server.path("pgbackrest.conf") };
        symlink(target, foreign).expect("a link can be made");
    }
    own(&links);
    bench.client.ok(&["info"]);
}

/// What `check` says to root.
fn checked_by_root(bench: &Bench) -> String {
    let binary = bench.server.binary();
    let mut command = if rustix::process::geteuid().is_root() {
        std::process::Command::new(binary)
    } else {
        let mut command = std::process::Command::new("sudo");
        command.arg("-n").arg(binary);
        command
    };
    command.arg("check").arg(format!("--config={}", bench.server.path("pgbackrest.conf").display()));
    let output = command.output().expect("it can be run");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn check_warns_of_what_the_service_cannot_use(release: &str) {
    let mut bench = Bench::new(release);
    bench.server.write_config();
    let root = |program: &str, arguments: &[&str]| {
        assert!(as_root(program, arguments).expect("it can be run").success(), "{program} {arguments:?}");
    };
    for text in [checked_by_root(&bench), bench.server.own_command(&["check"]).text()] {
        assert!(text.contains("configuration is good, 0 warnings"), "{text}");
    }
    let (key, repository) = (bench.server.path("server.key"), bench.server.repository());
    let (key, repository) = (key.display().to_string(), repository.display().to_string());
    root("chown", &["root", &key]);
    let text = checked_by_root(&bench);
    assert!(text.contains(&format!("key file '{key}' cannot be read by user '")), "{text}");
    assert!(text.contains(&format!("LoadCredential=server.key:{key}")), "{text}");
    own(&bench.server.path("server.key"));

    bench.server.config.set("global", "repo2-type", "s3");
    bench.server.config.set("global", "repo2-path", "/somewhere");
    bench.server.write_config();
    assert!(checked_by_root(&bench).lines().any(|line| line.ends_with("configuration is good, 1 warning")));
    bench.server.config.set("global", "repo3-path", "/not/there");
    bench.server.write_config();
    for text in [checked_by_root(&bench), bench.server.own_command(&["check"]).text()] {
        assert!(text.contains("repo2 is of type 's3', which is not served here"), "{text}");
        assert!(text.contains("repo3-path '/not/there' does not exist"), "{text}");
        assert!(text.contains("configuration is good, 2 warnings"), "{text}");
    }
    // it would be root's own service if its files were root's too
    root("chmod", &["0700", &repository]);
    root("chown", &["root", &repository]);
    let text = bench.server.own_command(&["check"]).text();
    assert!(text.contains(&format!("repo1-path '{repository}' is not accessible for user '")), "{text}");
    let text = checked_by_root(&bench);
    assert!(text.contains(&format!("repo1-path '{repository}' is not accessible for user '")), "{text}");
    own(&bench.server.repository());
}
