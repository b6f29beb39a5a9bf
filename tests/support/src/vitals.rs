//! What a process takes of the machine, as the kernel tells it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Where the embedded store has its data, below its folder.
const STORE: &str = "/store/keyspaces/";

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    /// Memory resident, in bytes.
    pub resident: u64,
    /// Open files, sockets and pipes, without those of the embedded store, which has one for each
    /// table and blob file: as many as there is data.
    pub handles: u64,
    pub threads: u64,
    /// Processor time so far, user and system together.
    pub cpu: Duration,
}

impl Vitals {
    /// Looks at the process with this id.
    ///
    /// # Errors
    /// It has ended, or the kernel tells of it in an unknown way.
    pub fn of(id: u32) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{id}"));
        let read = |name: &str| {
            fs::read_to_string(folder.join(name)).with_context(|| format!("no {name} of {id}"))
        };
        let status = read("status")?;
        let handles = fs::read_dir(folder.join("fd")).with_context(|| format!("no fd of {id}"))?;
        // One that was closed meanwhile has no target any more.
        let targets = handles.filter_map(|handle| fs::read_link(handle.ok()?.path()).ok());
        let holds_data = |target: &PathBuf| target.to_string_lossy().contains(STORE);
        Ok(Self {
            resident: field(&status, "VmRSS:")? * 1024,
            handles: targets.filter(|target| !holds_data(target)).count() as u64,
            threads: field(&status, "Threads:")?,
            cpu: cpu(&read("stat")?)?,
        })
    }
}

fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no {name} in {status}"))
}

/// Reads user and system time, the 14th and 15th field. The second is the program's name, in
/// brackets, and may hold spaces.
fn cpu(stat: &str) -> Result<Duration> {
    let rest = stat.rsplit_once(')').map_or(stat, |(_, rest)| rest);
    let mut times = rest.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let both = ticks().zip(ticks()).map(|(user, system)| user + system);
    // SAFETY: `sysconf` touches no memory of ours.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let a_second = u64::try_from(a_second).unwrap_or(100).max(1);
    let both = both.with_context(|| format!("no times in {stat}"))?;
    Ok(Duration::from_millis(both * 1000 / a_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with spaces and brackets would shift the fields.
    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4 1 2 3 4 500 250 0 0 20 0 9";
        let a_second = cpu("7 (x) S 1 7 7 0 -1 4 1 2 3 4 1000 0 0")
            .unwrap()
            .as_millis();
        assert_eq!(cpu(stat).unwrap().as_millis(), a_second * 3 / 4);
        assert!(cpu("7 (x) S 1").is_err());
    }

    /// A leak of handles that the count does not see would go unnoticed.
    #[test]
    fn an_open_file_is_a_handle() {
        let own = std::process::id();
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        let vitals = Vitals::of(own).unwrap();
        assert!(vitals.handles >= files.len() as u64);
        assert!(vitals.threads > 0 && vitals.resident > 0);
        assert!(Vitals::of(u32::MAX).is_err());
    }
}
