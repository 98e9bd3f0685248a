//! A story in plain words.

use std::fmt::Write as _;

use super::run::Outcome;
use super::scenario::{Fault, Harm, How, Scenario, WatchHarm};

/// How many lines of a trace a story quotes at most.
const QUOTED: usize = 120;

/// Who does what when, what is broken, and the part of the trace that is about it.
pub fn story(scenario: &Scenario, outcome: &Outcome) -> String {
    let mut text = String::new();
    for violation in &outcome.violations {
        let _ = writeln!(
            text,
            "BROKEN at {}: {}: {}",
            time(violation.ms),
            violation.rule,
            violation.text
        );
    }
    let world = &scenario.world;
    let _ = writeln!(
        text,
        "The world of seed {}: instances boot in {}, agents answer {} later, a terminate takes {}, list lags by up to {}; faults stop at {}.",
        scenario.seed,
        time(world.boot_ms),
        time(world.agent_ms),
        time(world.terminate_ms),
        time(world.list_lag_ms),
        time(world.horizon_ms),
    );
    for pod in &scenario.pods {
        let _ = write!(
            text,
            "  {}: created at {}, restart {:?}",
            pod.name,
            time(pod.create_ms),
            pod.restart
        );
        match (pod.work.runs_ms, &pod.work.waits_as) {
            (_, Some(reason)) => {
                let _ = write!(text, ", waits as {reason}");
            }
            (Some(runs), None) => {
                let _ = write!(text, ", ends with {} after {}", pod.work.exit_code, time(runs));
            }
            (None, None) => text.push_str(", runs until deleted"),
        }
        if let Some(limit) = pod.active_deadline_s {
            let _ = write!(text, ", may be active for {limit} s");
        }
        if let Some((at, grace)) = pod.delete {
            let _ = write!(text, ", deleted at {} with {grace} s of grace", time(at));
        }
        if let Some(at) = pod.force_ms {
            let _ = write!(text, ", removed by force at {}", time(at));
        }
        text.push('\n');
    }
    for fault in &scenario.faults {
        let _ = writeln!(text, "  {}", words(fault));
    }
    let about: Vec<&String> = outcome
        .violations
        .iter()
        .flat_map(|violation| &violation.about)
        .collect();
    let is_about = |line: &String| {
        about.is_empty()
            || about
                .iter()
                .any(|name| !name.is_empty() && line.contains(name.as_str()))
            || !(line.contains(" uid-") || line.contains(" i-") || line.contains('#'))
    };
    let lines: Vec<&String> = outcome.trace.iter().filter(|line| is_about(line)).collect();
    let _ = writeln!(text, "What happened:");
    for line in lines.iter().skip(lines.len().saturating_sub(QUOTED)) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn time(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

fn words(fault: &Fault) -> String {
    match fault {
        Fault::Call { op, nth, how } => {
            let name = super::world::operation(*op);
            match how {
                How::Fail(kind) => format!("{name} number {nth} fails as {kind:?}, without effect"),
                How::LostReply(kind) => {
                    format!("{name} number {nth} takes effect, and its reply is lost ({kind:?})")
                }
                How::Late(ms) => format!(
                    "{name} number {nth} times out, and takes effect {} later",
                    time(*ms)
                ),
                How::Slow(ms) => format!("{name} number {nth} takes {}", time(*ms)),
                How::SlowReply(ms) => format!("{name} number {nth} is answered {} later", time(*ms)),
                How::Hang => format!("{name} number {nth} takes effect and is never answered"),
                How::Stale => format!("{name} number {nth} is answered with what was true before"),
            }
        }
        Fault::Watch { nth, after_ms, harm } => {
            let what = match harm {
                WatchHarm::Break => "ends".into(),
                WatchHarm::Gone => "is told that it is too old".into(),
                WatchHarm::Lag { ms } => format!("lags by {} from then on", time(*ms)),
            };
            format!(
                "the watch of pods number {nth}, {} after its start, {what}",
                time(*after_ms)
            )
        }
        Fault::Outage { part, at_ms, for_ms } => {
            format!(
                "{part:?} cannot be reached from {} for {}",
                time(*at_ms),
                time(*for_ms)
            )
        }
        Fault::Dry {
            offering,
            at_ms,
            for_ms,
        } => format!(
            "offering {offering} is out of capacity from {} for {}",
            time(*at_ms),
            time(*for_ms)
        ),
        Fault::Instance { nth, after_ms, harm } => {
            let what = match harm {
                Harm::Die { shown_ms } => format!("dies and is shown as terminated for {}", time(*shown_ms)),
                Harm::Interrupt { notice_ms } => format!("is taken back with {} of notice", time(*notice_ms)),
                Harm::Silent { for_ms: Some(ms) } => format!("has an unreachable agent for {}", time(*ms)),
                Harm::Silent { for_ms: None } => "has an unreachable agent until faults stop".into(),
                Harm::LosePod => "starts anew and forgets its pod".into(),
                Harm::StuckPending => return format!("instance number {nth} never gets beyond pending"),
                Harm::SlowBoot { ms } => return format!("instance number {nth} boots {} later", time(*ms)),
            };
            format!(
                "instance number {nth}, {} after its launch, {what}",
                time(*after_ms)
            )
        }
        Fault::Crash {
            at_ms,
            moments,
            down_ms,
        } => format!(
            "the controller crashes {moments} moments after {} and is away for {}",
            time(*at_ms),
            time(*down_ms)
        ),
        Fault::Shutdown { at_ms, down_ms } => {
            format!(
                "the controller is shut down at {} and is away for {}",
                time(*at_ms),
                time(*down_ms)
            )
        }
        Fault::SplitBrain {
            at_ms,
            cut_ms,
            overlap_ms,
        } => format!(
            "the controller is cut off at {}, another takes over, the old one wakes up {} later and acts for {}",
            time(*at_ms),
            time(*cut_ms),
            time(*overlap_ms)
        ),
        Fault::ClockJump { at_ms, by_ms } => {
            format!("the controller's clock jumps by {by_ms} ms at {}", time(*at_ms))
        }
        Fault::Plant { at_ms, kind } => format!(
            "an instance that is not ours appears at {} ({kind:?})",
            time(*at_ms)
        ),
    }
}
