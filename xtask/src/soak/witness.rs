//! For knowing what really runs, whatever Kip says: the kernel's process table, looked at again and again.
//!
//! The first process of each container of a soak carries its pod's UID in its environment, and its control group names the
//! cell. Neither passes through anything Kip reports, and a process cannot be in two cells.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::pods::MARK;

/// Between two looks. Two runs that overlap for longer are seen to.
const PAUSE: Duration = Duration::from_millis(40);

/// A process, told from a later one with the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) pid: i32,
    /// In clock ticks since the machine's start.
    started: u64,
}

/// A process of a cell.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: Id,
    /// The cell's instance, without its `i-`.
    pub(super) cell: String,
    pub(super) program: String,
    /// The pod whose container this is the first process of.
    pub(super) pod: Option<String>,
}

/// One run of a pod's container.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) id: Id,
    pub(super) cell: String,
    pub(super) first_seen: Duration,
    pub(super) last_seen: Duration,
}

/// Everything seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Journal {
    /// Runs by the pod's UID.
    pub(super) runs: BTreeMap<String, Vec<Run>>,
    /// Pods seen to run twice at once, each with what was seen first of it.
    pub(super) doubled: BTreeMap<String, String>,
    pub(super) looks: u64,
    /// The longest time nobody looked.
    pub(super) largest_gap: Duration,
}

impl Journal {
    /// Takes a look in. `alive` asks the kernel about one process again.
    fn note(&mut self, at: Duration, seen: &[Member], alive: impl Fn(Id) -> bool) {
        self.looks += 1;
        let mut now: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in seen {
            let Some(pod) = &member.pod else { continue };
            now.entry(pod).or_default().push(member);
            let runs = self.runs.entry(pod.clone()).or_default();
            match runs.iter_mut().find(|run| run.id == member.id) {
                Some(run) => run.last_seen = at,
                None => runs.push(Run {
                    id: member.id,
                    cell: member.cell.clone(),
                    first_seen: at,
                    last_seen: at,
                }),
            }
        }
        for (pod, members) in now {
            // The look took a while: the first may have ended before the second began. Those that live now lived together,
            // for all were seen before.
            let together: Vec<_> = members.iter().filter(|member| alive(member.id)).collect();
            if together.len() > 1 {
                self.doubled.entry(pod.to_owned()).or_insert_with(|| {
                    let cells: Vec<_> = together.iter().map(|member| member.cell.as_str()).collect();
                    format!("at {:.1} s in cells {}", at.as_secs_f64(), cells.join(" and "))
                });
            }
        }
    }
}

/// Looks until it is dropped, in a thread of its own.
#[derive(Debug)]
pub(super) struct Witness {
    journal: Arc<Mutex<Journal>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// `group` is the control group of the local cloud, `begin` what times count from.
    pub(super) fn start(group: &str, begin: Instant) -> Result<Self> {
        let (journal, end) = (Arc::new(Mutex::new(Journal::default())), Arc::default());
        let (shared, over, group) = (Arc::clone(&journal), Arc::clone(&end), group.to_owned());
        let look = move || {
            let mut last = begin.elapsed();
            while !AtomicBool::load(&over, Ordering::SeqCst) {
                let (at, seen) = (begin.elapsed(), members(&group));
                let mut journal: MutexGuard<'_, Journal> =
                    shared.lock().unwrap_or_else(PoisonError::into_inner);
                journal.largest_gap = journal.largest_gap.max(at.saturating_sub(last));
                journal.note(at, &seen, |id| {
                    started(id.pid) == Some(id.started) && mark(id.pid).is_some()
                });
                drop(journal);
                last = at;
                std::thread::sleep(PAUSE);
            }
        };
        let thread = std::thread::Builder::new()
            .name("witness".into())
            .spawn(look)
            .context("cannot start the witness")?;
        Ok(Self {
            journal,
            end,
            thread: Some(thread),
        })
    }

    /// What was seen until now.
    pub(super) fn journal(&self) -> Journal {
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.end.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("   the witness panicked");
        }
    }
}

/// Every process of the cells below a control group. One that ends while it is looked at is not there.
pub(super) fn members(group: &str) -> Vec<Member> {
    let needle = format!("/{group}/");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        let Some(cell) = groups.lines().find_map(|line| {
            let (_, below) = line.split_once(&needle)?;
            below.split('/').next().map(str::to_owned)
        }) else {
            continue;
        };
        let Some(started) = started(pid) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        found.push(Member {
            id: Id { pid, started },
            cell,
            program: first.rsplit('/').next().unwrap_or_default().to_owned(),
            pod: mark(pid),
        });
    }
    found
}

/// The pod a process is the first of a container of. A dead one has no environment any more.
fn mark(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    if numbers.split_whitespace().next_back() != Some("1") {
        return None;
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let value = std::str::from_utf8(variable).ok()?.strip_prefix(MARK)?;
        value.strip_prefix('=').map(str::to_owned)
    })
}

/// When a process started, in clock ticks since the machine's start.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold anything but ends at the last parenthesis; the start is the 22nd field.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: i32, cell: &str) -> Member {
        Member {
            id: Id { pid, started: 1 },
            cell: cell.into(),
            program: "sh".into(),
            pod: Some("u".into()),
        }
    }

    #[test]
    fn a_pod_that_runs_in_two_cells_at_once_is_found_out() {
        let mut journal = Journal::default();
        journal.note(Duration::from_secs(1), &[member(1, "a"), member(2, "b")], |_| {
            true
        });
        assert!(journal.doubled["u"].contains("a and b"), "{:?}", journal.doubled);
    }

    #[test]
    fn one_cell_after_the_other_is_no_doubling_even_when_one_look_sees_both() {
        let mut journal = Journal::default();
        journal.note(Duration::from_secs(1), &[member(1, "a"), member(2, "b")], |id| {
            id.pid == 2
        });
        journal.note(Duration::from_secs(2), &[member(2, "b")], |_| true);
        assert!(journal.doubled.is_empty(), "{:?}", journal.doubled);
        let runs = &journal.runs["u"];
        assert_eq!(runs.len(), 2);
        assert_eq!(runs[1].last_seen, Duration::from_secs(2));
    }

    #[test]
    fn this_very_process_is_told_from_a_later_one_with_its_number() {
        let me = std::process::id().cast_signed();
        let start = started(me).unwrap();
        assert!(start > 0);
        assert_eq!(started(me), Some(start));
    }
}
