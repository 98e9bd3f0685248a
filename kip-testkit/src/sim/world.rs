//! What is shared by everything in a story: time, the cloud, hosts, pods and records as they truly are, the judge, and the trace.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kip_core::ids::{CellName, PodUid};
use kip_core::model::CellRecord;
use kip_core::provider::InterruptionNotice;
use kip_core::{Error, ErrorKind, Result, Retry};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use super::cloud::Cloud;
use super::judge::Judge;
use super::pods::PodTruth;
use super::port::Port;
use super::rng::mix;
use super::scenario::{Fault, How, Kind, Op, Part, Scenario};

/// 2026-01-01T00:00:00Z: any fixed time will do.
const START: i64 = 1_767_225_600;

/// How often one life of a controller may make the same call about the same thing within a minute, at most: more is a loop that waits for
/// nothing. Where calls take long even such a loop makes few of them, so there it is three quarters of what it could make.
const CALLS_A_MINUTE: u64 = 300;

/// What is shared by everything in a story.
#[derive(Debug)]
pub(super) struct World {
    pub(super) scenario: Arc<Scenario>,
    start: Timestamp,
    anchor: Instant,
    state: Mutex<State>,
    /// Woken when a host or an instance changed.
    pub(super) changed: Notify,
    /// Woken when a controller is cut off or reconnected.
    pub(super) links: Notify,
    pub(super) notices: broadcast::Sender<InterruptionNotice>,
}

/// Everything as it truly is, whoever knows of it.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) cloud: Cloud,
    pub(super) pods: BTreeMap<PodUid, PodTruth>,
    pub(super) records: BTreeMap<CellName, CellRecord>,
    /// What the records were, until when: for stale lists.
    pub(super) old_records: VecDeque<(u64, BTreeMap<CellName, CellRecord>)>,
    pub(super) version: u64,
    pub(super) judge: Judge,
    /// Of each pod object in an API: its version, and how often controllers have written it.
    pub(super) written: BTreeMap<PodUid, (String, u32)>,
    pub(super) trace: Vec<String>,
    /// Faults have stopped.
    pub(super) is_calm: bool,
    calls: BTreeMap<Op, u32>,
    /// The same calls by one life of a controller, in the minute of the last of them.
    rates: BTreeMap<(u32, Op, String), (u64, u64)>,
    injected: BTreeMap<&'static str, u64>,
}

/// When an effect happens, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    /// Milliseconds from the start.
    pub(super) ms: u64,
    /// The same as time.
    pub(super) now: Timestamp,
    /// When it was asked for: a call may take long.
    pub(super) asked_ms: u64,
    /// The life of a controller that caused it.
    pub(super) life: u32,
    /// The answer is to be an old one.
    pub(super) is_stale: bool,
}

impl State {
    pub(super) fn inject(&mut self, what: &'static str) {
        *self.injected.entry(what).or_default() += 1;
    }

    pub(super) fn injected(&self) -> &BTreeMap<&'static str, u64> {
        &self.injected
    }

    pub(super) fn note(&mut self, ms: u64, line: &str) {
        self.trace
            .push(format!("{:>6}.{:03} {line}", ms / 1000, ms % 1000));
    }
}

impl World {
    /// Call within a tokio runtime whose clock is paused.
    pub(super) fn new(scenario: Arc<Scenario>) -> Arc<Self> {
        Arc::new(Self {
            scenario,
            start: Timestamp::from_second(START).unwrap_or(Timestamp::UNIX_EPOCH),
            anchor: Instant::now(),
            state: Mutex::default(),
            changed: Notify::new(),
            links: Notify::new(),
            notices: broadcast::channel(256).0,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ms(&self) -> u64 {
        u64::try_from(self.anchor.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn time(&self, ms: u64) -> Timestamp {
        self.start
            .checked_add(Duration::from_millis(ms))
            .unwrap_or(Timestamp::MAX)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.time(self.ms())
    }

    pub(super) fn at(&self, life: u32) -> At {
        let ms = self.ms();
        At {
            ms,
            now: self.time(ms),
            asked_ms: ms,
            life,
            is_stale: false,
        }
    }

    /// Writes a line of the story.
    pub(super) fn note(&self, line: &str) {
        let ms = self.ms();
        self.lock().note(ms, line);
    }

    /// Sleeps until so long after the start.
    pub(super) async fn sleep_until(&self, ms: u64) {
        tokio::time::sleep_until(self.anchor + Duration::from_millis(ms)).await;
    }

    /// Makes a call as a controller sees it: late, faulty, cut off, or answered.
    pub(super) async fn call<T: Send + 'static>(
        self: &Arc<Self>,
        port: &Arc<Port>,
        op: Op,
        subject: String,
        effect: impl FnOnce(&mut State, At) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // What is asked for while the way is cut arrives when it is whole again: it was decided now.
        let asked = self.ms();
        port.pass().await;
        let limit = match op.part() {
            Part::Cloud => self.scenario.world.cloud_ms,
            Part::Store | Part::Pods | Part::Hosts => self.scenario.world.api_ms,
        };
        self.watch_rate(port, op, &subject, limit);
        let (n, how) = self.begin(op);
        let draw = mix(self.scenario.seed ^ (u64::from(n) << 8) ^ op as u64);
        tokio::time::sleep(Duration::from_millis(1 + draw % limit.max(1))).await;
        if let Some(How::Slow(ms)) = how {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        port.link().await;
        let name = operation(op);
        let result = if self.is_out(op.part()) {
            self.lock().inject("outage");
            Err(Error::new(ErrorKind::Unavailable, name, "it cannot be reached"))
        } else {
            match how {
                None | Some(How::Slow(_)) => self.take_effect(port, asked, false, effect),
                Some(How::SlowReply(ms)) => {
                    let result = self.take_effect(port, asked, false, effect);
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    port.link().await;
                    result
                }
                Some(How::Stale) => self.take_effect(port, asked, true, effect),
                Some(How::Fail(kind)) => Err(error(kind, name)),
                Some(How::LostReply(kind)) => {
                    let result = self.take_effect(port, asked, false, effect).map(drop);
                    self.trace_call(port, op, n, &subject, &result, " (and the reply is lost)");
                    Err(error(kind, name))
                }
                Some(How::Hang) => {
                    let result = self.take_effect(port, asked, false, effect).map(drop);
                    self.trace_call(port, op, n, &subject, &result, " (and is never answered)");
                    // Nobody waits for ever for a launch: what speaks to a cloud gives up at some time.
                    tokio::time::sleep(Duration::from_secs(900)).await;
                    Err(error(Kind::Timeout, name))
                }
                Some(How::Late(by)) => {
                    let (world, port) = (Arc::clone(self), Arc::clone(port));
                    let subject = subject.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(by)).await;
                        let result = world.take_effect(&port, asked, false, effect).map(drop);
                        world.trace_call(&port, op, n, &subject, &result, " (late)");
                    });
                    Err(error(Kind::Timeout, name))
                }
            }
        };
        if matches!(op, Op::Terminate | Op::Deploy | Op::Refresh | Op::Stop) {
            self.changed.notify_waiters();
        }
        self.trace_call(port, op, n, &subject, &result, "");
        port.pass().await;
        result
    }

    fn take_effect<T>(
        &self,
        port: &Port,
        asked_ms: u64,
        is_stale: bool,
        effect: impl FnOnce(&mut State, At) -> Result<T>,
    ) -> Result<T> {
        let mut at = self.at(port.life);
        at.asked_ms = asked_ms;
        at.is_stale = is_stale;
        effect(&mut self.lock(), at)
    }

    fn trace_call<T>(&self, port: &Port, op: Op, n: u32, subject: &str, result: &Result<T>, how: &str) {
        let outcome = match result {
            Ok(_) => "ok".to_owned(),
            Err(error) => format!("{}: {}", error.kind().as_str(), error.message()),
        };
        let name = operation(op);
        self.note(&format!("{} {name}#{n} {subject}: {outcome}{how}", port.name));
    }

    /// Finds loops that wait for nothing. `latency_ms` is the longest that an ordinary call takes.
    fn watch_rate(&self, port: &Port, op: Op, subject: &str, latency_ms: u64) {
        let limit = CALLS_A_MINUTE.min(90_000 / latency_ms.max(1));
        let ms = self.ms();
        let mut state = self.lock();
        let key = (port.life, op, subject.to_owned());
        let (minute, count) = state.rates.entry(key).or_default();
        if *minute != ms / 60_000 {
            (*minute, *count) = (ms / 60_000, 0);
        }
        *count += 1;
        if *count == limit {
            let name = operation(op);
            let text = format!(
                "{} has called {name} {subject} {limit} times within a minute",
                port.name
            );
            state.violate("busy loop", ms, Vec::new(), text);
        }
    }

    /// Counts a call and answers what is to go wrong with it.
    fn begin(&self, op: Op) -> (u32, Option<How>) {
        let mut state = self.lock();
        let count = state.calls.entry(op).or_default();
        *count += 1;
        let n = *count;
        if state.is_calm {
            return (n, None);
        }
        let how = self.scenario.faults.iter().find_map(|fault| match fault {
            Fault::Call { op: of, nth, how } if *of == op && *nth == n => Some(*how),
            _ => None,
        });
        if let Some(how) = how {
            state.inject(name_of(how));
        }
        (n, how)
    }

    pub(super) fn is_out(&self, part: Part) -> bool {
        let ms = self.ms();
        !self.lock().is_calm
            && self.scenario.faults.iter().any(|fault| match fault {
                Fault::Outage {
                    part: of,
                    at_ms,
                    for_ms,
                } => *of == part && (*at_ms..at_ms + for_ms).contains(&ms),
                _ => false,
            })
    }
}

fn name_of(how: How) -> &'static str {
    match how {
        How::Fail(_) => "error before the effect",
        How::LostReply(_) => "reply lost after the effect",
        How::Late(_) => "late effect",
        How::Slow(_) => "slow call",
        How::SlowReply(_) => "slow reply",
        How::Hang => "hung call",
        How::Stale => "stale answer",
    }
}

fn error(kind: Kind, operation: &'static str) -> Error {
    let kind = match kind {
        Kind::Unavailable => ErrorKind::Unavailable,
        Kind::Timeout => ErrorKind::Timeout,
        Kind::RateLimited => {
            return Error::new(ErrorKind::RateLimited, operation, "too many requests")
                .with_retry(Retry::After(Some(Duration::from_secs(2))));
        }
        Kind::Conflict => ErrorKind::Conflict,
        Kind::Quota => ErrorKind::QuotaExceeded,
        Kind::Denied => ErrorKind::PermissionDenied,
        Kind::Unexpected => ErrorKind::Unexpected,
    };
    Error::new(kind, operation, "injected")
}

/// The operation's name in errors and traces.
pub(super) fn operation(op: Op) -> &'static str {
    match op {
        Op::Launch => "launch",
        Op::Terminate => "terminate",
        Op::Get => "get",
        Op::List => "list",
        Op::Offerings => "offerings",
        Op::Create => "create-cell",
        Op::Update => "update-cell",
        Op::Remove => "remove-cell",
        Op::Read => "read-cells",
        Op::Manifest => "manifest",
        Op::Publish => "publish",
        Op::Release => "release",
        Op::Exists => "exists",
        Op::Watch => "watch",
        Op::Deploy => "deploy",
        Op::Refresh => "update-pod",
        Op::Stop => "stop",
        Op::ListPods => "list-pods",
        Op::WatchPods => "watch-pods",
        Op::Tell => "tell",
    }
}
