//! The repository's disk is full: the client is told, and nothing half-written stays.

use std::fs;
use std::path::{Path, PathBuf};

use crate::archiving::assert_whole_segments;
use crate::for_each_release;
use crate::harness::{Bench, Owner, SOON, as_root, temporary_files, wait_until};

for_each_release! {
    a_segment_for_which_there_is_no_space_leaves_nothing_and_passes_later: always, always, always;
    a_backup_for_which_there_is_no_space_is_no_backup_and_passes_later:
        never "its backup opens no session", always, always;
}

fn a_segment_for_which_there_is_no_space_leaves_nothing_and_passes_later(release: &str) {
    let mut bench = Bench::new(release);
    bench.set("compress-type", "none");
    let disk = SmallDisk::mount(&bench.server.repository(), 64);
    let mut cluster = bench.with_cluster();
    let segment = cluster.copy_segment("0000000100000001000000A0").display().to_string();
    cluster.stop();
    disk.leave(10);

    let text = bench.client.fails(104, &["archive-push", &segment]);
    assert!(text.contains("[FileWriteError] raised from remote-0"), "{text}");
    assert!(text.contains("No space left on device"), "{text}");
    // the client is told before the rest is removed
    wait_until("temporary files to go", SOON, || temporary_files(&bench.server.repository()).is_empty());
    let before = assert_whole_segments(&bench.server.repository());

    disk.free();
    bench.client.ok(&["archive-push", &segment]);
    assert_eq!(assert_whole_segments(&bench.server.repository()), before + 1);
}

fn a_backup_for_which_there_is_no_space_is_no_backup_and_passes_later(release: &str) {
    let mut bench = Bench::new(release);
    bench.set("compress-type", "none");
    let disk = SmallDisk::mount(&bench.server.repository(), 400);
    let cluster = bench.with_cluster();
    cluster.fill(3);
    cluster.archive();
    // enough for the WAL segment that a backup waits for, too little for the backup
    disk.leave(40);

    let output = bench.run(&["backup", "--type=full"]);
    assert_ne!(output.code, 0, "a backup on a full disk: {}", output.text());
    assert!(output.text().contains("No space left on device"), "{}", output.text());
    wait_until("temporary files to go", SOON, || temporary_files(&bench.server.repository()).is_empty());

    disk.free();
    bench.ok(&["backup", "--type=full"]);
    assert_eq!(bench.client.labels().len(), 1);
    bench.client.verifies();
}

/// A file system in memory that can be filled.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path, mebibytes: u32) -> Self {
        let owner = Owner::get();
        let options = format!("size={mebibytes}m,mode=750,uid={},gid={}", owner.uid, owner.gid);
        let place = path.display().to_string();
        let status =
            as_root("mount", &["-t", "tmpfs", "-o", &options, "repohostd-test", &place]).expect("mount starts");
        assert!(status.success(), "a small disk needs root, or sudo without a password");
        Self { path: path.to_owned() }
    }

    /// Fills the disk but for some space.
    fn leave(&self, mebibytes: u64) {
        let statistics = rustix::fs::statvfs(&self.path).expect("the disk is there");
        let free = statistics.f_bavail * statistics.f_frsize;
        let size = usize::try_from(free.saturating_sub(mebibytes << 20)).expect("it is small");
        fs::write(self.path.join("filler"), vec![0; size]).expect("the disk can be filled");
    }

    /// Makes room again.
    fn free(&self) {
        fs::remove_file(self.path.join("filler")).expect("the filler can be removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // the server may still have files open in it
        let _ = as_root("umount", &["--lazy", &self.path.display().to_string()]);
    }
}
