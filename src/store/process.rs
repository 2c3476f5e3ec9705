//! Who writes: processes told apart across restarts, and whether one is still alive.

use rustix::process::{Pid, getpid};
use std::fs;

/// A process: its id, and when it started in clock ticks since boot, since ids are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) pid: u32,
    pub(super) started: u64,
}

impl Owner {
    /// Bytes of its form in rows: process id, start.
    pub(super) const LENGTH: usize = 12;

    /// This process.
    pub(super) fn this() -> Self {
        let pid = getpid().as_raw_nonzero().get().unsigned_abs();
        Self { pid, started: start_of(pid).unwrap_or(0) }
    }

    /// Whether that very process still runs, as far as this one can see.
    pub(super) fn is_alive(self) -> bool {
        match start_of(self.pid) {
            Some(started) => started == self.started || self.started == 0,
            // Without /proc the id alone decides.
            None => {
                let raw = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
                raw.is_some_and(|pid| {
                    !fs::exists("/proc/self").unwrap_or(false)
                        && rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
                })
            }
        }
    }

    pub(super) fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&self.pid.to_be_bytes());
        bytes[4..].copy_from_slice(&self.started.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let [a, b, c, d, started @ ..] = *bytes;
        Self { pid: u32::from_be_bytes([a, b, c, d]), started: u64::from_be_bytes(started) }
    }
}

/// Field 22 of /proc/PID/stat; the fields after the name in parentheses, which may hold anything.
fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // A zombie holds nothing any more.
    let alive = !matches!(fields.next()?, "Z" | "X");
    alive.then(|| fields.nth(18)?.parse().ok())?
}

/// Which start of the machine this is; empty where the system does not say.
pub(super) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// The inode of the PID namespace: process ids mean nothing outside of it.
pub(super) fn pid_namespace() -> u64 {
    rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_it_ends() {
        assert!(Owner::this().is_alive());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let owner = Owner { pid: child.id(), started: start_of(child.id()).unwrap() };
        assert!(owner.is_alive());
        assert!(!Owner { started: owner.started + 1, ..owner }.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!owner.is_alive());
    }

    #[test]
    fn an_owner_has_a_form() {
        let owner = Owner::this();
        assert_eq!(Owner::from_bytes(&owner.to_bytes()), owner);
    }
}
