//! Many seeds on all cores.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::judge::Violation;
use super::run::{Outcome, run};
use super::scenario::Scenario;

/// What many stories came to.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// How many were run.
    pub seeds: u64,
    /// Launch calls that reached the cloud.
    pub launches: u64,
    /// Of these, those answered that there is no capacity.
    pub wasted: u64,
    /// Instances made.
    pub instances: u64,
    /// Pods.
    pub pods: u64,
    /// Crashes of a controller.
    pub crashes: u64,
    /// Faults that struck, by kind.
    pub injected: BTreeMap<&'static str, u64>,
    /// Virtual time of all together, in milliseconds.
    pub virtual_ms: u64,
    /// Real time.
    pub took: Duration,
    /// Stories in which a rule was broken, by seed.
    pub failures: Vec<Failure>,
}

/// A story in which a rule was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The story.
    pub scenario: Scenario,
    /// What was broken.
    pub violations: Vec<Violation>,
}

impl Fleet {
    fn add(&mut self, scenario: Scenario, outcome: Outcome) {
        self.seeds += 1;
        self.launches += outcome.launches;
        self.wasted += outcome.wasted;
        self.instances += outcome.instances;
        self.pods += outcome.pods;
        self.crashes += outcome.crashes;
        self.virtual_ms += outcome.virtual_ms;
        for (what, count) in outcome.injected {
            *self.injected.entry(what).or_default() += count;
        }
        if !outcome.violations.is_empty() {
            self.failures.push(Failure {
                scenario,
                violations: outcome.violations,
            });
        }
    }
}

/// Runs the stories of these seeds on so many threads. Gives up early after `enough` failures.
pub fn fleet(
    seeds: std::ops::Range<u64>,
    threads: usize,
    enough: usize,
    draw: impl Fn(u64) -> Scenario + Sync,
) -> Fleet {
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Fleet::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    let scenario = draw(seed);
                    let outcome = run_safely(&scenario);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    total.add(scenario, outcome);
                    if total.failures.len() >= enough {
                        return;
                    }
                }
            });
        }
    });
    let mut total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    total.failures.sort_by_key(|failure| failure.scenario.seed);
    total.took = began.elapsed();
    total
}

/// Runs a story; a panic is a broken rule like any other.
pub(super) fn run_safely(scenario: &Scenario) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        Outcome {
            violations: vec![Violation {
                rule: "panic",
                ms: 0,
                about: Vec::new(),
                text,
            }],
            ..Outcome::default()
        }
    })
}
