//! The other side of the calls: cloud, agents, pod API.

use crate::checked::{Checked, Defect};
use crate::words::{Agent, Failed, Key, Life, News, View};
use crate::world::{Budget, Call, How, Instance, Progress, System, What, Wish};

impl What {
    /// Whether it may still have its effect when the controller that asked is dead. Reads have none.
    pub(crate) fn outlives_its_caller(self) -> bool {
        match self {
            Self::Launch(_) | Self::Terminate(_) | Self::Collect(_) | Self::Deploy(_) | Self::Stop(_) => true,
            Self::Place | Self::Find(_) | Self::Observe(_) | Self::Publish | Self::Release => false,
        }
    }

    /// Whether nothing that matters can come between its effect and its reply.
    pub(crate) fn is_heard_at_once(self) -> bool {
        !matches!(self, Self::Launch(_) | Self::Deploy(_) | Self::Publish)
    }
}

/// The ways a call may go.
pub(crate) fn hows(what: What, left: &Budget, offerings: u8) -> impl Iterator<Item = How> {
    let has_effect = what.outlives_its_caller();
    let is_launch = matches!(what, What::Launch(_));
    [
        (How::Done, true),
        (How::DoneHidden, is_launch && left.lags > 0),
        (How::Other, what == What::Place && offerings > 1),
        (How::DoneUnheard, has_effect && left.faults > 0),
        (How::NotDone, has_effect && left.faults > 0),
        (How::NoCapacity, is_launch && left.faults > 0),
    ]
    .into_iter()
    .filter_map(|(how, is_possible)| is_possible.then_some(how))
}

impl Checked {
    /// Carries a call out, and sends the reply.
    pub(crate) fn carry(&self, system: &mut System, call: Call, how: How) {
        let Progress::Sent(what) = call.what else {
            return;
        };
        system.drop_call(call);
        match how {
            How::DoneUnheard | How::NotDone | How::NoCapacity => system.left.faults -= 1,
            How::DoneHidden => system.left.lags -= 1,
            How::Done | How::Other => {}
        }
        let is_done = !matches!(how, How::NotDone | How::NoCapacity);
        let failed = match how {
            How::Done | How::DoneHidden | How::Other => None,
            How::DoneUnheard | How::NotDone => Some(Failed::Timeout),
            How::NoCapacity => Some(Failed::NoCapacity),
        };
        let reply = match what {
            What::Place => Some(News::Placed(u8::from(how == How::Other))),
            What::Launch(key) => {
                let launched = is_done.then(|| launch(system, key, how == How::DoneHidden));
                let result = match (failed, launched) {
                    (None, Some(view)) => Ok(view),
                    (failed, _) => Err(failed.unwrap_or(Failed::Timeout)),
                };
                Some(News::Launched(key, result))
            }
            What::Find(key) => Some(News::Found(key, listed(system, key))),
            What::Observe(key) => Some(News::Observed(key, listed(system, key).ok_or(Failed::NotFound))),
            What::Terminate(key) => {
                let result = if is_done { terminate(system, key) } else { Ok(()) };
                let mut result = failed.map_or(result, Err);
                if self.bounds.defect == Some(Defect::AcceptedIsGone) && result.is_ok() {
                    result = Err(Failed::NotFound);
                }
                Some(News::Terminated(key, result))
            }
            What::Collect(key) => {
                if is_done {
                    let _ = terminate(system, key);
                }
                None
            }
            What::Deploy(key) => {
                let result = if is_done { self.deploy(system, key) } else { Ok(()) };
                Some(News::Deployed(key, failed.map_or(result, Err)))
            }
            What::Stop(key) => {
                let result = if is_done { self.stop(system, key) } else { Ok(()) };
                Some(News::Stopped(key, failed.map_or(result, Err)))
            }
            What::Publish => self.publish(system, call.owner),
            What::Release => {
                system.pod.wish = Wish::Gone;
                Some(News::Released)
            }
        };
        let (Some(owner), Some(news)) = (call.owner, reply) else {
            return;
        };
        if what.is_heard_at_once() {
            self.hear(system, owner, news);
        } else {
            system.calls.push(Call {
                owner: call.owner,
                what: Progress::Replied(news),
            });
        }
    }

    fn deploy(&self, system: &mut System, key: Key) -> Result<(), Failed> {
        let Some(instance) = system
            .instance_mut(key)
            .filter(|instance| instance.is_reachable())
        else {
            return Err(Failed::Timeout);
        };
        match instance.agent {
            Agent::Idle => {
                instance.agent = Agent::Runs;
                Ok(())
            }
            Agent::Refuses | Agent::Stopping | Agent::Ended { stopped: true } => Err(Failed::Refused),
            Agent::Runs | Agent::Ended { stopped: false } => Ok(()),
        }
    }

    fn stop(&self, system: &mut System, key: Key) -> Result<(), Failed> {
        let forgets = self.bounds.defect == Some(Defect::AgentForgetsStop);
        let Some(instance) = system
            .instance_mut(key)
            .filter(|instance| instance.is_reachable())
        else {
            return Err(Failed::Timeout);
        };
        match instance.agent {
            Agent::Idle | Agent::Refuses => {
                if !forgets {
                    instance.agent = Agent::Refuses;
                }
                Err(Failed::NotFound)
            }
            Agent::Runs => {
                instance.agent = Agent::Stopping;
                Ok(())
            }
            Agent::Stopping | Agent::Ended { .. } => Ok(()),
        }
    }

    /// The newest report of the state as it is now, which may be ahead of the record.
    fn publish(&self, system: &mut System, owner: Option<u8>) -> Option<News> {
        let owner = owner?;
        let controller = system.controller(owner)?;
        let (facts, stored) = (self.mind().facts(controller.state?), controller.stored);
        if facts.ended && self.bounds.defect != Some(Defect::UnfencedEnd) {
            // An end cannot be taken back, so whose word counts is asked first.
            let is_ours = |theirs| stored.is_some_and(|ours| self.mind().is_same(ours, theirs));
            if let Some(theirs) = system.record.filter(|theirs| !is_ours(*theirs)) {
                self.follow(system, owner, theirs);
                return None;
            }
        }
        if facts.is_gone {
            return None;
        }
        // A status that says how the pod ended is never changed again.
        if system.pod.wish != Wish::Gone && !system.pod.has_ended {
            system.pod.has_started |= facts.started;
            system.pod.has_ended |= facts.ended;
            system.pod.ended_by_itself |= facts.ended && system.pod.wish == Wish::Run;
        }
        Some(News::Published { is_newest: true })
    }
}

/// The same token buys the same instance, also when that is gone.
fn launch(system: &mut System, key: Key, is_hidden: bool) -> View {
    if let Some(instance) = system.instance(key) {
        return instance.view();
    }
    let instance = Instance {
        key,
        life: Life::Boots,
        agent: Agent::Idle,
        is_hidden,
        is_young: true,
        is_doomed: false,
    };
    system.cloud.push(instance);
    system.cloud.sort_unstable_by_key(|instance| instance.key);
    instance.view()
}

fn listed(system: &System, key: Key) -> Option<View> {
    let instance = system.instance(key)?;
    (instance.is_alive() && !instance.is_hidden).then(|| instance.view())
}

fn terminate(system: &mut System, key: Key) -> Result<(), Failed> {
    match system.instance_mut(key) {
        Some(instance) if instance.is_hidden => Err(Failed::NotFound),
        Some(instance) if instance.is_alive() => {
            instance.life = Life::Dying;
            Ok(())
        }
        Some(_) | None => Err(Failed::NotFound),
    }
}
