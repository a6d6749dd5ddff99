//! Who listens on a port that this server cannot have, as `ss -ltnp` would say.

use std::fs;
use std::path::Path;

use crate::disk::passwd;

/// Where the kernel lists the sockets of this network.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of a socket that listens.
const LISTEN: &str = "0A";

/// Who listens on `port`, as far as this user can see it.
pub(super) fn of_port(port: u16) -> Option<String> {
    let (uid, inode) = TABLES.iter().find_map(|path| find(&fs::read_to_string(path).ok()?, port))?;
    Some(match holder(&format!("socket:[{inode}]")) {
        Some((process, name)) => format!("process {process} ({name})"),
        None => match passwd::user(uid) {
            Some(user) => format!("a process of user '{}'", user.name),
            None => format!("a process of user {uid}"),
        },
    })
}

/// The user and the inode of the socket that listens on `port`.
fn find(table: &str, port: u16) -> Option<(u32, u64)> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, number) = fields.get(1)?.rsplit_once(':')?;
        let is_meant = u16::from_str_radix(number, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
        is_meant.then(|| Some((fields.get(7)?.parse().ok()?, fields.get(9)?.parse().ok()?)))?
    })
}

/// The number and the name of a process that has a descriptor with this name.
fn holder(descriptor: &str) -> Option<(u32, String)> {
    fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| {
        let process: u32 = entry.file_name().to_str()?.parse().ok()?;
        // Those of others cannot be looked into.
        let mut open = fs::read_dir(entry.path().join("fd")).ok()?.filter_map(Result::ok);
        open.any(|link| fs::read_link(link.path()).is_ok_and(|target| target == Path::new(descriptor)))
            .then(|| (process, fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_named() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let text = of_port(port).unwrap();
            assert!(text.starts_with(&format!("process {} (", std::process::id())), "{text}");
            drop(listener);
            assert_eq!(of_port(port), None);
        }
    }

    #[test]
    fn a_line_of_the_kernels_table_is_understood_and_others_are_passed_over() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     \x20  0: 0100007F:20F0 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000  0 77 1\n\
                     \x20  1: bad\n\
                     \x20  2: 00000000:20F0 00000000:0000 0A 00000000:00000000 00:00000000 00000000   112  0 4711 1\n";
        assert_eq!(find(table, 8432), Some((112, 4711)));
        assert_eq!(find(table, 8433), None);
    }
}
