//! What an agent says, as our model: checked at the edge, so that nothing impossible gets further.

use std::net::IpAddr;

use jiff::Timestamp;
use kip_cell_api::v1;

use crate::cell::bounds::{self, cut};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    AgentEvent, ContainerReport, ContainerState, InstanceNotice, NoticeKind, RuntimeReport, StartMarks,
    Termination,
};
use crate::runtime::{ContainerStats, PodStats};

/// The protobuf form of a moment.
pub(crate) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
    // Before 1970 jiff counts nanoseconds backwards, protobuf never does.
    if nanos < 0 {
        seconds -= 1;
        nanos += 1_000_000_000;
    }
    prost_types::Timestamp { seconds, nanos }
}

fn wrong(field: &'static str, value: impl std::fmt::Debug) -> Error {
    Error::new(
        ErrorKind::Unexpected,
        "read agent's message",
        "the agent sent an impossible value",
    )
    .with_context(field, format_args!("{value:?}"))
}

fn moment(field: &'static str, from: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>> {
    from.map(|at| Timestamp::new(at.seconds, at.nanos).map_err(|_| wrong(field, (at.seconds, at.nanos))))
        .transpose()
}

fn moment_required(field: &'static str, from: Option<prost_types::Timestamp>) -> Result<Timestamp> {
    moment(field, from)?.ok_or_else(|| wrong(field, "unset"))
}

/// A status snapshot, with no more text than [`bounds`] allows.
pub(crate) fn report(from: v1::StatusSnapshot) -> Result<RuntimeReport> {
    let marks = from.marks.unwrap_or_default();
    let old_events = from.events.len().saturating_sub(bounds::EVENTS);
    Ok(RuntimeReport {
        pod_uid: cut(from.pod_uid, bounds::NAME),
        observed_generation: from.observed_generation,
        boot_id: cut(from.boot_id, bounds::NAME),
        sandbox_ready: from.sandbox_ready,
        pod_ips: from
            .pod_ips
            .iter()
            .take(bounds::ADDRESSES)
            .map(|ip| ip.parse::<IpAddr>().map_err(|_| wrong("pod_ips", ip)))
            .collect::<Result<_>>()?,
        init_containers: from
            .init_containers
            .into_iter()
            .map(container)
            .collect::<Result<_>>()?,
        containers: from
            .containers
            .into_iter()
            .map(container)
            .collect::<Result<_>>()?,
        stopping: from.stopping,
        stop_reason: cut(from.stop_reason, bounds::REASON),
        finished: from.finished,
        sandbox_error: (!from.sandbox_error.is_empty()).then(|| cut(from.sandbox_error, bounds::MESSAGE)),
        marks: StartMarks {
            agent_started_at: moment("agent_started_at", marks.agent_started_at)?,
            deployed_at: moment("deployed_at", marks.deployed_at)?,
            sandbox_ready_at: moment("sandbox_ready_at", marks.sandbox_ready_at)?,
            images_ready_at: moment("images_ready_at", marks.images_ready_at)?,
            running_at: moment("running_at", marks.running_at)?,
        },
        events: from
            .events
            .into_iter()
            .skip(old_events)
            .map(event)
            .collect::<Result<_>>()?,
        notices: from
            .notices
            .into_iter()
            .filter_map(|from| notice(from).transpose())
            .take(bounds::ANNOUNCEMENTS)
            .collect::<Result<_>>()?,
    })
}

/// None for a kind that a newer agent tells and this version does not know.
fn notice(from: v1::InstanceNotice) -> Result<Option<InstanceNotice>> {
    let kind = match from.kind() {
        v1::NoticeKind::Interruption => NoticeKind::Interruption,
        v1::NoticeKind::Maintenance => NoticeKind::Maintenance,
        v1::NoticeKind::LiveMaintenance => NoticeKind::LiveMaintenance,
        v1::NoticeKind::Rebalance => NoticeKind::Rebalance,
        v1::NoticeKind::Unspecified => return Ok(None),
    };
    let at = moment_required("notices.at", from.at)?;
    let reason = cut(from.reason, bounds::ANNOUNCEMENT);
    Ok(Some(InstanceNotice { kind, at, reason }))
}

fn event(from: v1::AgentEvent) -> Result<AgentEvent> {
    Ok(AgentEvent {
        id: from.id,
        at: moment_required("events.at", from.at)?,
        warning: from.warning,
        reason: cut(from.reason, bounds::REASON),
        message: cut(from.message, bounds::MESSAGE),
        container: cut(from.container, bounds::NAME),
    })
}

fn container(from: v1::ContainerStatus) -> Result<ContainerReport> {
    use v1::container_state::State;

    let state = match from.state.and_then(|state| state.state) {
        Some(State::Running(running)) => ContainerState::Running {
            started_at: moment_required("running.started_at", running.started_at)?,
        },
        Some(State::Terminated(ended)) => ContainerState::Terminated(termination(ended)?),
        Some(State::Waiting(waiting)) => ContainerState::Waiting {
            reason: cut(waiting.reason, bounds::REASON),
            message: cut(waiting.message, bounds::MESSAGE),
        },
        // A state this version does not know: the container is not known to run.
        None => ContainerState::Waiting {
            reason: "ContainerCreating".into(),
            message: String::new(),
        },
    };
    let last_state = match from.last_state.and_then(|state| state.state) {
        Some(State::Terminated(ended)) => Some(termination(ended)?),
        Some(State::Running(_) | State::Waiting(_)) | None => None,
    };
    Ok(ContainerReport {
        name: cut(from.name, bounds::NAME),
        image: cut(from.image, bounds::NAME),
        image_id: cut(from.image_id, bounds::NAME),
        container_id: cut(from.container_id, bounds::NAME),
        restart_count: from.restart_count,
        state,
        last_state,
        ready: from.ready,
        started: from.started,
    })
}

fn termination(from: v1::Terminated) -> Result<Termination> {
    Ok(Termination {
        exit_code: from.exit_code,
        signal: from.signal,
        reason: cut(from.reason, bounds::REASON),
        message: cut(from.message, bounds::MESSAGE),
        started_at: moment("terminated.started_at", from.started_at)?,
        finished_at: moment("terminated.finished_at", from.finished_at)?,
        container_id: cut(from.container_id, bounds::NAME),
    })
}

/// A sample of resource usage.
pub(crate) fn stats(from: v1::StatsSample) -> Result<PodStats> {
    Ok(PodStats {
        at: moment_required("stats.at", from.at)?,
        containers: from
            .containers
            .into_iter()
            .map(|one| {
                Ok(ContainerStats {
                    name: cut(one.name, bounds::NAME),
                    cpu_nanoseconds: one.cpu_nanoseconds,
                    memory_working_set_bytes: one.memory_working_set_bytes,
                    memory_usage_bytes: one.memory_usage_bytes,
                    memory_rss_bytes: one.memory_rss_bytes,
                    filesystem_used_bytes: one.filesystem_used_bytes,
                    started_at: moment("stats.started_at", one.started_at)?,
                })
            })
            .collect::<Result<_>>()?,
        network_rx_bytes: from.network_rx_bytes,
        network_tx_bytes: from.network_tx_bytes,
    })
}
