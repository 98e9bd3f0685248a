//! What follows from the cloud's announcements about instances, whichever way they come: from the provider's feed, or from the agent, which
//! tells with each report all that stands.

use std::sync::Arc;

use jiff::Timestamp;

use super::config::DriverConfig;
use super::core::{Core, Key};
use super::source::PodNotice;
use crate::ids::InstanceId;
use crate::machine::{Event, Phase, PodState, StepConfig, after};
use crate::model::{CapacityType, InstanceNotice, NoticeKind, RuntimeReport};
use crate::provider::InterruptionNotice;

/// What makes an announcement another one: the instance, what is announced, and for when where that may change.
pub(super) type Noticed = (InstanceId, NoticeKind, Option<Timestamp>);

/// Announcements remembered of one instance. Further ones are acted on, but neither told nor counted: a cloud does not make so many, and
/// an agent that makes them up would fill the memory with them and the API server with events.
const MOST_NOTICED: usize = 32;

/// Which way a notice came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the provider's feed.
    Feed,
    /// From the agent, which what runs in the pod may have taken over.
    Agent,
}

impl Core {
    /// Acts on a notice of the provider's feed. Of an instance that Kip is ending itself the cloud says that it ends; that is no news.
    pub(super) fn heed_feed(self: &Arc<Self>, notice: &InterruptionNotice) {
        let is_concerned = |state: &PodState| {
            state.instance() == Some(&notice.instance) && state.phase() != Phase::Terminating
        };
        let keys: Vec<Key> = {
            let slots = self.slots();
            let concerned = slots.iter().filter(|(_, slot)| is_concerned(&slot.state));
            concerned.map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            self.heed(
                &key,
                Way::Feed,
                std::slice::from_ref(&notice.notice),
                is_concerned,
            );
        }
    }

    /// Acts on what an agent reports of its instance. It says it again and again, so what is not due yet is looked at again.
    pub(super) fn heed_report(self: &Arc<Self>, key: &Key, attempt: u32, report: &RuntimeReport) {
        self.heed(key, Way::Agent, &report.notices, |state| {
            let is_under_way = matches!(
                state.phase(),
                Phase::Connecting | Phase::Deploying | Phase::Running
            );
            is_under_way && state.record().is_some_and(|record| record.attempt == attempt)
        });
    }

    /// All notices at once, so that one agent's many do not take the lock from all other pods.
    fn heed(
        self: &Arc<Self>,
        key: &Key,
        way: Way,
        notices: &[InstanceNotice],
        is_about: impl Fn(&PodState) -> bool + Send,
    ) {
        if notices.is_empty() {
            return;
        }
        let now = self.clock.now();
        let mut all_told = Vec::new();
        let mut is_any_due = false;
        {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(key).filter(|slot| is_about(&slot.state)) else {
                return;
            };
            let Some(instance) = slot.state.instance().cloned() else {
                return;
            };
            let pod = &slot.state.pod;
            let is_spot = slot
                .state
                .record()
                .is_some_and(|record| record.offering.capacity_type == CapacityType::Spot);
            // Of a pod that is not known or not to run any more nobody wants to hear.
            let may_tell = pod.may_run();
            slot.noticed.retain(|(known, ..)| *known == instance);
            let mut is_waiting = slot.inbox.iter().any(|(_, event)| {
                matches!(event, Event::Interrupted { instance: known, .. } if *known == instance)
            });
            for notice in notices {
                let is_credible = is_credible(way, notice.kind, is_spot);
                let is_due = is_credible && is_due(&self.config, notice, pod.is_restartable(), now);
                is_any_due |= is_due;
                if is_due && !is_waiting {
                    is_waiting = true;
                    let event = Event::Interrupted {
                        instance: instance.clone(),
                        deadline: deadline(&self.step, notice, now),
                        reason: notice.reason.clone(),
                    };
                    slot.inbox.push_back((now, event));
                }
                if may_tell
                    && slot.noticed.len() < MOST_NOTICED
                    && slot.noticed.insert(identity(&instance, notice))
                {
                    self.counters.notice(notice.kind);
                    // What is due is told by the machine, with what it makes of it.
                    if !is_credible {
                        all_told.push(doubted(notice));
                    } else if !is_due {
                        all_told.extend(told(notice));
                    }
                }
            }
        }
        if is_any_due {
            self.queue.push(key.clone());
        }
        if all_told.is_empty() {
            return;
        }
        let (core, key) = (Arc::clone(self), key.clone());
        self.tasks.spawn(async move {
            for told in all_told {
                core.tell(&key, told).await;
            }
        });
    }
}

/// Whether the pod may have to move for it. Clouds take only spot instances back; an agent that says it of another is broken, or lies to
/// have one instance bought after the other.
fn is_credible(way: Way, kind: NoticeKind, is_spot: bool) -> bool {
    match kind {
        NoticeKind::Interruption => way == Way::Feed || is_spot,
        NoticeKind::Maintenance | NoticeKind::LiveMaintenance | NoticeKind::Rebalance => true,
    }
}

/// When the pod must be off its instance. A maintenance says when it begins at the earliest: once that has passed it may be near or far,
/// and the pod gets its whole grace; what is interrupted has no more time than the cloud gives.
fn deadline(step: &StepConfig, notice: &InstanceNotice, now: Timestamp) -> Timestamp {
    match notice.kind {
        NoticeKind::Maintenance | NoticeKind::LiveMaintenance => {
            let whole_grace = step.stop_grace.saturating_add(step.interruption_margin);
            notice.at.max(after(now, whole_grace))
        }
        NoticeKind::Interruption | NoticeKind::Rebalance => notice.at,
    }
}

/// Whether the pod must leave its instance now.
fn is_due(config: &DriverConfig, notice: &InstanceNotice, is_restartable: bool, now: Timestamp) -> bool {
    match notice.kind {
        NoticeKind::Interruption => true,
        NoticeKind::Maintenance => {
            let lead = if is_restartable {
                config.maintenance_lead
            } else {
                config.maintenance_last
            };
            let first = notice.at.checked_sub(lead).unwrap_or(Timestamp::MIN);
            now >= first
        }
        NoticeKind::LiveMaintenance | NoticeKind::Rebalance => false,
    }
}

/// A maintenance that is put off is another one; of the others one word an instance is enough, and clocks may differ between two ways.
fn identity(instance: &InstanceId, notice: &InstanceNotice) -> Noticed {
    let at = match notice.kind {
        NoticeKind::Maintenance | NoticeKind::LiveMaintenance => Some(notice.at),
        NoticeKind::Interruption | NoticeKind::Rebalance => None,
    };
    (instance.clone(), notice.kind, at)
}

/// What the pod's user reads of an interruption that cannot be.
fn doubted(notice: &InstanceNotice) -> PodNotice {
    let InstanceNotice { at, reason, .. } = notice;
    PodNotice::warning(
        "InterruptionDoubted",
        format!(
            "The agent says that the cloud takes the pod's instance back at {at}, but it is no spot instance; the pod runs on: {reason}"
        ),
    )
}

/// What the pod's user reads of something that is not acted on now.
fn told(notice: &InstanceNotice) -> Option<PodNotice> {
    let InstanceNotice { kind, at, reason } = notice;
    match kind {
        NoticeKind::Interruption => None,
        NoticeKind::Maintenance => Some(PodNotice::warning(
            "MaintenanceScheduled",
            format!(
                "The cloud will end what runs on the pod's instance, not before {at}; the pod is moved before that if its restart policy allows it: {reason}"
            ),
        )),
        NoticeKind::LiveMaintenance => Some(PodNotice::normal(
            "MaintenanceScheduled",
            format!(
                "The pod's instance may be slow or unreachable for a while, not before {at}; the pod runs on: {reason}"
            ),
        )),
        NoticeKind::Rebalance => Some(PodNotice::normal(
            "RebalanceRecommended",
            format!(
                "The pod's instance is more likely than others to be taken back soon; the pod runs on: {reason}"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::ids::{ClusterUid, NodeName};
    use crate::machine::Identity;

    /// Weeks of work must not be given up for a reboot at the end of them, nor the pod be there still when it comes.
    #[test]
    fn a_pod_leaves_when_there_is_time_enough_to_leave_and_not_before() {
        let config = DriverConfig::default();
        let now = Timestamp::UNIX_EPOCH;
        let due = |kind, minutes: i64, is_restartable| {
            let at = now + SignedDuration::from_mins(minutes);
            let reason = String::new();
            is_due(&config, &InstanceNotice { kind, at, reason }, is_restartable, now)
        };
        let cases = [
            (NoticeKind::Interruption, 60, true, true),
            (NoticeKind::Interruption, -1, false, true),
            (NoticeKind::Maintenance, 14 * 24 * 60, true, false),
            (NoticeKind::Maintenance, 11, true, false),
            (NoticeKind::Maintenance, 10, true, true),
            (NoticeKind::Maintenance, -1, true, true),
            (NoticeKind::Maintenance, 10, false, false),
            (NoticeKind::Maintenance, 2, false, true),
            (NoticeKind::LiveMaintenance, 0, true, false),
            (NoticeKind::Rebalance, 0, true, false),
        ];
        for (kind, minutes, is_restartable, wanted) in cases {
            assert_eq!(
                due(kind, minutes, is_restartable),
                wanted,
                "{kind} in {minutes} min, restartable: {is_restartable}"
            );
        }
    }

    /// A maintenance that may begin at any time must not kill at once what it may leave alone for hours yet.
    #[test]
    fn a_maintenance_whose_begin_has_passed_leaves_the_pod_its_grace() {
        let step = StepConfig::new(Identity {
            cluster: ClusterUid::new("c"),
            node: NodeName::new("n"),
        });
        let now = Timestamp::UNIX_EPOCH;
        let seconds_left = |kind, seconds: i64| {
            let at = now + SignedDuration::from_secs(seconds);
            let reason = String::new();
            let deadline = deadline(&step, &InstanceNotice { kind, at, reason }, now);
            deadline.duration_since(now).as_secs()
        };
        let cases = [
            (NoticeKind::Maintenance, -60, 35),
            (NoticeKind::Maintenance, 10, 35),
            (NoticeKind::Maintenance, 600, 600),
            (NoticeKind::Interruption, -60, -60),
            (NoticeKind::Interruption, 120, 120),
        ];
        for (kind, seconds, wanted) in cases {
            assert_eq!(seconds_left(kind, seconds), wanted, "{kind} in {seconds} s");
        }
    }
}
