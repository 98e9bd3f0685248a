//! Keeps logs from filling the disk: a file over the limit is put aside and the runtime opens a new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::files;
use crate::cri::Runtime;
use crate::reconcile::View;

/// Largest log file before it is put aside.
const LARGEST: u64 = 10 * 1024 * 1024;
/// Files kept of one run, the current one included.
const KEPT: usize = 5;
/// How often sizes are looked at. The kernel's change notices are no help: a busy log has thousands a second.
const EVERY: Duration = Duration::from_secs(10);

/// Watches the sizes until the reconciler ends.
pub(crate) async fn rotate(runtime: Runtime, view: watch::Receiver<Arc<View>>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while view.has_changed().is_ok() {
        ticks.tick().await;
        let runs: Vec<(String, PathBuf)> = view
            .borrow()
            .seen
            .runs
            .values()
            .filter(|run| run.is_alive() && !run.log_path.is_empty())
            .map(|run| (run.id.clone(), PathBuf::from(&run.log_path)))
            .collect();
        for (id, path) in runs {
            if let Err(error) = rotate_one(&runtime, &id, &path, LARGEST).await {
                tracing::warn!(container = id, error, "a log could not be rotated");
            }
        }
    }
}

/// Rotates one log if it is over `largest` bytes.
pub(super) async fn rotate_one(runtime: &Runtime, id: &str, path: &Path, largest: u64) -> Result<(), String> {
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size <= largest {
        return Ok(());
    }
    let aside = put_aside(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if let Err(error) = runtime.reopen_log(id).await {
        // The runtime goes on writing to the old file: give it its name back.
        fs::rename(&aside, path).map_err(|error| format!("{}: {error}", path.display()))?;
        return Err(error.to_string());
    }
    Ok(())
}

/// Renames the file with the time behind its name and removes the oldest beyond what is kept.
pub(super) fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let stamp = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S-%9f").to_string();
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{stamp}"));
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside)?;
    let rotated = files::rotated(path)?;
    for old in rotated.iter().take(rotated.len().saturating_sub(KEPT - 1)) {
        fs::remove_file(old)?;
    }
    Ok(aside)
}
