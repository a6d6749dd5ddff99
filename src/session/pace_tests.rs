//! A pace on networks and servers of several speeds.

use super::*;

const MB: f64 = 1e6;
const MIB: f64 = (1 << 20) as f64;

/// A client behind a network that reads one file.
#[derive(Clone, Copy)]
struct Scene {
    /// Bytes a second that the network has before and after half of the file is there.
    network: (f64, f64),
    /// Bytes a second that the server stores or compresses.
    server: (f64, f64),
    /// How often smaller the file gets.
    ratio: f64,
    size: f64,
    /// Bytes of a block.
    block: f64,
}

/// How long the file takes, in seconds, and what part of it was compressed.
fn transfer(setting: NetworkCompression, scene: Scene) -> (f64, f64) {
    let mut pace = Pace::new(setting);
    let begin = Instant::now();
    let (mut passed, mut sent, mut compressed, mut on_its_way) = (0.0, 0.0, 0.0, 0.0);
    while sent < scene.size {
        // The next block is made while the one before is on its way.
        let (plain, wire, server) = if pace.link().compresses() {
            (scene.block * scene.ratio, scene.block, scene.server.1)
        } else {
            (scene.block, scene.block, scene.server.0)
        };
        let network = if sent < scene.size / 2.0 { scene.network.0 } else { scene.network.1 };
        passed += f64::max(on_its_way / network, plain / server);
        on_its_way = wire;
        sent += plain;
        compressed += if pace.link().compresses() { plain } else { 0.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few MiB")]
        pace.link.note(plain as u64, wire as u64);
        pace.answered(begin + Duration::from_secs_f64(passed));
    }
    (passed, compressed / sent)
}

fn check(scene: Scene, expected: NetworkCompression) {
    let (auto, part) = transfer(NetworkCompression::Auto, scene);
    let (always, _) = transfer(NetworkCompression::Always, scene);
    let (never, _) = transfer(NetworkCompression::Never, scene);
    let Scene { network, ratio, .. } = scene;
    println!("{network:?}, ratio {ratio}: auto {auto:.3}, always {always:.3}, never {never:.3}, {part:.3} compressed");
    assert!(auto <= 1.03 * always.min(never), "{auto} where always takes {always} and never {never}");
    match expected {
        NetworkCompression::Always => assert!(part > 0.9, "{part} of it"),
        NetworkCompression::Never => assert!(part < 0.1, "{part} of it"),
        NetworkCompression::Auto => assert!((0.3..0.7).contains(&part), "{part} of it"),
    }
}

const GIGABYTE: Scene =
    Scene { network: (0.0, 0.0), server: (1200.0 * MB, 400.0 * MB), ratio: 2.5, size: 1000.0 * MB, block: MIB };

#[test]
fn what_is_faster_is_done() {
    for (speed, ratio, expected) in [
        (12.0 * MB, 2.5, NetworkCompression::Always),
        (118.0 * MB, 2.5, NetworkCompression::Always),
        (118.0 * MB, 1.0, NetworkCompression::Never),
        (600.0 * MB, 2.5, NetworkCompression::Never),
        (5000.0 * MB, 2.5, NetworkCompression::Never),
    ] {
        check(Scene { network: (speed, speed), ratio, ..GIGABYTE }, expected);
    }
}

/// Each block takes longer than any pause.
#[test]
fn a_network_may_be_as_slow_as_it_likes() {
    for (speed, block) in [(0.1, 1.0), (0.5, 1.0), (2.0, 4.0), (8.0, 16.0)] {
        let network = (speed * MB, speed * MB);
        check(Scene { network, block: block * MIB, size: 4000.0 * MB, ..GIGABYTE }, NetworkCompression::Always);
    }
}

#[test]
fn a_file_that_compresses_better_from_some_place_on_is_no_other_network() {
    let mut pace = Pace::new(NetworkCompression::Auto);
    let (mut now, mut stored) = (Instant::now(), 0);
    for block in 0..2000_u64 {
        let compresses = pace.link().compresses();
        let taken = if !compresses {
            1
        } else if block / 100 % 2 == 0 {
            2
        } else {
            20
        };
        now += Duration::from_millis(80);
        pace.link.note(taken << 20, 1 << 20);
        pace.answered(now);
        stored += u32::from(!compresses);
    }
    assert!(stored < 80, "{stored} blocks were only tries");
}

#[test]
fn it_changes_within_a_file_as_the_network_does() {
    for (before, after) in [(5000.0 * MB, 12.0 * MB), (5000.0 * MB, 118.0 * MB)] {
        for network in [(before, after), (after, before)] {
            check(Scene { network, size: 4000.0 * MB, ..GIGABYTE }, NetworkCompression::Auto);
        }
    }
}

#[test]
fn who_does_something_else_in_between_does_not_count() {
    let mut pace = Pace::new(NetworkCompression::Auto);
    let mut now = Instant::now();
    for number in 0..2000_u64 {
        pace.link.note(4 << 20, 1 << 20);
        now += if number % 2 == 0 { PAUSE + Duration::from_secs(number) } else { Duration::from_millis(10) };
        pace.answered(now);
        if number == 40 {
            assert!(!pace.link().compresses(), "it brings nothing");
        }
    }
    for setting in [NetworkCompression::Always, NetworkCompression::Never] {
        let mut pace = Pace::new(setting);
        for _ in 0..1000 {
            pace.link.note(1 << 20, 1 << 20);
            now += Duration::from_millis(1);
            pace.answered(now);
            assert_eq!(pace.link().compresses(), setting == NetworkCompression::Always);
        }
    }
}
