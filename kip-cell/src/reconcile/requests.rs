//! Answers the controller's requests: run this pod, change it, stop it. What is answered survives the agent.

use std::sync::Arc;

use jiff::Timestamp;
use kip_cell_api::v1::Pod;

use super::message::Refusal;
use super::{Held, Reconciler};
use crate::pod::decide::kill_grace;
use crate::pod::model::{Op, Stop, containers, find};
use crate::volumes::Folders;

impl Reconciler {
    pub(super) async fn deploy(&mut self, pod: Pod, now: Timestamp) -> Result<(), Refusal> {
        let meant_for = &self.setup.pod_uid;
        if !meant_for.is_empty() && *meant_for != pod.uid {
            return Err(Refusal::OtherCell {
                meant_for: meant_for.clone(),
                asked: pod.uid,
            });
        }
        match &self.held {
            None if self.refused.contains(&pod.uid) => return Err(Refusal::Stopped(pod.uid)),
            None => {}
            Some(held) if held.pod.uid != pod.uid => {
                return Err(Refusal::OtherPod {
                    held: held.pod.uid.clone(),
                    asked: pod.uid,
                });
            }
            // Whoever asks does not know that the pod was stopped here: it must not take this for a pod that runs.
            Some(held) if held.stop.is_some() => return Err(Refusal::Stopped(pod.uid)),
            Some(held) if held.pod.generation >= pod.generation => {
                return self.ensure_saved().await.map_err(Refusal::Store);
            }
            Some(_) => return self.update(pod, now).await,
        }
        self.publisher.deployed(now);
        let folders = Folders::new(&self.setup.state_dir, &pod);
        self.held = Some(Held {
            pod: Arc::new(pod),
            folders,
            stop: None,
        });
        if let Err(error) = self.ensure_saved().await {
            self.held = None;
            return Err(Refusal::Store(error));
        }
        // Nothing of a pod this agent was never given can be in the runtime, unless its state folder was lost.
        self.listed = false;
        self.relist();
        Ok(())
    }

    pub(super) async fn update(&mut self, pod: Pod, now: Timestamp) -> Result<(), Refusal> {
        let held = self.held.as_ref().ok_or(Refusal::NoPod)?;
        if held.pod.uid != pod.uid {
            return Err(Refusal::OtherPod {
                held: held.pod.uid.clone(),
                asked: pod.uid,
            });
        }
        if held.pod.generation >= pod.generation {
            return self.ensure_saved().await.map_err(Refusal::Store);
        }
        let names = |pod: &Pod| {
            containers(pod)
                .map(|(kind, c)| (kind, c.name.clone()))
                .collect::<Vec<_>>()
        };
        if names(&held.pod) != names(&pod) {
            return Err(Refusal::Immutable(
                "containers: may not be added, removed or renamed".into(),
            ));
        }
        for (_, container) in containers(&pod) {
            let before = find(&held.pod, &container.name).map(|(_, before)| before.image.clone());
            if before.as_ref() != Some(&container.image) {
                self.mem.images.remove(&container.name);
                let op = Op::Image(container.name.clone());
                if let Some(task) = self.work.remove(&op) {
                    task.abort();
                }
                self.mem.busy.remove(&op);
            }
        }
        let (folders, stop) = (held.folders.clone(), held.stop.clone());
        self.held = Some(Held {
            pod: Arc::new(pod),
            folders,
            stop,
        });
        self.mem.failures.clear();
        self.mem.volumes_failure = None;
        self.mem.volumes_ready = false;
        self.abandon(&Op::Volumes);
        self.replace_changed(now);
        self.ensure_saved().await.map_err(Refusal::Store)
    }

    /// A running container whose image changed is killed and started anew, whatever the restart policy.
    fn replace_changed(&mut self, now: Timestamp) {
        let Some(held) = &self.held else { return };
        for run in self.seen.runs.values().filter(|run| run.is_alive()) {
            let Some((_, container)) = find(&held.pod, &run.name) else {
                continue;
            };
            if container.image != run.wanted_image && !run.wanted_image.is_empty() {
                let message = format!("Container {} definition changed, will be restarted", run.name);
                self.events.normal(now, &run.name, "Killing", message);
                self.mem
                    .condemned
                    .insert(run.id.clone(), kill_grace(&held.pod, None));
                self.mem.replaced.insert(run.name.clone());
            }
        }
    }

    /// From when this is answered, the pod is never started here again, whoever asks and however often the agent dies.
    pub(super) async fn stop(
        &mut self,
        uid: &str,
        deadline: Timestamp,
        reason: String,
    ) -> Result<(), Refusal> {
        let Some(held) = &mut self.held else {
            // Its deploy may still be on the way, sent by a controller that has been replaced.
            self.refused.insert(uid.to_owned());
            self.ensure_saved().await.map_err(Refusal::Store)?;
            return Err(Refusal::NoPod);
        };
        if held.pod.uid != uid {
            return Err(Refusal::OtherPod {
                held: held.pod.uid.clone(),
                asked: uid.into(),
            });
        }
        let sooner = match &mut held.stop {
            Some(stop) if stop.deadline <= deadline => false,
            Some(stop) => {
                stop.deadline = deadline;
                true
            }
            None => {
                held.stop = Some(Stop { deadline, reason });
                true
            }
        };
        if sooner {
            self.hasten(deadline);
        }
        // Also when nothing changed: the first request may have failed at just this.
        self.ensure_saved().await.map_err(Refusal::Store)
    }

    /// Ends what would keep a stop waiting.
    fn hasten(&mut self, deadline: Timestamp) {
        for running in self.deadlines.values() {
            running.send_if_modified(|current| {
                let sooner = deadline < *current;
                if sooner {
                    *current = deadline;
                }
                sooner
            });
        }
        let pulls: Vec<Op> = self
            .work
            .keys()
            .filter(|op| matches!(op, Op::Image(_) | Op::Volumes))
            .cloned()
            .collect();
        pulls.iter().for_each(|op| self.abandon(op));
        // A container that runs already and is only kept by its post-start hook can be stopped.
        let hooks: Vec<Op> = self
            .seen
            .runs
            .values()
            .filter(|run| run.is_alive())
            .map(|run| Op::Start(run.name.clone()))
            .collect();
        hooks.iter().for_each(|op| self.abandon(op));
    }
}
