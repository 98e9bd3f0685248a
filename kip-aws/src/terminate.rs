//! Terminating many instances, of which some may be gone, unknown yet, or not ours to end: each gets its own answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use aws_sdk_ec2::types::InstanceStateName;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::ids::InstanceId;
use kip_core::model::{Instance, InstancePhase};

use crate::api::{self, Api};
use crate::batch::{Answers, copy};
use crate::observe;

/// So many refusals in a row, without one call that worked, are hardly about single instances: the rest waits for another round. Halving a
/// hundred down to the first one takes eight.
const REFUSALS: usize = 20;
/// Instances remembered as refused, more than ever are.
const MOST: usize = 10_000;

/// Instances that EC2 would not terminate. They go last and apart in later rounds, so that they keep no other one waiting, and among
/// themselves the one first that was not asked about for longest.
#[derive(Debug, Default)]
pub(crate) struct Refused(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// When each was refused last: by number, not by time.
    at: BTreeMap<InstanceId, u64>,
    count: u64,
}

impl Refused {
    /// Those that were never refused, and those that were, in the order in which to try them.
    fn sort(&self, ids: Vec<InstanceId>) -> (Vec<InstanceId>, Vec<InstanceId>) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut before, new): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| inner.at.contains_key(id));
        before.sort_by_key(|id| inner.at.get(id).copied());
        (new, before)
    }

    fn add(&self, id: &InstanceId) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.at.len() >= MOST {
            inner.at.clear();
        }
        inner.count += 1;
        let count = inner.count;
        inner.at.insert(id.clone(), count);
    }

    fn remove<'a>(&self, ids: impl Iterator<Item = &'a InstanceId>) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            inner.at.remove(id);
        }
    }
}

/// Instances that are still to be terminated together.
struct Part {
    ids: Vec<InstanceId>,
    known: Known,
}

/// What DescribeInstances said of a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    NotAsked,
    Shown,
    NotShown,
}

/// Instances by what EC2 shows of them.
pub(crate) async fn describe(api: &Api, ids: Vec<InstanceId>) -> Result<BTreeMap<InstanceId, Instance>> {
    let ids = ids.into_iter().map(|id| id.to_string()).collect();
    let found = api
        .all_instances("get", vec![api::filter("instance-id", ids)])
        .await?;
    found
        .iter()
        .map(|found| observe::instance("get", found).map(|instance| (instance.id.clone(), instance)))
        .collect()
}

/// Terminates those of the instances that EC2 knows and lets go, and answers the states they were in before; what is left out is unknown.
///
/// EC2 terminates none of a zone when one there is protected, and none at all when one is not there or is not allowed. Then the others are
/// terminated in further calls, in the same round: what is refused is halved until the refused one stands alone, and only that one gets the
/// error. After too many refusals the rest is left for another round with `Unavailable`, in which it comes before those that were refused.
/// Instances are missing only when EC2 was asked about them by name.
pub(crate) async fn terminate(
    api: Api,
    ids: Vec<InstanceId>,
    refused: &Refused,
) -> Result<Answers<InstanceId, InstanceStateName>> {
    let mut answers = Answers::new();
    let (new, before) = refused.sort(ids);
    // The last one is taken first.
    let mut parts: Vec<Part> = [before, new]
        .into_iter()
        .filter(|ids| !ids.is_empty())
        .map(|ids| Part {
            ids,
            known: Known::NotAsked,
        })
        .collect();
    let mut refusals = 0;
    while let Some(part) = parts.pop() {
        let error = match api.terminate_instances(&part.ids).await {
            Ok(states) => {
                refusals = 0;
                refused.remove(states.keys());
                answers.extend(states.into_iter().map(|(id, state)| (id, Ok(state))));
                continue;
            }
            Err(error) => error,
        };
        match Cause::of(&error) {
            Cause::Absence => absent(&api, part, error, &mut parts, &mut answers).await,
            Cause::Single => {
                refusals += 1;
                match part.ids.as_slice() {
                    [id] => {
                        refused.add(id);
                        fail(&mut answers, part.ids, &error);
                    }
                    _ => halve(part, &mut parts),
                }
                if refusals >= REFUSALS {
                    let message = "EC2 refuses the ones before it, and it waits for its turn";
                    let waits = Error::new(ErrorKind::Unavailable, "terminate", message).with_source(error);
                    break_off(&mut answers, parts, &waits);
                    return Ok(answers);
                }
            }
            Cause::Call => {
                fail(&mut answers, part.ids, &error);
                break_off(&mut answers, parts, &error);
                return Ok(answers);
            }
        }
    }
    Ok(answers)
}

/// What a refusal is about.
enum Cause {
    /// An instance, or something of it, is not there.
    Absence,
    /// One of the instances, for what it is.
    Single,
    /// The call itself: whichever instances it had been about.
    Call,
}

impl Cause {
    fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConfigInvalid => Self::Absence,
            ErrorKind::PermissionDenied
            | ErrorKind::InvalidRequest
            | ErrorKind::Unsupported
            | ErrorKind::Conflict => Self::Single,
            _ => Self::Call,
        }
    }
}

fn fail(answers: &mut Answers<InstanceId, InstanceStateName>, ids: Vec<InstanceId>, error: &Error) {
    answers.extend(ids.into_iter().map(|id| (id, Err(copy(error)))));
}

fn break_off(answers: &mut Answers<InstanceId, InstanceStateName>, parts: Vec<Part>, error: &Error) {
    for part in parts {
        fail(answers, part.ids, error);
    }
}

fn halve(mut part: Part, parts: &mut Vec<Part>) {
    let rest = part.ids.split_off(part.ids.len() / 2);
    let known = part.known;
    parts.push(Part { ids: rest, known });
    parts.push(part);
}

/// After EC2 said that something is not there: asks what there is.
async fn absent(
    api: &Api,
    part: Part,
    error: Error,
    parts: &mut Vec<Part>,
    answers: &mut Answers<InstanceId, InstanceStateName>,
) {
    match part.known {
        Known::Shown if part.ids.len() > 1 => return halve(part, parts),
        // The calls disagree, as they may about a young instance: nobody may conclude that it is gone.
        Known::Shown if error.kind() == ErrorKind::NotFound => {
            let message = "EC2 does not agree with itself yet whether the instance exists";
            let error = Error::new(ErrorKind::Unavailable, "terminate", message).with_source(error);
            return fail(answers, part.ids, &error);
        }
        Known::Shown => return fail(answers, part.ids, &error),
        // It was refused by name, and not shown.
        Known::NotShown if error.kind() == ErrorKind::NotFound => return,
        Known::NotShown => return fail(answers, part.ids, &error),
        Known::NotAsked => {}
    }
    let shown = match describe(api, part.ids.clone()).await {
        Ok(shown) => shown,
        Err(error) => return fail(answers, part.ids, &error),
    };
    // One that was asked about alone was refused by name. Of several the refusal may have meant another, so each is asked about alone.
    if part.ids.len() > 1 {
        let hidden = part.ids.into_iter().filter(|id| !shown.contains_key(id));
        parts.extend(hidden.map(|id| Part {
            ids: vec![id],
            known: Known::NotShown,
        }));
    }
    let (gone, alive): (Vec<Instance>, Vec<Instance>) = shown
        .into_values()
        .partition(|instance| instance.phase == InstancePhase::Terminated);
    answers.extend(
        gone.into_iter()
            .map(|instance| (instance.id, Ok(InstanceStateName::Terminated))),
    );
    if !alive.is_empty() {
        parts.push(Part {
            ids: alive.into_iter().map(|instance| instance.id).collect(),
            known: Known::Shown,
        });
    }
}
