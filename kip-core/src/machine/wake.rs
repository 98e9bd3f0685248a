//! When a state must be looked at again, whatever happens until then.

use jiff::Timestamp;

use super::backoff::after;
use super::config::StepConfig;
use super::state::{Call, LaunchCall, Link, Pod, PodState, Release, Stage, Waiting, Wanted};

/// The earliest moment at which time alone may change something. None only for a pod that has ended and is waited for by nobody.
pub(crate) fn wake_at(cfg: &StepConfig, state: &PodState, now: Timestamp) -> Option<Timestamp> {
    let pod = &state.pod;
    let mut wake = Wake {
        now,
        idle: after(now, cfg.idle_wake),
        earliest: None,
    };
    if let (
        Wanted::Run {
            active_deadline: Some(limit),
            ..
        },
        None,
        false,
    ) = (
        &pod.wanted,
        &pod.verdict,
        matches!(state.stage, Stage::Finished(_)),
    ) {
        wake.at(after(pod.seen_at, *limit));
    }
    match &state.stage {
        Stage::Pending(s) => match s.waiting {
            Waiting::Source => wake.at(after(s.since, cfg.source_patience)),
            Waiting::Placement | Waiting::NoFit(_) | Waiting::Offerings(_) => wake.at(s.retry_at),
        },
        Stage::Launching(s) => match s.call {
            LaunchCall::RepeatAt(at) | LaunchCall::LookAt(at) => wake.at(at),
            LaunchCall::InFlight | LaunchCall::Looking | LaunchCall::Held => wake.idle(),
        },
        Stage::Booting(s) => {
            wake.at(s.deadline);
            wake.unless(s.asking, s.ask_at);
        }
        Stage::Connecting(s) => {
            wake.at(s.deadline);
            wake.link(cfg, &s.link);
        }
        Stage::Deploying(s) => {
            wake.at(s.deadline);
            wake.call(&s.deploy);
            wake.link(cfg, &s.link);
        }
        Stage::Running(s) => {
            wake.idle();
            wake.link(cfg, &s.link);
            wake.call(&s.update);
            if s.silent_since.is_some() || s.address.is_none() {
                wake.unless(s.asking, s.ask_at);
            }
            if let (Some(since), false) = (s.silent_since, s.is_announced) {
                wake.at(after(since, cfg.silent_deadline));
            }
        }
        Stage::Draining(s) => {
            wake.at(s.deadline);
            wake.call(&s.stop);
            wake.link(cfg, &s.link);
        }
        Stage::Terminating(s) => {
            wake.idle();
            wake.call(&s.call);
            if s.call == Call::Idle {
                wake.at(after(s.since, cfg.publish_patience));
            }
            if is_to_release(pod) {
                wake.at(after(s.since, cfg.release_patience));
            }
        }
        Stage::BackingOff(s) => wake.at(s.until),
        Stage::Finished(s) if pod.kept.is_some() => wake.at(after(s.since, cfg.publish_patience)),
        Stage::Finished(_) => {}
    }
    if let Some(old) = &pod.outgoing {
        wake.idle();
        wake.call(&old.terminate);
        match old.terminating_since {
            None => {
                wake.at(old.deadline);
                wake.call(&old.stop);
                wake.link(cfg, &old.link);
            }
            Some(since) if is_to_release(pod) => wake.at(after(since, cfg.release_patience)),
            Some(_) => {}
        }
    }
    if let (Some(since), true) = (pod.final_since, is_to_release(pod)) {
        wake.at(after(since, cfg.publish_patience));
    }
    wake.earliest
}

fn is_to_release(pod: &Pod) -> bool {
    pod.release == Release::No && matches!(pod.wanted, Wanted::Deleted { .. })
}

struct Wake {
    now: Timestamp,
    idle: Timestamp,
    earliest: Option<Timestamp>,
}

impl Wake {
    /// A moment that has passed already had its effect, or is held back by something that is not time: then it is looked at again
    /// after a while, never in a tight loop.
    fn at(&mut self, at: Timestamp) {
        let at = if at > self.now { at } else { self.idle };
        self.earliest = Some(self.earliest.map_or(at, |earliest| earliest.min(at)));
    }

    fn idle(&mut self) {
        self.at(self.idle);
    }

    fn unless(&mut self, not: bool, at: Timestamp) {
        if !not {
            self.at(at);
        }
    }

    fn call(&mut self, call: &Call) {
        match call {
            Call::RepeatAt { at, .. } => self.at(*at),
            Call::Idle | Call::InFlight { .. } | Call::Done => {}
        }
    }

    fn link(&mut self, cfg: &StepConfig, link: &Link) {
        match link {
            Link::Up { last_seen } => self.at(after(*last_seen, cfg.report_timeout)),
            Link::Down { redial_at, .. } => self.at(*redial_at),
            Link::Dialling { .. } => self.idle(),
        }
    }
}
