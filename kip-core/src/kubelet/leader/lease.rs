//! Holds an election: reads and writes the Lease as [`Election`] decides.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::config::LeaderConfig;
use super::election::{Election, Move};
use crate::error::{Error, ErrorKind, Result};
use crate::kubelet::client::Client;
use crate::kubelet::errors::{api_error, is_conflict, is_missing};

/// A replica that may lead.
#[derive(Debug)]
pub struct LeaderElection {
    client: Client,
    config: LeaderConfig,
}

impl LeaderElection {
    /// A replica of this configuration. Asks nothing of the API yet.
    ///
    /// # Errors
    /// `ConfigInvalid`, naming every wrong field and its fix.
    pub fn new(client: kube::Client, config: LeaderConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            client: client.into(),
            config,
        })
    }

    /// Stands by until this replica leads. Whoever leads meanwhile is told in the log. Call within a tokio runtime: the lease is
    /// renewed by a task from then on. Dropping the future gives up the candidacy.
    ///
    /// # Errors
    /// When the API cannot be asked at all: not allowed, no such namespace, or not reached within the renew deadline. Once it has
    /// answered, it is asked again and again whatever it says.
    pub async fn lead(self) -> Result<Leader> {
        let mut campaign = Campaign {
            api: Api::namespaced(self.client.get(), &self.config.namespace),
            election: Election::new(self.config),
        };
        campaign.win().await?;
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move { campaign.hold(&told).await }));
        Ok(Leader {
            stop,
            task: Some(task),
        })
    }
}

/// The lease, held by this replica and renewed in the background. Dropping it stops that: the lease runs out, as after a crash.
#[derive(Debug)]
pub struct Leader {
    stop: CancellationToken,
    /// None once it has ended.
    task: Option<AbortOnDropHandle<Ended>>,
}

/// How holding the lease ended.
#[derive(Debug)]
enum Ended {
    Lost(Error),
    Released(Result<()>),
}

impl Leader {
    /// Waits until this replica leads no longer, and tells why. The caller stops acting at once, without finishing anything: another may
    /// act in a moment. Cancel-safe.
    pub async fn lost(&mut self) -> Error {
        let Some(task) = &mut self.task else {
            return lost("it was lost before");
        };
        let ended = task.await;
        self.task = None;
        match ended {
            Ok(Ended::Lost(error)) => error,
            Ok(Ended::Released(_)) => lost("it was released"),
            Err(error) => lost("renewing it ended").with_source(error),
        }
    }

    /// Gives the lease up, after everything that acts has ended: another replica leads within its retry period.
    ///
    /// # Errors
    /// When the API does not take it; then the lease runs out by itself.
    pub async fn release(mut self) -> Result<()> {
        let Some(task) = self.task.take() else {
            return Ok(());
        };
        self.stop.cancel();
        match task.await {
            Ok(Ended::Released(outcome)) => outcome,
            Ok(Ended::Lost(_)) => Ok(()),
            Err(error) => Err(lost("renewing it ended").with_source(error)),
        }
    }
}

fn lost(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Conflict, "hold the leader's lease", why)
}

#[derive(Debug)]
struct Campaign {
    api: Api<Lease>,
    election: Election,
}

impl Campaign {
    /// Looks and tries until the lease is this replica's.
    async fn win(&mut self) -> Result<()> {
        let begin = Instant::now();
        let retry = self.election.config().retry_period;
        let patience = self.election.config().renew_deadline;
        let (mut answered, mut told) = (false, None);
        loop {
            match self.attempt().await {
                Ok(None) => return Ok(()),
                Ok(Some(wait)) => {
                    answered = true;
                    let holder = self.election.holder().unwrap_or_default();
                    if told.as_deref() != Some(holder) {
                        tracing::info!(lease = %self.place(), leader = holder, "another controller leads; standing by");
                        told = Some(holder.to_owned());
                    }
                    tokio::time::sleep_until(wait).await;
                }
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    answered = true;
                    tracing::debug!(lease = %self.place(), "somebody else was faster");
                }
                Err(error) => {
                    let passing = matches!(
                        error.kind(),
                        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::RateLimited
                    );
                    if !answered && (!passing || begin.elapsed() >= patience) {
                        return Err(error);
                    }
                    tracing::warn!(error = %error.chain(), "the leader's lease cannot be asked for; trying again");
                    tokio::time::sleep(retry).await;
                }
            }
        }
    }

    /// One look, and one try if there is something to try. None: it leads; else when to look again.
    async fn attempt(&mut self) -> Result<Option<Instant>> {
        self.look(self.patience()).await?;
        let now = Instant::now();
        match self.election.next(now, Timestamp::now()) {
            Move::Wait(until) => Ok(Some(until)),
            claim => {
                self.write(claim, self.patience()).await?;
                tracing::info!(lease = %self.place(), identity = self.election.config().identity, "this controller leads");
                Ok(None)
            }
        }
    }

    /// Renews until told to stop, or lost.
    async fn hold(mut self, stop: &CancellationToken) -> Ended {
        let retry = self.election.config().retry_period;
        loop {
            let Some(deadline) = self.election.deadline() else {
                return Ended::Lost(lost("it was never held"));
            };
            let round = tokio::time::timeout_at(deadline, self.renew_or_retry(stop)).await;
            match round {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Ended::Lost(error),
                Err(_) => return Ended::Lost(self.overdue()),
            }
            tokio::select! {
                () = stop.cancelled() => return Ended::Released(self.release().await),
                () = tokio::time::sleep(retry) => {}
            }
        }
    }

    /// Tries until one renewal succeeds, this replica is told to stop, or the lease is another's.
    async fn renew_or_retry(&mut self, stop: &CancellationToken) -> Result<()> {
        let retry = self.election.config().retry_period;
        loop {
            match self.election.next(Instant::now(), Timestamp::now()) {
                Move::Taken(by) => return Err(lost(format!("{by:?} holds it"))),
                Move::Overdue => return Err(self.overdue()),
                Move::Wait(until) => tokio::time::sleep_until(until).await,
                claim @ (Move::Create(_) | Move::Replace(_)) => {
                    let Err(failed) = self.write(claim, self.patience()).await else {
                        return Ok(());
                    };
                    // Whatever the API minded: what it has now decides.
                    let seen = self.look(self.patience()).await;
                    let changed = matches!(failed.kind(), ErrorKind::Conflict | ErrorKind::NotFound);
                    if changed && seen.is_ok() {
                        continue;
                    }
                    tracing::warn!(error = %failed.chain(), "the leader's lease could not be renewed; trying again");
                    tokio::select! {
                        () = stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(retry / 2) => {}
                    }
                }
            }
        }
    }

    async fn look(&mut self, limit: Duration) -> Result<()> {
        let name = self.election.config().name.clone();
        let read = within(limit, "read the leader's lease", self.api.get_opt(&name));
        let lease = read.await.map_err(|error| self.explain(error))?;
        self.election.observe(lease, Instant::now());
        Ok(())
    }

    /// Writes a claim. Somebody else's earlier write is a `Conflict`.
    async fn write(&mut self, claim: Move, limit: Duration) -> Result<()> {
        const OPERATION: &str = "write the leader's lease";
        let name = self.election.config().name.clone();
        let params = PostParams::default();
        let sent = Instant::now();
        let written = match claim {
            Move::Create(lease) => within(limit, OPERATION, self.api.create(&params, &lease)).await,
            Move::Replace(lease) => within(limit, OPERATION, self.api.replace(&name, &params, &lease)).await,
            Move::Wait(_) | Move::Taken(_) | Move::Overdue => return Ok(()),
        };
        let written = written.map_err(|error| self.explain(error))?;
        self.election.claimed(written, sent);
        Ok(())
    }

    async fn release(&mut self) -> Result<()> {
        const OPERATION: &str = "release the leader's lease";
        let name = self.election.config().name.clone();
        let Some(lease) = self.election.release(Timestamp::now()) else {
            return Ok(());
        };
        let params = PostParams::default();
        let released = within(
            self.patience(),
            OPERATION,
            self.api.replace(&name, &params, &lease),
        )
        .await;
        match released {
            Ok(_) => {
                tracing::info!(lease = %self.place(), "the leader's lease is released");
                Ok(())
            }
            // Another's already, or deleted: nothing left to give up.
            Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// How long one request may take: two fit into the renew deadline.
    fn patience(&self) -> Duration {
        self.election.config().renew_deadline / 2
    }

    fn place(&self) -> String {
        let config = self.election.config();
        format!("{}/{}", config.namespace, config.name)
    }

    fn overdue(&self) -> Error {
        lost(format!(
            "it could not be renewed for {:?}",
            self.election.config().renew_deadline
        ))
    }

    fn explain(&self, error: Error) -> Error {
        error.with_context("lease", self.place())
    }
}

async fn within<T>(
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        // Created by somebody between our look and our write.
        Ok(Err(error)) if is_conflict(&error) => {
            Err(Error::new(ErrorKind::Conflict, operation, "somebody else wrote it first").with_source(error))
        }
        Ok(Err(error)) if is_missing(&error) => Err(Error::new(
            ErrorKind::NotFound,
            operation,
            "there is no such Lease, or no such namespace",
        )
        .with_source(error)),
        Ok(Err(error)) => Err(api_error(operation, error)),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            operation,
            format!("the Kubernetes API did not answer within {limit:?}"),
        )),
    }
}
