//! One sweep of one controller for leftovers: the real [`plan`], and what the driver does about its answer (`driver/sweep.rs`). It listens to
//! a single sweep and waits only for the grace, which is less careful than the driver: what is safe so is safe there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use kip_core::plan::{PlanAction, Policy, plan};

use crate::checked::Checked;
use crate::mind::key_of_id;
use crate::normal::{HOUR, NOW};
use crate::words::News;
use crate::world::{Call, Progress, System, Told, What, Wish};

impl Checked {
    pub(crate) fn sweep(&self, system: &mut System, index: u8) {
        let Some(controller) = system.controllers[usize::from(index)].as_ref() else {
            return;
        };
        if controller.told == Told::Nothing && system.pod.wish != Wish::Gone {
            return; // The source has not told all pods yet.
        }
        let mut policy = Policy::default()
            .with_grace(HOUR)
            .with_confirm_after(Duration::ZERO);
        policy.sweeps = 1;
        policy.sweeps_when_empty = 1;
        let world = self.mind().world(system, controller);
        for action in plan(&world, &policy, NOW).actions {
            match action {
                PlanAction::TerminateInstance { instance, .. } => {
                    self.collected.fetch_add(1, Ordering::Relaxed);
                    self.call_once(system, index, What::Collect(key_of_id(&instance)));
                }
                PlanAction::VerifyInstance { instance, .. } => {
                    self.call_once(system, index, What::Observe(key_of_id(&instance)));
                }
                PlanAction::RetireRecord { .. } => self.retire(system, index),
                PlanAction::RestoreRecord { .. } | PlanAction::Resync { .. } => self.check(system, index),
                other => panic!("the model does not know what to do about {other:?}"),
            }
        }
    }

    fn call_once(&self, system: &mut System, index: u8, what: What) {
        let call = Call {
            owner: Some(index),
            what: Progress::Sent(what),
        };
        if !system.calls.contains(&call) {
            system.calls.push(call);
        }
    }

    /// `driver/sweep.rs`, `retire`.
    fn retire(&self, system: &mut System, index: u8) {
        let stored = system.record;
        if system.pod.exists() {
            return;
        }
        let Some(controller) = system.controller_mut(index) else {
            return;
        };
        match (controller.state, stored) {
            (None, Some(stored)) => {
                controller.state = Some(self.mind().recover(stored, None));
                controller.stored = Some(stored);
                controller.is_current = true;
                controller.inbox.extend([News::Woke, News::Gone]);
            }
            (Some(state), _) if !self.mind().facts(state).is_gone => controller.inbox.push(News::Gone),
            (Some(_) | None, _) => {}
        }
    }

    /// `follow.rs`, `check`.
    fn check(&self, system: &mut System, index: u8) {
        let Some(controller) = system.controllers[usize::from(index)].as_ref() else {
            return;
        };
        match (system.record, controller.stored) {
            (Some(theirs), Some(ours)) if self.mind().is_same(theirs, ours) => {
                if let Some(controller) = system.controller_mut(index) {
                    controller.stored = Some(theirs);
                    controller.is_current = true;
                }
                self.publish_anew(system, index);
            }
            (Some(theirs), _) => self.follow(system, index, theirs),
            (None, Some(ours)) if system.pod.exists() => {
                self.write(system, ours);
                system.outdate(Some(index));
                if let Some(controller) = system.controller_mut(index) {
                    controller.is_current = true;
                }
            }
            (None, Some(_)) => {
                if let Some(controller) = system.controller_mut(index) {
                    controller.stored = None;
                    controller.inbox.push(News::Gone);
                }
            }
            (None, None) => {}
        }
    }
}
