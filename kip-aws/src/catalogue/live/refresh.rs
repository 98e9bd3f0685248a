//! Keeps a catalogue fresh in the background.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kip_core::error::{Error, ErrorKind, Result};
use tokio::task::JoinSet;

use super::pace::Pace;
use super::source::LiveSource;
use crate::catalogue::{Catalogue, LivePart, Stamp};

/// How often each part of the catalogue is asked for. Zero is never: then what is compiled in stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refresh {
    /// Instance types, and which zones have them. Default 6 hours.
    pub types: Duration,
    /// On-demand prices. Default 12 hours.
    pub on_demand: Duration,
    /// Spot prices. Default 10 minutes.
    pub spot: Duration,
}

impl Refresh {
    /// Nothing is asked for.
    pub const NEVER: Self = Self {
        types: Duration::ZERO,
        on_demand: Duration::ZERO,
        spot: Duration::ZERO,
    };

    /// How often a part is asked for; None is never.
    pub fn period(&self, part: LivePart) -> Option<Duration> {
        let period = match part {
            LivePart::Kinds | LivePart::Zones => self.types,
            LivePart::OnDemandPrices => self.on_demand,
            LivePart::SpotPrices => self.spot,
        };
        (!period.is_zero()).then_some(period)
    }
}

impl Default for Refresh {
    fn default() -> Self {
        Self {
            types: Duration::from_secs(6 * 3600),
            on_demand: Duration::from_secs(12 * 3600),
            spot: Duration::from_secs(600),
        }
    }
}

/// How fresh a part of a catalogue is, and what keeps it from being fresher.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartState {
    /// Which part.
    pub part: LivePart,
    /// Where it is from, and of when.
    pub stamp: Stamp,
    /// How often it could not be had, since the start.
    pub failures: u64,
    /// Why it could not be had the last time; None when it could, or was not asked for.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct Course {
    failures: u64,
    problem: Option<(ErrorKind, String)>,
}

/// The tasks that keep a catalogue fresh, one for each part. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Refreshing {
    catalogue: Arc<Catalogue>,
    courses: Arc<Courses>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Courses(Mutex<BTreeMap<LivePart, Course>>);

impl Courses {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<LivePart, Course>> {
        // Each critical section leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers how it went; answers whether that is news: a success after a failure, or a failure of another kind than the last.
    fn remember(&self, part: LivePart, outcome: &Result<usize>) -> bool {
        let mut courses = self.locked();
        let course = courses.entry(part).or_default();
        let before = course.problem.take();
        if let Err(error) = outcome {
            course.failures += 1;
            course.problem = Some((error.kind(), error.to_string()));
        }
        before.map(|(kind, _)| kind) != outcome.as_ref().err().map(Error::kind)
    }
}

/// Says how it went, aloud only when it is news: a denied call would fill the log otherwise.
fn say(part: LivePart, outcome: &Result<usize>, is_news: bool) {
    match outcome {
        Ok(rejected) if is_news => tracing::info!(%part, rejected, "EC2 tells again"),
        Ok(rejected) => tracing::debug!(%part, rejected, "refreshed"),
        Err(error) if is_news => {
            tracing::warn!(%part, error = %error.chain(), "cannot be refreshed; what is known stays in use")
        }
        Err(error) => tracing::debug!(%part, error = %error.chain(), "cannot be refreshed, as before"),
    }
}

impl Refreshing {
    /// Begins: each part is asked for at once, then in its period. Must be called in a tokio runtime.
    pub(crate) fn start(catalogue: Arc<Catalogue>, source: &LiveSource, refresh: Refresh) -> Self {
        let courses = Arc::new(Courses::default());
        let mut tasks = JoinSet::new();
        for part in LivePart::ALL {
            let Some(period) = refresh.period(part) else {
                continue;
            };
            if !source.has(part) {
                tracing::info!(%part, "cannot be refreshed here; what is known stays in use");
                continue;
            }
            let (catalogue, source, courses) = (Arc::clone(&catalogue), source.clone(), Arc::clone(&courses));
            tasks.spawn(async move {
                let mut pace = Pace::new(period);
                loop {
                    let outcome = refresh_once(&catalogue, &source, part).await;
                    say(part, &outcome, courses.remember(part, &outcome));
                    tokio::time::sleep(pace.next(outcome.is_ok(), random())).await;
                }
            });
        }
        Self {
            catalogue,
            courses,
            _tasks: tasks,
        }
    }

    /// The catalogue.
    pub(crate) fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// How fresh each part is.
    pub(crate) fn parts(&self) -> Vec<PartState> {
        let snapshot = self.catalogue.snapshot();
        let courses = self.courses.locked();
        LivePart::ALL
            .into_iter()
            .map(|part| {
                let course = courses.get(&part).cloned().unwrap_or_default();
                PartState {
                    part,
                    stamp: snapshot.stamp(part),
                    failures: course.failures,
                    problem: course.problem.map(|(_, message)| message),
                }
            })
            .collect()
    }
}

/// Asks for a part and takes it in; answers how many elements made no sense.
async fn refresh_once(catalogue: &Catalogue, source: &LiveSource, part: LivePart) -> Result<usize> {
    let as_of = Timestamp::now();
    let fetched = source.fetch(part).await?;
    catalogue.update(fetched.live, as_of).map_err(Error::from)?;
    Ok(fetched.rejected)
}

/// From 0 to 1. The standard library's seeds differ from process to process and from call to call, which is all that is needed.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A permission that is missing on purpose must not fill the log for months, nor hide what happens to the next part.
    #[test]
    fn a_failure_is_news_once_until_something_changes() {
        let courses = Courses::default();
        let failed = |kind| Err(Error::new(kind, "refresh", "no"));
        let (denied, late) = (failed(ErrorKind::PermissionDenied), failed(ErrorKind::Timeout));
        for (part, outcome, is_news) in [
            (LivePart::SpotPrices, &Ok(0), false),
            (LivePart::SpotPrices, &denied, true),
            (LivePart::SpotPrices, &denied, false),
            (LivePart::Kinds, &denied, true),
            (LivePart::SpotPrices, &late, true),
            (LivePart::SpotPrices, &denied, true),
            (LivePart::SpotPrices, &Ok(3), true),
            (LivePart::SpotPrices, &Ok(0), false),
        ] {
            assert_eq!(courses.remember(part, outcome), is_news, "{part} {outcome:?}");
        }
        assert_eq!(courses.locked()[&LivePart::SpotPrices].failures, 4);
    }
}
