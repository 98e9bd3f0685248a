//! Takes each message to the part of the loop it is for.

use jiff::Timestamp;

use super::Reconciler;
use super::message::{Message, Refusal, Reply};

impl Reconciler {
    /// Takes one message in.
    pub(super) async fn hear(&mut self, message: Message) {
        self.count += 1;
        let now = Timestamp::now();
        match message {
            Message::Deploy(pod, reply) => answer(reply, self.deploy(*pod, now).await),
            Message::Update(pod, reply) => answer(reply, self.update(*pod, now).await),
            Message::Stop {
                pod_uid,
                deadline,
                reason,
                reply,
            } => {
                answer(reply, self.stop(&pod_uid, deadline, reason).await);
            }
            Message::Runtime(event) => self.runtime_event(event, now),
            Message::Relist => self.relist(),
            Message::Listed { began, result } => self.listed(began, result),
            Message::Seen(run) => self.see(*run, now),
            Message::Pulling { container, image } => {
                self.events
                    .normal(now, &container, "Pulling", format!("Pulling image \"{image}\""));
            }
            Message::NoCredentials { container, problem } => {
                self.events
                    .warning(now, &container, "FailedImageCredentialProvider", problem);
            }
            Message::Created { container } => {
                self.events.normal(
                    now,
                    &container,
                    "Created",
                    format!("Created container: {container}"),
                );
            }
            Message::HookFailed { container, error } => {
                self.events.warning(
                    now,
                    &container,
                    "FailedPreStopHook",
                    format!("PreStopHook failed: {error}"),
                );
            }
            Message::Done(op, done) => {
                self.work.remove(&op);
                self.mem.busy.remove(&op);
                self.done(done, now);
            }
            Message::Notices(notices) => self.notices = notices,
            Message::Probe(report) => self.probed(report, now),
            Message::Saved { version, result } => self.saved(version, result),
        }
        self.save_in_background();
    }
}

fn answer(reply: Reply, result: Result<(), Refusal>) {
    // A caller that hung up does not want the answer.
    drop(reply.send(result));
}
