//! What follows from the cloud's announcements about instances, whichever way they come: from the provider's feed, or from the agent, which
//! tells with each report all that stands.

use std::sync::Arc;

use jiff::Timestamp;

use super::config::DriverConfig;
use super::core::{Core, Key};
use super::source::PodNotice;
use crate::ids::InstanceId;
use crate::machine::{Event, Phase, PodState};
use crate::model::{InstanceNotice, NoticeKind, RuntimeReport};
use crate::provider::InterruptionNotice;

/// What makes an announcement another one: the instance, what is announced, and for when where that may change.
pub(super) type Noticed = (InstanceId, NoticeKind, Option<Timestamp>);

impl Core {
    /// Acts on a notice of the provider's feed.
    pub(super) fn heed_feed(self: &Arc<Self>, notice: &InterruptionNotice) {
        let keys: Vec<Key> = {
            let slots = self.slots();
            let concerned = slots
                .iter()
                .filter(|(_, slot)| slot.state.instance() == Some(&notice.instance));
            concerned.map(|(key, _)| key.clone()).collect()
        };
        for key in keys {
            self.heed(&key, &notice.notice, |state| {
                state.instance() == Some(&notice.instance)
            });
        }
    }

    /// Acts on what an agent reports of its instance. It says it again and again, so what is not due yet is looked at again.
    pub(super) fn heed_report(self: &Arc<Self>, key: &Key, attempt: u32, report: &RuntimeReport) {
        for notice in &report.notices {
            self.heed(key, notice, |state| {
                let is_under_way = matches!(
                    state.phase(),
                    Phase::Connecting | Phase::Deploying | Phase::Running
                );
                is_under_way && state.record().is_some_and(|record| record.attempt == attempt)
            });
        }
    }

    fn heed(
        self: &Arc<Self>,
        key: &Key,
        notice: &InstanceNotice,
        is_about: impl Fn(&PodState) -> bool + Send,
    ) {
        let now = self.clock.now();
        let (is_due, is_news) = {
            let mut slots = self.slots();
            let Some(slot) = slots.get_mut(key).filter(|slot| is_about(&slot.state)) else {
                return;
            };
            let Some(instance) = slot.state.instance().cloned() else {
                return;
            };
            let pod = &slot.state.pod;
            let is_due = is_due(&self.config, notice, pod.is_restartable(), now);
            // Of a pod that is not known or not to run any more nobody wants to hear.
            let may_tell = pod.may_run();
            slot.noticed.retain(|(known, ..)| *known == instance);
            let is_news = may_tell && slot.noticed.insert(identity(&instance, notice));
            let is_waiting = slot.inbox.iter().any(|(_, event)| {
                matches!(event, Event::Interrupted { instance: known, .. } if *known == instance)
            });
            if is_due && !is_waiting {
                let event = Event::Interrupted {
                    instance,
                    deadline: notice.at,
                    reason: notice.reason.clone(),
                };
                slot.inbox.push_back((now, event));
            }
            (is_due, is_news)
        };
        if is_due {
            self.queue.push(key.clone());
        }
        if !is_news {
            return;
        }
        self.counters.notice(notice.kind);
        // What is due is told by the machine, with what it makes of it.
        if let Some(told) = told(notice).filter(|_| !is_due) {
            let (core, key) = (Arc::clone(self), key.clone());
            self.tasks.spawn(async move { core.tell(&key, told).await });
        }
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
}
