//! Counts manifests so that a host always takes the newest, whoever built it, and tells which one a report is about.

use jiff::Timestamp;

use super::registry::{Built, Entry};
use crate::model::PodReport;

/// Generation of the pod's spec that what is reported acts on.
pub(crate) fn acted_on(entry: &Entry, report: &PodReport) -> i64 {
    let newest = entry.pod.metadata.generation.unwrap_or(0);
    match (&entry.built, &report.runtime) {
        (Some(built), Some(runtime)) if runtime.observed_generation != built.manifest => built.previous_pod,
        (Some(built), _) => built.pod,
        (None, _) => newest,
    }
}

/// The generation of a new manifest: above all that this controller built and above all that the host says it has, whoever built that, or
/// the host would take it for an old one. The clock makes it differ from what another controller builds that the host has not told of yet;
/// should that one's clock be ahead, [`PodRegistry::observed`](super::registry::PodRegistry::observed) sees it as soon as the host tells.
pub(crate) fn generation(built: Option<&Built>, report: Option<&PodReport>, now: Timestamp) -> u64 {
    let clock = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let own = built.map_or(0, |built| built.manifest);
    let observed = report
        .and_then(|report| report.runtime.as_ref())
        .map_or(0, |runtime| runtime.observed_generation);
    clock.max(own.max(observed).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PodPhase, RuntimeReport};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("a time")
    }

    fn heard(generation: u64) -> PodReport {
        let mut report = PodReport::new(PodPhase::Running, "", "");
        report.runtime = Some(
            RuntimeReport {
                observed_generation: generation,
                ..RuntimeReport::default()
            }
            .into(),
        );
        report
    }

    fn built(manifest: u64) -> Built {
        Built {
            manifest,
            pod: 1,
            previous_pod: 1,
            fingerprint: 0,
            renew_at: None,
        }
    }

    #[test]
    fn a_change_reaches_the_host_although_the_controller_before_had_a_faster_clock() {
        assert_eq!(generation(None, Some(&heard(9_000)), at(5_000)), 9_001);
        assert_eq!(
            generation(Some(&built(9_500)), Some(&heard(9_000)), at(5_000)),
            9_501
        );
    }

    #[test]
    fn two_first_manifests_of_two_controllers_differ_although_neither_has_heard_of_the_host() {
        assert_eq!(generation(None, None, at(5_000)), 5_000);
        assert_eq!(generation(Some(&built(5_000)), None, at(5_000)), 5_001);
    }
}
